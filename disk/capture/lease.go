package capture

import (
	"os"
	"os/signal"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// lease is a read lease on an open file (fcntl(2), F_SETLEASE): the kernel
// grants it only while nobody has the file open for writing, and lets nobody
// open it so, or truncate it, before the lease is given up. Whoever tries waits
// meanwhile, so it is given up at once.
type lease struct {
	fd      int
	onBreak func() // called once, from the keeper, after the lease was given up
}

// takeLease takes a lease and watches it until release. The error is that of
// fcntl: EAGAIN if somebody has the file open for writing, EACCES if this user
// may not take leases on it, EINVAL if its file system has none.
func takeLease(fd int, onBreak func()) (*lease, error) {
	l := &lease{fd, onBreak}
	return l, keeper.take(l)
}

// held tells whether the lease is whole: neither given up nor about to be
// broken.
func (l *lease) held() bool {
	kind, err := unix.FcntlInt(uintptr(l.fd), unix.F_GETLEASE, 0)
	return err == nil && kind == unix.F_RDLCK
}

func (l *lease) giveUp() {
	// It fails only if there is no lease any more, which is what we want.
	_, _ = unix.FcntlInt(uintptr(l.fd), unix.F_SETLEASE, unix.F_UNLCK)
}

// release ends the lease, if it is not broken yet, and the watch over it. No
// onBreak comes after it.
func (l *lease) release() { keeper.release(l) }

// keeper watches all leases of the process. The signal of the kernel does not
// say which lease is meant, so each signal has it look at all of them.
var keeper leaseKeeper

type leaseKeeper struct {
	mu     sync.Mutex
	leases map[*lease]bool // guarded by mu
	stop   chan struct{}   // ends the watch; nil while there is none; guarded by mu
}

// lookAnyway is how often leases are looked at without a signal, in case one
// went to some other part of the process. It is a fraction of the 45 seconds
// that the kernel would have a writer wait.
const lookAnyway = 100 * time.Millisecond

func (k *leaseKeeper) take(l *lease) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.stop == nil { // listen before there is anything to hear
		k.stop = make(chan struct{})
		k.leases = map[*lease]bool{}
		signals := make(chan os.Signal, 1)
		signal.Notify(signals, unix.SIGIO)
		go k.watch(signals, k.stop)
	}
	err := setLease(l.fd)
	if err == nil {
		k.leases[l] = true
	}
	k.endIfIdle()
	return err
}

func setLease(fd int) error {
	// SIGIO to the whole process: the default, said here because the descriptor
	// may have had another owner.
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_SETSIG, int(unix.SIGIO)); err != nil {
		return err
	}
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_SETOWN, os.Getpid()); err != nil {
		return err
	}
	_, err := unix.FcntlInt(uintptr(fd), unix.F_SETLEASE, unix.F_RDLCK)
	return err
}

func (k *leaseKeeper) release(l *lease) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.leases[l] {
		l.giveUp()
		delete(k.leases, l)
		k.endIfIdle()
	}
}

// endIfIdle ends the watch after the last lease. k.mu is held.
func (k *leaseKeeper) endIfIdle() {
	if len(k.leases) == 0 && k.stop != nil {
		close(k.stop)
		k.stop = nil
	}
}

func (k *leaseKeeper) watch(signals chan os.Signal, stop chan struct{}) {
	defer signal.Stop(signals)
	tick := time.NewTicker(lookAnyway)
	defer tick.Stop()
	for {
		select {
		case <-signals:
		case <-tick.C:
		case <-stop:
			return
		}
		k.giveUpBroken()
	}
}

func (k *leaseKeeper) giveUpBroken() {
	k.mu.Lock()
	defer k.mu.Unlock()
	for l := range k.leases {
		if !l.held() {
			l.giveUp()
			delete(k.leases, l)
			l.onBreak()
		}
	}
	k.endIfIdle()
}
