package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

const (
	systemUUID = "d15c0a17-0000-4000-8000-000000000001"
	systemTime = "1764000000" // what the file system tools take for now
	// rebuiltEvery is the distance between the bytes that differ in a file
	// that an update replaced, as between two builds of one program.
	rebuiltEvery = 16 << 10
)

// system is an ext4 system disk of 6 GiB with 3.6 GiB of this machine's own
// files, and the same disk after an update: 340 MiB of files are new and
// 70 MiB of files were replaced by slightly different ones. Neither root nor a
// mount is needed: mke2fs fills the file system and debugfs changes it.
func (l library) system(ctx context.Context) (dataset, error) {
	disk, data := l.scaled(6<<30), l.scaled(3686<<20)
	added, replaced := l.scaled(340<<20), l.scaled(70<<20)
	recipe := fmt.Sprintf("v2 ext4 of %d bytes, %d of files, %d added, %d replaced, from %s",
		disk, data, added, replaced, strings.Join(l.trees, " "))
	return l.get(ctx, "system", recipe, []string{"base.img", "changed.img"}, func(folder string) (string, error) {
		base, changed := filepath.Join(folder, "base.img"), filepath.Join(folder, "changed.img")
		first, second, err := pick(ctx, l.trees, data, added)
		if err != nil {
			return "", err
		}
		if err := makeSystem(ctx, folder, base, disk, first); err != nil {
			return "", err
		}
		if err := place(ctx, base, changed); err != nil {
			return "", err
		}
		if err := updateSystem(ctx, folder, changed, first, second, replaced); err != nil {
			return "", err
		}
		difference, err := compare(ctx, base, changed, 4<<10)
		if err != nil {
			return "", err
		}
		allocated, err := allocatedBytes(base)
		if err != nil {
			return "", err
		}
		return fmt.Sprintf("ext4 of %s with %d files of this machine (%s), %s allocated; the changed one differs in %s of 4 KiB pages",
			size(disk), len(first), strings.Join(l.trees, ", "), mib(allocated), mib(difference.differing)), nil
	})
}

// makeSystem writes a new ext4 image that holds the files.
func makeSystem(ctx context.Context, folder, image string, size int64, files []hostFile) (err error) {
	staging := filepath.Join(folder, "staging")
	defer func() { err = errors.Join(err, os.RemoveAll(staging)) }()
	if err := stage(ctx, files, staging); err != nil {
		return err
	}
	_, err = output(ctx, command{
		args: []string{sbin("mke2fs"), "-q", "-F", "-t", "ext4", "-b", "4096", "-d", staging, "-U", systemUUID,
			"-E", "root_owner=0:0,hash_seed=" + systemUUID, image, fmt.Sprintf("%dk", size>>10)},
		env: append(os.Environ(), "E2FSPROGS_FAKE_TIME="+systemTime),
	})
	return err
}

// updateSystem adds the files of added below /update and replaces files of
// present, up to a number of bytes, by ones with a few other bytes.
func updateSystem(ctx context.Context, folder, image string, present, added []hostFile, replaced int64) (err error) {
	staging := filepath.Join(folder, "staging")
	defer func() { err = errors.Join(err, os.RemoveAll(staging)) }()
	if err := os.Mkdir(staging, 0o755); err != nil {
		return err
	}
	var script strings.Builder
	script.WriteString("mkdir /update\n")
	for i, f := range added {
		fmt.Fprintf(&script, "write \"%s\" /update/%06d\n", f.path, i)
	}
	// Every file in seven is replaced until the bytes are used up, so that the
	// replaced ones lie all over the disk.
	for i := 0; i < len(present) && replaced > 0; i += 7 {
		f := present[i]
		if f.size < rebuiltEvery || f.size > replaced {
			continue
		}
		staged := filepath.Join(staging, fmt.Sprintf("%06d", i))
		if err := rebuild(f.path, staged); err != nil {
			return err
		}
		fmt.Fprintf(&script, "rm \"%s\"\nwrite \"%s\" \"%s\"\n", f.path, staged, f.path)
		replaced -= f.size
	}
	commands := filepath.Join(staging, "debugfs-commands")
	if err := os.WriteFile(commands, []byte(script.String()), 0o644); err != nil {
		return err
	}
	if err := debugfs(ctx, image, commands); err != nil {
		return err
	}
	_, err = output(ctx, command{args: []string{sbin("e2fsck"), "-fn", image}, env: os.Environ()})
	return err
}

// debugfs carries out a file of commands. Its exit status says nothing about
// them; each that failed leaves a line on standard error, below the banner.
func debugfs(ctx context.Context, image, commands string) error {
	cmd := prepare(ctx, command{
		args: []string{sbin("debugfs"), "-w", "-f", commands, image},
		env:  append(os.Environ(), "E2FSPROGS_FAKE_TIME="+systemTime, "DEBUGFS_PAGER=cat"),
	})
	stderr := &tail{limit: 8 << 10}
	cmd.Stderr = stderr
	if err := cmd.Run(); err != nil {
		return explain(ctx, command{args: cmd.Args}, err, stderr)
	}
	for line := range strings.Lines(string(stderr.kept)) {
		if strings.TrimSpace(line) != "" && !strings.HasPrefix(line, "debugfs ") {
			return fmt.Errorf("debugfs could not change %s: %s", image, strings.TrimSpace(line))
		}
	}
	return nil
}

// rebuild copies a file and flips one byte in each stretch of rebuiltEvery.
func rebuild(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	stretch := make([]byte, rebuiltEvery)
	for {
		n, err := io.ReadFull(in, stretch)
		if n > rebuiltEvery/2 {
			stretch[rebuiltEvery/2] ^= 0xff
		}
		if _, writeErr := out.Write(stretch[:n]); writeErr != nil {
			return errors.Join(writeErr, out.Close())
		}
		if err == io.EOF || err == io.ErrUnexpectedEOF {
			return out.Close()
		}
		if err != nil {
			return errors.Join(err, out.Close())
		}
	}
}

// sbin finds a program of e2fsprogs, which lies outside an ordinary user's PATH.
func sbin(program string) string {
	for _, folder := range []string{"/usr/sbin", "/sbin"} {
		if path := filepath.Join(folder, program); readable(path) {
			return path
		}
	}
	return program
}
