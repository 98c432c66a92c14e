package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/diskvault/diskvault/control/resource"
	"github.com/diskvault/diskvault/control/service"
)

type backupOptions struct {
	*invocation
	disks   []string
	group   bool
	store   string
	key     keyFlag
	limit   sizeFlag
	request service.BackupRequest
}

func newBackup(inv *invocation) *cobra.Command {
	o := &backupOptions{invocation: inv}
	cmd := &cobra.Command{
		Use:   "backup DISK...",
		Short: "Protect a disk if it is not yet, and back it up",
		Long: `Makes a recovery point of a disk: of an image file, a block device, a disk of a
running machine, an NBD export, a Ceph image or an LVM thin volume.

The first backup protects the disk: it gets a name, the default vault and
policy, and a store in the data folder if there is none. Every further backup
stores only what changed. DISK is a path or the name of a protected disk.

A recovery point shows the disk at one moment. If that cannot be proven, since
something writes to the disk, the backup is refused with what to do about it.

Several disks are backed up one after another, each as it is at its own moment.
With --group they are disks of one running machine and show the same moment; if
one of them fails after it, the points of the others are kept and say so.

An interrupted backup loses nothing: the next one uses what is stored.`,
		Example: `  diskvault backup disk.img
  diskvault backup /dev/vg/root --name web-root
  diskvault backup web-root --limit-rate 50M
  diskvault backup 'qemu+unix:///run/web/qmp.sock?device=sys' 'qemu+unix:///run/web/qmp.sock?device=data' --group
  diskvault backup disk.img -o json | jq -r .recoveryPoint.id`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usageError(cmd, "DISK is missing.")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			o.disks = args
			if err := o.complete(cmd); err != nil {
				return err
			}
			return o.run(cmd.Context())
		},
	}
	f := cmd.Flags()
	f.BoolVar(&o.group, "group", false, "capture the disks, all of one running machine, at the same moment")
	f.StringVar(&o.request.Name, "name", "", "name of the disk in diskvault (default: made from its path)")
	f.StringVar(&o.request.Vault, "vault", "", "vault of a disk that is protected now")
	f.StringVar(&o.request.Policy, "policy", "", "policy of a disk that is protected now")
	f.StringVar(&o.store, "store", "", "URL of the store of a disk that is protected now")
	f.StringVar(&o.request.RetentionTag, "retention-tag", "", "retention tag of the policy for this point (default: Default)")
	f.StringVar(&o.request.Compression, "compression", "auto", "auto, fast, default, max or none")
	f.BoolVar(&o.request.FullScan, "full-scan", false, "read all of the disk, whatever change tracking says")
	f.BoolVar(&o.request.AllowInconsistent, "allow-inconsistent", false, "go on though the point may not show one moment; it is marked so")
	f.BoolVar(&o.request.AllowUnreadable, "allow-unreadable", false, "store ranges that cannot be read as zeros; the point is marked inconsistent")
	f.BoolVar(&o.request.AcceptReplaced, "accept-replaced", false, "take the disk for the one protected at this path though its identity differs")
	f.Var(&o.limit, "limit-rate", "read at most this many bytes a second, as 50M")
	addStallBudget(cmd, &o.request.StallBudget)
	f.IntVar(&o.request.FullReadDays, "full-read-days", 30, "after how many days all of the disk is read again although its changes are tracked, to see whether any was missed")
	addMinExcess(cmd, &o.request.MinExcess)
	o.key.add(cmd)
	return cmd
}

func (o *backupOptions) complete(cmd *cobra.Command) (err error) {
	switch o.request.Compression {
	case "auto", "fast", "default", "max", "none":
	default:
		return usageError(cmd, "%q is no compression: auto, fast, default, max and none are.", o.request.Compression)
	}
	if o.request.FullReadDays < 1 || o.request.StallBudget < 0 {
		return usageError(cmd, "--full-read-days must be at least 1, and --stall-budget not negative.")
	}
	if len(o.disks) > 1 && o.request.Name != "" {
		return usageError(cmd, "--name is for one disk.")
	}
	o.request.LimitRate = o.limit.bytes
	if o.request.URL, err = storeURL(o.store); err != nil {
		return err
	}
	o.request.Key, err = o.key.text(o.invocation)
	return err
}

