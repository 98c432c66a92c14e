package cli

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/diskvault/diskvault/base/problem"
	"github.com/diskvault/diskvault/disk"
)

func newDemo(inv *invocation) *cobra.Command {
	var keep bool
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Show the whole story on a disk made for it",
		Long: `Makes a real ext4 disk with files in a temporary folder, backs it up, changes
files on it, backs it up again, restores both points and one lost file, and
proves that they are right. Needs no root, touches nothing else, and removes the folder at the end.`,
		Example: "  diskvault demo\n  diskvault demo --keep",
		Args:    atMost(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return runDemo(cmd.Context(), inv, keep)
		},
	}
	cmd.Flags().BoolVar(&keep, "keep", false, "keep the folder")
	return cmd
}

// The file that the disk loses, and what it is called when it is back.
const (
	lostFile  = "/etc/service-100.conf"
	foundFile = "service-100.conf"
)

// demo is one performance.
type demo struct {
	*invocation
	ctx    context.Context
	folder string
	flags  []string          // what each backup is called with besides
	tools  map[string]string // paths of the programs
	lost   []byte            // what the file held that only the first point has
}

func runDemo(ctx context.Context, inv *invocation, keep bool) (err error) {
	d := &demo{invocation: inv, ctx: ctx}
	if err := d.findTools("mke2fs", "debugfs", "e2fsck"); err != nil {
		return err
	}
	if err := d.makeFolder(); err != nil {
		return err
	}
	if keep {
		defer func() { d.printf("\nThe demo lies in %s\n", d.folder) }()
	} else {
		defer func() { err = errors.Join(err, os.RemoveAll(d.folder)) }()
	}
	return d.play()
}

// findTools looks where e2fsprogs usually lies too: the path of a user who is
// not root often leaves it out.
func (d *demo) findTools(names ...string) error {
	d.tools = map[string]string{}
	for _, name := range names {
		for _, dir := range append(filepath.SplitList(d.env["PATH"]), "/usr/sbin", "/sbin", "/usr/local/sbin") {
			path := filepath.Join(dir, name)
			if info, err := os.Stat(path); err == nil && info.Mode()&0o111 != 0 && !info.IsDir() {
				d.tools[name] = path
				break
			}
		}
		if d.tools[name] == "" {
			return problem.New(problem.ToolMissing, "The demo makes a file system with the program %s, which is not installed.", name).
				Do("Install it, on Debian or Ubuntu with: sudo apt-get install e2fsprogs", "Or try diskvault on a disk of yours: diskvault backup disk.img")
		}
	}
	return nil
}

// makeFolder takes a place where a disk can be proven quiet; in memory or on a
// network nobody can.
func (d *demo) makeFolder() error {
	var first string
	for _, dir := range []string{d.env["TMPDIR"], "/tmp", "/var/tmp", d.env["HOME"], "."} {
		if dir == "" {
			continue
		}
		folder, err := os.MkdirTemp(dir, "diskvault-demo-")
		if err != nil {
			continue
		}
		if folder, err = filepath.Abs(folder); err != nil {
			return err
		}
		if provable(folder) {
			if first != "" {
				os.RemoveAll(first)
			}
			d.folder = folder
			return nil
		}
		if first == "" {
			first = folder
		} else {
			os.RemoveAll(folder)
		}
	}
	if first == "" {
		return problem.New(problem.HomeNotUsable, "No folder for the demo can be made in %s.", os.TempDir()).Do("Name another in TMPDIR.")
	}
	d.folder, d.flags = first, []string{"--allow-inconsistent"}
	return nil
}

func provable(folder string) bool {
	probe := filepath.Join(folder, "probe.img")
	if os.WriteFile(probe, make([]byte, 4096), 0o600) != nil {
		return false
	}
	defer os.Remove(probe)
	s, err := disk.Probe(context.Background(), probe)
	return err == nil && s.FileSystem.Local && !s.FileSystem.DAX
}

func (d *demo) play() error {
	image := filepath.Join(d.folder, "disk.img")
	d.say("A disk of 256 MiB with an ext4 file system and some files is made, without root.")
	if err := d.makeDisk(image); err != nil {
		return err
	}
	before, err := checksum(image)
	if err != nil {
		return err
	}

	d.say("The first backup protects the disk and stores all of its data; holes and zeros cost nothing.")
	if err := d.run(append([]string{"backup", "disk.img"}, d.flags...)...); err != nil {
		return err
	}

	d.say("Now some files change: one is rewritten, one is new, one is gone.")
	if err := d.changeDisk(image); err != nil {
		return err
	}
	after, err := checksum(image)
	if err != nil {
		return err
	}
	if after == before {
		return problem.New(problem.InternalError, "The demo failed to change its disk.")
	}

	d.say("The second backup stores only what changed.")
	if err := d.run(append([]string{"backup", "disk.img"}, d.flags...)...); err != nil {
		return err
	}
	d.say("Both points are whole, each by itself.")
	if err := d.run("points", "disk"); err != nil {
		return err
	}

	d.say("The newest point is restored to a new file, and so is the older one.")
	newest, oldest := filepath.Join(d.folder, "newest.img"), filepath.Join(d.folder, "oldest.img")
	if err := d.run("restore", "disk", "--to", "newest.img"); err != nil {
		return err
	}
	first, err := d.oldestPoint()
	if err != nil {
		return err
	}
	if err := d.run("restore", "disk", "--point", first, "--to", "oldest.img"); err != nil {
		return err
	}

	d.say("Are they right?")
	for _, c := range []struct{ name, path, want string }{{"newest.img", newest, after}, {"oldest.img", oldest, before}} {
		got, err := checksum(c.path)
		if err != nil {
			return err
		}
		if got != c.want {
			return problem.New(problem.DataNotVerified, "The restored %s is not what was backed up.", c.name)
		}
		d.printf("  %-10s  same SHA-256 as the disk had: %s...\n", c.name, got[:16])
		if _, err := d.tool("e2fsck", "-fn", c.path); err != nil {
			return err
		}
		d.printf("  %-10s  e2fsck finds the file system clean\n", "")
	}
	d.say("A single file that is lost comes out of the older point without restoring the disk.")
	if err := d.run("cp", "disk@"+first+":/whole"+lostFile, foundFile); err != nil {
		return err
	}
	found, err := os.ReadFile(filepath.Join(d.folder, foundFile))
	if err != nil {
		return err
	}
	if !bytes.Equal(found, d.lost) {
		return problem.New(problem.DataNotVerified, "The file that was copied is not the one that was backed up.")
	}
	d.printf("  %s holds what it held\n", foundFile)
	d.printf(`
That is all there is to it. On a disk of yours:

  diskvault backup PATH            an image file or a block device
  diskvault status                 what is protected
  diskvault restore NAME --to NEW
  diskvault ls NAME:/              the files in it; cp copies them out
  diskvault --help
`)
	return nil
}

