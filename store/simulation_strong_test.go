//go:build !weak

package store

// guardSync is the promise of the storage that what it has put stays.
const guardSync = true
