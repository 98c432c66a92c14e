package rbd

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"time"

	"github.com/diskvault/diskvault/base/extent"
	"github.com/diskvault/diskvault/base/problem"
)

// Image is an RBD image, as it was when it was asked for.
type Image struct {
	Address  Address
	Size     int64    // bytes
	Features []string // such as "fast-diff"
}

// FastDiff tells whether the cluster knows which objects differ between two
// snapshots, so that only those are looked into.
func (i Image) FastDiff() bool {
	for _, f := range i.Features {
		if f == "fast-diff" {
			return true
		}
	}
	return false
}

// Open asks for an image. Errors are problems: SourceNotFound,
// SourcePermissionDenied, ToolMissing, SourceReadFailed.
func Open(ctx context.Context, a Address) (Image, error) {
	i := Image{Address: a}
	err := a.ask(ctx, &i, "info", "--format", "json", a.Spec())
	return i, err
}

// snapshotPrefix begins the names of all snapshots of an owner.
func snapshotPrefix(owner string) string {
	sum := sha256.Sum256([]byte(owner))
	return "diskvault-" + hex.EncodeToString(sum[:6]) + "-"
}

// Snapshot takes a snapshot for an owner, any text, and gives its name. It is of
// one moment: writes that Ceph acknowledged before it are in, later ones are not.
func (i Image) Snapshot(ctx context.Context, owner string) (string, error) {
	b := make([]byte, 8)
	rand.Read(b)
	name := snapshotPrefix(owner) + hex.EncodeToString(b)
	_, err := i.Address.run(ctx, "snap", "create", "--no-progress", i.Address.Spec()+"@"+name)
	return name, err
}

// Snapshots are the names of an owner's snapshots.
func (i Image) Snapshots(ctx context.Context, owner string) ([]string, error) {
	var all []struct {
		Name string `json:"name"`
	}
	if err := i.Address.ask(ctx, &all, "snap", "ls", "--format", "json", i.Address.Spec()); err != nil {
		return nil, err
	}
	var out []string
	for _, s := range all {
		if strings.HasPrefix(s.Name, snapshotPrefix(owner)) {
			out = append(out, s.Name)
		}
	}
	return out, nil
}

// Remove removes a snapshot.
func (i Image) Remove(ctx context.Context, name string) error {
	_, err := i.Address.run(ctx, "snap", "rm", "--no-progress", i.Address.Spec()+"@"+name)
	return err
}

// Diff gives the ranges that may differ between two snapshots, within a size.
// Ceph may name more than what was written, never less.
func (i Image) Diff(ctx context.Context, from, to string, size int64) (extent.Set, error) {
	out, err := i.Address.run(ctx, "diff", "--format", "json", "--from-snap", from, i.Address.Spec()+"@"+to)
	if err != nil {
		return nil, err
	}
	set, err := parseDiff(out, size)
	if err != nil {
		return nil, problem.Wrap(err, problem.SourceReadFailed, "What `rbd diff` says of %s cannot be understood.", i.Address.Spec())
	}
	return set, nil
}

// parseDiff reads what `rbd diff --format json` prints. Ranges that do not
// exist any more count: they have become zeros.
func parseDiff(out []byte, size int64) (extent.Set, error) {
	var all []struct {
		Offset *int64 `json:"offset"`
		Length *int64 `json:"length"`
	}
	if err := json.Unmarshal(out, &all); err != nil {
		return nil, err
	}
	var ranges []extent.Range
	for _, e := range all {
		if e.Offset == nil || e.Length == nil || *e.Offset < 0 || *e.Length < 0 || *e.Offset+*e.Length < *e.Offset {
			return nil, errors.New("a range without a place")
		}
		r := extent.Range{Off: *e.Offset, Len: *e.Length}
		ranges = append(ranges, r.Intersect(extent.Range{Len: size}))
	}
	return extent.Of(ranges...), nil
}

// ask runs `rbd` and reads its answer.
func (a Address) ask(ctx context.Context, into any, args ...string) error {
	out, err := a.run(ctx, args...)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(out, into); err != nil {
		return problem.Wrap(err, problem.SourceReadFailed, "What `rbd %s` says of %s cannot be understood.", args[0], a.Spec())
	}
	return nil
}

// patience is how long one call may take. A cluster without its monitors lets
// `rbd` wait for ever.
const patience = 2 * time.Minute

// run runs `rbd` and gives what it prints. Errors are problems.
func (a Address) run(ctx context.Context, args ...string) ([]byte, error) {
	var common []string
	if a.Conf != "" {
		common = append(common, "--conf", a.Conf)
	}
	if a.User != "" {
		common = append(common, "--id", a.User)
	}
	limited, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	command := exec.CommandContext(limited, "rbd", append(common, args...)...)
	var out, said bytes.Buffer
	command.Stdout, command.Stderr = &out, &said
	err := command.Run()
	switch exit := (*exec.ExitError)(nil); {
	case err == nil:
		return out.Bytes(), nil
	case ctx.Err() != nil:
		return nil, problem.From(context.Cause(ctx))
	case errors.Is(err, exec.ErrNotFound):
		return nil, problem.Wrap(err, problem.ToolMissing, "Ceph's program `rbd` is not installed.").
			Do("Install it: the package ceph-common of Debian, Ubuntu and others.")
	case limited.Err() != nil:
		return nil, problem.Wrap(err, problem.SourceReadFailed, "The Ceph cluster of %s did not answer within %v.", a.Spec(), patience).
			Do("Look at `ceph status`, then run again.")
	case errors.As(err, &exit):
		return nil, a.refused(exit.ExitCode(), lastLine(said.String()))
	}
	return nil, problem.Wrap(err, problem.SourceReadFailed, "`rbd` cannot be run.")
}

// refused explains an exit status, which is the number of the system's error.
func (a Address) refused(status int, said string) error {
	cause := errors.New(said)
	switch status {
	case 2: // ENOENT
		return problem.Wrap(cause, problem.SourceNotFound, "Ceph has no image %s, or not what is asked of it.", a.Spec()).
			Do("Check the name with `rbd ls`, and that conf= and user= are those of the cluster.")
	case 1, 13: // EPERM, EACCES
		return problem.Wrap(cause, problem.SourcePermissionDenied, "Ceph does not allow this for %s.", a.Spec()).
			Do("Give the Ceph user the capability `profile rbd` for the pool.")
	}
	return problem.Wrap(cause, problem.SourceReadFailed, "`rbd` failed with status %d for %s.", status, a.Spec())
}

func lastLine(text string) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return fmt.Sprintf("%.300s", lines[len(lines)-1])
}
