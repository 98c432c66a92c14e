package bucket

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"

	"github.com/diskvault/diskvault/base/problem"
)

// Probe tests, with small objects below "probe/" that it removes again, whether
// a bucket keeps the promises that a store depends on. A promise that is broken
// is a problem StoreContractMissing that names it; any other error means that
// the bucket could not be tested.
func Probe(ctx context.Context, b Bucket) (err error) {
	run := make([]byte, 16)
	rand.Read(run)
	p := probe{b: b, folder: "probe/" + hex.EncodeToString(run)}
	defer func() {
		// Also when the context has ended: nothing of the probe is to stay.
		for _, key := range []string{p.key("a"), p.key("b")} {
			if gone := b.Delete(context.WithoutCancel(ctx), key); err == nil {
				err = gone
			}
		}
	}()
	for _, test := range []func(context.Context) error{p.putIfAbsent, p.ranges, p.listing, p.deletion} {
		if err := test(ctx); err != nil {
			return err
		}
	}
	return nil
}

type probe struct {
	b      Bucket
	folder string
}

func (p *probe) key(name string) string { return p.folder + "/" + name }

// content differs for each name and run.
func (p *probe) content(name string) []byte {
	return bytes.Repeat([]byte(p.key(name)), 8)
}

func (p *probe) broken(promise string, found any) error {
	return problem.New(problem.StoreContractMissing, "The storage at %s does not keep a promise that a store depends on: %s.", p.b.URL(), promise).
		With("promise", promise).With("found", fmt.Sprint(found))
}

// failed gives the error of a call, or the broken promise if the call failed
// because an object that must be there is not.
func (p *probe) failed(err error, promise string) error {
	if errors.Is(err, ErrNotFound) || errors.Is(err, io.ErrUnexpectedEOF) {
		return p.broken(promise, err)
	}
	return err
}

func (p *probe) putIfAbsent(ctx context.Context) error {
	const onlyOnce = "an object is stored only if its key is free (conditional put)"
	first := p.content("a")
	if err := p.b.Put(ctx, p.key("a"), [][]byte{first[:7], first[7:]}); err != nil {
		if errors.Is(err, ErrExists) {
			return p.broken(onlyOnce, "a key that was never used counts as taken")
		}
		return err
	}
	err := p.b.Put(ctx, p.key("a"), [][]byte{[]byte("another content of the same key")})
	if err == nil {
		return p.broken(onlyOnce, "a second object was accepted under the same key")
	}
	if !errors.Is(err, ErrExists) {
		return err
	}
	return p.holds(ctx, "a", onlyOnce)
}

func (p *probe) holds(ctx context.Context, name, promise string) error {
	want := p.content(name)
	got := make([]byte, len(want))
	if err := p.b.Get(ctx, p.key(name), 0, got); err != nil {
		return p.failed(err, promise)
	}
	if !bytes.Equal(got, want) {
		return p.broken(promise, "the object holds something else than what was stored first")
	}
	return nil
}

func (p *probe) ranges(ctx context.Context) error {
	const promise = "what was stored can be read at once, whole and in ranges"
	if err := p.b.Put(ctx, p.key("b"), [][]byte{p.content("b")}); err != nil {
		return err
	}
	if err := p.holds(ctx, "b", promise); err != nil {
		return err
	}
	want := p.content("b")
	o, err := p.b.Stat(ctx, p.key("b"))
	if err != nil {
		return p.failed(err, promise)
	}
	if o.Size != int64(len(want)) || o.Stored.IsZero() {
		return p.broken(promise, fmt.Sprintf("%d bytes stored at %v instead of %d bytes", o.Size, o.Stored, len(want)))
	}
	got := make([]byte, 10)
	at := len(want) - len(got)
	if err := p.b.Get(ctx, p.key("b"), int64(at), got); err != nil {
		return p.failed(err, promise)
	}
	if !bytes.Equal(got, want[at:]) {
		return p.broken(promise, "a range at the end holds something else")
	}
	if err := p.b.Get(ctx, p.key("b"), int64(at)+1, got); !errors.Is(err, io.ErrUnexpectedEOF) {
		return p.broken(promise, fmt.Sprintf("a range behind the end gives %v", err))
	}
	return nil
}

func (p *probe) listing(ctx context.Context) error {
	return p.lists(ctx, "what was stored is listed at once, in order", p.key("a"), p.key("b"))
}

func (p *probe) lists(ctx context.Context, promise string, want ...string) error {
	var got []string
	for o, err := range p.b.List(ctx, p.folder+"/", "") {
		if err != nil {
			return err
		}
		got = append(got, o.Key)
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		return p.broken(promise, got)
	}
	return nil
}

func (p *probe) deletion(ctx context.Context) error {
	const promise = "what was deleted is gone at once"
	for range 2 { // the second time it is not there
		if err := p.b.Delete(ctx, p.key("a")); err != nil {
			return err
		}
	}
	if _, err := p.b.Stat(ctx, p.key("a")); !errors.Is(err, ErrNotFound) {
		return p.broken(promise, fmt.Sprintf("a deleted object gives %v", err))
	}
	return p.lists(ctx, promise, p.key("b"))
}
