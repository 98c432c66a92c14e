package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestOverwriteChangesPiecesThatDoNotOverlap(t *testing.T) {
	path := filepath.Join(t.TempDir(), "disk.img")
	const disk = 32 << 20
	if err := os.WriteFile(path, make([]byte, disk), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := overwrite(path, disk, 1); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	zeros := bytes.Count(b, []byte{0})
	if got, want := len(b)-zeros, 16*pieceBytes*255/256; len(b) != disk || got < want-want/100 || got > want+want/100 {
		t.Errorf("%d of %d bytes are noise, want about %d", got, len(b), want)
	}
}

// Reading everything must not pass for change tracking.
func TestABackupThatTracksNothingIsRefusedInTheTrackedRow(t *testing.T) {
	folder := t.TempDir()
	program := filepath.Join(folder, "diskvault")
	script := strings.NewReplacer("CONSISTENCY", "crashConsistent", "DAMAGE", ":", `"status"`, `"changeTracking":{"method":"none","reason":"REASON"},"status"`, `[ "$2 $3 $4" = "--full-scan -o json" ]`, ":").Replace(standIn)
	if err := os.WriteFile(program, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	b := &bench{folder: folder, contestants: []contestant{diskvaultContestant(diskvaultDefault, program, "")}, rounds: 1, results: &results{start: time.Now()}}
	if err := b.trackedRows(t.Context(), 1.0/1024); err == nil || !strings.Contains(err.Error(), "REASON") {
		t.Errorf("%v", err)
	}
}
