// Package problem is diskvault's error: a stable code, one clear sentence for
// the person at the keyboard, and what to do next.
//
// Every code stands in one table (table.go) with its meaning and its
// recommended actions; the command line, the API and docs/errors.md print from
// that table, so the words cannot drift apart.
package problem

import (
	"context"
	"errors"
	"fmt"
)

// Kind decides what a caller does with an error: the exit status of the
// command line and the HTTP status of the API follow from it.
type Kind string

const (
	Failed      Kind = "failed"      // the work was tried and did not succeed
	Usage       Kind = "usage"       // the request itself is wrong
	Refused     Kind = "refused"     // policy, permission or the support matrix forbids it
	NotFound    Kind = "notFound"    // the thing named does not exist
	Interrupted Kind = "interrupted" // a person or a shutdown ended it
	Busy        Kind = "busy"        // it may succeed if tried again later
)

// Error is an error that a person can act on. Its zero value is not useful:
// make one with New or Wrap.
type Error struct {
	Code    Code
	Kind    Kind
	Message string         // one sentence, with the names and numbers of this case
	Actions []string       // what to do next, most useful first
	Details map[string]any // machine-readable facts of this case; may be nil
	Cause   error          // what the system said; may be nil
}

// New makes an error of a code from the table. Kind and actions come from the
// table; the message tells this case.
func New(code Code, format string, args ...any) *Error {
	return Wrap(nil, code, format, args...)
}

// Wrap is New with a cause, which errors.Is and errors.As can reach.
func Wrap(cause error, code Code, format string, args ...any) *Error {
	entry := Lookup(code)
	return &Error{
		Code:    code,
		Kind:    entry.Kind,
		Message: fmt.Sprintf(format, args...),
		Actions: entry.Actions,
		Cause:   cause,
	}
}

// Do replaces the recommended actions of the table by ones that fit this case.
func (e *Error) Do(actions ...string) *Error {
	e.Actions = actions
	return e
}

// With adds one machine-readable fact.
func (e *Error) With(key string, value any) *Error {
	if e.Details == nil {
		e.Details = map[string]any{}
	}
	e.Details[key] = value
	return e
}

// Error gives the sentence, followed by the cause where there is one.
func (e *Error) Error() string {
	if e.Cause == nil {
		return e.Message
	}
	return e.Message + " (" + e.Cause.Error() + ")"
}

func (e *Error) Unwrap() error { return e.Cause }

// From gives any error the form of a problem. An error that nobody classified
// becomes InternalError with its own text, so that it is never silent; a
// cancelled context becomes Interrupted.
func From(err error) *Error {
	if err == nil {
		return nil
	}
	var p *Error
	if errors.As(err, &p) {
		return p
	}
	if errors.Is(err, context.Canceled) {
		return Wrap(err, OperationInterrupted, "The operation was interrupted.")
	}
	return Wrap(err, InternalError, "Something went wrong that diskvault does not know.")
}

// Is tells whether err, or an error it wraps, is a problem of this code.
func Is(err error, code Code) bool {
	var p *Error
	return errors.As(err, &p) && p.Code == code
}
