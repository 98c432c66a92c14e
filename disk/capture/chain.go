package capture

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/diskvault/diskvault/base/problem"
	"github.com/diskvault/diskvault/disk"
)

// Options say how sources are captured. The zero value captures with the
// defaults and leaves nothing behind.
type Options struct {
	// Owner is whom captures are kept for between backups: the ID of a backup
	// instance. Without one no capture is kept, and so no change is tracked.
	Owner string
	// StallBudget is how long the writers of a disk may be held up; 0:
	// DefaultStallBudget.
	StallBudget time.Duration
}

// way is one way of capturing.
type way interface {
	Capturer
	method() Method
	// assess says how the source would be captured in this way, at what cost. If
	// it would not be, a Refusal says why. It changes nothing.
	assess(ctx context.Context, src *disk.Source) (Assessment, Refusal)
}

// ways are those that there are, the best first. The last can capture anything.
func (o Options) ways() []way {
	return []way{
		QEMU{Owner: o.Owner},
		RBD{Owner: o.Owner},
		LVM{Owner: o.Owner},
		NBD{},
		Reflink(o),
		Quiescent{},
	}
}

// inapplicable is the error of a way that does not fit the source: a sentence,
// or nothing where the source is of a kind that nobody would expect to fit.
// Another way may.
type inapplicable string

func (i inapplicable) Error() string { return string(i) }

// Refusal is why a way does not fit a source.
type Refusal struct {
	Method Method `json:"method"`
	Reason string `json:"reason"` // a sentence; "": not worth a word
}

// Capture implements Capturer: it takes the first way that fits the source.
func (o Options) Capture(ctx context.Context, src *disk.Source) (View, error) {
	var refusals []Refusal
	for _, w := range o.ways() {
		v, err := w.Capture(ctx, src)
		if reason := inapplicable(""); errors.As(err, &reason) {
			if reason != "" {
				refusals = append(refusals, Refusal{w.method(), string(reason)})
			}
			continue
		}
		if err != nil || len(refusals) == 0 {
			return v, err
		}
		if _, can := v.(changer); can {
			return v, nil
		}
		return &lesser{v, refusals}, nil
	}
	return nil, problem.New(problem.SourceNotSupported, "%s cannot be captured. %s", src, sentences(refusals))
}

// changer is what a view has that tracks changes.
type changer interface {
	Changed(ctx context.Context, token []byte) (Changes, error)
}

// lesser is a view that was taken since better ways did not fit.
type lesser struct {
	View
	refusals []Refusal
}

// Prove implements View. A view that is not proven says why no other was taken.
func (l *lesser) Prove(ctx context.Context) (Proof, error) {
	p, err := l.View.Prove(ctx)
	if err == nil && !p.Proven {
		p.Reason += " " + sentences(l.refusals)
	}
	return p, err
}

// Untracked says why nothing tells what has changed: a clause.
func (l *lesser) Untracked() string {
	return "nothing records the changes of this source, so all of it was read and compared: " +
		strings.TrimSuffix(sentences(l.refusals), ".")
}

func sentences(refusals []Refusal) string {
	var out []string
	for _, r := range refusals {
		out = append(out, "No "+string(r.Method)+": "+r.Reason)
	}
	return strings.Join(out, " ")
}
