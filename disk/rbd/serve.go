package rbd

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/diskvault/diskvault/base/problem"
)

// Server offers one snapshot over NBD, on a socket that only this user reaches.
type Server struct {
	Socket  string
	command *exec.Cmd
	folder  string
	gone    chan struct{}
}

// Serve starts a server for a snapshot. It ends with Close, or with this
// process. Errors are problems: ToolMissing, SourceReadFailed.
func (i Image) Serve(ctx context.Context, snapshot string) (*Server, error) {
	folder, err := os.MkdirTemp("", "diskvault-rbd-")
	if err != nil {
		return nil, problem.Wrap(err, problem.SourceReadFailed, "There is no room for a socket to read %s through.", i.Address.Spec())
	}
	s := &Server{Socket: filepath.Join(folder, "nbd"), folder: folder, gone: make(chan struct{})}
	options := []string{"driver=rbd", "pool=" + i.Address.Pool, "image=" + i.Address.Image, "snapshot=" + snapshot}
	for name, value := range map[string]string{"namespace": i.Address.Namespace, "conf": i.Address.Conf, "user": i.Address.User} {
		if value != "" {
			options = append(options, name+"="+strings.ReplaceAll(value, ",", ",,"))
		}
	}
	s.command = exec.Command("qemu-nbd", "--read-only", "--persistent", "--shared=8", "--socket="+s.Socket,
		"--image-opts", strings.Join(options, ","))
	s.command.SysProcAttr = &unix.SysProcAttr{Pdeathsig: unix.SIGKILL, Setpgid: true}
	var said bytes.Buffer
	s.command.Stderr = &said
	started := make(chan error)
	go func() {
		// The child is to die with the thread that started it, so that one stays.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := s.command.Start()
		started <- err
		if err == nil {
			_ = s.command.Wait() // killed in the end
		}
		close(s.gone)
	}()
	if err := <-started; err != nil {
		os.RemoveAll(folder)
		return nil, problem.Wrap(err, problem.ToolMissing, "QEMU's program `qemu-nbd` is not installed.").
			Do("Install it with its RBD driver: the packages qemu-utils and qemu-block-extra of Debian.")
	}
	if err := s.listens(ctx); err != nil {
		s.Close()
		if ctx.Err() != nil {
			return nil, problem.From(context.Cause(ctx))
		}
		return nil, problem.Wrap(fmt.Errorf("%w: %s", err, lastLine(said.String())), problem.SourceReadFailed, "The snapshot of %s cannot be served.", i.Address.Spec()).
			Do("Install QEMU's RBD driver (qemu-block-extra), and check that this host reaches the cluster.")
	}
	return s, nil
}

func (s *Server) listens(ctx context.Context) error {
	end := time.After(patience)
	for {
		if conn, err := net.Dial("unix", s.Socket); err == nil {
			return conn.Close()
		}
		select {
		case <-s.gone:
			return errors.New("it ended")
		case <-time.After(10 * time.Millisecond):
		case <-end:
			return errors.New("it does not listen")
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// Hide takes the socket's name away once all have connected who shall: then
// nothing is left of it should this process be killed.
func (s *Server) Hide() { os.RemoveAll(s.folder) }

// Close ends the server.
func (s *Server) Close() {
	_ = s.command.Process.Kill()
	<-s.gone
	os.RemoveAll(s.folder)
}