func (d *demo) say(text string) { d.printf("\n# %s\n", text) }

// run runs a command of diskvault as a person would type it in the folder.
func (d *demo) run(args ...string) error {
	d.printf("$ diskvault %s\n", strings.Join(args, " "))
	full := []string{"--home", filepath.Join(d.folder, "home")}
	for _, a := range args {
		if strings.HasSuffix(a, ".img") || a == foundFile {
			a = filepath.Join(d.folder, a)
		}
		full = append(full, a)
	}
	return d.sub(full, d.stdout, d.stdout) // one stream, so that the story keeps its order
}

// sub runs a command within this process.
func (d *demo) sub(args []string, stdout, stderr io.Writer) error {
	env := []string{"PATH=" + d.env["PATH"], "NO_COLOR=" + d.env["NO_COLOR"], "TERM=" + d.env["TERM"]}
	inv := newInvocation(d.stdin, stdout, stderr, env)
	root := newRoot(inv)
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.ExecuteContext(d.ctx)
	inv.progress.clear()
	return err
}

func (d *demo) oldestPoint() (string, error) {
	var out bytes.Buffer
	if err := d.sub([]string{"--home", filepath.Join(d.folder, "home"), "points", "disk"}, &out, io.Discard); err != nil {
		return "", err
	}
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	id, _, _ := strings.Cut(lines[len(lines)-1], " ")
	return id[:min(8, len(id))], nil
}

func (d *demo) tool(name string, args ...string) (string, error) {
	out, err := exec.CommandContext(d.ctx, d.tools[name], args...).CombinedOutput()
	if d.ctx.Err() != nil {
		return "", problem.Wrap(context.Canceled, problem.OperationInterrupted, "The demo was interrupted; it leaves nothing behind.").
			Do("Run it again: diskvault demo")
	}
	if err != nil {
		return "", problem.Wrap(err, problem.InternalError, "%s failed: %s", name, lastLine(out))
	}
	return string(out), nil
}

func lastLine(out []byte) string {
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	return lines[len(lines)-1]
}

// makeDisk makes a file system with files that look like those of a small
// server: text that compresses, and data that do not.
func (d *demo) makeDisk(image string) error {
	files := filepath.Join(d.folder, "files")
	defer os.RemoveAll(files)
	r := rand.New(rand.NewPCG(1, 2))
	for n := range 200 {
		if err := writeFile(filepath.Join(files, "etc", fmt.Sprintf("service-%03d.conf", n)), configText(r, 40+n)); err != nil {
			return err
		}
	}
	if err := writeFile(filepath.Join(files, "var", "log", "server.log"), configText(r, 200000)); err != nil {
		return err
	}
	noise := make([]byte, 24<<20)
	for i := 0; i < len(noise); i += 8 {
		v := r.Uint64()
		for k := range 8 {
			noise[i+k] = byte(v >> (8 * k))
		}
	}
	if err := writeFile(filepath.Join(files, "srv", "photos.tar"), noise); err != nil {
		return err
	}
	var err error
	if d.lost, err = os.ReadFile(filepath.Join(files, lostFile)); err != nil {
		return err
	}
	_, err = d.tool("mke2fs", "-q", "-t", "ext4", "-d", files, image, "256M")
	return err
}

func writeFile(path string, data []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, data, 0o644)
}

func configText(r *rand.Rand, lines int) []byte {
	var b bytes.Buffer
	for n := range lines {
		fmt.Fprintf(&b, "%06d option-%d = %d\n", n, r.IntN(1000), r.IntN(1e6))
	}
	return b.Bytes()
}

func (d *demo) changeDisk(image string) error {
	changed := filepath.Join(d.folder, "changed")
	defer os.Remove(changed)
	if err := os.WriteFile(changed, configText(rand.New(rand.NewPCG(3, 4)), 20000), 0o600); err != nil {
		return err
	}
	script := filepath.Join(d.folder, "script")
	defer os.Remove(script)
	commands := "rm /etc/service-007.conf\nwrite " + changed + " /etc/service-007.conf\nwrite " + changed + " /var/log/new.log\nrm " + lostFile + "\n"
	if err := os.WriteFile(script, []byte(commands), 0o600); err != nil {
		return err
	}
	_, err := d.tool("debugfs", "-w", "-f", script, image)
	return err
}

func checksum(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", err
	}
	return fmt.Sprintf("%x", h.Sum(nil)), nil
}
