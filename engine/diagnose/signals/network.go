package signals

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

var networkSignals = []string{
	"N.if.txShare", "N.if.speed", "N.if.halfDuplex", "N.if.errors", "N.if.carrierChanges", "N.if.ownShare",
	"N.tcp.retransShare", "N.tcp.rttMs", "N.tcp.minRttMs", "N.tcp.rttInflation", "N.tcp.windowLimited",
}

// network reads the counters of the interface that the default route takes.
func (s *Sampler) network(c map[string]float64) {
	text, ok := s.read("proc/net/route", networkSignals[:6]...)
	if !ok {
		return
	}
	name := ""
	for line := range strings.Lines(text) {
		if f := strings.Fields(line); len(f) > 1 && f[1] == "00000000" {
			name = f[0]
			break
		}
	}
	if name == "" {
		s.missing("there is no default route", networkSignals[:6]...)
		return
	}
	folder := "sys/class/net/" + name + "/"
	if v, ok := s.read(folder + "statistics/tx_bytes"); ok {
		c["if.tx"] = number(v)
	}
	var errors float64
	for _, f := range []string{"tx_errors", "rx_errors"} {
		if v, ok := s.read(folder+"statistics/"+f, "N.if.errors"); ok {
			errors += number(v)
		}
	}
	c["if.errors"] = errors
	if v, ok := s.read(folder+"carrier_changes", "N.if.carrierChanges"); ok {
		c["if.carrier"] = number(v)
	}
	if v, err := os.ReadFile(s.path(folder + "speed")); err == nil && number(string(v)) > 0 {
		s.now["N.if.speed"] = number(string(v)) * 1e6 / 8
	} else {
		s.missing("the interface "+name+" does not tell its speed", "N.if.speed", "N.if.txShare")
	}
	if v, err := os.ReadFile(s.path(folder + "duplex")); err == nil {
		switch strings.TrimSpace(string(v)) {
		case "half":
			s.now["N.if.halfDuplex"] = 1
		case "full":
			s.now["N.if.halfDuplex"] = 0
		}
	}
	if _, ok := s.now["N.if.halfDuplex"]; !ok {
		s.missing("the interface "+name+" does not tell", "N.if.halfDuplex")
	}
}

// connections asks the kernel about the connections of this process. Those of
// all jobs are taken together; what they send counts, so connections that only
// read hardly matter. A connection that ends between two samples loses a second.
func (s *Sampler) connections(c map[string]float64) {
	names := networkSignals[6:]
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		s.missing(reason(err), names...)
		return
	}
	var weight, rtt, least float64
	for _, e := range entries {
		link, err := os.Readlink(filepath.Join("/proc/self/fd", e.Name()))
		if err != nil || !strings.HasPrefix(link, "socket:") {
			continue
		}
		fd, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		info, err := unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO)
		if err != nil || info.State != 1 || info.Bytes_acked == 0 { // 1: established
			continue
		}
		id := "tcp." + link + "."
		c[id+"sent"], c[id+"again"] = float64(info.Bytes_sent), float64(info.Bytes_retrans)
		c[id+"busy"], c[id+"limited"] = float64(info.Busy_time), float64(info.Rwnd_limited+info.Sndbuf_limited)
		w := c[id+"sent"] - s.before[id+"sent"]
		if _, seen := s.before[id+"sent"]; seen && w > 0 {
			weight, rtt, least = weight+w, rtt+w*float64(info.Rtt)/1000, least+w*float64(info.Min_rtt)/1000
		}
	}
	if weight > 0 {
		s.mean("N.tcp.rttMs", rtt/weight)
		s.mean("N.tcp.minRttMs", least/weight)
	} else {
		s.missing("nothing was sent over a connection meanwhile", names...)
	}
	s.foldConnections(c)
}

// foldConnections adds the growth of all connections to counters of their sum,
// so that those that ended are not kept.
func (s *Sampler) foldConnections(c map[string]float64) {
	for _, name := range []string{"sent", "again", "busy", "limited"} {
		sum := s.before["tcp.all."+name]
		for id, v := range c {
			if strings.HasPrefix(id, "tcp.socket:") && strings.HasSuffix(id, "."+name) {
				if old, ok := s.before[id]; ok && v >= old {
					sum += v - old
				}
			}
		}
		c["tcp.all."+name] = sum
	}
	for id := range s.grown {
		if strings.HasPrefix(id, "tcp.socket:") {
			delete(s.grown, id)
		}
	}
}

func (s *Sampler) networkRates(out map[string]float64) {
	if !s.o.Remote {
		return
	}
	g := s.grown
	if _, ok := s.before["if.tx"]; ok {
		if speed := out["N.if.speed"]; speed > 0 {
			out["N.if.txShare"] = share(g["if.tx"]/s.wall, speed)
		}
		out["N.if.errors"] = g["if.errors"]
		if g["if.tx"] > 0 {
			out["N.if.ownShare"] = share(g["tcp.all.sent"], g["if.tx"])
		}
	}
	if _, ok := s.before["if.carrier"]; ok {
		out["N.if.carrierChanges"] = g["if.carrier"]
	}
	if sent := g["tcp.all.sent"]; sent > 0 {
		out["N.tcp.retransShare"] = share(g["tcp.all.again"], sent)
		if busy := g["tcp.all.busy"]; busy > 0 {
			out["N.tcp.windowLimited"] = share(g["tcp.all.limited"], busy)
		}
		if least := out["N.tcp.minRttMs"]; least > 0 {
			out["N.tcp.rttInflation"] = out["N.tcp.rttMs"] / least
		}
	}
}
