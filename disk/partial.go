package disk

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/diskvault/diskvault/base/durable"
	"github.com/diskvault/diskvault/base/extent"
	"github.com/diskvault/diskvault/base/problem"
)

const (
	partialEnding = ".diskvault-partial"       // of a new file until it is whole
	tokenEnding   = ".diskvault-partial.token" // of the note beside it of what is being restored
)

// partial is a new file on its way. The token beside it only saves work: a
// restore that goes on compares all that it finds.
type partial struct {
	folder *durable.Folder
	name   string // of the finished file
}

func (p *partial) file() string  { return p.name + partialEnding }
func (p *partial) token() string { return p.name + tokenEnding }

// openNew begins a new file, or goes on with an unfinished one.
func (t *Target) openNew(o TargetOptions) error {
	if err := t.refuseLink(); err != nil {
		return err
	}
	if err := t.openPartial(); err != nil {
		return err
	}
	if err := t.preparePartial(o.Token); err != nil {
		t.end()
		return err
	}
	return nil
}

// refuseLink refuses a name that is taken by a link to nothing.
func (t *Target) refuseLink() error {
	if _, err := os.Lstat(t.path); err == nil {
		return problem.New(problem.TargetNotWritable, "%s is a symbolic link that leads nowhere.", t.path)
	}
	return nil
}

// openPartial locks the unfinished file of a target in its folder.
func (t *Target) openPartial() error {
	parent, name := filepath.Split(t.path)
	folder, err := durable.Open(parent)
	if errors.Is(err, fs.ErrNotExist) {
		return problem.Wrap(err, problem.TargetNotWritable, "The folder %s does not exist.", filepath.Clean(parent)).
			Do("Make the folder, or choose another target.")
	}
	if err != nil {
		return t.unreachable(err)
	}
	t.kind, t.partial = NewFile, &partial{folder, name}
	if err := t.lockPartial(); err != nil {
		folder.Close()
		return err
	}
	return nil
}

// lockPartial opens the unfinished file and makes sure that no other restore
// writes it.
func (t *Target) lockPartial() error {
	path := t.path + partialEnding
	for {
		fd, err := unix.Open(path, unix.O_RDWR|unix.O_CREAT|unix.O_CLOEXEC|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0o600)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return t.unreachable(err)
		}
		t.fd, t.file = fd, os.NewFile(uintptr(fd), path)
		var open, named unix.Stat_t
		err = unix.Fstat(fd, &open)
		if err == nil && open.Mode&unix.S_IFMT != unix.S_IFREG {
			err = unix.EEXIST
		}
		if err == nil {
			switch err = unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB); err {
			case unix.EWOULDBLOCK:
				t.file.Close()
				return problem.New(problem.TargetInUse, "Another restore is writing %s.", t.path)
			case unix.ENOLCK, unix.ENOSYS, unix.EOPNOTSUPP:
				err = nil // some network file systems have no locks
			}
		}
		if err != nil {
			t.file.Close()
			return t.unreachable(err)
		}
		// The one who held the lock before may have renamed or removed the file.
		if unix.Lstat(path, &named) == nil && inodeOf(&named) == inodeOf(&open) {
			return nil
		}
		t.file.Close()
	}
}

// preparePartial gives the file its size and keeps what an earlier restore of
// the same thing has written.
func (t *Target) preparePartial(token string) error {
	var st unix.Stat_t
	if err := unix.Fstat(t.fd, &st); err != nil {
		return t.unreachable(err)
	}
	t.resumed = token != "" && st.Size > 0 && t.noted() == token
	t.blank = !t.resumed
	if t.blank {
		if err := unix.Ftruncate(t.fd, 0); err != nil {
			return t.writeProblem(err, extent.Range{})
		}
	}
	if err := unix.Ftruncate(t.fd, t.size); err != nil {
		return t.writeProblem(err, extent.Range{Len: t.size})
	}
	if t.blank {
		return t.note(token)
	}
	return nil
}

// noted is the token of what the unfinished file is of; "" if that is not known.
func (t *Target) noted() string {
	note, err := os.ReadFile(t.path + tokenEnding)
	if err != nil {
		return ""
	}
	return strings.TrimSuffix(string(note), "\n")
}

// note writes down what the unfinished file is of.
func (t *Target) note(token string) error {
	if token == "" {
		return nil
	}
	if err := os.WriteFile(t.path+tokenEnding, []byte(token+"\n"), 0o600); err != nil {
		return t.writeProblem(err, extent.Range{})
	}
	return nil
}

// forget takes the note away, so that nobody goes on with what is made anew.
func (t *Target) forget() error {
	if err := t.partial.folder.Remove(t.partial.token()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return t.writeProblem(err, extent.Range{})
	}
	return nil
}

// publish gives the finished file its name, which must not be taken, and puts
// the name on stable storage.
func (p *partial) publish(path string) error {
	err := p.folder.Rename(p.file(), p.name)
	if errors.Is(err, fs.ErrExist) {
		return problem.Wrap(err, problem.TargetExists, "A file named %s has come into being while it was restored; the restored one is %s.", path, path+partialEnding)
	}
	if err == nil {
		err = p.folder.SyncFolder("")
	}
	if err != nil {
		return problem.Wrap(err, problem.TargetWriteFailed, "The restored file cannot be given its name %s.", path)
	}
	// The disk is whole and has its name; a note that stays is only litter.
	_ = p.folder.Remove(p.token())
	return nil
}

// remove takes the unfinished file away.
func (p *partial) remove() error {
	err := p.folder.Remove(p.token())
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	return errors.Join(err, p.folder.Remove(p.file()))
}
