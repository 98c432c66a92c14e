package nbd

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"iter"
	"net"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/diskvault/diskvault/base/extent"
)

// Disk is what a Server offers. Methods are called concurrently, with ranges
// that lie within Size. A Client is one.
type Disk interface {
	// Size is the size in bytes; it must not change.
	Size() int64
	// Read fills p from off on.
	Read(ctx context.Context, p []byte, off int64) error
}

// Writer is a Disk that can be written.
type Writer interface {
	Disk
	Write(ctx context.Context, p []byte, off int64) error
	// Zero makes a range read as zeros; keep asks to keep its room.
	Zero(ctx context.Context, r extent.Range, keep bool) error
	// Trim may forget what a range holds.
	Trim(ctx context.Context, r extent.Range) error
	// Flush returns when all that was written is on stable storage.
	Flush(ctx context.Context) error
}

// Mapper is a Disk that knows of its extents. They come in order and without
// gaps, as of Client.Extents.
type Mapper interface {
	Disk
	// Contexts are the names of the meta contexts, such as ContextAllocation.
	Contexts() []string
	Extents(ctx context.Context, name string, r extent.Range) iter.Seq2[Extent, error]
}

// Offer is a Disk under a name.
type Offer struct {
	Name        string
	Description string // for people; may be empty
	Disk        Disk
	ReadOnly    bool // also if the disk is a Writer
}

// Server offers disks to NBD clients. Set the fields before Serve.
type Server struct {
	// Offers are what clients can choose from; the first is that of a client
	// which gives no name.
	Offers []Offer
	// TLS lets clients encrypt the connection; nil: they cannot.
	TLS *tls.Config
	// TLSRequired refuses clients that do not.
	TLSRequired bool
	// MaxClients is how many may be connected at once; more wait. Zero: 64.
	MaxClients int

	once   sync.Once
	memory *semaphore.Weighted
	times  times
}

// times are the bounds of what clients can hold up. Tests have shorter ones.
type times struct {
	handshake time.Duration
	stall     time.Duration // of data of a request or an answer
	grace     time.Duration // of requests under way at the end
}

// Bounds of what clients can take.
const (
	defaultClients = 64
	inFlight       = 16        // requests of a client that are worked on at once
	memoryLimit    = 256 << 20 // bytes of data of all requests at once
	maxOptions     = 256       // in a handshake
	preferredBlock = 64 << 10
)

// Serve takes connections until the context ends or the listener fails, which
// is the error; for the end of the context it is nil. It closes the listener.
// Requests under way at the end are still answered, for some seconds.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	if s.TLSRequired && s.TLS == nil {
		l.Close()
		return errors.New("the server wants TLS and has no certificate")
	}
	s.once.Do(s.prepare)
	limit := s.MaxClients
	if limit <= 0 {
		limit = defaultClients
	}
	places := make(chan struct{}, limit)
	stop := context.AfterFunc(ctx, func() { l.Close() })
	defer stop()
	defer l.Close()
	var clients sync.WaitGroup
	defer clients.Wait()
	for {
		select {
		case places <- struct{}{}:
		case <-ctx.Done():
			return nil
		}
		conn, err := l.Accept()
		if ctx.Err() != nil {
			if err == nil {
				conn.Close()
			}
			return nil
		}
		if errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE) || errors.Is(err, syscall.ECONNABORTED) {
			<-places
			select {
			case <-time.After(100 * time.Millisecond): // until some client leaves
			case <-ctx.Done():
			}
			continue
		}
		if err != nil {
			return fmt.Errorf("no more NBD clients can connect: %w", err)
		}
		clients.Go(func() {
			defer func() { <-places }()
			s.client(ctx, conn)
		})
	}
}

func (s *Server) prepare() {
	s.memory = semaphore.NewWeighted(memoryLimit)
	if s.times == (times{}) {
		s.times = times{30 * time.Second, time.Minute, 10 * time.Second}
	}
}

// client serves one connection until it ends. What goes wrong on it concerns
// that client alone, which sees the connection end.
func (s *Server) client(ctx context.Context, raw net.Conn) {
	// The work on requests outlives ctx by the grace time.
	work, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	c := &conn{server: s, raw: raw, work: work, cancel: cancel, places: make(chan struct{}, inFlight)}
	c.setConn(raw)
	defer raw.Close()
	stop := context.AfterFunc(ctx, c.shutDown)
	defer stop()
	c.readUntil(time.Now().Add(s.times.handshake))
	_ = raw.SetWriteDeadline(time.Now().Add(s.times.handshake)) // a closed connection says so when used
	if err := c.handshake(); err != nil || c.offer == nil {
		return
	}
	c.transmit()
}

// find gives the offer of a name.
func (s *Server) find(name string) *Offer {
	for i := range s.Offers {
		if s.Offers[i].Name == name || name == "" {
			return &s.Offers[i]
		}
	}
	return nil
}

// writer is the offer's disk if it may be written.
func (o *Offer) writer() (Writer, bool) {
	if o.ReadOnly {
		return nil, false
	}
	w, ok := o.Disk.(Writer)
	return w, ok
}

// flags are those of the export. Several connections see one disk, so a flush
// on one covers what was written on all.
func (o *Offer) flags() uint16 {
	flags := uint16(exportHasFlags | exportMultiConn | exportCache | exportFlush | exportDF)
	if _, ok := o.writer(); ok {
		return flags | exportFUA | exportTrim | exportWriteZeroes
	}
	return flags | exportReadOnly
}

// contexts are the names of the offer's meta contexts.
func (o *Offer) contexts() []string {
	if m, ok := o.Disk.(Mapper); ok {
		return m.Contexts()
	}
	return nil
}
