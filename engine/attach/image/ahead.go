package image

// stretch is a part of the disk, in bytes.
type stretch struct{ start, end int64 }

// streams recognize who reads in order, among several who read at a time.
type streams struct {
	all  [16]stream
	turn int // the next to be forgotten
}

// stream is somebody who may be reading in order.
type stream struct {
	next   int64 // where its next read should begin
	ahead  int64 // up to where all is fetched or being fetched
	window int64
}

// slack is how far a read may be from where it should be: the system reads
// ahead with several requests that come in any order.
const slack = 2 << 20

// next notes a read and returns what to read ahead.
func (s *streams) next(off, length int64) stretch {
	for n := range s.all {
		x := &s.all[n]
		if x.next == 0 || off < x.next-slack || off > x.next+slack {
			continue
		}
		if off+length <= x.next {
			return stretch{} // a request that came late
		}
		x.next = off + length
		if x.window == 0 {
			x.window = minAhead // the second read in order
		}
		x.ahead = max(x.ahead, x.next)
		if x.ahead-x.next > x.window/2 {
			return stretch{}
		}
		from := x.ahead
		x.window = min(2*x.window, maxAhead)
		x.ahead = from + x.window
		if x.window >= segment {
			x.ahead = x.ahead / segment * segment
		}
		return stretch{from, x.ahead}
	}
	s.all[s.turn] = stream{next: off + length}
	s.turn = (s.turn + 1) % len(s.all)
	return stretch{}
}
