package node

import (
	"errors"
	"fmt"
	"io"
)

// Device is what a file system lies on.
type Device struct {
	io.ReaderAt
	Size int64 // bytes
}

// Bytes reads metadata. What lies outside of the device was named by damage.
func (d Device) Bytes(off, n int64) ([]byte, error) {
	if off < 0 || n < 0 || n > MaxRead || off > d.Size || n > d.Size-off {
		return nil, fmt.Errorf("it refers to %d bytes at %d of a device of %d: %w", n, off, d.Size, ErrDamaged)
	}
	b := make([]byte, n)
	got, err := d.ReadAt(b, off)
	if got == len(b) {
		return b, nil
	}
	if err == nil || errors.Is(err, io.EOF) {
		err = fmt.Errorf("it ends at %d: %w", off+int64(got), ErrDamaged)
	}
	return nil, err
}

// Damagedf makes an error of ErrDamaged.
func Damagedf(format string, args ...any) error {
	return fmt.Errorf(format+": %w", append(args, ErrDamaged)...)
}

// Unsupportedf makes an error of ErrUnsupported.
func Unsupportedf(format string, args ...any) error {
	return fmt.Errorf(format+": %w", append(args, ErrUnsupported)...)
}
