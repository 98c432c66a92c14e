// Package proof shows that a recovery point can be used: the programs that
// belong to its file systems check them. They see an overlay into which they
// may replay a journal, as the system would at its next start.
package proof

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/diskvault/diskvault/engine/attach/files"
)

// Verdict is what came of one volume.
type Verdict string

const (
	Clean   Verdict = "Clean"   // its own checker found nothing wrong
	Damaged Verdict = "Damaged" // it did
	Unknown Verdict = "Unknown" // it could not be checked; Reason says why
)

// Volume is what was found out about one volume.
type Volume struct {
	Name    string  `json:"name"`
	Kind    string  `json:"kind"`
	Verdict Verdict `json:"verdict"`
	Checker string  `json:"checker,omitempty"` // the command, without the path
	Reason  string  `json:"reason,omitempty"`
	Output  string  `json:"output,omitempty"` // the end of what the checker said, unless it is clean
}

// checkers are the steps for each kind: all must end with 0, or with one of
// the other statuses that mean success. The volume's path is added.
var checkers = map[string][]step{
	"ext2":  ext,
	"ext3":  ext,
	"ext4":  ext,
	"xfs":   {{args: []string{"xfs_repair", "-n", "-f"}}},
	"btrfs": {{args: []string{"btrfs", "check", "--readonly"}}},
	"vfat":  {{args: []string{"fsck.fat", "-n"}}},
	"ntfs":  {{args: []string{"ntfsfix", "-n"}}},
}

// ext replays the journal first; only then is the file system to be whole.
var ext = []step{{args: []string{"e2fsck", "-y", "-E", "journal_only"}, fine: 1}, {args: []string{"e2fsck", "-f", "-n"}}}

type step struct {
	args []string
	fine int // a status besides 0 that is success
}

// FSCK checks all file systems on a disk. dir is an empty folder for its use.
// The error is for a check that could not be made at all: MountFailed, or that
// of the disk.
func FSCK(ctx context.Context, d Disk, dir string) ([]Volume, error) {
	all, err := files.Volumes(ctx, d, d.Size())
	if err != nil {
		return nil, err
	}
	end, err := show(dir, d, all)
	if err != nil {
		return nil, err
	}
	defer end()
	var out []Volume
	for _, v := range all {
		out = append(out, check(ctx, v, filepath.Join(dir, v.Name)))
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
	}
	return out, nil
}

func check(ctx context.Context, v *files.Volume, path string) Volume {
	result := Volume{Name: v.Name, Kind: v.Kind, Verdict: Unknown}
	steps := checkers[v.Kind]
	switch {
	case v.Kind == "":
		result.Reason = "no file system is known to be on it"
		return result
	case steps == nil:
		result.Reason = "no checker is known for it"
		return result
	case v.Kind == "xfs" && v.Stale != "":
		// xfs_repair passes over a log, and then finds fault with what it would mend.
		result.Reason = "its log has to be replayed by a mount before it can be checked"
		return result
	}
	for _, s := range steps {
		program, err := exec.LookPath(s.args[0])
		for _, dir := range []string{"/usr/sbin", "/sbin"} {
			if err != nil {
				program, err = exec.LookPath(filepath.Join(dir, s.args[0]))
			}
		}
		if err != nil {
			result.Reason = s.args[0] + " is not installed"
			return result
		}
		cmd := exec.CommandContext(ctx, program, append(s.args[1:len(s.args):len(s.args)], path)...)
		cmd.Env = append(os.Environ(), "LC_ALL=C")
		text, err := cmd.CombinedOutput()
		result.Checker = strings.Join(s.args, " ")
		var exit *exec.ExitError
		switch {
		case err == nil || errors.As(err, &exit) && exit.ExitCode() == s.fine:
			continue
		case exit == nil || !exit.Exited():
			result.Reason = "the checker could not be run: " + err.Error()
		default:
			result.Verdict, result.Reason = Damaged, "its checker found faults"
		}
		result.Output = string(text[max(0, len(text)-2000):])
		return result
	}
	result.Verdict = Clean
	return result
}
