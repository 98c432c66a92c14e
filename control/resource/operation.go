package resource

import "time"

// Operation is a request that goes on after its answer, as clients poll it.
type Operation struct {
	Name   string     `json:"name"`   // opaque to clients
	Target ID         `json:"target"` // what it works on
	Start  time.Time  `json:"start"`
	End    *time.Time `json:"end"`             // null while it runs
	Job    string     `json:"job,omitempty"`   // ID of the job that it started
	Error  *Failure   `json:"error,omitempty"` // why it failed
}

// ResourceID is a place for the operation among the resources.
func (o Operation) ResourceID() ID { return In("", "diskvault/operations", o.Name) }

// Link is when it began, so that old ones are found.
func (o Operation) Link() string { return o.Start.UTC().Format("20060102150405") }
