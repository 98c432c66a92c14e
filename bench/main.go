// Command bench compares diskvault with restic, kopia and Borg: the same warm
// image, one run, every tool in turn, best of some rounds. README.md beside it
// says how to use it and how each tool is set up.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

const usage = `usage: go run ./bench ROW [flags]

rows:
  full        first backup of a 6 GiB system disk
  unchanged   the same again, everything read
  changed     after an update of about 370 MiB, everything read
  restore     the whole disk, compared byte by byte afterwards
  copy        its store to a second one, and again with nothing to do
  database    what 1 % of updated pages add to the store
  sparse      1 GiB of data spread over 4 TiB, against that 1 GiB alone
  tracked     256 MiB changed in a 6 GiB disk, only those read; --work on XFS or btrfs
  collect     the space of every second of 450 points of a 4 GiB disk
  all         all of these but tracked and collect
  data        only make the data sets

flags:
`

// systemRowNames are the rows that share the system disk, beside copy, which
// the peers do not have.
var systemRowNames = []string{rowFull, rowUnchanged, rowRestore, rowChanged}

type options struct {
	row       string
	work      string
	rounds    int
	only      string
	out       outFiles
	diskvault string
	scale     float64
	trees     string
}

// outFiles collects the names of a flag that may be given more than once.
type outFiles []string

func (o *outFiles) String() string { return strings.Join(*o, " ") }
func (o *outFiles) Set(name string) error {
	if ext := filepath.Ext(name); ext != ".md" && ext != ".json" {
		return errors.New("the name must end in .md or .json")
	}
	*o = append(*o, name)
	return nil
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	o, err := parse(os.Args[1:], os.Stderr)
	if errors.Is(err, flag.ErrHelp) {
		return
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(2)
	}
	if err := run(ctx, o, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		stop()
		os.Exit(1)
	}
}

func parse(args []string, stderr io.Writer) (options, error) {
	var o options
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.Usage = func() {
		fmt.Fprint(stderr, usage)
		flags.PrintDefaults()
	}
	flags.StringVar(&o.work, "work", "", "`folder` for data sets, which stay, and for stores, which do not (default: a temporary folder, removed at the end)")
	flags.IntVar(&o.rounds, "rounds", 3, "how often each row is done; the best time counts")
	flags.StringVar(&o.only, "only", "", "comma-separated `tools`: peers, diskvault, restic, kopia, borg, or a column's name")
	flags.Var(&o.out, "out", "also write the report to this `file` (.md or .json; may be given twice)")
	flags.StringVar(&o.diskvault, "diskvault", "", "the diskvault `program` (default: built from ./cmd/diskvault)")
	flags.Float64Var(&o.scale, "scale", 1, "make all data this much smaller, to try the program out")
	flags.StringVar(&o.trees, "tree", "/usr", "comma-separated `folders` whose files fill the system disk")
	if len(args) == 0 || strings.HasPrefix(args[0], "-") {
		if err := flags.Parse(args); err != nil {
			return o, err
		}
		flags.Usage()
		return o, errors.New("name a row first, for example: go run ./bench all")
	}
	o.row = args[0]
	if err := flags.Parse(args[1:]); err != nil {
		return o, err
	}
	switch {
	case flags.NArg() > 0:
		return o, fmt.Errorf("one row at a time; %q is left over", flags.Args())
	case !strings.Contains(" full unchanged changed restore copy database sparse tracked collect all data ", " "+o.row+" "):
		return o, fmt.Errorf("there is no row %q; see go run ./bench -h", o.row)
	case o.rounds < 1:
		return o, fmt.Errorf("--rounds %d: at least one is needed", o.rounds)
	case o.scale <= 0 || o.scale > 1:
		return o, fmt.Errorf("--scale %g: give a number above 0 and at most 1", o.scale)
	}
	return o, nil
}

// run does what the options ask for and prints the report.
func run(ctx context.Context, o options, stdout io.Writer) (err error) {
	again := repeat(o)
	if o.work == "" {
		if o.work, err = os.MkdirTemp("", "diskvault-bench-"); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, os.RemoveAll(o.work)) }()
	}
	if o.work, err = filepath.Abs(o.work); err != nil {
		return err
	}
	l := library{folder: filepath.Join(o.work, "data"), scale: o.scale, trees: strings.Split(o.trees, ",")}
	if o.row == "data" {
		_, err := l.all(ctx)
		return err
	}
	unlock, err := lock(o.work)
	if err != nil {
		return err
	}
	defer unlock()
	folder := filepath.Join(o.work, "run")
	if err := os.RemoveAll(folder); err != nil {
		return err
	}
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(folder)) }()

	contestants, err := contestants(ctx, o, filepath.Join(folder, "bin"))
	if err != nil {
		return err
	}
	if err := enoughSpace(o, len(contestants)); err != nil {
		return err
	}
	r := report{Again: again, Scale: o.scale, Rounds: o.rounds, Settings: map[string]string{}}
	if r.Environment, err = describe(ctx, o.work, contestants); err != nil {
		return err
	}
	var datasets datasets
	if o.row != rowTracked && o.row != rowCollect { // which make their own
		if datasets, err = prepared(ctx, o, l); err != nil {
			return err
		}
	}
	b := &bench{folder: folder, contestants: contestants, rounds: o.rounds, results: &results{start: time.Now()}}
	// What was measured before a failure is still reported, and marked.
	var failure error
	switch o.row {
	case rowTracked:
		failure = b.trackedRows(ctx, o.scale)
	case rowCollect:
		failure = b.collectRow(ctx, o.scale)
	default:
		r.Datasets, failure = b.do(ctx, o.row, datasets)
	}
	if failure != nil {
		r.Incomplete = failure.Error()
	}
	var peers []string
	for _, c := range contestants {
		r.Settings[c.name] = c.settings
		if c.peer {
			peers = append(peers, c.name)
		}
	}
	r.Environment.OwnPeak = ownPeak()
	r.Results = b.results.list
	r.Verdicts = comparisons(b.results, peers)
	fmt.Fprint(stdout, r.markdown())
	for _, path := range o.out {
		if err := r.write(path); err != nil {
			return errors.Join(failure, err)
		}
	}
	return failure
}

