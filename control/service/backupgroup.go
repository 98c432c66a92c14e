package service

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"slices"
	"strings"
	"sync"

	"github.com/diskvault/diskvault/base/problem"
	"github.com/diskvault/diskvault/control/catalog"
	"github.com/diskvault/diskvault/control/home"
	"github.com/diskvault/diskvault/control/job"
	"github.com/diskvault/diskvault/control/resource"
	"github.com/diskvault/diskvault/disk"
	"github.com/diskvault/diskvault/disk/capture"
)

// part is one disk of a consistency group on its way.
type part struct {
	request  BackupRequest
	source   *disk.Source
	instance resource.Instance
	made     *Created
	result   GroupMember
}

// backupGroup is the use case of Client.BackupGroup. What fails before the
// moment in common fails all, since nothing is lost yet. After it each disk is
// on its own: the moment is past, so the points of the others are kept.
func (s *Service) backupGroup(ctx context.Context, c call, r BackupGroupRequest) ([]GroupMember, error) {
	parts, err := s.parts(ctx, r)
	if err != nil {
		return nil, err
	}
	failed, err := s.backupParts(ctx, c, parts)
	if err != nil {
		return nil, err
	}
	var out []GroupMember
	for n, p := range parts {
		if failed[n] != nil {
			p.result.Status, p.result.Error = resource.Failed, resource.FailureOf(failed[n])
		} else {
			s.copyAfter(ctx, p.call(c), &p.result.BackupResult)
		}
		out = append(out, p.result)
	}
	return out, s.completeGroup(ctx, parts, out)
}

// backupParts runs a job for each disk and says which failed. It is an error if
// all did.
func (s *Service) backupParts(ctx context.Context, c call, parts []*part) (failed []error, err error) {
	var group *meeting
	var release []func()
	defer func() {
		for _, free := range slices.Backward(release) {
			free()
		}
	}()
	// The first job waits for the turn of all, and takes the locks of all: disks
	// that wait for each other must not wait for what they hold themselves.
	begun, over := make(chan struct{}), make(chan struct{})
	failed = make([]error, len(parts))
	var work sync.WaitGroup
	work.Go(func() {
		defer close(over)
		failed[0] = s.jobs.Do(ctx, c.spec(resource.OperationBackup), func(ctx context.Context, run *job.Run) (job.Outcome, error) {
			s.use.RLock()
			release = append(release, s.use.RUnlock)
			unlock, err := s.lockParts(ctx, parts)
			if err != nil {
				return job.Outcome{}, err
			}
			release = append(release, unlock)
			for _, p := range parts {
				if p.instance, p.made, err = s.instanceFor(ctx, p.call(c), p.request, p.source); err != nil {
					return job.Outcome{}, err
				}
			}
			group = newMeeting(ctx, parts)
			close(begun)
			return s.backupPart(ctx, c, parts[0], group, run)
		})
	})
	select {
	case <-begun:
	case <-over:
		return nil, failed[0]
	}
	for n, p := range parts[1:] {
		spec := c.spec(resource.OperationBackup)
		spec.InstanceID, spec.Instance, spec.Upkeep = p.instance.ID, p.instance.Name, true
		work.Go(func() {
			err := s.jobs.Do(ctx, spec, func(ctx context.Context, run *job.Run) (job.Outcome, error) {
				return s.backupPart(ctx, c, p, group, run)
			})
			if failed[n+1] = err; err != nil {
				group.leave(p.source, err) // if the job did not even begin
			}
		})
	}
	work.Wait()
	if err := group.close(); err != nil {
		return nil, err
	}
	if !slices.Contains(failed, nil) {
		return nil, failed[group.culprit(parts)]
	}
	return failed, nil
}

// backupPart is the job of one disk of a group.
func (s *Service) backupPart(ctx context.Context, c call, p *part, group *meeting, run *job.Run) (job.Outcome, error) {
	defer s.front.Enter(run.ID)()
	result, err := s.backupInstance(ctx, p.call(c), p.request, p.source, run, p.instance, p.made, group)
	p.result.BackupResult = result
	if err != nil {
		group.leave(p.source, err)
	}
	return job.Outcome{Result: result, Warnings: result.Status == resource.CompletedWithWarnings}, err
}

// call is the call for one disk: its notices are told with its result as well.
func (p *part) call(c call) call {
	emit := c.emit
	c.emit = func(e home.Event) {
		if e.Notice != nil {
			p.result.Notices = append(p.result.Notices, *e.Notice)
		}
		emit(e)
	}
	return c
}

// parts finds the disks of a group, and refuses those that have no moment in
// common.
func (s *Service) parts(ctx context.Context, r BackupGroupRequest) ([]*part, error) {
	var parts []*part
	var sources []*disk.Source
	for _, d := range r.Disks {
		p := &part{request: r.BackupRequest}
		p.request.Disk, p.request.Path = d.Disk, d.Path
		path, _, err := s.diskPath(ctx, p.request)
		if err != nil {
			return nil, err
		}
		if p.source, err = disk.Probe(ctx, path); err != nil {
			return nil, err
		}
		parts, sources = append(parts, p), append(sources, p.source)
	}
	return parts, capture.Groupable(sources...)
}

