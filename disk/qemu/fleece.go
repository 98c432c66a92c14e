package qemu

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/diskvault/diskvault/base/problem"
)

// A fleece is where the machine puts what its guest overwrites while a Cut is
// open. It loses its name as soon as the machine has it open: it goes when the
// Cut ends, or the machine.

// fleece makes a raw one, as a node of this name.
func (m *Machine) fleece(ctx context.Context, d Disk, name string) error {
	path, err := m.fleeceFile(ctx, d, name, d.Size)
	if err != nil {
		return err
	}
	err = m.add(ctx, map[string]any{"driver": "file", "node-name": name, "filename": path, "discard": "unmap"})
	return errors.Join(err, os.Remove(path))
}

// overlay makes one that shows the disk through what it does not hold itself.
func (m *Machine) overlay(ctx context.Context, d Disk, file, name string) error {
	path, err := m.fleeceFile(ctx, d, file, 0)
	if err != nil {
		return err
	}
	err = m.add(ctx, map[string]any{"driver": "file", "node-name": file, "filename": path, "discard": "unmap"})
	if err = errors.Join(err, os.Remove(path)); err != nil {
		return err
	}
	if err := m.create(ctx, name, map[string]any{"driver": "qcow2", "file": file, "size": d.Size}); err != nil {
		return err
	}
	return m.add(ctx, map[string]any{"driver": "qcow2", "node-name": name, "file": file, "backing": d.root, "discard": "unmap"})
}

// fleeceFile lets the machine make a file, so that it belongs to the machine's
// user, and gives its path.
func (m *Machine) fleeceFile(ctx context.Context, d Disk, name string, size int64) (string, error) {
	folder, err := m.fleeceFolder(d)
	if err != nil {
		return "", err
	}
	if err := m.sweepFleeces(folder); err != nil {
		return "", err
	}
	if free, reserve, err := room(folder); err != nil {
		return "", err
	} else if free < reserve {
		return "", noRoom(folder, free, reserve)
	}
	path := filepath.Join(folder, strings.Replace(m.fleecePattern(), "*", randomHex(6), 1))
	if err := m.create(ctx, name, map[string]any{"driver": "file", "filename": path, "size": size}); err != nil {
		os.Remove(path)
		return "", err
	}
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return "", problem.New(problem.SourceNotSupported, "The machine sees another folder %s than this host.", folder).
			Do("Give a folder that both have under one path: add &fleece=/FOLDER to the URL.")
	}
	return path, nil
}

// create carries out a job of blockdev-create.
func (m *Machine) create(ctx context.Context, id string, options map[string]any) error {
	job := id + "-make"
	if err := m.monitor.run(ctx, "blockdev-create", map[string]any{"job-id": job, "options": options}, nil); err != nil {
		return err
	}
	failure := ""
	err := m.until(ctx, func() (bool, error) {
		var jobs []struct {
			ID     string `json:"id"`
			Status string `json:"status"`
			Error  string `json:"error"`
		}
		if err := m.monitor.run(ctx, "query-jobs", nil, &jobs); err != nil {
			return false, err
		}
		for _, j := range jobs {
			if j.ID == job {
				failure = j.Error
				return j.Status == "concluded", nil
			}
		}
		return true, nil
	})
	if err != nil {
		return err
	}
	if err := m.monitor.run(ctx, "job-dismiss", map[string]any{"id": job}, nil); err != nil {
		return err
	}
	if failure != "" {
		return &commandError{Command: "blockdev-create", Desc: failure}
	}
	return nil
}

// room is what a folder's file system has free, in bytes, and what must stay
// free there for the machines that live on it: a twentieth, at most 10 GiB.
func room(folder string) (free, reserve int64, err error) {
	var st unix.Statfs_t
	if err := unix.Statfs(folder, &st); err != nil {
		return 0, 0, problem.Wrap(err, problem.SourceNotSupported, "The folder %s for what the machine overwrites cannot be used.", folder).
			Do("Name another with &fleece=/FOLDER in the URL.")
	}
	return int64(st.Bavail) * st.Bsize, min(int64(st.Blocks)*st.Bsize/20, 10<<30), nil
}

func noRoom(folder string, free, need int64) error {
	return problem.New(problem.CaptureNoRoom, "The file system of %s has %d bytes free; %d are needed for what the machine overwrites during the backup.", folder, free, need).
		With("free", free).With("needed", need).With("folder", folder)
}

// roomForAll refuses disks whose fleeces might not fit, were all of the disks
// overwritten.
func (m *Machine) roomForAll(slices []*Slice) error {
	needs := map[string]int64{}
	for _, s := range slices {
		folder, err := m.fleeceFolder(s.Disk)
		if err != nil {
			return err
		}
		needs[folder] += s.Size + s.Size/32 // the metadata of the overlay
	}
	for folder, need := range needs {
		free, reserve, err := room(folder)
		if err != nil {
			return err
		}
		if need += reserve; free < need {
			return noRoom(folder, free, need)
		}
	}
	return nil
}

// guard gives a Cut up before its fleece fills the file system.
type guard struct {
	mu    sync.Mutex
	why   string // guarded by mu; "" while there is no reason
	lost  chan struct{}
	end   context.CancelFunc
	ended chan struct{}
}

// guardEvery is how often the room is looked at.
const guardEvery = 250 * time.Millisecond

func watch(m *Machine, slices []*Slice) *guard {
	ctx, cancel := context.WithCancel(context.Background())
	g := &guard{lost: make(chan struct{}), end: cancel, ended: make(chan struct{})}
	folders := map[string]bool{}
	for _, s := range slices {
		if folder, err := m.fleeceFolder(s.Disk); err == nil {
			folders[folder] = true
		}
	}
	go func() {
		defer close(g.ended)
		tick := time.NewTicker(guardEvery)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
			case <-m.monitor.done:
				g.giveUp("The machine ended, or closed its monitor, while it was read.")
				return
			case <-ctx.Done():
				return
			}
			for folder := range folders {
				free, reserve, err := room(folder)
				if err != nil || free >= reserve/2 {
					continue
				}
				g.giveUp(fmt.Sprintf("The file system of %s ran short of room: %d bytes are left, so what the machine overwrites could no longer be kept.", folder, free))
				// The room is needed now, not when the reader notices.
				_ = m.sweep(ctx)
				return
			}
		}
	}()
	return g
}

func (g *guard) giveUp(reason string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.why = reason
	close(g.lost)
}

func (g *guard) reason() string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.why
}

func (g *guard) stop() {
	g.end()
	<-g.ended
}
