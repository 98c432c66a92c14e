package s3bucket_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/credentials"

	"github.com/diskvault/diskvault/base/problem"
	"github.com/diskvault/diskvault/store/bucket"
	"github.com/diskvault/diskvault/store/bucket/buckettest"
	"github.com/diskvault/diskvault/store/bucket/faultbucket"
	"github.com/diskvault/diskvault/store/bucket/s3bucket"
	"github.com/diskvault/diskvault/store/bucket/s3bucket/s3test"
)

func open(t *testing.T, l s3bucket.Location, o s3bucket.Options) *s3bucket.Bucket {
	t.Helper()
	b, err := s3bucket.Open(l, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	return b
}

func TestRealServer(t *testing.T) {
	server := s3test.Start(t)
	o := s3bucket.Options{Credentials: server.Credentials()}
	t.Run("conformance", func(t *testing.T) {
		buckettest.Run(t, buckettest.Options{}, func(t *testing.T) bucket.Bucket {
			return bucket.Retrying(open(t, server.NewBucket(t), o), bucket.RetryOptions{})
		})
	})
	t.Run("conformance below a prefix", func(t *testing.T) {
		buckettest.Run(t, buckettest.Options{Keys: 50}, func(t *testing.T) bucket.Bucket {
			l := server.NewBucket(t)
			// A neighbour whose keys must not show.
			neighbour := open(t, l, o)
			if err := neighbour.Put(t.Context(), "backups/disks-old/x", nil); err != nil {
				t.Fatal(err)
			}
			l.Prefix = "backups/disks"
			return bucket.Retrying(open(t, l, o), bucket.RetryOptions{})
		})
	})
	t.Run("unclear put", func(t *testing.T) {
		unclearPut(t, func() bucket.Bucket { return open(t, server.NewBucket(t), o) })
	})
	t.Run("damage on the way", func(t *testing.T) { damageOnTheWay(t, server) })
	t.Run("broken answers", func(t *testing.T) { brokenAnswers(t, server) })
	t.Run("refusals", func(t *testing.T) { refusals(t, server) })
	t.Run("place of an object", func(t *testing.T) { placeOfAnObject(t, server) })
}

func unclearPut(t *testing.T, open func() bucket.Bucket) {
	data := [][]byte{bytes.Repeat([]byte("ours"), 30), make([]byte, 1<<20)}
	for _, mode := range []faultbucket.Mode{faultbucket.NotDone, faultbucket.Done} {
		b := open()
		f := faultbucket.New(b, faultbucket.At(1, faultbucket.Fault{Mode: mode}))
		if err := bucket.Retrying(f, bucket.RetryOptions{}).Put(t.Context(), "x", data); err != nil {
			t.Errorf("%v: %v", mode, err)
		}
		f.Follow(faultbucket.At(1, faultbucket.Fault{Mode: mode}))
		other := [][]byte{bytes.Repeat([]byte("else"), 30), make([]byte, 1<<20)}
		if err := bucket.Retrying(f, bucket.RetryOptions{}).Put(t.Context(), "x", other); !errors.Is(err, bucket.ErrExists) {
			t.Errorf("%v, other content: %v", mode, err)
		}
	}
}

// wire changes requests or answers on their way.
type wire struct {
	request func(*http.Request)
	answer  func(*http.Response)
}

func (w wire) RoundTrip(r *http.Request) (*http.Response, error) {
	if w.request != nil {
		w.request(r)
	}
	answer, err := http.DefaultTransport.RoundTrip(r)
	if err == nil && w.answer != nil {
		w.answer(answer)
	}
	return answer, err
}

// What arrives damaged must not be stored, and the retry must bring it whole.
func damageOnTheWay(t *testing.T, server *s3test.Server) {
	l := server.NewBucket(t)
	damaged := 0
	b := open(t, l, s3bucket.Options{Credentials: server.Credentials(), Transport: wire{request: func(r *http.Request) {
		if r.Method == http.MethodPut && damaged == 0 {
			damaged++
			data, _ := io.ReadAll(r.Body)
			data[len(data)/2] ^= 1
			r.Body = io.NopCloser(bytes.NewReader(data))
		}
	}}})
	data := bytes.Repeat([]byte("0123456789"), 1000)
	err := b.Put(t.Context(), "x", [][]byte{data})
	if !bucket.IsTransient(err) {
		t.Fatalf("a flipped bit gives %v", err)
	}
	if _, err := b.Stat(t.Context(), "x"); !errors.Is(err, bucket.ErrNotFound) {
		t.Fatalf("after it, stat gives %v", err)
	}
	damaged = 0
	if err := bucket.Retrying(b, bucket.RetryOptions{}).Put(t.Context(), "x", [][]byte{data}); err != nil || damaged != 1 {
		t.Fatalf("with retries: %v, damaged %d times", err, damaged)
	}
	got, err := bucket.ReadAll(t.Context(), b, "x", 1<<20)
	if err != nil || !bytes.Equal(got, data) {
		t.Fatalf("the object holds %d bytes, %v", len(got), err)
	}
}

type breaksOff struct {
	io.ReadCloser
	left int
}

func (b *breaksOff) Read(p []byte) (int, error) {
	if b.left == 0 {
		return 0, io.ErrUnexpectedEOF
	}
	n, err := b.ReadCloser.Read(p[:min(len(p), b.left)])
	b.left -= n
	return n, err
}

// An answer that breaks off is no short object: it is asked for again.
func brokenAnswers(t *testing.T, server *s3test.Server) {
	broken := 0
	b := open(t, server.NewBucket(t), s3bucket.Options{Credentials: server.Credentials(), Transport: wire{answer: func(r *http.Response) {
		if r.Request.Method == http.MethodGet && broken < 2 {
			broken++
			r.Body = &breaksOff{r.Body, 100}
		}
	}}})
	data := bytes.Repeat([]byte("0123456789"), 1000)
	if err := b.Put(t.Context(), "x", [][]byte{data}); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(data))
	if err := b.Get(t.Context(), "x", 0, got); !bucket.IsTransient(err) || errors.Is(err, io.ErrUnexpectedEOF) {
		t.Fatalf("a broken answer gives %v", err)
	}
	if err := bucket.Retrying(b, bucket.RetryOptions{}).Get(t.Context(), "x", 0, got); err != nil || !bytes.Equal(got, data) || broken != 2 {
		t.Fatalf("with retries: %v, broken %d times", err, broken)
	}
}

