package fuse

import (
	"bufio"
	"errors"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Sweep unmounts what processes left that were killed: mounts of this program
// that nobody serves any more. It returns their folders.
func Sweep() ([]string, error) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var swept []string
	for s := bufio.NewScanner(f); s.Scan(); {
		before, after, _ := strings.Cut(s.Text(), " - ")
		place, what := strings.Fields(before), strings.Fields(after)
		if len(place) < 5 || len(what) < 1 || what[0] != "fuse."+kind {
			continue
		}
		dir := unescape(place[4])
		if !abandoned(dir) {
			continue
		}
		if e := detach(dir); e != nil {
			err = errors.Join(err, e)
			continue
		}
		swept = append(swept, dir)
	}
	return swept, err
}

// abandoned tells whether nobody serves a mount: the kernel then refuses every
// question at once. One that only answers late is served.
func abandoned(dir string) bool {
	answer := make(chan error, 1)
	go func() {
		var st unix.Statfs_t
		answer <- unix.Statfs(dir, &st)
	}()
	select {
	case err := <-answer:
		return errors.Is(err, unix.ENOTCONN)
	case <-time.After(2 * time.Second):
		return false
	}
}

// unescape reads a path as mountinfo writes it.
func unescape(path string) string {
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(path)
}
