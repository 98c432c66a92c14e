package service

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/hex"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/diskvault/diskvault/base/meter"
	"github.com/diskvault/diskvault/base/problem"
	"github.com/diskvault/diskvault/control/job"
	"github.com/diskvault/diskvault/control/resource"
	"github.com/diskvault/diskvault/engine/attach/export"
	"github.com/diskvault/diskvault/engine/attach/overlay"
	"github.com/diskvault/diskvault/store"
)

// NBDRequest asks for an NBD export of a recovery point.
type NBDRequest struct {
	PointsRequest
	Point string `json:"point,omitempty"` // ID, its beginning, a time, or latest
	NBDPlace
	Writable bool          `json:"writable,omitempty"` // clients may write over it
	Keep     bool          `json:"keep,omitempty"`     // what they wrote becomes a point in the end
	Overlay  string        `json:"overlay,omitempty"`  // absolute path of the folder for what they write; empty: in the data folder
	For      time.Duration `json:"for,omitempty"`      // 0: until somebody ends it
}

// NBDPlace says where NBD clients find a disk. Its zero value is a socket in
// the data folder.
type NBDPlace struct {
	Socket      string `json:"socket,omitempty"` // absolute path of a Unix socket
	Listen      string `json:"listen,omitempty"` // or a host and port
	Certificate string `json:"tlsCertificate,omitempty"`
	Key         string `json:"tlsKey,omitempty"`
	Authorities string `json:"tlsAuthorities,omitempty"` // whose clients are let in; empty: all are
}

// NBDResult tells what an export was, when it has ended.
type NBDResult struct {
	JobID           string    `json:"jobId"`
	Instance        string    `json:"instance"`
	Point           string    `json:"point"`
	PointTime       time.Time `json:"pointTime"`
	URL             string    `json:"url"`
	Writable        bool      `json:"writable"`
	WrittenBytes    int64     `json:"writtenBytes"`
	Kept            string    `json:"keptPoint,omitempty"` // ID of the point made of what was written
	DurationSeconds float64   `json:"durationSeconds"`
}

// exportNBD is the use case of Client.NBD.
func (s *Service) exportNBD(ctx context.Context, c call, r NBDRequest) (NBDResult, error) {
	var result NBDResult
	if r.Keep && (r.URL != "" || !r.Writable) {
		return result, problem.New(problem.InvalidArgument, "Only what is written to a point of a store that the catalog knows can be kept.").
			Do("Add --writable, and leave --store away.")
	}
	a, err := s.attach(ctx, r.PointsRequest, r.Point, "NBD export")
	if err != nil {
		return result, err
	}
	defer a.end()
	err = s.jobs.Do(ctx, c.beside(resource.OperationAttach, a), func(ctx context.Context, run *job.Run) (job.Outcome, error) {
		started := time.Now()
		result = NBDResult{JobID: run.ID, Instance: a.instance, Point: a.point.ID, PointTime: a.point.Time, Writable: r.Writable}
		var disk export.Disk = a.image
		var written *overlay.Disk
		if r.Writable {
			if written, err = s.scratch(r.Overlay, a); err != nil {
				return job.Outcome{}, err
			}
			defer written.Close()
			disk = written
		}
		e, err := s.offer(c, r.NBDPlace, disk, a)
		if err != nil {
			return job.Outcome{}, err
		}
		result.URL = e.URL()
		run.Meter.Phase("attached")
		run.Follow(func() resource.Progress { return resource.Progress{Phase: "attached"} })
		c.notice(offered(e.URL(), a, r))
		serving, end := context.WithCancel(ctx)
		defer end()
		if r.For > 0 {
			timer := time.AfterFunc(r.For, end)
			defer timer.Stop()
		}
		if err := e.Serve(serving); err != nil {
			return job.Outcome{}, problem.Wrap(err, problem.ExportFailed, "The export of %s at %s ended.", a.instance, e.URL())
		}
		if written != nil {
			result.WrittenBytes = written.Written().Total()
		}
		if r.Keep && result.WrittenBytes > 0 {
			// Who ends the export wants what was written all the same.
			kept, err := s.keep(context.WithoutCancel(ctx), a, r.StoreRequest, written, run.Meter)
			if err != nil {
				return job.Outcome{}, err
			}
			result.Kept = kept.ID
		}
		result.DurationSeconds = time.Since(started).Seconds()
		return job.Outcome{Result: result}, nil
	})
	return result, err
}

