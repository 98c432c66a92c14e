package service

import (
	"context"
	"errors"
	"fmt"
	"path"
	"sort"
	"strings"
	"time"

	"github.com/diskvault/diskvault/base/problem"
	"github.com/diskvault/diskvault/control/catalog"
	"github.com/diskvault/diskvault/control/job"
	"github.com/diskvault/diskvault/control/resource"
	"github.com/diskvault/diskvault/engine/attach/files"
	"github.com/diskvault/diskvault/engine/attach/fuse"
	"github.com/diskvault/diskvault/engine/attach/image"
	"github.com/diskvault/diskvault/store"
)

// MountRequest asks for a folder that shows a recovery point.
type MountRequest struct {
	PointsRequest
	Point  string        `json:"point,omitempty"` // ID, its beginning, a time, or latest
	Dir    string        `json:"dir"`             // absolute path of an empty folder, or of none
	Others bool          `json:"others,omitempty"`
	For    time.Duration `json:"for,omitempty"` // 0: until somebody ends it
}

// MountResult tells what a mount was, when it has ended.
type MountResult struct {
	JobID           string    `json:"jobId"`
	Instance        string    `json:"instance"`
	Point           string    `json:"point"`
	PointTime       time.Time `json:"pointTime"`
	Dir             string    `json:"dir"`
	DurationSeconds float64   `json:"durationSeconds"`
}

// ListFilesRequest asks what is in a folder of a recovery point.
type ListFilesRequest struct {
	PointsRequest
	Point string `json:"point,omitempty"`
	Path  string `json:"filePath"` // /VOLUME/PATH; / for the volumes
}

// ListFilesResult is a folder, or one file, or the volumes of a disk.
type ListFilesResult struct {
	Instance  string          `json:"instance"`
	Point     string          `json:"point"`
	PointTime time.Time       `json:"pointTime"`
	Path      string          `json:"path"`
	Volumes   []*files.Volume `json:"volumes,omitempty"` // of the path /
	Files     []File          `json:"files,omitempty"`   // by name
	// Stale says what may be missing in the file system.
	Stale string `json:"stale,omitempty"`
}

// File is a file or folder in a recovery point.
type File struct {
	Name     string    `json:"name"`
	Kind     string    `json:"kind"` // file, folder, link, device, pipe, socket, or unreadable
	Mode     string    `json:"mode"` // as ls -l shows it
	UID      uint32    `json:"uid"`
	GID      uint32    `json:"gid"`
	Links    uint32    `json:"links"`
	Size     int64     `json:"size"`
	Modified time.Time `json:"modified,omitzero"`
	Target   string    `json:"target,omitempty"` // of a link
	Error    string    `json:"error,omitempty"`
}

// CopyFilesRequest asks for files of a recovery point.
type CopyFilesRequest struct {
	ListFilesRequest
	To        string `json:"to"` // absolute path
	Overwrite bool   `json:"overwrite,omitempty"`
}

// CopyFilesResult tells what was copied.
type CopyFilesResult struct {
	JobID     string    `json:"jobId"`
	Instance  string    `json:"instance"`
	Point     string    `json:"point"`
	PointTime time.Time `json:"pointTime"`
	files.Report
	Warnings        []string `json:"warnings,omitempty"`
	DurationSeconds float64  `json:"durationSeconds"`
}

// attached is a point that is being read, in a store opened for it alone: an
// attachment can last for days, in which the local index may be made anew.
type attached struct {
	instance string
	point    catalog.Point
	image    *image.Image
	close    []func()
}

func (a *attached) end() {
	for i := len(a.close) - 1; i >= 0; i-- {
		a.close[i]()
	}
}

// attach opens a point. With a purpose the point is held in the store, so that
// a collection leaves its data alone although the point is deleted.
func (s *Service) attach(ctx context.Context, r PointsRequest, which, purpose string) (a *attached, err error) {
	sel, err := s.selectPoints(ctx, r)
	if err != nil {
		return nil, err
	}
	a = &attached{instance: sel.instance}
	defer func() {
		if err != nil {
			a.end()
			a = nil
		}
	}()
	if a.point, err = choose(sel.points, sel.instance, which); err != nil {
		return a, err
	}
	at, err := sel.locate(ctx, s, a.point, r.Key)
	if err != nil {
		return a, err
	}
	a.point.Point = at.point
	st, err := s.stores.alone(ctx, at.store.URL(), r.Key)
	if err != nil {
		return a, err
	}
	a.close = append(a.close, func() { _ = st.Close() })
	if purpose != "" {
		hold, err := st.Hold(ctx, a.point.Point, purpose)
		if problem.Is(err, problem.RecoveryPointNotFound) || ctx.Err() != nil {
			return a, err
		}
		if err == nil { // else the store may not be written to, and is read all the same
			a.close = append(a.close, func() { hold.Release(ctx) })
		}
	}
	source, err := st.Image(a.point.Point)
	if err != nil {
		return a, err
	}
	a.image = image.Open(source, st.BlockSize(), image.Options{})
	a.close = append(a.close, func() { _ = a.image.Close() })
	return a, nil
}

