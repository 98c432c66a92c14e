package powerloss

import (
	"cmp"
	"maps"
	"math/rand/v2"
	"slices"
)

const (
	page   = 4096 // bytes; the unit in which data reaches a disk
	sector = 512  // bytes; the unit that a disk writes whole
)

// Restart cuts the power, if that has not happened, and gives a disk with what
// survived, all of it synced. It may be called once for each disk.
func (d *Disk) Restart() *Disk {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.lost = true
	fate := &fate{d.random, map[*node]*node{}}
	return &Disk{
		random: rand.New(rand.NewPCG(d.random.Uint64(), d.random.Uint64())),
		now:    d.now,
		root:   fate.of(d.root),
		nodes:  d.nodes,
	}
}

// fate decides what survives. A file that is reached by two names, after half a
// rename, is decided on once.
type fate struct {
	random  *rand.Rand
	decided map[*node]*node
}

func (f *fate) of(n *node) *node {
	if s, ok := f.decided[n]; ok {
		return s
	}
	s := &node{number: n.number, folder: n.folder, time: n.time}
	f.decided[n] = s
	if !n.folder {
		s.data = f.data(n)
		s.synced = s.data
		return s
	}
	s.names, s.durable = map[string]*node{}, map[string]*node{}
	left := f.names(n)
	// In the order of making, since names may be random and a map's order is:
	// the seed alone is to decide.
	for _, name := range slices.SortedFunc(maps.Keys(left), func(a, b string) int {
		return cmp.Or(left[a].number-left[b].number, cmp.Compare(a, b))
	}) {
		survivor := f.of(left[name])
		s.names[name], s.durable[name] = survivor, survivor
	}
	return s
}

// names decides for each name separately how many of its changes, in their
// order, have reached the disk.
func (f *fate) names(n *node) map[string]*node {
	var order []string
	changes := map[string][]change{}
	for _, c := range n.pending {
		if changes[c.name] == nil {
			order = append(order, c.name)
		}
		changes[c.name] = append(changes[c.name], c)
	}
	for _, name := range order {
		for _, c := range changes[name][:f.random.IntN(len(changes[name])+1)] {
			n.keep(c)
		}
	}
	return n.durable
}

// data decides what a file holds: as synced, and of what came after, any length
// and for each page the content, zeros or a torn mix of both.
func (f *fate) data(n *node) []byte {
	if len(n.data) == len(n.synced) {
		return n.synced
	}
	grown := len(n.data) - len(n.synced)
	length := len(n.synced)
	switch f.random.IntN(3) {
	case 0: // the new length did not reach the disk
	case 1: // all of it did
		length += grown
	case 2:
		length += f.random.IntN(grown + 1)
	}
	data := make([]byte, length)
	copy(data, n.synced)
	for at := len(n.synced); at < length; {
		end := min(length, at-at%page+page)
		switch f.random.IntN(4) {
		case 0: // lost
		case 1: // torn
			torn := min(end, at+sector*f.random.IntN(page/sector))
			copy(data[at:torn], n.data[at:torn])
		default:
			copy(data[at:end], n.data[at:end])
		}
		at = end
	}
	return data
}
