package qemu

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"slices"
	"time"
	"unicode/utf8"
)

// dialLimit is how long a socket on this host may take to answer.
const dialLimit = 5 * time.Second

// thawLimit is how long the agent may take to thaw, beyond the limit of the
// freeze. Without an answer the guest thaws when the agent gets to it.
const thawLimit = 10 * time.Second

// frozen takes the point in time while the guest's file systems are frozen, if
// there is an agent and it is quick enough. Nothing that the agent does or
// leaves undone stops the backup: the point is then as after a power failure,
// and says so.
func (c *Cut) frozen(ctx context.Context, o CutOptions, take func() error) error {
	if c.machine.address.Agent == "" {
		return take()
	}
	limit, cancel := context.WithTimeout(ctx, o.FreezeLimit)
	defer cancel()
	agent, err := dialAgent(limit, c.machine.address.Agent)
	if err != nil {
		c.Frozen = fmt.Sprintf("The guest's file systems were not frozen: %v.", err)
		return take()
	}
	defer agent.conn.Close()
	count, err := agent.freeze(limit)
	if err == nil {
		c.Asleep = true
		c.Frozen = fmt.Sprintf("The guest agent froze %d file systems for it.", count)
	} else {
		c.Frozen = fmt.Sprintf("The guest's file systems were not frozen: %v.", err)
	}
	taken := take()
	// Thawed in any case: a freeze without an answer may have frozen.
	thaw, stop := context.WithTimeout(context.WithoutCancel(ctx), thawLimit)
	defer stop()
	if err := agent.thaw(thaw); err != nil {
		c.Frozen += fmt.Sprintf(" It did not say that it thawed them: %v.", err)
	}
	return taken
}

// agentRefusal is an error that the agent itself gives.
type agentRefusal string

func (e agentRefusal) Error() string {
	return fmt.Sprintf("the guest agent refuses: %.200q", string(e))
}

// agent is a connection to the QEMU guest agent. Whatever comes from it comes
// from the guest, which may be hostile.
type agent struct {
	conn net.Conn
	in   *bufio.Reader
}

// delimiter is sent before the first command, and comes back before its answer.
const delimiter = 0xff

// maxAgentLine bounds an answer of the agent, in bytes.
const maxAgentLine = 1 << 20

// dialAgent connects and makes sure that an agent listens: the socket is there
// even if the guest has none.
func dialAgent(ctx context.Context, path string) (*agent, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", path)
	if err != nil {
		return nil, fmt.Errorf("the guest agent's socket cannot be reached (%w)", err)
	}
	a := &agent{conn: conn, in: bufio.NewReaderSize(conn, maxAgentLine)}
	if err := a.sync(ctx); err != nil {
		conn.Close()
		return nil, err
	}
	return a, nil
}

// sync drops what an earlier client left unread.
func (a *agent) sync(ctx context.Context) error {
	mark := time.Now().UnixNano() & (1<<53 - 1)
	if err := a.send(ctx, []byte{delimiter}, "guest-sync-delimited", map[string]any{"id": mark}); err != nil {
		return err
	}
	for {
		var got int64
		if err := a.receive(ctx, &got); err != nil {
			return err
		}
		if got == mark {
			return nil
		}
	}
}

func (a *agent) freeze(ctx context.Context) (count int, err error) {
	if err := a.send(ctx, nil, "guest-fsfreeze-freeze", nil); err != nil {
		return 0, err
	}
	return count, a.receive(ctx, &count)
}

func (a *agent) thaw(ctx context.Context) error {
	// The answer to the freeze may still be on its way, ahead of the thaw's.
	mark := time.Now().UnixNano() & (1<<53 - 1)
	if err := a.send(ctx, nil, "guest-fsfreeze-thaw", nil); err != nil {
		return err
	}
	if err := a.send(ctx, nil, "guest-sync", map[string]any{"id": mark}); err != nil {
		return err
	}
	var refused error // of the last answer before the mark, which is that to the thaw
	for {
		var got int64
		switch err := a.receive(ctx, &got); {
		case errors.As(err, new(agentRefusal)):
			refused = err
		case err != nil:
			return err
		case got == mark:
			return refused
		default:
			refused = nil
		}
	}
}

func (a *agent) send(ctx context.Context, before []byte, command string, arguments any) error {
	line, err := json.Marshal(struct {
		Execute   string `json:"execute"`
		Arguments any    `json:"arguments,omitempty"`
	}{command, arguments})
	if err != nil {
		return err
	}
	return a.within(ctx, func() error {
		_, err := a.conn.Write(slices.Concat(before, line, []byte{'\n'}))
		return err
	})
}

// receive reads one answer. One of another type than out leaves out as it is.
func (a *agent) receive(ctx context.Context, out any) error {
	var answer struct {
		Return json.RawMessage `json:"return"`
		Error  *struct {
			Desc string `json:"desc"`
		} `json:"error"`
	}
	err := a.within(ctx, func() error {
		line, err := a.in.ReadSlice('\n')
		if errors.Is(err, bufio.ErrBufferFull) {
			return errors.New("the guest agent sends an answer without an end")
		}
		if err != nil {
			return err
		}
		if err := json.Unmarshal(bytes.TrimLeftFunc(line, func(r rune) bool { return r == utf8.RuneError }), &answer); err != nil {
			return errors.New("the guest agent sends something else than answers")
		}
		return nil
	})
	if err != nil {
		return err
	}
	if answer.Error != nil {
		return agentRefusal(answer.Error.Desc)
	}
	_ = json.Unmarshal(answer.Return, out)
	return nil
}

// within carries out input or output that ends with the context.
func (a *agent) within(ctx context.Context, do func() error) error {
	end, ok := ctx.Deadline()
	if !ok {
		end = time.Now().Add(dialLimit)
	}
	if err := a.conn.SetDeadline(end); err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { _ = a.conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	err := do()
	var slow net.Error
	if errors.As(err, &slow) && slow.Timeout() {
		return errors.New("the guest agent did not answer in time")
	}
	return err
}