// alone opens a store for one reader, without the local index; who asks closes it.
func (p *stores) alone(ctx context.Context, url, key string) (*store.Store, error) {
	b, err := openBucket(ctx, url)
	if err != nil {
		return nil, err
	}
	h, err := store.Identify(ctx, b)
	if err != nil {
		return nil, errors.Join(err, b.Close())
	}
	k, _, err := p.key(h, url, key)
	if err != nil {
		return nil, errors.Join(err, b.Close())
	}
	st, err := store.Open(ctx, b, k, store.OpenOptions{})
	if err != nil {
		return nil, errors.Join(err, b.Close())
	}
	return st, nil
}

// beside makes the spec of a job that does not wait for others: who wants a
// file back has waited long enough.
func (c call) beside(operation string, a *attached) job.Spec {
	spec := c.spec(operation)
	spec.Upkeep = true
	spec.InstanceID, spec.Instance = a.point.Instance, a.instance
	return spec
}

// mount is the use case of Client.Mount.
func (s *Service) mount(ctx context.Context, c call, r MountRequest) (MountResult, error) {
	var result MountResult
	if swept, _ := fuse.Sweep(); len(swept) > 0 { // what cannot be swept is in nobody's way
		c.notice(resource.Notice{Message: "What an earlier process had left mounted was unmounted: " + strings.Join(swept, ", ") + "."})
	}
	a, err := s.attach(ctx, r.PointsRequest, r.Point, "mount")
	if err != nil {
		return result, err
	}
	defer a.end()
	err = s.jobs.Do(ctx, c.beside(resource.OperationAttach, a), func(ctx context.Context, run *job.Run) (job.Outcome, error) {
		started := time.Now()
		m, err := fuse.New(fuse.Options{Dir: r.Dir, Disk: a.image, Time: a.point.Time, Others: r.Others})
		if err != nil {
			return job.Outcome{}, err
		}
		run.Meter.Phase("attached")
		c.notice(resource.Notice{
			Message:           fmt.Sprintf("%s as of %s UTC is mounted at %s: disk.img, and its files in files/.", a.instance, a.point.Time.UTC().Format("2006-01-02 15:04:05"), r.Dir),
			RecommendedAction: "Unmount it or press Ctrl-C when it is no longer needed.",
		})
		var over <-chan time.Time
		if r.For > 0 {
			timer := time.NewTimer(r.For)
			defer timer.Stop()
			over = timer.C
		}
		select {
		case <-ctx.Done():
		case <-m.Done():
		case <-over:
		}
		if err := m.Close(); err != nil {
			return job.Outcome{}, problem.Wrap(err, problem.MountFailed, "The mount at %s could not be ended.", r.Dir).Do("Unmount it: umount -l " + r.Dir)
		}
		result = MountResult{
			JobID: run.ID, Instance: a.instance, Point: a.point.ID, PointTime: a.point.Time, Dir: r.Dir, DurationSeconds: time.Since(started).Seconds(),
		}
		return job.Outcome{Result: result}, nil
	})
	return result, err
}

// volume finds the volume that a path leads into, and the path within it.
func volume(ctx context.Context, a *attached, name string) (fs *files.FS, rest string, all []*files.Volume, err error) {
	if all, err = files.Volumes(ctx, a.image, a.image.Size()); err != nil {
		return nil, "", nil, err
	}
	first, rest, _ := strings.Cut(strings.TrimLeft(name, "/"), "/")
	if first == "" {
		return nil, "", all, nil
	}
	v, err := files.Find(all, first)
	if err != nil {
		return nil, "", all, err
	}
	fs, err = v.Files()
	return fs, "/" + rest, all, err
}

// listFiles is the use case of Client.ListFiles.
func (s *Service) listFiles(ctx context.Context, _ call, r ListFilesRequest) (ListFilesResult, error) {
	a, err := s.attach(ctx, r.PointsRequest, r.Point, "")
	if err != nil {
		return ListFilesResult{}, err
	}
	defer a.end()
	result := ListFilesResult{Instance: a.instance, Point: a.point.ID, PointTime: a.point.Time, Path: path.Clean("/" + r.Path)}
	fs, rest, all, err := volume(ctx, a, r.Path)
	if err != nil {
		return result, err
	}
	if fs == nil {
		result.Volumes = all
		return result, nil
	}
	result.Stale = fs.Volume().Stale
	attr, err := fs.Find(rest)
	if err != nil {
		return result, err
	}
	if attr.Kind != files.Directory {
		result.Files = []File{view(fs, path.Base(rest), attr, nil)}
		return result, nil
	}
	entries, _, err := fs.List(attr.Ino)
	if err != nil {
		return result, err
	}
	sort.Slice(entries, func(i, j int) bool { return entries[i].Name < entries[j].Name })
	for _, e := range entries {
		if ctx.Err() != nil {
			return result, context.Cause(ctx)
		}
		attr, err := fs.Attr(e.Ino)
		result.Files = append(result.Files, view(fs, e.Name, attr, err))
	}
	return result, nil
}

