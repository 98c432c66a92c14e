package disk_test

import (
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

// asNobody calls f with the rights of the user nobody. Only this thread gets
// them, so f must not depend on other goroutines having them.
func asNobody(t *testing.T, f func()) {
	t.Helper()
	const nobody = 65534
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if _, _, e := unix.RawSyscall(unix.SYS_SETRESUID, ^uintptr(0), nobody, 0); e != 0 {
		t.Fatal(e)
	}
	defer func() {
		if _, _, e := unix.RawSyscall(unix.SYS_SETRESUID, 0, 0, 0); e != 0 {
			panic(e)
		}
	}()
	f()
}
