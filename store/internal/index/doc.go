// Package index knows which blocks a store holds, and where: block hash to
// pack, frame and slot. It serves deduplication only, on the machine that
// writes; the store never depends on it.
//
// # What may be wrong
//
// A wrong "unknown" costs space: the block is stored once more. A wrong
// "known" would lose a block, and must never happen. What follows from this:
//
//   - Pack, then entries. Add is called when the pack is on stable storage.
//   - A pack has a number, entries name the number, and numbers are never given
//     twice. Forget removes one number. The counter is stored in the batch that
//     uses its number, so that after a crash both are there or neither.
//   - Add is not synced; Forget is. The write-ahead log keeps the order, so that
//     a crash loses the latest packs, never an earlier Forget. The log costs a
//     second write of 30 bytes for a block of 64 KiB; without it, a Forget would
//     have to write out all newest entries.
//   - Every table block and log record has a checksum, tested on each read from
//     disk.
//   - Only the first 16 bytes of a hash are kept. They are keyed BLAKE3, so no
//     outsider can aim at them: two of n blocks share them by chance with a
//     probability of n²/2^129, for 300 million blocks 2^-72, for 2^40 blocks
//     (64 PiB) 2^-49.
//   - What other hosts remove from the store, and what a rolled-back machine has
//     forgotten to forget, only the owner can know: see Epoch and Packs.
//
// # The engine
//
// Entries lie in Pebble, a log-structured merge tree, 31 bytes each on disk. Its
// tables are not compressed (hashes are random) and have no filters of their
// own: those are read whole, a table at a time, and live on Go's heap. Instead
// there is one Bloom filter over all entries in a mapped file (see filter),
// which a crash may harm without harm, which is made anew in the background
// when entries outgrow it, and without which everything works, slower.
//
// Pebble ends the process, panics or tries for ever when its disk is full or
// fails. It works behind a gate (see gate), so that the caller gets an error
// instead: for an accelerator, the right answer to a full disk is to go on
// without it.
//
// Compactions run one at a time. They cost about as much CPU as the look-ups
// do; both together are about 10 to 25 microseconds for a new block, of which a
// pipeline at 1 GB/s has 16,000 a second.
//
// Package measure, beside this one, prints the rates and the memory.
package index
