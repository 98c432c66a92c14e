package qemu

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// monitor speaks QMP, the machine protocol, on one connection. Commands go out
// one at a time; events are passed over. It is safe for concurrent use.
type monitor struct {
	conn net.Conn

	turn sync.Mutex // held by the command that is on its way

	mu     sync.Mutex
	answer chan reply // of the command on its way; guarded by mu
	lastID uint64     // of that command; guarded by mu
	err    error      // why the connection ended; guarded by mu
	done   chan struct{}
}

type reply struct {
	ID     json.RawMessage `json:"id"`
	Return json.RawMessage `json:"return"`
	Error  *commandError   `json:"error"`
}

// commandError is a command that the machine refused. It has changed nothing.
type commandError struct {
	Command string `json:"-"`
	Class   string `json:"class"`
	Desc    string `json:"desc"`
}

func (e *commandError) Error() string { return fmt.Sprintf("%s: %s", e.Command, e.Desc) }

func isRefused(err error) bool {
	refused := (*commandError)(nil)
	return errors.As(err, &refused)
}

// errSilent says that the socket was reached and nobody greeted: QEMU serves
// one client of a monitor at a time, and the others wait.
var errSilent = errors.New("the monitor does not greet: another program is connected to it")

// greetingWait is how long a monitor may be busy with another client, such as a
// short probe.
const greetingWait = 10 * time.Second

// maxLine bounds one message; the graph of a machine with thousands of nodes is
// below it.
const maxLine = 64 << 20

// errHungUp says that the socket was closed before a greeting: QEMU does so for
// a moment after an earlier client left.
var errHungUp = errors.New("the connection ended before the greeting")

// dialMonitor connects to a QMP socket and leaves the negotiation behind. With
// errSilent or errHungUp nothing was asked of the machine.
func dialMonitor(ctx context.Context, path string) (*monitor, error) {
	var conn net.Conn
	var lines *bufio.Scanner
	for end := time.Now().Add(greetingWait); ; {
		var err error
		if conn, err = (&net.Dialer{}).DialContext(ctx, "unix", path); err != nil {
			return nil, err
		}
		lines = bufio.NewScanner(conn)
		lines.Buffer(make([]byte, 64<<10), maxLine)
		if err = greet(ctx, conn, lines, end); err == nil {
			break
		}
		conn.Close()
		if !errors.Is(err, errHungUp) || time.Now().After(end) {
			return nil, err
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
	m := &monitor{conn: conn, done: make(chan struct{})}
	go m.listen(lines)
	if err := m.run(ctx, "qmp_capabilities", nil, nil); err != nil {
		m.close()
		return nil, err
	}
	return m, nil
}

// greet waits for the greeting.
func greet(ctx context.Context, conn net.Conn, lines *bufio.Scanner, end time.Time) error {
	stop := context.AfterFunc(ctx, func() { conn.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	if err := conn.SetReadDeadline(end); err != nil {
		return err
	}
	if !lines.Scan() {
		var slow net.Error
		switch err := lines.Err(); {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case errors.As(err, &slow) && slow.Timeout():
			return errSilent
		case err == nil, errors.Is(err, unix.ECONNRESET):
			return errHungUp
		default:
			return err
		}
	}
	var hello struct {
		QMP json.RawMessage `json:"QMP"`
	}
	if err := json.Unmarshal(lines.Bytes(), &hello); err != nil || hello.QMP == nil {
		return errors.New("what answers there is not a QMP monitor")
	}
	return conn.SetReadDeadline(time.Time{})
}

// listen hands replies on until the connection ends.
func (m *monitor) listen(lines *bufio.Scanner) {
	err := m.hear(lines)
	m.mu.Lock()
	m.err = fmt.Errorf("the connection to the monitor ended: %w", err)
	m.mu.Unlock()
	close(m.done)
	m.conn.Close()
}

func (m *monitor) hear(lines *bufio.Scanner) error {
	for lines.Scan() {
		var message struct {
			Event string `json:"event"`
			reply
		}
		if err := json.Unmarshal(lines.Bytes(), &message); err != nil {
			return fmt.Errorf("a message that is not JSON: %w", err)
		}
		m.mu.Lock()
		// Other replies are to commands that nobody waits for any more.
		if message.Event == "" && m.answer != nil && string(message.ID) == fmt.Sprint(m.lastID) {
			m.answer <- message.reply
			m.answer = nil
		}
		m.mu.Unlock()
	}
	if err := lines.Err(); err != nil {
		return err
	}
	return errors.New("the machine has ended or closed it")
}

// run carries out one command and puts its result into out, which may be nil. A
// refusal is a *commandError. If the context ends while the answer is awaited,
// the command may or may not have been carried out.
func (m *monitor) run(ctx context.Context, command string, arguments, out any) error {
	m.turn.Lock()
	defer m.turn.Unlock()
	answer := make(chan reply, 1)
	m.mu.Lock()
	m.lastID++
	m.answer = answer
	line, err := json.Marshal(struct {
		Execute   string `json:"execute"`
		Arguments any    `json:"arguments,omitempty"`
		ID        uint64 `json:"id"`
	}{command, arguments, m.lastID})
	m.mu.Unlock()
	if err != nil {
		return fmt.Errorf("%s: %w", command, err)
	}
	if _, err := m.conn.Write(append(line, '\n')); err != nil {
		return fmt.Errorf("%s: %w", command, err)
	}
	select {
	case r := <-answer:
		if r.Error != nil {
			r.Error.Command = command
			return r.Error
		}
		if out == nil {
			return nil
		}
		if err := json.Unmarshal(r.Return, out); err != nil {
			return fmt.Errorf("%s: an answer of another shape: %w", command, err)
		}
		return nil
	case <-m.done:
		return fmt.Errorf("%s: %w", command, m.ended())
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// ended is why the connection is over; nil while it is not.
func (m *monitor) ended() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.err
}

func (m *monitor) close() {
	m.conn.Close()
	<-m.done
}
