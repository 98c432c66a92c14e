package arm

import (
	"regexp"
	"strings"
	"time"

	"github.com/diskvault/diskvault/base/problem"
)

// term is a condition of a $filter, such as status eq 'Failed'. Words in the
// form of a function, such as atScope(), have no operator.
type term struct{ name, operator, value string }

var (
	termForm     = regexp.MustCompile(`^([A-Za-z/]+)\s+(eq|ne|ge|gt|le|lt)\s+(?:'([^']*)'|(\S+))$`)
	functionForm = regexp.MustCompile(`^([A-Za-z]+)\(\s*(?:'([^']*)')?\s*\)$`)
	conjunction  = regexp.MustCompile(`(?i)\s+and\s+`)
)

// parseFilter reads conditions that are joined by "and". Others are an
// InvalidParameter problem: a filter that is passed over gives wrong answers.
func parseFilter(text string) ([]term, error) {
	if strings.TrimSpace(text) == "" {
		return nil, nil
	}
	var out []term
	for _, part := range conjunction.Split(strings.TrimSpace(text), -1) {
		part = strings.TrimSpace(part)
		if m := termForm.FindStringSubmatch(part); m != nil {
			out = append(out, term{m[1], m[2], m[3] + m[4]})
		} else if m := functionForm.FindStringSubmatch(part); m != nil {
			out = append(out, term{name: m[1], value: m[2]})
		} else {
			return nil, problem.New(problem.ParameterInvalid, "The condition %q of $filter cannot be read.", part)
		}
	}
	return out, nil
}

func (t term) unknown() error {
	return problem.New(problem.ParameterInvalid, "The condition %q of $filter is not supported here.", strings.TrimSpace(t.name+" "+t.operator+" "+t.value))
}

func (t term) time() (time.Time, error) {
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02T15:04:05", time.DateTime, time.DateOnly, "2006-01-02 03:04:05 PM"} {
		if at, err := time.Parse(layout, t.value); err == nil {
			return at, nil
		}
	}
	return time.Time{}, problem.New(problem.ParameterInvalid, "%q in $filter is no time such as 2026-01-02T15:04:05Z.", t.value)
}