func refusals(t *testing.T, server *s3test.Server) {
	wrong := s3bucket.Options{Credentials: credentials.NewStaticCredentialsProvider(server.AccessKey, "wrong", "")}
	l := server.NewBucket(t)
	if err := open(t, l, wrong).Put(t.Context(), "x", nil); !problem.Is(err, problem.StorePermissionDenied) {
		t.Errorf("a wrong secret gives %v", err)
	}
	right := s3bucket.Options{Credentials: server.Credentials()}
	l.Bucket = "no-such-bucket"
	none := open(t, l, right)
	if err := none.Put(t.Context(), "x", nil); !problem.Is(err, problem.StoreNotFound) {
		t.Errorf("a put to a missing bucket gives %v", err)
	}
	for _, err := range none.List(t.Context(), "", "") {
		if !problem.Is(err, problem.StoreNotFound) {
			t.Errorf("a list of a missing bucket gives %v", err)
		}
	}
	l.Endpoint = "http://127.0.0.1:1"
	nobody := open(t, l, right)
	if err := nobody.Put(t.Context(), "x", nil); !problem.Is(err, problem.StoreUnreachable) || !bucket.IsTransient(err) {
		t.Errorf("nobody listening gives %v", err)
	}
	l.Endpoint = strings.Replace(server.Endpoint, "http:", "https:", 1)
	if err := open(t, l, right).Put(t.Context(), "x", nil); !problem.Is(err, problem.StoreUnreachable) {
		t.Errorf("no TLS gives %v", err)
	}
}

func placeOfAnObject(t *testing.T, server *s3test.Server) {
	l := server.NewBucket(t)
	l.Prefix = "deep/er"
	b := open(t, l, s3bucket.Options{Credentials: server.Credentials()})
	if err := b.Put(t.Context(), "a/x", [][]byte{[]byte("data")}); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(filepath.Join(server.Data, l.Bucket, "deep/er/a/x"))
	if err != nil || string(got) != "data" {
		t.Fatalf("%q, %v", got, err)
	}
}

