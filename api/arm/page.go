package arm

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/diskvault/diskvault/base/problem"
	"github.com/diskvault/diskvault/control/resource"
	"github.com/diskvault/diskvault/control/service"
)

// page is a part of a list.
type page[T any] struct {
	Value    []T    `json:"value"`
	NextLink string `json:"nextLink,omitempty"`
}

// perPage is how many entries a page has unless less are asked for.
const perPage = 200

// top gives how many entries the client wants at most.
func (q *request) top() (int, error) {
	text := q.query.Get("$top")
	if text == "" {
		return perPage, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 {
		return 0, problem.New(problem.ParameterInvalid, "$top must be a number from 1, not %q.", text)
	}
	return min(n, 1000), nil
}

// skip gives the last entry of the page before.
func (q *request) skip() (string, error) {
	text := q.query.Get("$skipToken")
	if text == "" {
		text = q.query.Get("$skiptoken")
	}
	data, err := base64.RawURLEncoding.DecodeString(text)
	if err != nil {
		return "", problem.New(problem.ParameterInvalid, "$skipToken is not one that diskvault has given: %q.", text)
	}
	return string(data), nil
}

// next gives the URL of the page behind an entry.
func (q *request) next(last string) string {
	v := url.Values{}
	for name, values := range q.query {
		if !strings.EqualFold(name, "$skipToken") {
			v[name] = values
		}
	}
	v.Set("$skipToken", base64.RawURLEncoding.EncodeToString([]byte(last)))
	return q.base() + q.URL.EscapedPath() + "?" + v.Encode()
}

// list answers a page of resources: one more than fit is asked for, so that the
// last page has no link.
func list[T interface{ ResourceID() resource.ID }, W any](q *request, from func(service.Page) ([]T, error), wire func(T) (W, error)) (reply, error) {
	limit, err := q.top()
	if err != nil {
		return reply{}, err
	}
	after, err := q.skip()
	if err != nil {
		return reply{}, err
	}
	found, err := from(service.Page{After: resource.ID(after), Limit: limit + 1})
	if err != nil {
		return reply{}, err
	}
	out := page[W]{Value: []W{}}
	if len(found) > limit {
		found = found[:limit]
		out.NextLink = q.next(string(found[limit-1].ResourceID()))
	}
	for _, one := range found {
		w, err := wire(one)
		if err != nil {
			return reply{}, err
		}
		out.Value = append(out.Value, w)
	}
	return ok(out)
}

// maxBody is the most bytes of a body.
const maxBody = 4 << 20

// read reads the body into v. Names are compared without case, as Azure does,
// and unknown ones are passed over. An empty body leaves v as it is.
func (q *request) read(v any) error {
	data, err := io.ReadAll(http.MaxBytesReader(nil, q.Body, maxBody))
	if err != nil {
		return problem.Wrap(err, problem.RequestUnreadable, "The body cannot be read.")
	}
	if len(strings.TrimSpace(string(data))) == 0 {
		return nil
	}
	if err := json.Unmarshal(data, v); err != nil {
		var wrong *json.UnmarshalTypeError
		if errors.As(err, &wrong) {
			return problem.New(problem.RequestUnreadable, "The property %q cannot be a %s.", wrong.Field, wrong.Value)
		}
		return problem.Wrap(err, problem.RequestUnreadable, "The body is not JSON.")
	}
	return nil
}

// idIn reads a resource ID of a body; empty stays empty.
func idIn(text string) (resource.ID, error) {
	if text == "" {
		return "", nil
	}
	return resource.ParseID(text)
}

// match is what the headers say of the resource's ETag.
func (q *request) match() string {
	if q.Header.Get("If-None-Match") == "*" {
		return service.Absent
	}
	m := q.Header.Get("If-Match")
	// Some clients leave the quotes away.
	if m != "" && m != "*" && !strings.HasPrefix(m, `"`) {
		m = `"` + strings.TrimPrefix(m, "W/") + `"`
		m = strings.ReplaceAll(m, `""`, `"`)
	}
	return m
}

// unchanged tells whether the client has the resource as it is.
func (q *request) unchanged(etag string) bool {
	for _, one := range strings.Split(q.Header.Get("If-None-Match"), ",") {
		if strings.TrimSpace(one) == etag {
			return true
		}
	}
	return false
}

// timeText writes a time as Azure does, with seven digits.
func timeText(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.0000000Z") }

func timeOrNull(t *time.Time) *string {
	if t == nil || t.IsZero() {
		return nil
	}
	s := timeText(*t)
	return &s
}

// short is a location without blanks, as Azure answers.
func short(location string) string { return resource.Location(location) }
