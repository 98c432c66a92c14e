// Package s3test runs a real S3 server, versitygw, for tests.
package s3test

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/diskvault/diskvault/store/bucket/s3bucket"
)

// Server is a running server with its data in a temporary folder.
type Server struct {
	Endpoint  string // http://127.0.0.1:PORT
	AccessKey string
	SecretKey string
	Data      string // the folder; an object is a file BUCKET/KEY in it

	buckets atomic.Int32
}

// startTime is how long a server may take to answer first.
const startTime = 30 * time.Second

// Start starts a server that ends with the test. It skips the test if versitygw
// is neither in PATH nor in the folder where go install puts programs.
func Start(t testing.TB) *Server {
	t.Helper()
	program := find(t)
	folder := t.TempDir()
	s := &Server{AccessKey: "diskvault", SecretKey: "not-a-secret", Data: filepath.Join(folder, "data")}
	if err := os.Mkdir(s.Data, 0o700); err != nil {
		t.Fatal(err)
	}
	address := freeAddress(t)
	s.Endpoint = "http://" + address
	var output bytes.Buffer
	cmd := exec.Command(program, "--port", address, "--quiet", "--keep-alive", "posix", s.Data)
	cmd.Dir = folder
	cmd.Env = append(os.Environ(), "ROOT_ACCESS_KEY="+s.AccessKey, "ROOT_SECRET_KEY="+s.SecretKey)
	cmd.Stdout, cmd.Stderr = &output, &output
	// It ends with the test's process, even if that is killed.
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		cmd.Wait()
		close(ended)
	}()
	t.Cleanup(func() {
		cmd.Process.Kill()
		<-ended
	})
	for deadline := time.Now().Add(startTime); ; {
		conn, err := net.DialTimeout("tcp", address, time.Second)
		if err == nil {
			conn.Close()
			return s
		}
		select {
		case <-ended:
			t.Fatalf("versitygw ended: %s", output.String())
		case <-time.After(20 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			t.Fatalf("versitygw does not answer at %s", address)
		}
	}
}

func find(t testing.TB) string {
	t.Helper()
	if program, err := exec.LookPath("versitygw"); err == nil {
		return program
	}
	for _, name := range []string{"GOBIN", "GOPATH"} {
		folder, err := exec.Command("go", "env", name).Output()
		if err != nil || len(bytes.TrimSpace(folder)) == 0 {
			continue
		}
		program := strings.TrimSpace(string(folder))
		if name == "GOPATH" {
			program = filepath.Join(filepath.SplitList(program)[0], "bin")
		}
		program = filepath.Join(program, "versitygw")
		if _, err := os.Stat(program); err == nil {
			return program
		}
	}
	t.Skip("skip: needs versitygw")
	return ""
}

func freeAddress(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// Credentials are those that the server accepts.
func (s *Server) Credentials() aws.CredentialsProvider {
	return credentials.NewStaticCredentialsProvider(s.AccessKey, s.SecretKey, "")
}

// Environ gives the variables by which a program finds the credentials.
func (s *Server) Environ() []string {
	return []string{"AWS_ACCESS_KEY_ID=" + s.AccessKey, "AWS_SECRET_ACCESS_KEY=" + s.SecretKey}
}

// NewBucket makes an empty bucket and tells where it is.
func (s *Server) NewBucket(t testing.TB) s3bucket.Location {
	t.Helper()
	name := fmt.Sprintf("bucket-%d", s.buckets.Add(1))
	client := s3.New(s3.Options{
		Region: "us-east-1", BaseEndpoint: &s.Endpoint, UsePathStyle: true, Credentials: s.Credentials(),
	})
	if _, err := client.CreateBucket(context.Background(), &s3.CreateBucketInput{Bucket: &name}); err != nil {
		t.Fatalf("make bucket %s: %v", name, err)
	}
	return s3bucket.Location{Bucket: name, Endpoint: s.Endpoint, PathStyle: true}
}
