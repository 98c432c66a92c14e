package cli

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"

	"golang.org/x/term"

	"github.com/diskvault/diskvault/control/resource"
)

// progress is one line on a terminal that is written over and over. Its zero
// value shows nothing. It is safe for concurrent use.
type progress struct {
	mu    sync.Mutex
	out   io.Writer // nil: show nothing
	shown bool
}

func newProgress(out io.Writer) *progress { return &progress{out: out} }

// clear takes the line away, so that other output begins at the margin.
func (p *progress) clear() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.shown {
		fmt.Fprint(p.out, "\r\x1b[K")
		p.shown = false
	}
}

func (p *progress) line(text string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.out == nil {
		return
	}
	if width := p.width(); len(text) >= width {
		text = text[:width-1] // a line that wraps cannot be written over
	}
	fmt.Fprint(p.out, "\r\x1b[K"+text)
	p.shown = true
}

func (p *progress) width() int {
	if f, ok := p.out.(*os.File); ok {
		if w, _, err := term.GetSize(int(f.Fd())); err == nil && w > 1 {
			return w
		}
	}
	return 80
}

func (p *progress) queued(position int) {
	p.line(fmt.Sprintf("waiting for another job, %s before this one", plural(position, "job")))
}

func (p *progress) show(j resource.Progress) { p.line(progressText(j)) }

// progressText is the line of a running job.
func progressText(j resource.Progress) string {
	if j.Total <= 0 {
		return j.Phase + " ..."
	}
	const width = 20
	share := min(1, max(0, float64(j.Done)/float64(j.Total)))
	full := int(share * width)
	var b strings.Builder
	fmt.Fprintf(&b, "%-8s [%s%s] %3.0f %%", j.Phase, strings.Repeat("=", full), strings.Repeat(" ", width-full), share*100)
	if j.Operation == resource.OperationBackup || j.Operation == resource.OperationRestore || j.Operation == resource.OperationCopy {
		fmt.Fprintf(&b, "  %s of %s", size(j.Done), size(j.Total))
		if j.Rate > 0 {
			fmt.Fprintf(&b, "  %s/s", size(int64(j.Rate)))
		}
	}
	if e := j.ETA; e != nil {
		if low, high := duration(e.P10), duration(e.P90); low == high {
			fmt.Fprintf(&b, "  %s left", low)
		} else {
			fmt.Fprintf(&b, "  %s to %s left", low, high)
		}
	}
	if j.Bottleneck != "" {
		fmt.Fprintf(&b, "  limited by %s", j.Bottleneck)
	}
	return b.String()
}
