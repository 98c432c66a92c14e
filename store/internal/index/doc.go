// Package index knows which blocks a store holds, and where: block hash to
// pack, frame and slot. It serves deduplication only, on the machine that
// writes; the store never depends on it.
//
// A wrong "unknown" costs space: the block is stored once more. A wrong
// "known" would lose a block, and must never happen. What follows from this:
//
//   - Pack, then entries. Add is called when the pack is on stable storage.
//   - A pack has a number, entries name the number, and numbers are never given
//     twice. Forget removes one number. The counter is stored in the batch that
//     uses its number, so that after a crash both are there or neither.
//   - Add is not synced; Forget is. The write-ahead log keeps the order, so that
//     a crash loses the latest packs, never an earlier Forget.
//   - Every table block and log record has a checksum, tested on each read.
//   - Only the first 16 bytes of a hash are kept. They are keyed BLAKE3, so no
//     outsider can aim at them: two of n blocks share them by chance with a
//     probability of n²/2^129, for 300 million blocks 2^-72, for 2^40 blocks
//     (64 PiB) 2^-49.
package index
