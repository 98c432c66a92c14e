package qemu

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/diskvault/diskvault/disk/qemu/qemutest"
)

// fakeAgent answers as the guest agent does; answer gives what it says to a
// command, "" for nothing at all.
type fakeAgent struct {
	mu    sync.Mutex
	heard []string
}

func startAgent(t *testing.T, path string, answer func(command string) string) *fakeAgent {
	t.Helper()
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	f := &fakeAgent{}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go f.serve(c, answer)
		}
	}()
	return f
}

func (f *fakeAgent) serve(c net.Conn, answer func(string) string) {
	defer c.Close()
	for lines := bufio.NewScanner(c); lines.Scan(); {
		text := strings.TrimPrefix(lines.Text(), "\xff")
		var request struct {
			Execute   string
			Arguments struct{ ID int64 }
		}
		if json.Unmarshal([]byte(text), &request) != nil {
			continue
		}
		f.mu.Lock()
		f.heard = append(f.heard, strings.TrimPrefix(request.Execute, "guest-"))
		f.mu.Unlock()
		say := answer(request.Execute)
		if say == "" && strings.HasPrefix(request.Execute, "guest-sync") {
			say = fmt.Sprintf(`{"return":%d}`, request.Arguments.ID)
			if request.Execute == "guest-sync-delimited" {
				say = "\xff" + say
			}
		}
		if say != "" && say != "silence" {
			if _, err := c.Write([]byte(say + "\n")); err != nil {
				return
			}
		}
	}
}

// Whatever the agent does, the point in time is taken, and what happened is
// said; and a freeze is always followed by a thaw.
func TestAgent(t *testing.T) {
	const froze, thawed = `{"return":2}`, `{"return":2}`
	for name, c := range map[string]struct {
		answer func(string) string
		asleep bool
		says   string
		heard  []string
	}{
		"good": {func(command string) string {
			return map[string]string{"guest-fsfreeze-freeze": froze, "guest-fsfreeze-thaw": thawed}[command]
		}, true, "froze 2 file systems", []string{"sync-delimited", "fsfreeze-freeze", "fsfreeze-thaw", "sync"}},
		"no agent in the guest": {func(string) string { return "silence" }, false, "did not answer in time", []string{"sync-delimited"}},
		"hangs while it freezes": {func(command string) string {
			return map[string]string{"guest-fsfreeze-thaw": thawed}[command]
		}, false, "did not answer in time", []string{"sync-delimited", "fsfreeze-freeze", "fsfreeze-thaw", "sync"}},
		"refuses": {func(command string) string {
			return map[string]string{"guest-fsfreeze-freeze": `{"error":{"class":"x","desc":"frozen \u001b[31m already"}}`, "guest-fsfreeze-thaw": thawed}[command]
		}, false, `refuses: "frozen`, []string{"sync-delimited", "fsfreeze-freeze", "fsfreeze-thaw", "sync"}},
		"does not thaw": {func(command string) string {
			return map[string]string{"guest-fsfreeze-freeze": froze, "guest-fsfreeze-thaw": `{"error":{"desc":"stuck"}}`}[command]
		}, true, `did not say that it thawed them: the guest agent refuses: "stuck"`, nil},
		"nonsense": {func(string) string { return "\x00\x01 hello" }, false, "something else than answers", nil},
		"endless":  {func(string) string { return strings.Repeat("x", maxAgentLine+1) }, false, "without an end", nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			folder := qemutest.Folder(t)
			qemutest.Image(t, folder, "raw", 1<<20, 0)
			p := qemutest.Daemon(t, folder, "raw", true, 1)
			f := startAgent(t, filepath.Join(folder, "agent"), c.answer)
			m, err := Open(ctx, Address{Socket: p.QMP, Agent: filepath.Join(folder, "agent")})
			if err != nil {
				t.Fatal(err)
			}
			defer m.Close()
			cut, err := m.Cut(ctx, CutOptions{FreezeLimit: 300 * time.Millisecond}, mustDisk(t, m, "disk0"))
			if err != nil {
				t.Fatal(err)
			}
			if cut.Asleep != c.asleep || !strings.Contains(cut.Frozen, c.says) || strings.Contains(cut.Frozen, "\x1b") {
				t.Errorf("asleep: %v, %q", cut.Asleep, cut.Frozen)
			}
			f.mu.Lock()
			if c.heard != nil && !slices.Equal(f.heard, c.heard) {
				t.Errorf("the agent heard %v", f.heard)
			}
			f.mu.Unlock()
			if err := cut.Slices[0].Settle(ctx, false); err != nil {
				t.Error(err)
			}
		})
	}
	t.Run("no socket", func(t *testing.T) {
		folder := qemutest.Folder(t)
		qemutest.Image(t, folder, "raw", 1<<20, 0)
		p := qemutest.Daemon(t, folder, "raw", true, 1)
		m, err := Open(ctx, Address{Socket: p.QMP, Agent: filepath.Join(folder, "agent")})
		if err != nil {
			t.Fatal(err)
		}
		defer m.Close()
		cut, err := m.Cut(ctx, CutOptions{}, mustDisk(t, m, "disk0"))
		if err != nil {
			t.Fatal(err)
		}
		if cut.Asleep || !strings.Contains(cut.Frozen, "cannot be reached") {
			t.Errorf("%q", cut.Frozen)
		}
		if err := cut.Slices[0].Settle(ctx, false); err != nil {
			t.Error(err)
		}
	})
}
