// Package survival holds tests that drive the real binary, as processes, into
// everything that can go wrong around it: kills, full and read-only file
// systems, damaged objects, failing disks, many processes at once. After each,
// nothing is lost, what is said is one clear sentence with a code, and the next
// run works.
//
// Everything that is left to chance comes from a seed, which a failing test
// prints. These variables change what runs:
//
//	DISKVAULT_SEED    the seed, to repeat a run
//	DISKVAULT_KILLS   how many kills over a file store (default 40)
//	DISKVAULT_LONG=1  all points restored after rebuilds, wider ranges of damage
//
// Tests that need root, loop devices, FUSE or an S3 server skip without them.
package survival
