// Package lvm takes snapshots of LVM thin volumes, and tells from the pool's
// metadata what differs between two of them. It calls LVM's own programs, and
// thin_delta of the thin-provisioning-tools.
package lvm

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
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/diskvault/diskvault/base/problem"
)

// Scheme begins the name of a thin volume: lvm:GROUP/VOLUME.
const Scheme = "lvm"

// Volume is a thin volume or a snapshot of one, as it was when it was asked for.
type Volume struct {
	Group, Name string
	Size        int64 // bytes
	Pool        string
	thinID      int
}

// plainName is what LVM lets groups and volumes be called, without what could be
// taken for an option.
var plainName = regexp.MustCompile(`^[A-Za-z0-9_.+][A-Za-z0-9_.+-]*$`)

// Open asks LVM for the thin volume that lvm:GROUP/VOLUME names. Errors are
// problems: InvalidArgument, SourceNotFound, SourceNotSupported for a volume
// that is not thin, ToolMissing, SourceReadFailed.
func Open(ctx context.Context, source string) (Volume, error) {
	group, name, ok := strings.Cut(strings.TrimPrefix(source, Scheme+":"), "/")
	if !ok || !plainName.MatchString(group) || !plainName.MatchString(name) {
		return Volume{}, problem.New(problem.InvalidArgument, "%s does not name a logical volume.", source).
			Do("Write it as lvm:GROUP/VOLUME.")
	}
	all, err := list(ctx, group)
	if err != nil {
		return Volume{}, err
	}
	for _, v := range all {
		if v.Name != name {
			continue
		}
		if v.Pool == "" {
			return Volume{}, problem.New(problem.SourceNotSupported, "%s/%s is not a thin volume, so a snapshot of it would slow it down and tell nothing about changes.", group, name).
				Do(fmt.Sprintf("Back up the device while nothing writes to it: /dev/%s/%s.", group, name), "Or move it into a thin pool.")
		}
		return v, nil
	}
	return Volume{}, problem.New(problem.SourceNotFound, "The volume group %s has no volume %s.", group, name)
}

// String is the name with the scheme.
func (v Volume) String() string { return Scheme + ":" + v.spec() }

func (v Volume) spec() string { return v.Group + "/" + v.Name }

// Path is the device, if the volume is active.
func (v Volume) Path() string { return "/dev/" + v.spec() }

// list gives the volumes of a group.
func list(ctx context.Context, group string) ([]Volume, error) {
	out, err := run(ctx, "lvs", "--reportformat", "json", "--units", "b", "--nosuffix", "-o", "lv_name,lv_size,pool_lv,thin_id", group)
	if err != nil {
		return nil, err
	}
	all, err := parseReport(out, group)
	if err != nil {
		return nil, problem.Wrap(err, problem.SourceReadFailed, "What `lvs` says of %s cannot be understood.", group)
	}
	return all, nil
}

// parseReport reads what lvs prints with --reportformat json: all values are
// text, those that do not apply are empty.
func parseReport(out []byte, group string) ([]Volume, error) {
	var report struct {
		Report []struct {
			LV []struct {
				Name   string `json:"lv_name"`
				Size   string `json:"lv_size"`
				Pool   string `json:"pool_lv"`
				ThinID string `json:"thin_id"`
			} `json:"lv"`
		} `json:"report"`
	}
	if err := json.Unmarshal(out, &report); err != nil {
		return nil, err
	}
	var all []Volume
	for _, part := range report.Report {
		for _, lv := range part.LV {
			v := Volume{Group: group, Name: lv.Name, Pool: lv.Pool}
			var err error
			if v.Size, err = strconv.ParseInt(lv.Size, 10, 64); err != nil || v.Size < 0 {
				return nil, fmt.Errorf("the size %q of %s", lv.Size, lv.Name)
			}
			if v.Pool != "" {
				if v.thinID, err = strconv.Atoi(lv.ThinID); err != nil {
					return nil, fmt.Errorf("the thin ID %q of %s", lv.ThinID, lv.Name)
				}
			}
			all = append(all, v)
		}
	}
	return all, nil
}

// snapshotPrefix begins the names of all snapshots of an owner.
func snapshotPrefix(owner string) string {
	sum := sha256.Sum256([]byte(owner))
	return "diskvault-" + hex.EncodeToString(sum[:6]) + "-"
}

// Snapshot takes a snapshot for an owner, any text. It is active, read-only, and
// of one moment: LVM suspends the volume while it is taken.
func (v Volume) Snapshot(ctx context.Context, owner string) (Volume, error) {
	b := make([]byte, 8)
	rand.Read(b)
	name := snapshotPrefix(owner) + hex.EncodeToString(b)
	if _, err := run(ctx, "lvcreate", "--snapshot", "--permission", "r", "--setactivationskip", "n", "--activate", "y",
		"--name", name, v.spec()); err != nil {
		return Volume{}, err
	}
	s, err := Open(ctx, Scheme+":"+v.Group+"/"+name)
	if err != nil {
		return s, errors.Join(err, v.Remove(context.WithoutCancel(ctx), name))
	}
	return s, nil
}

// Snapshots are an owner's snapshots in the volume's pool.
func (v Volume) Snapshots(ctx context.Context, owner string) ([]Volume, error) {
	all, err := list(ctx, v.Group)
	var out []Volume
	for _, s := range all {
		if s.Pool == v.Pool && strings.HasPrefix(s.Name, snapshotPrefix(owner)) {
			out = append(out, s)
		}
	}
	return out, err
}

// Remove removes a snapshot.
func (v Volume) Remove(ctx context.Context, name string) error {
	if !strings.HasPrefix(name, "diskvault-") {
		return fmt.Errorf("%s is not a snapshot of diskvault's", name)
	}
	_, err := run(ctx, "lvremove", "--yes", v.Group+"/"+name)
	return err
}

// patience is how long one call may take.
const patience = 2 * time.Minute

// run runs a program and gives what it prints. Errors are problems.
func run(ctx context.Context, program string, args ...string) ([]byte, error) {
	limited, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	command := exec.CommandContext(limited, program, args...)
	var out, said bytes.Buffer
	command.Stdout, command.Stderr = &out, &said
	err := command.Run()
	switch {
	case err == nil:
		return out.Bytes(), nil
	case ctx.Err() != nil:
		return nil, problem.From(context.Cause(ctx))
	case errors.Is(err, exec.ErrNotFound):
		return nil, problem.Wrap(err, problem.ToolMissing, "The program `%s` is not installed.", program).
			Do("Install LVM and the tools of thin pools: the packages lvm2 and thin-provisioning-tools of Debian.")
	case strings.Contains(said.String(), "not found"):
		return nil, problem.Wrap(errors.New(firstLine(said.String())), problem.SourceNotFound, "LVM does not know what it is asked for by `%s`.", program)
	}
	return nil, problem.Wrap(fmt.Errorf("%w: %s", err, firstLine(said.String())), problem.SourceReadFailed, "`%s` failed.", program)
}

func firstLine(text string) string {
	line, _, _ := strings.Cut(strings.TrimSpace(text), "\n")
	return fmt.Sprintf("%.300s", line)
}
