package container

import (
	"context"
	"fmt"
)

// Create makes an empty qcow2 image in a file that exists, in place of whatever
// is there. A dense one has room for all of the disk from the start. The error
// is syscall.ENOSPC where there is none.
func Create(ctx context.Context, path string, size int64, dense bool) error {
	preallocation := "off"
	if dense {
		preallocation = "falloc"
	}
	_, err := run(ctx, "qemu-img", "create", "-q", "-f", "qcow2", "-o", "compat=1.1,preallocation="+preallocation, path, fmt.Sprint(size))
	return err
}

// Check tells whether the structure of a qcow2 image is whole. What an
// interrupted writer left without use is given back if repair is set; nothing
// else is changed.
func Check(ctx context.Context, path string, repair bool) error {
	args := []string{"check", "-q", "-f", "qcow2"}
	if repair {
		args = append(args, "-r", "leaks")
	}
	_, err := run(ctx, "qemu-img", append(args, path)...)
	return err
}
