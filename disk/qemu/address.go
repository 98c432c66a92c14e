// Package qemu takes points in time of the disks of a running QEMU machine or
// storage daemon, over its QMP monitor, without the machine noticing more than
// some milliseconds of latency. A Cut is one such point for one or more disks;
// each of its Slices is read over NBD, and says which bytes changed since the
// Cut before.
package qemu

import (
	"net/url"
	"path/filepath"
	"strings"

	"github.com/diskvault/diskvault/base/problem"
)

// Scheme begins the URL of a disk of a running machine:
//
//	qemu+unix:///run/vm1/qmp.sock?device=disk0&agent=/run/vm1/qga.sock
const Scheme = "qemu+unix"

// Address says where a machine is and which of its disks is meant. All paths
// are absolute.
type Address struct {
	Socket string // the QMP monitor
	Device string // a device's or drive's ID, or a node's name; "" if the machine has one disk only
	Agent  string // the socket of the guest agent; "" for none
	NBD    string // the socket of the machine's own NBD server; "" to find it
	Fleece string // the folder for what the machine overwrites during a backup; "" for that of the disk's image
}

// ParseAddress reads a URL of the scheme. The error is the problem
// InvalidArgument.
func ParseAddress(source string) (Address, error) {
	u, err := url.Parse(source)
	if err != nil || u.Scheme != Scheme {
		return Address{}, problem.Wrap(err, problem.InvalidArgument, "%s is not a URL of the form %s:///path/qmp.sock?device=NAME.", source, Scheme)
	}
	query, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return Address{}, problem.Wrap(err, problem.InvalidArgument, "What follows the question mark of %s cannot be read.", source)
	}
	a := Address{Socket: u.Path}
	known := map[string]*string{"device": &a.Device, "agent": &a.Agent, "nbd": &a.NBD, "fleece": &a.Fleece}
	for name, values := range query {
		field, ok := known[name]
		if !ok || len(values) != 1 {
			return Address{}, problem.New(problem.InvalidArgument, "%s has a parameter %q that is unknown or given twice; device, agent, nbd and fleece are known.", source, name)
		}
		*field = values[0]
	}
	if u.Host != "" {
		return Address{}, problem.New(problem.InvalidArgument, "%s names a host; the path of the socket follows three slashes.", source)
	}
	for _, path := range []string{a.Socket, a.Agent, a.NBD, a.Fleece} {
		if path != "" && !filepath.IsAbs(path) {
			return Address{}, problem.New(problem.InvalidArgument, "The path %s in %s is not absolute.", path, source)
		}
	}
	if a.Socket == "" || strings.HasSuffix(a.Socket, "/") {
		return Address{}, problem.New(problem.InvalidArgument, "%s names no socket.", source)
	}
	a.Socket = filepath.Clean(a.Socket)
	return a, nil
}

// String is the URL.
func (a Address) String() string {
	u := url.URL{Scheme: Scheme, Path: a.Socket}
	query := url.Values{}
	for name, value := range map[string]string{"device": a.Device, "agent": a.Agent, "nbd": a.NBD, "fleece": a.Fleece} {
		if value != "" {
			query.Set(name, value)
		}
	}
	u.RawQuery = strings.ReplaceAll(query.Encode(), "%2F", "/") // which may stand there, and reads better
	return u.Scheme + "://" + u.EscapedPath() + map[bool]string{true: "?", false: ""}[u.RawQuery != ""] + u.RawQuery
}