// scratch makes the overlay of an attached point.
func (s *Service) scratch(dir string, a *attached) (*overlay.Disk, error) {
	if dir == "" {
		dir = s.folder.Cache()
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, problem.Wrap(err, problem.HomeNotUsable, "The folder %s cannot be made.", dir)
		}
	}
	return overlay.Scratch(a.image, dir)
}

// offer begins to export a disk.
func (s *Service) offer(c call, p NBDPlace, disk export.Disk, a *attached) (*export.Export, error) {
	var config *tls.Config
	var err error
	if p.Certificate != "" {
		if config, err = export.Certificate(p.Certificate, p.Key, p.Authorities); err != nil {
			return nil, err
		}
	}
	if p.Listen == "" && p.Socket == "" {
		if p.Socket, err = s.socket(); err != nil {
			return nil, err
		}
	}
	e, err := export.New(export.Options{
		Disk: disk, Description: a.instance + " as of " + moment(a.point.Time), Socket: p.Socket, Listen: p.Listen, TLS: config,
	})
	if err == nil && p.Listen != "" && p.Authorities == "" && !loopback(p.Listen) {
		c.notice(resource.Notice{
			Message:           "Whoever reaches " + p.Listen + " over the network can read this disk, since clients need not prove who they are.",
			RecommendedAction: "Add --tls-cert, --tls-key and --tls-ca, or listen on 127.0.0.1 or a socket only.",
		})
	}
	return e, err
}

func loopback(address string) bool {
	host, _, _ := net.SplitHostPort(address)
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// socket makes up the path of a socket in the data folder, and removes those
// that killed processes left there.
func (s *Service) socket() (string, error) {
	dir := filepath.Join(s.folder.Path(), "nbd")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", problem.Wrap(err, problem.HomeNotUsable, "The folder %s cannot be made.", dir)
	}
	left, _ := filepath.Glob(filepath.Join(dir, "*.socket"))
	for _, path := range left {
		if conn, err := net.Dial("unix", path); err != nil {
			_ = os.Remove(path) // what stays is in nobody's way
		} else {
			conn.Close()
		}
	}
	var name [4]byte
	_, _ = rand.Read(name[:]) // never fails
	return filepath.Join(dir, hex.EncodeToString(name[:])+".socket"), nil
}

func moment(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05") + " UTC" }

// offered tells people what they can do with an export.
func offered(url string, a *attached, r NBDRequest) resource.Notice {
	text := "read-only"
	if r.Writable {
		text = "writable; what is written is discarded in the end"
	}
	if r.Keep {
		text = "writable; what is written becomes a recovery point in the end"
	}
	return resource.Notice{
		Message:           fmt.Sprintf("%s as of %s is offered at %s (%s).", a.instance, moment(a.point.Time), url, text),
		RecommendedAction: fmt.Sprintf("Use it: nbdinfo '%[1]s', qemu-img convert -O qcow2 '%[1]s' new.qcow2, nbdfuse DIR '%[1]s', or qemu-system-x86_64 -drive file='%[1]s',format=raw. Ctrl-C ends it.", url),
	}
}

// keep makes a point of what was written to an attached one.
func (s *Service) keep(ctx context.Context, a *attached, r StoreRequest, d *overlay.Disk, m *meter.Meter) (store.Point, error) {
	s.use.RLock()
	defer s.use.RUnlock()
	st, row, err := s.openKnown(ctx, a.point.Store, r.Key)
	if err != nil {
		return store.Point{}, err
	}
	m.Phase("commit")
	kept, err := export.Keep(ctx, st, a.point.Point, d, m)
	if err != nil {
		return kept, err
	}
	return kept, s.catalog.PutPoint(ctx, row.ID, kept)
}
