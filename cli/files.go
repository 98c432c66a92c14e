package cli

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/diskvault/diskvault/control/service"
)

const placeHelp = `A file is named INSTANCE[@POINT]:/VOLUME/PATH. The volume is p1, p2… by the number
of the partition, or "whole" if the disk has no partition table; INSTANCE:/ lists them.
The point is its ID or how that begins, a time, or latest. Symbolic links on the
way are followed within the volume; at the end of a path, with a slash behind it.`

// place is what INSTANCE[@POINT]:/PATH names.
type place struct{ instance, point, path string }

// parsePlace reads it. An instance can be a URL, so that "://" does not end it.
func parsePlace(text string) (p place, ok bool) {
	p = place{instance: text, point: "latest", path: "/"}
	for at := 0; ; at++ {
		n := strings.Index(text[at:], ":/")
		if n < 0 {
			if strings.HasSuffix(text, ":") {
				p.instance = text[:len(text)-1]
				ok = true
			}
			break
		}
		if at += n; !strings.HasPrefix(text[at:], "://") || strings.Trim(text[at+1:], "/") == "" {
			p.instance, p.path, ok = text[:at], text[at+1:], true
			break
		}
	}
	if n := strings.LastIndex(p.instance, "@"); n > 0 && n < len(p.instance)-1 {
		p.instance, p.point = p.instance[:n], p.instance[n+1:]
	}
	return p, ok
}

func (s *selector) files(inv *invocation, p place) (r service.ListFilesRequest, err error) {
	r.Point, r.Path = p.point, p.path
	r.PointsRequest, err = s.request(inv, p.instance)
	return r, err
}

type listFilesOptions struct {
	*invocation
	selector
}

func newListFiles(inv *invocation) *cobra.Command {
	o := &listFilesOptions{invocation: inv}
	cmd := &cobra.Command{
		Use:   "ls INSTANCE[@POINT]:/PATH",
		Short: "List files in a recovery point",
		Long:  "Lists a folder in a recovery point, without mounting anything.\n\n" + placeHelp,
		Example: `  diskvault ls disk:/
  diskvault ls disk:/p1/etc
  diskvault ls disk@2026-03-01:/p1/home/anna/`,
		Args: exactly("INSTANCE[@POINT]:/PATH"),
		RunE: func(cmd *cobra.Command, args []string) error {
			p, _ := parsePlace(args[0])
			return o.run(cmd.Context(), p)
		},
	}
	o.selector.add(cmd)
	return cmd
}

func (o *listFilesOptions) run(ctx context.Context, p place) error {
	request, err := o.selector.files(o.invocation, p)
	if err != nil {
		return err
	}
	c, err := o.client()
	if err != nil {
		return err
	}
	r, err := c.ListFiles(ctx, request)
	if err != nil {
		return err
	}
	if r.Stale != "" {
		o.warn("The file system may not be complete: " + r.Stale + ".")
	}
	return o.print(r, func() {
		if r.Volumes != nil {
			o.volumes(r)
			return
		}
		var rows [][]string
		for _, f := range r.Files {
			name := f.Name
			switch {
			case f.Error != "":
				name += " (" + f.Error + ")"
			case f.Kind == "link":
				name += " -> " + f.Target
			case f.Kind == "folder":
				name += "/"
			}
			rows = append(rows, []string{f.Mode, fmt.Sprint(f.UID), fmt.Sprint(f.GID), size(f.Size), moment(f.Modified), name})
		}
		o.table([]string{"MODE", "OWNER", "GROUP", "SIZE", "MODIFIED (UTC)", "NAME"}, rows)
	})
}

func (o *listFilesOptions) volumes(r service.ListFilesResult) {
	var rows [][]string
	for _, v := range r.Volumes {
		kind, note := v.Kind, v.Note
		if kind == "" {
			kind = "unknown"
		}
		switch {
		case v.Stale != "":
			note = v.Stale
		case v.Replayed:
			note = "its journal is replayed in memory"
		}
		rows = append(rows, []string{v.Name, kind, size(v.Size), strings.TrimSpace(v.Title + " " + v.Label), note})
	}
	o.table([]string{"VOLUME", "HOLDS", "SIZE", "LABEL", "NOTE"}, rows)
}

type copyFilesOptions struct {
	*invocation
	selector
	request service.CopyFilesRequest
}

func newCopyFiles(inv *invocation) *cobra.Command {
	o := &copyFilesOptions{invocation: inv}
	cmd := &cobra.Command{
		Use:   "cp INSTANCE[@POINT]:/PATH TARGET",
		Short: "Copy files out of a recovery point",
		Long: `Copies a file, or a folder with all that is in it, out of a recovery point: into
TARGET if it is a folder, else under its name. Modes, owners, times, extended
attributes, holes, symbolic and hard links are kept where the target and the
user can. Every block is verified by its hash; a file appears only when it is
whole. What exists is only replaced with --overwrite.

` + placeHelp,
		Example: `  diskvault cp disk:/p1/etc/fstab .
  diskvault cp disk@2026-03-01:/p1/home/anna /tmp/anna
  diskvault cp disk:/whole/data.db data.db --overwrite`,
		Args: exactly("INSTANCE[@POINT]:/PATH", "TARGET"),
		RunE: func(cmd *cobra.Command, args []string) error {
			p, ok := parsePlace(args[0])
			if !ok {
				return usageError(cmd, "%q names no file in a recovery point, as in disk:/p1/etc/fstab.", args[0])
			}
			if isURL(args[1]) {
				return usageError(cmd, "The target %s is not a path.", args[1])
			}
			var err error
			if o.request.ListFilesRequest, err = o.selector.files(inv, p); err != nil {
				return err
			}
			if o.request.To, err = absolute(args[1]); err != nil {
				return err
			}
			return o.run(cmd.Context())
		},
	}
	cmd.Flags().BoolVar(&o.request.Overwrite, "overwrite", false, "replace files that exist, and merge folders")
	o.selector.add(cmd)
	return cmd
}

func (o *copyFilesOptions) run(ctx context.Context) error {
	c, err := o.client()
	if err != nil {
		return err
	}
	r, err := c.CopyFiles(ctx, o.request, o.events)
	if err != nil {
		return err
	}
	for _, w := range r.Warnings {
		o.warn(w)
	}
	return o.print(r, func() {
		what := fmt.Sprintf("%d files", r.Files)
		if r.Files == 1 && r.Folders == 0 {
			what = "1 file"
		}
		if r.Folders > 0 {
			what += fmt.Sprintf(" in %d folders", r.Folders)
		}
		o.printf("Copied %s, %s, of %s as of %s UTC to %s in %s.\n", what, size(r.Bytes), r.Instance, moment(r.PointTime), r.Target, duration(r.DurationSeconds))
	})
}
