package bucket

import (
	"errors"
	"time"
)

// Transient marks an error that may not come again if the call is repeated: the
// network, a storage that is busy. Drivers wrap it in a problem.
type Transient struct {
	Err   error
	After time.Duration // how long the storage asked to wait; 0 if it did not say
	// Throttled: the storage answered that it gets too many requests.
	Throttled bool
}

func (t *Transient) Error() string { return t.Err.Error() }

func (t *Transient) Unwrap() error { return t.Err }

// IsTransient tells whether repeating the call may help.
func IsTransient(err error) bool {
	var t *Transient
	return errors.As(err, &t)
}