// view is a file as people see it.
func view(fs *files.FS, name string, a files.Attr, err error) File {
	f := File{Name: name, UID: a.UID, GID: a.GID, Links: a.Links, Size: a.Size, Modified: a.Modified}
	letter := byte('?')
	switch a.Kind {
	case files.Regular:
		f.Kind, letter = "file", '-'
	case files.Directory:
		f.Kind, letter = "folder", 'd'
	case files.Symlink:
		f.Kind, letter = "link", 'l'
		if err == nil {
			f.Target, err = fs.Link(a.Ino)
		}
	case files.CharDevice:
		f.Kind, letter = "device", 'c'
	case files.BlockDevice:
		f.Kind, letter = "device", 'b'
	case files.Pipe:
		f.Kind, letter = "pipe", 'p'
	case files.Socket:
		f.Kind, letter = "socket", 's'
	}
	f.Mode = string(letter) + rights(a.Mode)
	if err != nil {
		f.Kind, f.Error = "unreadable", err.Error()
	}
	return f
}

// rights writes a mode as ls does.
func rights(mode uint32) string {
	text := []byte("rwxrwxrwx")
	for i := range text {
		if mode>>(8-i)&1 == 0 {
			text[i] = '-'
		}
	}
	for _, special := range []struct {
		bit uint32
		at  int
		set string // instead of x, and instead of -
	}{{0o4000, 2, "sS"}, {0o2000, 5, "sS"}, {0o1000, 8, "tT"}} {
		switch {
		case mode&special.bit == 0:
		case text[special.at] == 'x':
			text[special.at] = special.set[0]
		default:
			text[special.at] = special.set[1]
		}
	}
	return string(text)
}

// copyFiles is the use case of Client.CopyFiles.
func (s *Service) copyFiles(ctx context.Context, c call, r CopyFilesRequest) (CopyFilesResult, error) {
	var result CopyFilesResult
	a, err := s.attach(ctx, r.PointsRequest, r.Point, "copy of files")
	if err != nil {
		return result, err
	}
	defer a.end()
	err = s.jobs.Do(ctx, c.beside(resource.OperationCopyFiles, a), func(ctx context.Context, run *job.Run) (job.Outcome, error) {
		started := time.Now()
		fs, rest, all, err := volume(ctx, a, r.ListFilesRequest.Path)
		if err == nil && fs == nil {
			_, err = files.Find(all, "")
		}
		if err != nil {
			return job.Outcome{}, err
		}
		attr, err := fs.Find(rest)
		if err != nil {
			return job.Outcome{}, err
		}
		var p files.Progress
		total := int64(0) // of a folder nobody knows it
		if attr.Kind == files.Regular {
			total = attr.Size
		}
		run.Meter.Phase("transfer")
		run.Follow(func() resource.Progress {
			done := p.Bytes.Load()
			return resource.Progress{Phase: "transfer", Done: done, Total: total, Rate: float64(done) / max(time.Since(started).Seconds(), 0.001)}
		})
		report, err := fs.Copy(ctx, rest, r.To, r.Overwrite, &p)
		if err != nil {
			if ctx.Err() != nil && errors.Is(err, context.Canceled) {
				err = problem.Wrap(context.Canceled, problem.OperationInterrupted, "The copy of files of %s to %s was interrupted after %d files; those are whole.", a.instance, r.To, p.Files.Load())
			}
			return job.Outcome{}, err
		}
		result = CopyFilesResult{JobID: run.ID, Instance: a.instance, Point: a.point.ID, PointTime: a.point.Time, Report: report, DurationSeconds: time.Since(started).Seconds()}
		if stale := fs.Volume().Stale; stale != "" {
			result.Warnings = append(result.Warnings, "The file system "+fs.Volume().Name+" may not be complete: "+stale+".")
		}
		if report.NotKept > 0 {
			result.Warnings = append(result.Warnings, fmt.Sprintf("Of %d files the target did not take the owner, an attribute or the time.", report.NotKept))
		}
		if report.FailedCount > 0 {
			result.Warnings = append(result.Warnings, fmt.Sprintf("%d files could not be copied, as %s: %s", report.FailedCount, report.Failed[0].Path, report.Failed[0].Reason))
		}
		return job.Outcome{Result: result, Warnings: len(result.Warnings) > 0}, nil
	})
	return result, err
}
