// Package rbd takes snapshots of Ceph RBD images, tells what has changed between
// two of them, and serves them to be read. It calls Ceph's own program `rbd`, and
// `qemu-nbd` with its RBD driver, so that no C library is linked in.
package rbd

import (
	"net/url"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/diskvault/diskvault/base/problem"
)

// Scheme begins the URL of an image: rbd:pool/image, or rbd:pool/namespace/image,
// with ?conf=/etc/ceph/other.conf&user=backup where that is not the default.
const Scheme = "rbd"

// Address names an image.
type Address struct {
	Pool, Namespace, Image string
	Conf                   string // configuration of the cluster; "": what Ceph finds
	User                   string // without "client."; "": admin
}

// plainName is what a pool, a namespace, an image and a user may be called here:
// names that mean nothing else to `rbd` and to QEMU.
var plainName = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.-]*$`)

// ParseAddress reads a URL of the scheme. The error is the problem
// InvalidArgument.
func ParseAddress(source string) (Address, error) {
	refuse := func(why string) (Address, error) {
		return Address{}, problem.New(problem.InvalidArgument, "%s cannot be used: %s.", source, why).
			Do("Write it as rbd:POOL/IMAGE, with ?conf=/PATH and &user=NAME if need be.")
	}
	rest, ok := strings.CutPrefix(source, Scheme+":")
	if !ok {
		return refuse("it is no URL of an RBD image")
	}
	path, query, _ := strings.Cut(strings.TrimPrefix(rest, "//"), "?")
	values, err := url.ParseQuery(query)
	if err != nil {
		return refuse("what follows the question mark cannot be read")
	}
	var a Address
	for name, all := range values {
		field, known := map[string]*string{"conf": &a.Conf, "user": &a.User}[name]
		if !known || len(all) != 1 || all[0] == "" {
			return refuse("it has a parameter " + name + " that is unknown, empty or given twice")
		}
		*field = all[0]
	}
	switch parts := strings.Split(path, "/"); len(parts) {
	case 2:
		a.Pool, a.Image = parts[0], parts[1]
	case 3:
		if parts[1] == "" {
			return refuse("its namespace is empty")
		}
		a.Pool, a.Namespace, a.Image = parts[0], parts[1], parts[2]
	default:
		return refuse("it does not name a pool and an image")
	}
	for _, name := range []string{a.Pool, a.Namespace, a.Image, a.User} {
		if name != "" && !plainName.MatchString(name) {
			return refuse("the name " + name + " has other characters than letters, digits, dashes, dots and underscores")
		}
	}
	if a.Pool == "" || a.Image == "" {
		return refuse("it does not name a pool and an image")
	}
	if a.Conf != "" && (!filepath.IsAbs(a.Conf) || strings.ContainsAny(a.Conf, ":\\@")) {
		return refuse("the path of the configuration is not absolute, or has a colon, an at sign or a backslash in it")
	}
	return a, nil
}

// Spec is the image as `rbd` calls it.
func (a Address) Spec() string {
	if a.Namespace != "" {
		return a.Pool + "/" + a.Namespace + "/" + a.Image
	}
	return a.Pool + "/" + a.Image
}

// String is the URL.
func (a Address) String() string {
	values := url.Values{}
	if a.Conf != "" {
		values.Set("conf", a.Conf)
	}
	if a.User != "" {
		values.Set("user", a.User)
	}
	if len(values) == 0 {
		return Scheme + ":" + a.Spec()
	}
	return Scheme + ":" + a.Spec() + "?" + strings.ReplaceAll(values.Encode(), "%2F", "/")
}
