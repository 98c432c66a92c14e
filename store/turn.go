package store

// turn is a lock for work that asks the bucket, and so may take long. To wait
// for it is to wait for a channel: testing/synctest, on which the simulation
// stands, takes whoever waits for a sync.Mutex to be at work.
type turn chan struct{}

func newTurn() turn { return make(turn, 1) }

func (t turn) take() { t <- struct{}{} }

func (t turn) give() { <-t }

// try takes the turn if nobody has it.
func (t turn) try() bool {
	select {
	case t <- struct{}{}:
		return true
	default:
		return false
	}
}
