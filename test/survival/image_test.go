package survival

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"testing"
)

const (
	kib = 1 << 10
	mib = 1 << 20
	gib = 1 << 30
	tib = 1 << 40
)

// image is a disk in a file.
type image struct {
	t    testing.TB
	path string
	size int64
	r    *rand.Rand
}

// newImage makes a sparse disk with mixed data: text, noise, repeats and zeros.
func newImage(t testing.TB, path string, size int64, r *rand.Rand) *image {
	t.Helper()
	f, err := os.Create(path)
	if err == nil {
		err = f.Truncate(size)
		f.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	i := &image{t, path, size, r}
	i.fill(0, min(size, 64*kib)) // never quite empty
	for at := int64(0); at < size; at += mib {
		if r.IntN(3) > 0 { // the others stay holes
			i.fill(at, min(mib, size-at))
		}
	}
	return i
}

// fill writes one kind of data to a range.
func (i *image) fill(at, length int64) {
	i.t.Helper()
	data := make([]byte, length)
	switch i.r.IntN(4) {
	case 0: // zeros that have room
	case 1: // text
		for n := 0; n < len(data); {
			n += copy(data[n:], fmt.Sprintf("%08d GET /item/%d 200\n", n, i.r.IntN(5000)))
		}
	case 2: // one block again and again
		i.noise(data[:min(len(data), 64*kib)])
		for n := 64 * kib; n < len(data); n *= 2 {
			copy(data[n:], data[:n])
		}
	case 3:
		i.noise(data)
	}
	i.write(data, at)
}

func (i *image) noise(data []byte) {
	for n := 0; n < len(data); n += 8 {
		v := i.r.Uint64()
		for k := n; k < min(n+8, len(data)); k++ {
			data[k] = byte(v)
			v >>= 8
		}
	}
}

func (i *image) write(data []byte, at int64) {
	i.t.Helper()
	f, err := os.OpenFile(i.path, os.O_WRONLY, 0)
	if err == nil {
		_, err = f.WriteAt(data, at)
		f.Close()
	}
	if err != nil {
		i.t.Fatal(err)
	}
}

// change writes noise of some KiB to some places, and text to one.
func (i *image) change(places int) {
	i.t.Helper()
	for range places {
		length := min(int64(1+i.r.IntN(256*kib)), i.size)
		data := make([]byte, length)
		i.noise(data)
		i.write(data, i.r.Int64N(i.size-length+1))
	}
	if i.size >= mib {
		i.fill(i.r.Int64N(i.size/mib)*mib, mib)
	}
}

func (i *image) sum() string { return sum(i.t, i.path) }

// sum gives the SHA-256 of a file's content.
func sum(t testing.TB, path string) string {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%x", h.Sum(nil))
}

// same wants a range of another file to be as that of the disk.
func (i *image) same(other string, at, length int64) {
	i.t.Helper()
	var parts [2][]byte
	for n, path := range []string{i.path, other} {
		f, err := os.Open(path)
		if err != nil {
			i.t.Fatal(err)
		}
		parts[n] = make([]byte, length)
		_, err = f.ReadAt(parts[n], at)
		f.Close()
		if err != nil {
			i.t.Fatal(err)
		}
	}
	if !bytes.Equal(parts[0], parts[1]) {
		i.t.Fatalf("%s differs from the disk at byte %d", other, at)
	}
}
