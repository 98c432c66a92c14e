package resource

import (
	"time"

	"github.com/diskvault/diskvault/base/problem"
)

// Caller is who asks for something.
type Caller struct {
	Principal string   `json:"principal"` // object ID; empty for the owner of the data folder, who may do all
	Name      string   `json:"name"`
	Groups    []string `json:"groups,omitempty"` // object IDs
	From      string   `json:"from"`             // the network address, or "local"
	Activity  string   `json:"activity"`         // ID that ties together what one request caused; a GUID
}

// Owner tells whether the caller owns the data folder, which is known by the
// rights on its files, not by roles.
func (c Caller) Owner() bool { return c.Principal == "" }

// Entry is a line of the audit log: who asked for what, from where, and what
// came of it.
type Entry struct {
	ID        string       `json:"id"` // a GUID that sorts by time
	Time      time.Time    `json:"time"`
	Principal string       `json:"principal"`
	Name      string       `json:"name"`
	From      string       `json:"from"`
	Activity  string       `json:"activity,omitempty"`
	Action    string       `json:"action"` // such as Microsoft.DataProtection/backupVaults/write
	Target    ID           `json:"target"`
	Outcome   Outcome      `json:"outcome"`
	Code      problem.Code `json:"code,omitempty"` // of the problem, if it was not done
	Message   string       `json:"message,omitempty"`
}

// Outcome is what came of a request.
type Outcome string

const (
	Done   Outcome = "Done"
	Denied Outcome = "Denied" // the caller may not
	Undone Outcome = "Failed" // it was allowed, and did not succeed
)
