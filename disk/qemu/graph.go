package qemu

import (
	"context"
	"strings"
)

// prefix begins the names of all that diskvault makes inside a machine, so that
// what a killed run left is known from what is the machine's own.
const prefix = "diskvault-"

func ours(name string) bool { return strings.HasPrefix(name, prefix) }

// graph is the machine's nodes, and how they stand on each other.
type graph struct {
	nodes map[string]node
	below map[string]map[string]string // node, then role ("file", "target"...): the node below
	above map[string][]string          // the nodes that use a node as their "file"
}

// node is a layer of a disk: a format, a protocol or a filter.
type node struct {
	Name   string `json:"node-name"`
	Driver string `json:"drv"`
	// ReadOnly tells that the machine cannot write to it.
	ReadOnly bool `json:"ro"`
	Image    struct {
		Size     int64  `json:"virtual-size"`
		Actual   int64  `json:"actual-size"`
		Filename string `json:"filename"`
		Detail   struct {
			Data struct {
				Compat string `json:"compat"`
			} `json:"data"`
		} `json:"format-specific"`
	} `json:"image"`
	Bitmaps []bitmap `json:"dirty-bitmaps"`
}

// graph asks for the nodes as they are now.
func (m *Machine) graph(ctx context.Context) (graph, error) {
	g := graph{nodes: map[string]node{}, below: map[string]map[string]string{}, above: map[string][]string{}}
	var named []node
	if err := m.monitor.run(ctx, "query-named-block-nodes", map[string]any{"flat": true}, &named); err != nil {
		return g, err
	}
	for _, n := range named {
		g.nodes[n.Name] = n
	}
	var drawn struct {
		Nodes []struct {
			ID   int    `json:"id"`
			Name string `json:"name"`
			Type string `json:"type"`
		} `json:"nodes"`
		Edges []struct {
			Parent int    `json:"parent"`
			Child  int    `json:"child"`
			Role   string `json:"name"`
		} `json:"edges"`
	}
	if err := m.monitor.run(ctx, "x-debug-query-block-graph", nil, &drawn); err != nil {
		return g, err
	}
	names := map[int]string{}
	for _, n := range drawn.Nodes {
		if n.Type == "block-driver" {
			names[n.ID] = n.Name
		}
	}
	for _, e := range drawn.Edges {
		parent, child := names[e.Parent], names[e.Child]
		if parent == "" || child == "" {
			continue
		}
		if g.below[parent] == nil {
			g.below[parent] = map[string]string{}
		}
		g.below[parent][e.Role] = child
		if e.Role == "file" {
			g.above[child] = append(g.above[child], parent)
		}
	}
	return g, nil
}

// under is a node, or what our own nodes above it stand on.
func (g graph) under(name string) string {
	for ours(name) {
		name = g.below[name]["file"]
	}
	return name
}

// drive is a disk as the machine's guest sees it; storage daemons have none.
type drive struct {
	ID       string `json:"device"`
	Path     string `json:"qdev"` // in the machine's tree of objects
	Inserted *struct {
		Node string `json:"node-name"`
	} `json:"inserted"`
}

// called tells whether a user's name means this drive.
func (d drive) called(name string) bool {
	return d.ID == name || d.Path == name || d.Path == "/machine/peripheral/"+name ||
		strings.HasPrefix(d.Path, "/machine/peripheral/"+name+"/")
}

// drives are those with a medium; none in a storage daemon.
func (m *Machine) drives(ctx context.Context) ([]drive, error) {
	if !m.commands["query-block"] {
		return nil, nil
	}
	var all, out []drive
	if err := m.monitor.run(ctx, "query-block", nil, &all); err != nil {
		return nil, err
	}
	for _, d := range all {
		if d.Inserted != nil {
			out = append(out, d)
		}
	}
	return out, nil
}
