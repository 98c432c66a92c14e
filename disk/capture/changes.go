package capture

import "github.com/diskvault/diskvault/base/extent"

// Changes is what a view knows about the difference between itself and an
// earlier capture of the same disk.
type Changes struct {
	Known  bool       // the ranges are all that may differ
	Ranges extent.Set // in bytes of the disk
	Method string     // how they were found; recovery points record it
	Reason string     // why they are known, or not: a clause
}

// Unknown is the answer of a view that cannot tell.
func Unknown(reason string) Changes { return Changes{Method: "none", Reason: reason} }

// Kept is what a view left behind for the next backup to be compared with.
type Kept struct {
	Token   []byte // for Changed, at the next backup
	Dropped string // why nothing was left behind: a clause; "" if it was
}
