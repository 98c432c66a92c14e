// Package container opens disks that lie inside a container format: qcow2, qed,
// vmdk, vhdx, vhd and vdi. QEMU's own tools read and write them, in a process of
// their own, so that a broken or hostile image meets the code that defines the
// format; this package starts them, talks NBD to them over a private socket, and
// sees to it that an image leads to no file that its owner did not mean.
package container

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/diskvault/diskvault/base/problem"
)

// Image is one file of a chain: a container, or the raw file at its end.
type Image struct {
	Path   string // absolute, free of links
	Format string // as QEMU calls it: "qcow2", "vpc", "raw"
}

// maxChain is how many images may stand upon each other.
const maxChain = 200

// Chain gives an image and those that it builds upon, the topmost first. Each
// must be a file of this host whose format the one above names: a format that is
// guessed from the content would let whoever wrote to a raw disk choose a file of
// this host to be read. If alone is set the image must build upon nothing, nor
// keep data in other files. Errors are problems: SourceNotSupported,
// SourceNotFound, SourcePermissionDenied, SourceReadFailed, ToolMissing.
func Chain(ctx context.Context, path, format string, alone bool) ([]Image, error) {
	var chain []Image
	seen := map[string]bool{}
	for at := (Image{path, format}); ; {
		if seen[at.Path] || len(chain) == maxChain {
			return nil, problem.New(problem.SourceNotSupported, "The images that %s builds upon lead in a circle, or are more than %d.", path, maxChain)
		}
		seen[at.Path] = true
		chain = append(chain, at)
		if at.Format == "raw" {
			return chain, nil
		}
		i, err := look(ctx, at)
		if err != nil {
			return nil, err
		}
		next, err := i.below(at)
		switch {
		case err != nil:
			return nil, err
		case alone && (next != nil || i.data().DataFile != "" || len(i.data().Extents) > 1):
			return nil, NotAlone(path, format)
		case next == nil:
			return chain, nil
		}
		at = *next
	}
}

// NotAlone is the refusal of an image that leads to other files and does not
// have the ending of its format.
func NotAlone(path, format string) error {
	ending := Endings[format][0]
	return problem.New(problem.SourceNotSupported, "%s begins like a %s image that uses other files of this host, but its name does not end in %s; a guest that writes to a raw disk could have made it look so.", path, format, ending).
		Do("If it is such an image, give its name the ending "+ending+".", "If it is a raw disk, give its name the ending .raw.")
}

// Endings are those of the names of images, by QEMU's name of the format.
var Endings = map[string][]string{
	"qcow2": {".qcow2", ".qcow"},
	"qcow":  {".qcow", ".qcow2"},
	"qed":   {".qed"},
	"vmdk":  {".vmdk"},
	"vhdx":  {".vhdx"},
	"vpc":   {".vhd", ".vpc"},
	"vdi":   {".vdi"},
}

// Named tells whether a name has an ending of the format. The raw extents of a
// vmdk image have the ending, too, and are written by the guest.
func Named(path, format string) bool {
	if strings.HasSuffix(strings.ToLower(path), "-flat.vmdk") {
		return false
	}
	for _, e := range Endings[format] {
		if strings.EqualFold(filepath.Ext(path), e) {
			return true
		}
	}
	return false
}

// info is what qemu-img says of an image.
type info struct {
	Encrypted     bool   `json:"encrypted"`
	Backing       string `json:"backing-filename"`
	FullBacking   string `json:"full-backing-filename"`
	BackingFormat string `json:"backing-filename-format"`
	Specific      struct {
		Data specific `json:"data"`
	} `json:"format-specific"`
}

// specific is what only some formats have.
type specific struct {
	Corrupt  bool            `json:"corrupt"`
	Encrypt  json.RawMessage `json:"encrypt"`
	DataFile string          `json:"data-file"`
	Extents  []struct {
		Filename string `json:"filename"`
	} `json:"extents"`
}

func (i *info) data() specific { return i.Specific.Data }

// look asks about one image. Others that it names are not opened.
func look(ctx context.Context, at Image) (*info, error) {
	// A running machine may have it open; what is asked for here does not change.
	out, err := run(ctx, "qemu-img", "info", "--force-share", "--output=json", "-f", at.Format, at.Path)
	if err != nil {
		return nil, refusal(err, at.Path, at.Format)
	}
	var i info
	if err := json.Unmarshal(out, &i); err != nil {
		return nil, problem.Wrap(err, problem.SourceReadFailed, "What qemu-img says of %s cannot be understood.", at.Path)
	}
	switch {
	case i.Encrypted || len(i.data().Encrypt) > 0:
		return nil, problem.New(problem.SourceNotSupported, "The image %s is encrypted, and diskvault has no key for it.", at.Path).
			Do("Back the disk up while its machine runs: qemu+unix:///PATH/qmp.sock?device=NAME.", "Or back up from inside what decrypts it.")
	case i.data().Corrupt:
		return nil, problem.New(problem.SourceReadFailed, "The image %s is marked corrupt, so that what it holds cannot be relied upon.", at.Path).
			Do("Copy the file, then repair it with `qemu-img check -r all` and look at what it says.")
	}
	if name := i.data().DataFile; name != "" && !isLocal(name) {
		return nil, elsewhere(at, name)
	}
	for _, e := range i.data().Extents {
		// They always lie beside the image that names them.
		if filepath.Dir(e.Filename) != filepath.Dir(at.Path) {
			return nil, elsewhere(at, e.Filename)
		}
	}
	return &i, nil
}