// lockParts takes the locks of all disks, in an order that all groups have.
func (s *Service) lockParts(ctx context.Context, parts []*part) (unlock func(), err error) {
	var locks []func()
	unlock = func() {
		for _, free := range locks {
			free()
		}
	}
	sorted := slices.SortedFunc(slices.Values(parts), func(a, b *part) int { return strings.Compare(a.source.Path, b.source.Path) })
	for _, p := range sorted {
		free, err := s.disks.lock(ctx, p.source.Path)
		if err != nil {
			unlock()
			return nil, err
		}
		locks = append(locks, free)
	}
	return unlock, nil
}

// completeGroup says in the results what became of the group in the end.
func (s *Service) completeGroup(ctx context.Context, parts []*part, out []GroupMember) error {
	ctx = context.WithoutCancel(ctx) // the points exist
	for n, p := range parts {
		if out[n].Error != nil {
			continue
		}
		points, err := s.view(ctx, p.instance.ID)
		if err != nil {
			return err
		}
		for _, v := range points {
			if v.ID == out[n].RecoveryPoint.ID {
				out[n].RecoveryPoint.Group = v.Group
			}
		}
	}
	return nil
}

// grouped says of points to which consistency groups they belong, and whether
// each disk of those has its point.
func (s *Service) grouped(ctx context.Context, points []catalog.Point, out []resource.RecoveryPoint) error {
	has := map[string]map[string]bool{} // groups by instance
	names := map[string]string{}
	for n, p := range points {
		if p.Group == "" {
			continue
		}
		g := &resource.ConsistencyGroup{ID: p.Group, Disks: len(p.GroupInstances)}
		for _, id := range p.GroupInstances {
			if has[id] == nil {
				var err error
				if has[id], names[id], err = s.groupsOf(ctx, id); err != nil {
					return err
				}
			}
			if !has[id][p.Group] {
				g.Missing = append(g.Missing, names[id])
			}
		}
		g.Complete = len(g.Missing) == 0
		out[n].Group = g
	}
	return nil
}

// groupsOf gives the consistency groups of which an instance has points, and its
// name.
func (s *Service) groupsOf(ctx context.Context, id string) (groups map[string]bool, name string, err error) {
	groups, name = map[string]bool{}, id
	points, err := s.catalog.Points(ctx, id)
	for _, p := range points {
		groups[p.Group] = true
	}
	found, foundErr := s.catalog.InstancesNamed(ctx, id)
	for _, i := range found {
		if i.ID == id {
			name = i.Name
		}
	}
	return groups, name, errors.Join(err, foundErr)
}

// meeting is the Capturer of all disks of a group. The last that comes takes the
// moment for all, so that none is held while another disk still prepares.
type meeting struct {
	id        string
	instances []string // IDs, of all disks
	ctx       context.Context
	members   []capture.Member
	held      chan struct{} // closed when the moment was taken, or will not be

	mu    sync.Mutex
	come  map[*disk.Source]bool
	cause *disk.Source // whose failure ended the meeting; nil: none
	err   error        // why there is no moment; like group set before held is closed
	group *capture.Group
}

func newMeeting(ctx context.Context, parts []*part) *meeting {
	id := make([]byte, 16)
	rand.Read(id)
	m := &meeting{id: hex.EncodeToString(id), ctx: ctx, held: make(chan struct{}), come: map[*disk.Source]bool{}}
	for _, p := range parts {
		m.instances = append(m.instances, p.instance.ID)
		m.members = append(m.members, capture.Member{Source: p.source, Owner: p.instance.ID})
	}
	return m
}

// Capture implements capture.Capturer.
func (m *meeting) Capture(ctx context.Context, src *disk.Source) (capture.View, error) {
	m.mu.Lock()
	m.come[src] = true
	if m.group == nil && m.err == nil && len(m.come) == len(m.members) {
		if m.group, m.err = capture.NewGroup(m.ctx, m.members...); m.err != nil {
			m.cause = src
		}
		close(m.held)
	}
	m.mu.Unlock()
	select {
	case <-m.held:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	if m.err != nil {
		return nil, m.err
	}
	return m.group.Capture(ctx, src)
}

// leave ends the meeting if a disk fails before the moment.
func (m *meeting) leave(src *disk.Source, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.group != nil || m.err != nil {
		return
	}
	m.cause = src
	m.err = problem.Wrap(err, problem.From(err).Code, "No disk of the group was backed up, since the backup of %s failed before the moment in common.", src.Path)
	close(m.held)
}

// culprit is the disk whose error tells best why none was backed up.
func (m *meeting) culprit(parts []*part) int {
	return max(0, slices.IndexFunc(parts, func(p *part) bool { return p.source == m.cause }))
}

// close gives up what no disk took of the moment. Call it when all have ended.
func (m *meeting) close() error {
	if m.group == nil {
		return nil
	}
	return m.group.Close()
}
