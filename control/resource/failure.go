package resource

import (
	"errors"

	"github.com/diskvault/diskvault/base/problem"
)

// Failure is a problem as data: kept with a job, sent over the socket and
// printed by the command line.
//
// What survives: code, kind, sentence, actions, details and the text of the
// cause. The cause itself, and with it errors.Is on anything but the code,
// does not.
type Failure struct {
	Code              problem.Code   `json:"code"`
	Kind              problem.Kind   `json:"kind,omitempty"`
	Message           string         `json:"message"`
	RecommendedAction []string       `json:"recommendedAction"`
	Details           map[string]any `json:"details,omitempty"`
	Cause             string         `json:"cause,omitempty"`
}

// FailureOf gives the data of an error; nil of nil.
func FailureOf(err error) *Failure {
	p := problem.From(err)
	if p == nil {
		return nil
	}
	f := &Failure{Code: p.Code, Kind: p.Kind, Message: p.Message, RecommendedAction: p.Actions, Details: p.Details}
	if p.Cause != nil {
		f.Cause = p.Cause.Error()
	}
	if f.RecommendedAction == nil {
		f.RecommendedAction = []string{}
	}
	return f
}

// passing are the codes, besides all of the kind Busy, of what may be over when
// it is tried again.
var passing = map[problem.Code]bool{
	problem.StoreUnreachable: true, problem.StoreFailed: true, problem.SourceInUse: true, problem.SessionFenced: true,
	problem.CatalogUnreachable: true, problem.OperationInterrupted: true,
}

// Retryable tells whether the same may succeed if it is tried again later, with
// nothing changed.
func (f *Failure) Retryable() bool {
	return f != nil && (f.Kind == problem.Busy || passing[f.Code])
}

// Problem makes the error again.
func (f *Failure) Problem() *problem.Error {
	p := &problem.Error{Code: f.Code, Kind: f.Kind, Message: f.Message, Actions: f.RecommendedAction, Details: f.Details}
	if f.Cause != "" {
		p.Cause = errors.New(f.Cause)
	}
	return p
}
