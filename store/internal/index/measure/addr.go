package main

import "unsafe"

// addr is where p lies, for a system call that the package unix does not wrap.
func addr(p []byte) uintptr { return uintptr(unsafe.Pointer(unsafe.SliceData(p))) }
