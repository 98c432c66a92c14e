package capture

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"sync"

	"github.com/diskvault/diskvault/base/problem"
	"github.com/diskvault/diskvault/disk"
)

// Member is one disk of a Group.
type Member struct {
	Source *disk.Source
	Owner  string // as in QEMU
}

// Group captures several disks of one running machine at the same moment: a
// consistency group. It is the Capturer of each of its members, once. Close it
// after the views that it gave are closed. It is safe for concurrent use.
type Group struct {
	ID string // 32 hex digits, for the recovery points that belong together

	mu    sync.Mutex
	views map[*disk.Source]*machineView // not taken yet; guarded by mu
}

// NewGroup takes the point in time. Errors are problems: InvalidArgument for
// disks of different machines, else those of QEMU.Capture.
func NewGroup(ctx context.Context, members ...Member) (*Group, error) {
	for _, m := range members {
		if m.Source.Kind != disk.Machine {
			return nil, problem.New(problem.InvalidArgument, "%s is not a disk of a running machine, so it has no point in time in common with others.", m.Source.Path)
		}
	}
	if len(members) == 0 {
		return nil, problem.New(problem.InvalidArgument, "A consistency group needs a disk.")
	}
	views, err := together(ctx, members...)
	if err != nil {
		return nil, err
	}
	g := &Group{views: map[*disk.Source]*machineView{}}
	for _, v := range views {
		g.views[v.src] = v
	}
	id := make([]byte, 16)
	rand.Read(id)
	g.ID = hex.EncodeToString(id)
	return g, nil
}

// Capture implements Capturer. The moment is that of NewGroup, so a view that
// breaks cannot be had again: the whole group is to be taken anew.
func (g *Group) Capture(_ context.Context, src *disk.Source) (View, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	v := g.views[src]
	if v == nil {
		return nil, problem.New(problem.SourceInUse, "The common point in time of %s is over.", src.Path).
			Do("Run the backup of the whole group again.")
	}
	delete(g.views, src)
	return v, nil
}

// Close gives up what nobody captured.
func (g *Group) Close() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	var err error
	for src, v := range g.views {
		err = errors.Join(err, v.Close())
		delete(g.views, src)
	}
	return err
}