func TestCancelDuringACall(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	b := open(t, s3bucket.Location{Bucket: "some", Endpoint: "http://127.0.0.1:1", PathStyle: true}, s3bucket.Options{
		Credentials: credentials.NewStaticCredentialsProvider("a", "b", ""),
		Transport: roundTrip(func(r *http.Request) (*http.Response, error) {
			cancel()
			<-r.Context().Done()
			return nil, r.Context().Err()
		}),
	})
	if err := b.Put(ctx, "x", [][]byte{make([]byte, 100)}); !errors.Is(err, context.Canceled) || bucket.IsTransient(err) {
		t.Fatalf("put gives %v", err)
	}
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// reply is a storage that answers everything alike.
func reply(status int, code string, header http.Header) s3bucket.Options {
	return s3bucket.Options{
		Credentials: credentials.NewStaticCredentialsProvider("a", "b", ""),
		Transport: roundTrip(func(r *http.Request) (*http.Response, error) {
			if r.Body != nil {
				io.Copy(io.Discard, r.Body)
			}
			body := fmt.Sprintf("<Error><Code>%s</Code><Message>said so</Message></Error>", code)
			if r.Method == http.MethodHead {
				body = ""
			}
			if header == nil {
				header = http.Header{}
			}
			return &http.Response{StatusCode: status, Header: header, Body: io.NopCloser(strings.NewReader(body)), Request: r}, nil
		}),
	}
}

func TestWhatAnswersMean(t *testing.T) {
	l := s3bucket.Location{Bucket: "some", Endpoint: "http://storage.example", PathStyle: true}
	for _, c := range []struct {
		status    int
		code      string
		want      problem.Code
		transient bool
	}{
		{403, "AccessDenied", problem.StorePermissionDenied, false},
		{403, "RequestTimeTooSkewed", problem.StorePermissionDenied, false},
		{401, "Unauthorized", problem.StorePermissionDenied, false},
		{403, "QuotaExceeded", problem.StoreFull, false},
		{507, "XMinioStorageFull", problem.StoreFull, false},
		{404, "NoSuchBucket", problem.StoreNotFound, false},
		{501, "NotImplemented", problem.StoreContractMissing, false},
		{301, "PermanentRedirect", problem.InvalidArgument, false},
		{400, "InvalidRequest", problem.StoreFailed, false},
		{400, "BadDigest", problem.StoreUnreachable, true},
		{400, "RequestTimeout", problem.StoreUnreachable, true},
		{409, "ConditionalRequestConflict", problem.StoreUnreachable, true},
		{429, "TooManyRequests", problem.StoreUnreachable, true},
		{500, "InternalError", problem.StoreUnreachable, true},
		{502, "", problem.StoreUnreachable, true},
		{503, "SlowDown", problem.StoreUnreachable, true},
		{504, "", problem.StoreUnreachable, true},
	} {
		err := open(t, l, reply(c.status, c.code, nil)).Put(t.Context(), "x", [][]byte{{1}})
		if !problem.Is(err, c.want) || bucket.IsTransient(err) != c.transient {
			t.Errorf("%d %s becomes %v: %v", c.status, c.code, problem.From(err).Code, err)
		}
	}
	err := open(t, l, reply(412, "PreconditionFailed", nil)).Put(t.Context(), "x", nil)
	if !errors.Is(err, bucket.ErrExists) {
		t.Errorf("412 becomes %v", err)
	}
	var transient *bucket.Transient
	for code, want := range map[string]bool{"SlowDown": true, "ServiceUnavailable": false} {
		err := open(t, l, reply(503, code, http.Header{})).Delete(t.Context(), "x")
		if passing := (*bucket.Transient)(nil); !errors.As(err, &passing) || passing.Throttled != want {
			t.Errorf("503 %s: %+v", code, err)
		}
	}
	err = open(t, l, reply(503, "SlowDown", http.Header{"Retry-After": {"17"}})).Get(t.Context(), "x", 0, make([]byte, 1))
	if !errors.As(err, &transient) || transient.After.Seconds() != 17 {
		t.Errorf("Retry-After is heard as %v", err)
	}
	if err := open(t, l, reply(404, "NoSuchKey", nil)).Delete(t.Context(), "x"); err != nil {
		t.Errorf("deleting what is not there gives %v", err)
	}
}

// A connection for each call would cost more than the call.
func TestConnectionsAreKept(t *testing.T) {
	var connections atomic.Int32
	data := bytes.Repeat([]byte("0123456789"), 100)
	storage := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		if r.Method == http.MethodGet {
			http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(data))
		}
	}))
	storage.Config.ConnState = func(_ net.Conn, s http.ConnState) {
		if s == http.StateNew {
			connections.Add(1)
		}
	}
	storage.Start()
	defer storage.Close()
	b := open(t, s3bucket.Location{Bucket: "some", Endpoint: storage.URL, PathStyle: true},
		s3bucket.Options{Credentials: credentials.NewStaticCredentialsProvider("a", "b", "")})
	for i := range 20 {
		if err := b.Put(t.Context(), fmt.Sprint(i), [][]byte{data}); err != nil {
			t.Fatal(err)
		}
		got := make([]byte, 100)
		if err := b.Get(t.Context(), "x", int64(i), got); err != nil || !bytes.Equal(got, data[i:i+100]) {
			t.Fatal(string(got), err)
		}
		if err := b.Delete(t.Context(), "x"); err != nil {
			t.Fatal(err)
		}
	}
	if n := connections.Load(); n != 1 {
		t.Fatalf("60 calls one after another took %d connections", n)
	}
}

// Storage that ignores the range would make a restore write wrong bytes.
func TestRangesThatAreIgnored(t *testing.T) {
	l := s3bucket.Location{Bucket: "some", Endpoint: "http://storage.example", PathStyle: true}
	err := open(t, l, reply(200, "", nil)).Get(t.Context(), "x", 5, make([]byte, 10))
	if !problem.Is(err, problem.StoreContractMissing) {
		t.Fatalf("an answer without a range gives %v", err)
	}
}

func BenchmarkBucket(b *testing.B) {
	server := s3test.Start(b)
	at, err := s3bucket.Open(server.NewBucket(b), s3bucket.Options{Credentials: server.Credentials()})
	if err != nil {
		b.Fatal(err)
	}
	defer at.Close()
	buckettest.Benchmark(b, at, 16<<20)
}