func (o *backupOptions) run(ctx context.Context) error {
	c, err := o.client()
	if err != nil {
		return err
	}
	members, err := o.backUp(ctx, c)
	if err != nil {
		return err
	}
	for n, m := range members {
		if m.Error != nil {
			if err == nil {
				err = m.Error.Problem()
			}
			if o.format == "table" {
				o.progress.clear()
				fmt.Fprintf(o.stderr, "%s was not backed up: %s\n", o.disks[n], m.Error.Message)
			}
			continue
		}
		if o.format == "table" && !o.quiet {
			o.sayCreated(m.BackupResult)
		}
		for _, w := range m.Warnings {
			o.warn(w)
		}
	}
	var result any = members
	if len(members) == 1 && !o.group {
		result = members[0]
	}
	return errors.Join(err, o.print(result, func() {
		for _, m := range members {
			if m.Error == nil {
				o.say(m.BackupResult)
			}
		}
	}))
}

// backUp gives what became of each disk.
func (o *backupOptions) backUp(ctx context.Context, c service.Client) ([]service.GroupMember, error) {
	var disks []service.GroupDisk
	for _, d := range o.disks {
		path, err := absolute(d)
		if err != nil {
			return nil, err
		}
		disks = append(disks, service.GroupDisk{Disk: d, Path: path})
	}
	if o.group {
		return c.BackupGroup(ctx, service.BackupGroupRequest{BackupRequest: o.request, Disks: disks}, o.events)
	}
	var out []service.GroupMember
	for _, d := range disks {
		r := o.request
		r.Disk, r.Path = d.Disk, d.Path
		before := len(o.notices)
		done, err := c.Backup(ctx, r, o.events)
		if err != nil && len(disks) == 1 {
			return nil, err
		}
		if err != nil {
			done.Disk, done.Status = d.Disk, resource.Failed
		}
		out = append(out, service.GroupMember{BackupResult: done, Error: resource.FailureOf(err), Notices: o.notices[before:]})
		if ctx.Err() != nil {
			break
		}
	}
	return out, nil
}

// sayCreated tells what a first backup made, before what it did.
func (o *backupOptions) sayCreated(r service.BackupResult) {
	c := r.Created
	if c == nil {
		return
	}
	var made []string
	if c.Store != "" {
		made = append(made, "the store "+c.Store)
	}
	if c.Vault != "" {
		made = append(made, "the vault "+c.Vault)
	}
	if c.Policy != "" {
		made = append(made, "the policy "+c.Policy)
	}
	if len(made) > 0 {
		fmt.Fprintf(o.stderr, "Made %s.\n", strings.Join(made, ", "))
	}
	fmt.Fprintf(o.stderr, "Protected %s as %s.\n", r.Disk, r.Instance)
}

// say tells a person what happened, in the order of what they want to know: is
// it safe, what did it cost, how do I get it back.
func (o *backupOptions) say(r service.BackupResult) {
	b, p := r.Bytes, r.RecoveryPoint
	o.printf("Backed up %s in %s: %s disk, %s read, %s new, %s stored.\n",
		r.Instance, duration(r.DurationSeconds), size(b.Provisioned), size(b.Read), size(b.New), size(b.Stored))
	state := "shows the disk at one moment"
	if p.Consistency != "crashConsistent" {
		state = "inconsistent"
	}
	if c, t := r.Capture, r.ChangeTracking; t.Method == "none" {
		o.printf("Captured by %s; all of it was read: %s.\n", c.Method, t.Reason)
	} else {
		o.printf("Captured by %s; changes tracked by %s: %s.\n", c.Method, t.Method, t.Reason)
	}
	if d := r.ChangeTracking.Dropped; d != "" {
		o.printf("The next backup reads all of the disk, since this capture was not kept: %s.\n", d)
	}
	o.printf("Recovery point %s of %s UTC, %s.\n", p.ID, moment(p.Time), state)
	if g := p.Group; g != nil {
		o.printf("It shows the same moment as the other disks of the consistency group %s%s.\n", g.ID, missing(g))
	}
	point := ""
	if !r.First {
		point = " --point " + p.ID[:min(8, len(p.ID))]
	}
	o.printf("Restore it: diskvault restore %s%s --to NEW.img\n", r.Instance, point)
}

// missing says which disks a consistency group lacks.
func missing(g *resource.ConsistencyGroup) string {
	if g.Complete {
		return ""
	}
	return ", which is incomplete: there is no point of " + strings.Join(g.Missing, ", ")
}
