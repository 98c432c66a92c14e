package qemu

import (
	"context"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// sweep removes all that a Cut puts into a machine but the records of changes:
// exports, jobs, filters, fleeces, the NBD server. It goes by what it finds
// there, so it does the same for the run that ends, the run that fails, and the
// run that was killed before.
func (m *Machine) sweep(ctx context.Context) error {
	if err := m.sweepExports(ctx, prefix); err != nil {
		return err
	}
	if err := m.sweepJobs(ctx); err != nil {
		return err
	}
	g, err := m.graph(ctx)
	if err != nil {
		return err
	}
	if !slices.ContainsFunc(slices.Collect(maps.Keys(g.nodes)), ours) {
		return m.stopServing(ctx)
	}
	if err := m.remove(ctx, g, "-snap"); err != nil {
		return err
	}
	// Back to how it was: whoever was switched onto a filter goes to what the
	// filter stands on.
	var switches []any
	for filter := range g.nodes {
		if ours(filter) && strings.HasSuffix(filter, "-cbw") {
			for _, user := range g.above[filter] {
				if !strings.HasSuffix(user, "-snap") {
					switches = append(switches, reroute(user, g.below[filter]["file"]))
				}
			}
		}
	}
	if len(switches) > 0 {
		if err := m.monitor.run(ctx, "blockdev-reopen", map[string]any{"options": switches}, nil); err != nil {
			return err
		}
	}
	if err := m.remove(ctx, g, "-cbw", "-fleece", "-file"); err != nil {
		return err
	}
	if g, err = m.graph(ctx); err != nil {
		return err
	}
	drives, err := m.drives(ctx)
	if err != nil {
		return err
	}
	for _, d := range drives {
		if ours(d.Inserted.Node) {
			if err := m.point(ctx, d.Path, g.below[d.Inserted.Node]["file"]); err != nil {
				return err
			}
		}
	}
	if err := m.remove(ctx, g, "-top"); err != nil {
		return err
	}
	return m.stopServing(ctx)
}

// remove deletes our nodes with names of these endings, in this order.
func (m *Machine) remove(ctx context.Context, g graph, endings ...string) error {
	for _, ending := range endings {
		for name := range g.nodes {
			if !ours(name) || !strings.HasSuffix(name, ending) {
				continue
			}
			if err := m.monitor.run(ctx, "blockdev-del", map[string]any{"node-name": name}, nil); err != nil {
				return err
			}
		}
	}
	return nil
}

// sweepExports ends the exports whose names begin so, whoever reads them.
func (m *Machine) sweepExports(ctx context.Context, start string) error {
	return m.until(ctx, func() (bool, error) {
		var exports []struct {
			ID           string `json:"id"`
			ShuttingDown bool   `json:"shutting-down"`
		}
		if err := m.monitor.run(ctx, "query-block-exports", nil, &exports); err != nil {
			return false, err
		}
		none := true
		for _, e := range exports {
			if !strings.HasPrefix(e.ID, start) {
				continue
			}
			none = false
			if e.ShuttingDown {
				continue
			}
			if err := m.monitor.run(ctx, "block-export-del", map[string]any{"id": e.ID, "mode": "hard"}, nil); err != nil {
				return false, err
			}
		}
		return none, nil
	})
}

// sweepJobs ends our jobs.
func (m *Machine) sweepJobs(ctx context.Context) error {
	asked := map[string]bool{}
	return m.until(ctx, func() (bool, error) {
		var jobs []struct {
			ID     string `json:"id"`
			Status string `json:"status"`
		}
		if err := m.monitor.run(ctx, "query-jobs", nil, &jobs); err != nil {
			return false, err
		}
		none := true
		for _, j := range jobs {
			if !ours(j.ID) {
				continue
			}
			none = false
			command := "job-cancel"
			if j.Status == "concluded" {
				command = "job-dismiss"
			}
			if asked[command+j.ID] {
				continue
			}
			asked[command+j.ID] = true
			err := m.monitor.run(ctx, command, map[string]any{"id": j.ID}, nil)
			if isRefused(err) {
				continue // it ended by itself in between; looked at again
			} else if err != nil {
				return false, err
			}
		}
		return none, nil
	})
}

// until asks again and again, since what takes time inside the machine has no
// answer of its own.
func (m *Machine) until(ctx context.Context, done func() (bool, error)) error {
	for wait := time.Millisecond; ; wait = min(2*wait, 100*time.Millisecond) {
		ok, err := done()
		if ok || err != nil {
			return err
		}
		select {
		case <-time.After(wait):
		case <-m.monitor.done:
			return m.monitor.ended()
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func (m *Machine) add(ctx context.Context, options map[string]any) error {
	return m.monitor.run(ctx, "blockdev-add", options, nil)
}

// point lets a device use another node.
func (m *Machine) point(ctx context.Context, device, node string) error {
	return m.monitor.run(ctx, "qom-set", map[string]any{"path": device, "property": "drive", "value": node}, nil)
}

// sweepFleeces removes fleeces of this machine that a killed run left in a
// folder: those that the machine has open have no name any more.
func (m *Machine) sweepFleeces(folder string) error {
	left, err := filepath.Glob(filepath.Join(folder, m.fleecePattern()))
	for _, path := range left {
		err = errors.Join(err, os.Remove(path))
	}
	return err
}

func (m *Machine) fleecePattern() string { return ".diskvault-" + m.tag() + "-*.fleece" }