// isLocal tells a path from the names that QEMU takes for protocols.
func isLocal(name string) bool {
	before, _, colon := strings.Cut(name, ":")
	return !colon || strings.Contains(before, "/")
}

func elsewhere(at Image, name string) error {
	return problem.New(problem.SourceNotSupported, "The image %s builds upon %q, which is no file of this host where it may lie.", at.Path, name).
		Do("Back the disk up while its machine runs: qemu+unix:///PATH/qmp.sock?device=NAME.", "Or copy it into an image of its own with `qemu-img convert`.")
}

// below is the image that another builds upon; nil if there is none.
func (i *info) below(at Image) (*Image, error) {
	if i.Backing == "" {
		return nil, nil
	}
	if !isLocal(i.Backing) || !filepath.IsAbs(i.FullBacking) {
		return nil, elsewhere(at, i.Backing)
	}
	if i.BackingFormat == "" {
		return nil, problem.New(problem.SourceNotSupported, "The image %s does not say of what format the image is that it builds upon, %s, and a guess could be led astray by what a guest wrote there.", at.Path, i.FullBacking).
			Do("Let it say so: qemu-img rebase -u -f " + at.Format + " -b " + i.Backing + " -F FORMAT " + at.Path)
	}
	real, err := filepath.EvalSymlinks(i.FullBacking)
	switch {
	case errors.Is(err, os.ErrPermission):
		return nil, problem.Wrap(err, problem.SourcePermissionDenied, "This user (%d) may not read %s, which %s builds upon.", os.Geteuid(), i.FullBacking, at.Path)
	case err != nil:
		return nil, problem.Wrap(err, problem.SourceNotFound, "The image %s, which %s builds upon, is not there.", i.FullBacking, at.Path)
	}
	return &Image{real, i.BackingFormat}, nil
}

// toolError is what a tool wrote about its failure.
type toolError struct {
	text string
	err  error
}

func (e *toolError) Error() string {
	if e.text == "" {
		return e.err.Error()
	}
	return e.text
}

func (e *toolError) Unwrap() error { return e.err }

// Is finds a full file system in the words of a tool.
func (e *toolError) Is(target error) bool {
	return target == unix.ENOSPC && strings.Contains(e.text, "No space left on device")
}

// run runs one of QEMU's tools and gives its output.
func run(ctx context.Context, tool string, args ...string) ([]byte, error) {
	var out, said bounded
	c := exec.CommandContext(ctx, tool, args...)
	c.Env = environment()
	c.Stdout, c.Stderr = &out, &said
	err := c.Run()
	switch {
	case ctx.Err() != nil:
		return nil, problem.From(context.Cause(ctx))
	case errors.Is(err, exec.ErrNotFound):
		return nil, toolMissing(err)
	case err != nil:
		return out.Bytes(), &toolError{said.line(), err}
	}
	return out.Bytes(), nil
}

func toolMissing(err error) error {
	return problem.Wrap(err, problem.ToolMissing, "QEMU's tools, which open and make images such as qcow2, are not installed.").
		Do("Install them, on Debian or Ubuntu with: sudo apt-get install qemu-utils", "Or use a raw image.")
}

// environment is that of the tools: their words in English, and no settings.
func environment() []string {
	return []string{"PATH=" + os.Getenv("PATH"), "LC_ALL=C", "TMPDIR=" + os.TempDir()}
}

// refusal classifies what a tool says of an image.
func refusal(err error, path, format string) error {
	var said *toolError
	if !errors.As(err, &said) {
		return err // a problem already
	}
	text := said.Error()
	switch {
	case strings.Contains(text, " lock"):
		return problem.Wrap(err, problem.SourceInUse, "The image %s, or one that it builds upon, is open for writing in another program, such as a running machine.", path).
			Do("Back the disk up through the running machine: qemu+unix:///PATH/qmp.sock?device=NAME.", "Or stop the machine and run again.")
	case strings.Contains(text, "Permission denied"):
		return problem.Wrap(err, problem.SourcePermissionDenied, "This user (%d) may not read %s or an image that it builds upon.", os.Geteuid(), path)
	case strings.Contains(text, "No such file"):
		return problem.Wrap(err, problem.SourceNotFound, "%s, or an image that it builds upon, is not there.", path)
	}
	return problem.Wrap(err, problem.SourceNotSupported, "%s begins like a %s image, but QEMU does not open it as one.", path, format).
		Do("Look at what `qemu-img check -f "+format+"` says of it.", "If it is a raw disk, give its name the ending .raw.")
}

// bounded keeps the beginning of what a tool writes.
type bounded struct{ bytes.Buffer }

const boundedSize = 1 << 20

func (b *bounded) Write(p []byte) (int, error) {
	b.Buffer.Write(p[:min(len(p), max(0, boundedSize-b.Len()))])
	return len(p), nil
}

// line is the text as one line, for a message.
func (b *bounded) line() string {
	text, _ := io.ReadAll(io.LimitReader(bytes.NewReader(b.Bytes()), 500))
	return strings.Join(strings.Fields(strings.ToValidUTF8(string(text), "?")), " ")
}
