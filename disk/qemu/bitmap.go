package qemu

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"

	"github.com/diskvault/diskvault/base/problem"
)

// bitmap is the machine's record of the changes to a node.
type bitmap struct {
	Name         string `json:"name"`
	Recording    bool   `json:"recording"`
	Persistent   bool   `json:"persistent"`
	Busy         bool   `json:"busy"`
	Inconsistent bool   `json:"inconsistent"` // the machine ended without storing it
}

// action is a part of a transaction.
type action struct {
	Type string `json:"type"`
	Data any    `json:"data"`
}

type bitmapName struct {
	Node string `json:"node"`
	Name string `json:"name"`
}

// granularity is how many bytes one bit stands for: a block of the store, and a
// cluster of a qcow2 file.
const granularity = 64 << 10

// recordPrefix begins the names of an owner's bitmaps.
func recordPrefix(owner string) string {
	sum := sha256.Sum256([]byte(owner))
	return prefix + hex.EncodeToString(sum[:6]) + "-"
}

func bitmapAdd(d Disk, name string) action {
	return action{"block-dirty-bitmap-add", map[string]any{
		"node": d.node, "name": name, "granularity": granularity, "persistent": d.persistent,
	}}
}

func bitmapAction(verb string, d Disk, name string) action {
	return action{"block-dirty-bitmap-" + verb, bitmapName{d.node, name}}
}

func (m *Machine) transact(ctx context.Context, actions ...action) error {
	if len(actions) == 0 {
		return nil
	}
	return m.monitor.run(ctx, "transaction", map[string]any{"actions": actions}, nil)
}

// records are an owner's bitmaps of a disk. Those that the machine could not
// keep are removed, and counted in lost.
func (m *Machine) records(ctx context.Context, d Disk) (good []string, lost int, err error) {
	g, err := m.graph(ctx)
	if err != nil {
		return nil, 0, err
	}
	for _, b := range g.nodes[d.node].Bitmaps {
		if !strings.HasPrefix(b.Name, recordPrefix(d.Owner)) {
			continue
		}
		if !b.Inconsistent {
			good = append(good, b.Name)
			continue
		}
		lost++
		if err := m.monitor.run(ctx, "block-dirty-bitmap-remove", bitmapName{d.node, b.Name}, nil); err != nil {
			return nil, 0, err
		}
	}
	return good, lost, nil
}

// Forget removes all records of changes of the disk's owner. It waits for a Cut of
// the machine by this process to end.
func (m *Machine) Forget(ctx context.Context, d Disk) error {
	select {
	case m.cutting <- struct{}{}:
		defer func() { <-m.cutting }()
	case <-ctx.Done():
		return problem.From(context.Cause(ctx))
	}
	all, _, err := m.records(ctx, d)
	if err == nil {
		var todo []action
		for _, name := range all {
			todo = append(todo, bitmapAction("remove", d, name))
		}
		err = m.transact(ctx, todo...)
	}
	return m.failed(err, "did not give up its record of changes")
}

// settle leaves one record of a disk: after success the new one, after a
// failure an old one that has taken in what the new one knows. Without an old
// one a failure leaves none: nothing could be compared with it.
func (m *Machine) settle(ctx context.Context, s *Slice, success bool) error {
	var todo []action
	switch {
	case success:
		for _, old := range s.older {
			todo = append(todo, bitmapAction("remove", s.Disk, old))
		}
	case len(s.older) == 0:
		todo = append(todo, bitmapAction("remove", s.Disk, s.bitmap))
	default:
		// Enabled first: what is written from here on is in the old one, what was
		// written before it comes over from the new one.
		todo = append(todo, bitmapAction("enable", s.Disk, s.older[0]),
			action{"block-dirty-bitmap-merge", map[string]any{"node": s.node, "target": s.older[0], "bitmaps": []string{s.bitmap}}},
			bitmapAction("remove", s.Disk, s.bitmap))
	}
	err := m.transact(ctx, todo...)
	if isRefused(err) {
		return fmt.Errorf("the record of changes of %s cannot be settled: %w", s.Name, err)
	}
	return err
}
