package cli

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/sys/unix"
)

// TestMain makes the test binary be diskvault itself where a script calls it,
// so that scripts run real processes.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"diskvault": func() { os.Exit(Main(os.Args[1:], os.Stdin, os.Stdout, os.Stderr, os.Environ())) },
	})
}

func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata",
		Setup: func(e *testscript.Env) error {
			e.Setenv("DISKVAULT_HOME", filepath.Join(e.WorkDir, "home"))
			e.Setenv("HOME", e.WorkDir)
			return nil
		},
		Condition: func(name string) (bool, error) {
			switch name {
			case "root":
				return os.Geteuid() == 0, nil
			case "quiescence":
				dir, err := os.MkdirTemp("", "diskvault-")
				if err != nil {
					return false, err
				}
				defer os.RemoveAll(dir)
				return provable(dir), nil
			}
			return false, fmt.Errorf("unknown condition %q", name)
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"status":  exitStatus,
			"image":   makeImage,
			"patch":   patchFile,
			"fifo":    makeFIFO,
			"capture": captureMatch,
			"damage":  damageFile,
			"waitfor": waitFor,
		},
	})
}

// exitStatus runs diskvault and wants this exit status: status 4 diskvault ...
func exitStatus(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: status N PROGRAM ARGS")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	err = ts.Exec(args[1], args[2:]...)
	got := 0
	if err != nil {
		m := regexp.MustCompile(`exit status (\d+)`).FindStringSubmatch(err.Error())
		if m == nil {
			ts.Fatalf("%v", err)
		}
		got, _ = strconv.Atoi(m[1])
	}
	if got != want {
		ts.Fatalf("exit status %d, want %d", got, want)
	}
}

// makeImage makes a sparse image with some data: image NAME SIZE DATA-SEED
func makeImage(ts *testscript.TestScript, neg bool, args []string) {
	n, err := parseSize(args[1])
	ts.Check(err)
	f, err := os.Create(ts.MkAbs(args[0]))
	ts.Check(err)
	defer f.Close()
	ts.Check(f.Truncate(n))
	var data bytes.Buffer
	for i := 0; data.Len() < int(min(n/2, 300_000)); i++ {
		fmt.Fprintf(&data, "%s line %d %x\n", args[2], i, i*i*7919)
	}
	_, err = f.WriteAt(data.Bytes()[:min(n, int64(data.Len()))], 0)
	ts.Check(err)
}

// patchFile writes text into a file: patch NAME OFFSET TEXT
func patchFile(ts *testscript.TestScript, neg bool, args []string) {
	off, err := parseSize(args[1])
	ts.Check(err)
	f, err := os.OpenFile(ts.MkAbs(args[0]), os.O_WRONLY, 0)
	ts.Check(err)
	defer f.Close()
	_, err = f.WriteAt([]byte(args[2]), off)
	ts.Check(err)
}

func makeFIFO(ts *testscript.TestScript, neg bool, args []string) {
	ts.Check(unix.Mkfifo(ts.MkAbs(args[0]), 0o600))
}

// captureMatch keeps what a group of an expression matched in the last
// standard output or error: capture stdout NAME EXPRESSION
func captureMatch(ts *testscript.TestScript, neg bool, args []string) {
	m := regexp.MustCompile(args[2]).FindStringSubmatch(ts.ReadFile(args[0]))
	if m == nil {
		ts.Fatalf("%s does not match %s", args[0], args[2])
	}
	ts.Setenv(args[1], m[1])
}

// waitFor waits until a file exists: waitfor PATH
func waitFor(ts *testscript.TestScript, neg bool, args []string) {
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if _, err := os.Stat(ts.MkAbs(args[0])); err == nil {
			return
		}
		if time.Now().After(end) {
			ts.Fatalf("%s does not appear", args[0])
		}
	}
}

// damageFile flips bits in the middle of the largest file below a folder.
func damageFile(ts *testscript.TestScript, neg bool, args []string) {
	var largest string
	var most int64
	ts.Check(filepath.Walk(ts.MkAbs(args[0]), func(path string, info os.FileInfo, err error) error {
		if err == nil && info.Mode().IsRegular() && info.Size() > most {
			largest, most = path, info.Size()
		}
		return err
	}))
	data, err := os.ReadFile(largest)
	ts.Check(err)
	for i := len(data) / 2; i < len(data)/2+64 && i < len(data); i++ {
		data[i] ^= 0xff
	}
	ts.Check(os.Chmod(largest, 0o600))
	ts.Check(os.WriteFile(largest, data, 0o600))
}

func TestSizes(t *testing.T) {
	for text, want := range map[string]int64{
		"0": 0, "512": 512, "64K": 65536, "64k": 65536, "64KiB": 65536, "1.5G": 3 << 29, "50MiB/s": 50 << 20, "1TB": 1 << 40, "7B": 7,
	} {
		if got, err := parseSize(text); err != nil || got != want {
			t.Errorf("%q: %d, %v; want %d", text, got, err, want)
		}
	}
	for _, text := range []string{"", "K", "-1", "1X", "NaN", "9999999999T", "1 2"} {
		if got, err := parseSize(text); err == nil {
			t.Errorf("%q was taken for %d", text, got)
		}
	}
	for n, want := range map[int64]string{0: "0 B", 1023: "1023 B", 1024: "1.0 KiB", 1536: "1.5 KiB", 200 << 20: "200 MiB", 32 << 40: "32.0 TiB"} {
		if got := size(n); got != want {
			t.Errorf("%d: %q, want %q", n, got, want)
		}
	}
}

func TestSince(t *testing.T) {
	now := time.Date(2026, 3, 10, 12, 0, 0, 0, time.UTC)
	for text, want := range map[string]string{"36h": "2026-03-09 00:00", "7d": "2026-03-03 12:00", "2026-01-02": "2026-01-02 00:00", "2026-01-02 03:04": "2026-01-02 03:04"} {
		if got, err := parseSince(text, now); err != nil || got.Format("2006-01-02 15:04") != want {
			t.Errorf("%q: %v, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "yesterday", "-3h", "-1d"} {
		if got, err := parseSince(text, now); err == nil {
			t.Errorf("%q was taken for %v", text, got)
		}
	}
}

func TestYAMLKeepsKeysAndTypes(t *testing.T) {
	got, err := toYAML([]byte(`{"z":"1","a":[{"b":null,"c":true}],"n":1.5,"e":[],"s":"a: b"}`))
	if err != nil {
		t.Fatal(err)
	}
	want := "z: \"1\"\na:\n  - b: null\n    c: true\nn: 1.5\ne: []\ns: 'a: b'\n"
	if string(got) != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
}

// Every command must teach: what it does and how it is used.
func TestHelpTeaches(t *testing.T) {
	inv := newInvocation(nil, nil, nil, nil)
	root := newRoot(inv)
	for _, c := range root.Commands() {
		if c.Short == "" || strings.HasSuffix(c.Short, ".") {
			t.Errorf("%s: short text %q", c.Name(), c.Short)
		}
		leaves := c.Commands()
		if len(leaves) == 0 && c.Example == "" {
			t.Errorf("%s has no example", c.Name())
		}
	}
}
