package disk

import (
	"context"
	"crypto/x509"
	"errors"
	"io/fs"
	"net"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/diskvault/diskvault/base/problem"
	"github.com/diskvault/diskvault/disk/nbd"
)

// Network is the kind of a disk that an NBD server offers. Its path is the URL
// of the export.
const Network Kind = "nbd"

// Export is what the user says of a disk on an NBD server, in parameters of its
// URL.
type Export struct {
	// Snapshot says that nobody writes to it, although the server would let
	// somebody: snapshot=yes. It is part of the disk's path.
	Snapshot bool `json:"snapshot,omitempty"`
	// Bitmaps are dirty bitmaps that the server hands out: bitmap=NAME, once or
	// more. Together they tell what has changed since the first of them began.
	Bitmaps []string `json:"bitmaps,omitempty"`
	// Record is the bitmap that notes what changes from this point in time on:
	// record=NAME. A later backup uses it if it is named then as one of Bitmaps.
	Record string `json:"record,omitempty"`
}

// parseExport reads a URL, and gives its form without what belongs to one
// backup only.
func parseExport(text string) (a nbd.Address, e Export, err error) {
	refuse := func(format string, args ...any) (nbd.Address, Export, error) {
		return a, e, problem.New(problem.InvalidArgument, "The URL %s cannot be used: "+format+".", append([]any{text}, args...)...).
			Do("Write it as nbd://HOST/EXPORT or nbd+unix:///EXPORT?socket=PATH, with nbds for TLS.")
	}
	if a, err = nbd.ParseAddress(text); err != nil {
		return refuse("%v", err)
	}
	if a.Network == "unix" && !filepath.IsAbs(a.Host) {
		return refuse("the path of the socket must be absolute, since another process may make the backup")
	}
	more := a.More
	a.More = url.Values{}
	for key, values := range more {
		switch key {
		case "snapshot":
			if e.Snapshot = values[0] == "yes"; !e.Snapshot || len(values) > 1 {
				return refuse("snapshot can only be yes")
			}
			a.More.Set("snapshot", "yes")
		case "bitmap":
			e.Bitmaps = values
		case "record":
			e.Record = values[0]
		default:
			return refuse("it has the parameter %q, which is not known", key)
		}
	}
	if slices.Contains(e.Bitmaps, "") || more.Has("record") && e.Record == "" {
		return refuse("a bitmap has no name")
	}
	if slices.Contains(e.Bitmaps, e.Record) {
		return refuse("the bitmap %q cannot tell what has changed and begin anew at once; a bitmap that is cleared after a failed backup would hide changes, so each needs a name of its own", e.Record)
	}
	return a, e, nil
}

// BitmapContext is the meta context of a dirty bitmap.
func BitmapContext(name string) string { return "qemu:dirty-bitmap:" + name }

// dialExport connects to the export of a URL.
func dialExport(ctx context.Context, text string, bitmaps []string) (*nbd.Client, error) {
	a, _, err := parseExport(text)
	if err != nil {
		return nil, err
	}
	contexts := []string{nbd.ContextAllocation}
	for _, name := range bitmaps {
		contexts = append(contexts, BitmapContext(name))
	}
	c, err := nbd.Dial(ctx, a, nbd.DialOptions{Contexts: contexts})
	if err != nil {
		return nil, exportProblem(ctx, err, a)
	}
	return c, nil
}

// exportProblem classifies a failure to reach an export.
func exportProblem(ctx context.Context, err error, a nbd.Address) error {
	var unknownName *net.DNSError
	var untrusted x509.UnknownAuthorityError
	var otherName x509.HostnameError
	switch {
	case ctx.Err() != nil:
		return problem.From(context.Cause(ctx))
	case errors.Is(err, nbd.ErrNoExport):
		return problem.Wrap(err, problem.SourceNotFound, "The NBD server at %s has no export named %q.", a.Host, a.Export)
	case errors.Is(err, nbd.ErrTLSRequired):
		return problem.Wrap(err, problem.SourcePermissionDenied, "The NBD server at %s talks over TLS only.", a.Host).
			Do("Use the scheme " + strings.Replace(schemeOf(a), "nbd", "nbds", 1) + ", and tls-certificates=FOLDER for certificates of your own.")
	case errors.Is(err, nbd.ErrTLSRefused):
		return problem.Wrap(err, problem.SourceNotSupported, "The NBD server at %s has no TLS.", a.Host).
			Do("Set TLS up at the server.", "Or, where nobody can listen on the network, use the scheme "+strings.Replace(schemeOf(a), "nbds", "nbd", 1)+".")
	case errors.As(err, &untrusted), errors.As(err, &otherName):
		return problem.Wrap(err, problem.SourcePermissionDenied, "The certificate of the NBD server at %s is not trusted.", a.Host).
			Do("Give the folder with its authority, ca-cert.pem, as tls-certificates=FOLDER.", "If the certificate has another name than the host, give it as tls-hostname=NAME.")
	case errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, fs.ErrNotExist), errors.As(err, &unknownName), errors.Is(err, syscall.EHOSTUNREACH):
		return problem.Wrap(err, problem.SourceNotFound, "No NBD server answers at %s.", a.Host).
			Do("Check the address, and that the server runs.")
	case errors.Is(err, fs.ErrPermission):
		return problem.Wrap(err, problem.SourcePermissionDenied, "This user may not connect to the NBD server at %s.", a.Host)
	}
	return problem.Wrap(err, problem.SourceReadFailed, "The NBD server at %s does not give its export %q.", a.Host, a.Export).
		Do("Look at what the server says, then run again.")
}

func schemeOf(a nbd.Address) string {
	s, _, _ := strings.Cut(a.String(), ":")
	return s
}

// probeExport looks at the export of a URL.
func probeExport(ctx context.Context, given string) (*Source, error) {
	a, export, err := parseExport(given)
	if err != nil {
		return nil, err
	}
	s := &Source{
		Given: given, Path: a.String(), Kind: Network, Format: FormatRaw,
		SectorSize: 512, PhysicalSectorSize: 512, Export: &export,
	}
	c, err := dialExport(ctx, s.Path, nil)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	s.Size, s.Allocated, s.ReadOnly, s.Rotational = c.Size(), c.Size(), c.ReadOnly(), c.Rotational()
	if err := s.checkSize(); err != nil {
		return nil, err
	}
	head := make([]byte, min(s.Size, headSize))
	if err := c.Read(ctx, head, 0); err != nil {
		if ctx.Err() != nil {
			return nil, problem.From(context.Cause(ctx))
		}
		head = nil // as in Probe
	}
	s.Format = formatOf(head)
	if !s.Format.Container() {
		s.Identity = identityOf(head)
	}
	return s, nil
}