// do runs the rows and returns the datasets that they used.
func (b *bench) do(ctx context.Context, row string, d datasets) (used []dataset, err error) {
	wanted := map[string]bool{}
	for _, name := range append([]string{rowCopy}, systemRowNames...) {
		if row == name || row == "all" {
			wanted[name] = true
		}
	}
	if len(wanted) > 0 {
		used = append(used, d.system)
		if err := b.systemRows(ctx, d.system, wanted); err != nil {
			return used, err
		}
	}
	if row == rowDatabase || row == "all" {
		used = append(used, d.database)
		if err := b.databaseRow(ctx, d.database); err != nil {
			return used, err
		}
	}
	if row == "sparse" || row == "all" {
		used = append(used, d.sparse)
		if err := b.sparseRows(ctx, d.sparse); err != nil {
			return used, err
		}
	}
	return used, nil
}

// datasets are all that there are.
type datasets struct{ system, database, sparse dataset }

func (l library) all(ctx context.Context) (d datasets, err error) {
	if d.system, err = l.system(ctx); err != nil {
		return d, err
	}
	if d.database, err = l.database(ctx); err != nil {
		return d, err
	}
	d.sparse, err = l.sparse(ctx, d.system)
	return d, err
}

// prepared has the datasets made by a process of its own: making them takes
// memory, and this program's own must stay small (see measurement.PeakBytes).
func prepared(ctx context.Context, o options, l library) (datasets, error) {
	self, err := os.Executable()
	if err != nil {
		return datasets{}, err
	}
	maker := exec.CommandContext(ctx, self, "data", "--work", o.work, "--tree", o.trees, "--scale", fmt.Sprint(o.scale))
	maker.Stderr = os.Stderr
	maker.Cancel = func() error { return maker.Process.Signal(syscall.SIGTERM) }
	if err := maker.Run(); err != nil {
		if cause := context.Cause(ctx); cause != nil {
			return datasets{}, cause
		}
		return datasets{}, fmt.Errorf("the data sets could not be made: %w", err)
	}
	return l.all(ctx)
}

// contestants are those that --only leaves, diskvault built if it is one.
func contestants(ctx context.Context, o options, bin string) ([]contestant, error) {
	chosen, err := choose(everyone(o.diskvault), o.only)
	if err != nil || o.diskvault != "" {
		return chosen, err
	}
	for _, c := range chosen {
		if !c.peer {
			program, err := buildDiskvault(ctx, bin)
			if err != nil {
				return nil, err
			}
			return choose(everyone(program), o.only)
		}
	}
	return chosen, nil
}

func everyone(program string) []contestant {
	return []contestant{
		diskvaultContestant(diskvaultDefault, program, ""),
		kopiaContestant(kopiaZstd, "zstd-fastest"),
		diskvaultContestant(diskvaultFast, program, "fast"),
		kopiaContestant(kopiaS2, "s2-default"),
		borgContestant(),
		resticContestant(),
	}
}

// enoughSpace refuses to begin what would end in a full disk.
func enoughSpace(o options, contestants int) error {
	free, err := freeBytes(o.work)
	if err != nil {
		return err
	}
	// Data sets take 15 GiB, of which some may be there; the source and a copy
	// or a restored image 10; a store, at its largest, below 3.
	present, err := allocatedBelow(filepath.Join(o.work, "data"))
	if err != nil {
		return err
	}
	need := max(int64(15*o.scale*(1<<30))-present, 0) + int64(float64(10+3*contestants)*o.scale*(1<<30)) + 1<<30
	if free < need {
		return fmt.Errorf("%s has %d GiB free; about %d GiB are needed for this: name another folder with --work", o.work, free>>30, need>>30)
	}
	return nil
}

// lock keeps two runs out of one folder, where they would spoil each other's figures.
func lock(folder string) (unlock func(), err error) {
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(filepath.Join(folder, "lock"), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		return nil, fmt.Errorf("another run is using %s: %w", folder, err)
	}
	return func() { f.Close() }, nil
}

// repeat is the command line that does the same again.
func repeat(o options) string {
	c := fmt.Sprintf("go run ./bench %s --rounds %d", o.row, o.rounds)
	if o.only != "" {
		c += fmt.Sprintf(" --only '%s'", o.only)
	}
	if o.scale != 1 {
		c += fmt.Sprintf(" --scale %g", o.scale)
	}
	return c
}
