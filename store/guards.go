//go:build !weak

package store

// The guards of what docs/design/concurrency.md describes. They are up, always. In
// the build with the tag weak, which is for tests alone, the simulation takes
// down one at a time, and must then find a point that is damaged.
const (
	guardBase      = true // a writer makes sure that its base is kept
	guardCondemned = true // a writer keeps clear of condemned packs
	guardFence     = true // a session that is given up cannot commit
	guardReview    = true // a collector marks again before it decides
	guardEnded     = true // sessions that ended stay while packs are condemned
	guardList      = true // a decision is void once its list is gone
	guardNumber    = true // and a list once a later one was decided
	guardRun       = true // a session that was removed does not come back
	guardPlaces    = true // a writer refers to what the nodes of its base name
)
