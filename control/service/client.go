package service

import (
	"context"
	"encoding/json"
	"time"

	"github.com/diskvault/diskvault/control/home"
	"github.com/diskvault/diskvault/control/resource"
)

// Client asks for use cases: in this process if nobody owns the data folder,
// else of its owner. Events, which may come from any goroutine, go to the
// function given with each call.
type Client struct {
	Folder  home.Folder
	Options Options
}

// Events hears what happens while a request is done.
type Events func(home.Event)

func ask[Out any](ctx context.Context, c Client, operation string, in any, events Events) (out Out, err error) {
	arguments, err := json.Marshal(in)
	if err != nil {
		return out, err
	}
	if events == nil {
		events = func(home.Event) {}
	}
	options := c.Options
	options.Brief = !takesJobs(operation)
	result, err := c.Folder.Call(ctx, home.Request{Operation: operation, Arguments: arguments},
		func(ctx context.Context) (home.Service, error) { return Open(ctx, c.Folder, options) }, events)
	if err != nil {
		return out, err
	}
	return out, json.Unmarshal(result, &out)
}

// Backup protects a disk if it is not yet, and makes a recovery point of it.
func (c Client) Backup(ctx context.Context, r BackupRequest, e Events) (BackupResult, error) {
	return ask[BackupResult](ctx, c, "backup", r, e)
}

// BackupGroup makes recovery points of disks of one machine that show the same
// moment. An error means that there is none; a member that failed alone says so.
func (c Client) BackupGroup(ctx context.Context, r BackupGroupRequest, e Events) ([]GroupMember, error) {
	return ask[[]GroupMember](ctx, c, "backup.group", r, e)
}

// Restore writes the content of a recovery point to a file or device.
func (c Client) Restore(ctx context.Context, r RestoreRequest, e Events) (RestoreResult, error) {
	return ask[RestoreResult](ctx, c, "restore", r, e)
}

// Instant makes a disk of a recovery point that can be used at once, and
// restores it meanwhile.
func (c Client) Instant(ctx context.Context, r InstantRequest, e Events) (InstantResult, error) {
	return ask[InstantResult](ctx, c, "restore.instant", r, e)
}

// Mount shows a recovery point as a folder until ctx ends, the time is over or
// somebody unmounts it.
func (c Client) Mount(ctx context.Context, r MountRequest, e Events) (MountResult, error) {
	return ask[MountResult](ctx, c, "mount", r, e)
}

// NBD offers a recovery point to NBD clients until ctx ends or the time is over.
func (c Client) NBD(ctx context.Context, r NBDRequest, e Events) (NBDResult, error) {
	return ask[NBDResult](ctx, c, "nbd", r, e)
}

// ListFiles lists a folder of a recovery point, or its volumes.
func (c Client) ListFiles(ctx context.Context, r ListFilesRequest) (ListFilesResult, error) {
	return ask[ListFilesResult](ctx, c, "files.list", r, nil)
}

// CopyFiles copies files out of a recovery point.
func (c Client) CopyFiles(ctx context.Context, r CopyFilesRequest, e Events) (CopyFilesResult, error) {
	return ask[CopyFilesResult](ctx, c, "files.copy", r, e)
}

// Points lists the recovery points of an instance, newest first.
func (c Client) Points(ctx context.Context, r PointsRequest) ([]resource.RecoveryPoint, error) {
	return ask[[]resource.RecoveryPoint](ctx, c, "points", r, nil)
}

// DeletePoints deletes recovery points for good.
func (c Client) DeletePoints(ctx context.Context, r DeletePointsRequest) (DeletePointsResult, error) {
	return ask[DeletePointsResult](ctx, c, "points.delete", r, nil)
}

// Verify checks that recovery points can be restored.
func (c Client) Verify(ctx context.Context, r VerifyRequest, e Events) (VerifyResult, error) {
	return ask[VerifyResult](ctx, c, "verify", r, e)
}

// FSCK has the programs of its file systems check a recovery point.
func (c Client) FSCK(ctx context.Context, r FSCKRequest, e Events) (FSCKResult, error) {
	return ask[FSCKResult](ctx, c, "verify.fsck", r, e)
}

// ConfirmRetention says that the rules are as they should be after the catalog
// was rebuilt: from now on points expire again.
func (c Client) ConfirmRetention(ctx context.Context) error {
	_, err := ask[struct{}](ctx, c, "retention.confirm", struct{}{}, nil)
	return err
}

// Serve owns the data folder until ctx ends: it runs queued jobs, carries out
// schedules, and does the requests of other processes. up, which may be nil,
// gets the service once it runs.
func (c Client) Serve(ctx context.Context, o ServeOptions, grace time.Duration, up func(*Service)) error {
	var s *Service
	return c.Folder.Serve(ctx, func(ctx context.Context) (home.Service, error) {
		var err error
		s, err = Open(ctx, c.Folder, c.Options)
		return s, err
	}, func(ctx context.Context, _ home.Service) error {
		if up != nil {
			up(s)
		}
		return s.Serve(ctx, o, grace)
	})
}

// Status tells what is protected and what failed.
func (c Client) Status(ctx context.Context) (StatusResult, error) {
	return ask[StatusResult](ctx, c, "status", struct{}{}, nil)
}

// Jobs lists jobs, newest first, those that run with their live progress.
func (c Client) Jobs(ctx context.Context, r JobsRequest) ([]resource.Job, error) {
	return ask[[]resource.Job](ctx, c, "jobs", r, nil)
}

// CreateStore makes a store.
func (c Client) CreateStore(ctx context.Context, r CreateStoreRequest, e Events) (StoreResult, error) {
	return ask[StoreResult](ctx, c, "store.create", r, e)
}

// ShowStore tells what a store is and holds.
func (c Client) ShowStore(ctx context.Context, r StoreRequest) (StoreResult, error) {
	return ask[StoreResult](ctx, c, "store.show", r, nil)
}

// CheckStore checks all of a store.
func (c Client) CheckStore(ctx context.Context, r CheckStoreRequest, e Events) (VerifyResult, error) {
	return ask[VerifyResult](ctx, c, "store.check", r, e)
}

// CollectStore removes from a store what nothing refers to any more.
func (c Client) CollectStore(ctx context.Context, r CollectRequest, e Events) (CollectResult, error) {
	return ask[CollectResult](ctx, c, "store.collect", r, e)
}

// CopyStore copies recovery points to another store.
func (c Client) CopyStore(ctx context.Context, r CopyStoreRequest, e Events) (CopyStoreResult, error) {
	return ask[CopyStoreResult](ctx, c, "store.copy", r, e)
}

// Scrub reads a part of a store back: what was read longest ago.
func (c Client) Scrub(ctx context.Context, r ScrubRequest, e Events) (ScrubResult, error) {
	return ask[ScrubResult](ctx, c, "store.scrub", r, e)
}

// RebuildIndex makes the local index of a store anew.
func (c Client) RebuildIndex(ctx context.Context, r StoreRequest, e Events) (RebuildIndexResult, error) {
	return ask[RebuildIndexResult](ctx, c, "store.rebuild-index", r, e)
}

// RebuildCatalog makes the catalog anew from what a store holds.
func (c Client) RebuildCatalog(ctx context.Context, r StoreRequest, e Events) (RebuildCatalogResult, error) {
	return ask[RebuildCatalogResult](ctx, c, "store.rebuild-catalog", r, e)
}

// ListKeys lists the keys that open a store.
func (c Client) ListKeys(ctx context.Context, r StoreRequest) ([]KeyResult, error) {
	return ask[[]KeyResult](ctx, c, "store.key.list", r, nil)
}

// AddKey lets a passphrase open a store.
func (c Client) AddKey(ctx context.Context, r AddKeyRequest) (KeyResult, error) {
	return ask[KeyResult](ctx, c, "store.key.add", r, nil)
}

// RemoveKey makes a key useless for a store.
func (c Client) RemoveKey(ctx context.Context, r RemoveKeyRequest) (KeyResult, error) {
	return ask[KeyResult](ctx, c, "store.key.remove", r, nil)
}

// ExportKey makes a new recovery key for a store; its secret is in the result
// and nowhere else.
func (c Client) ExportKey(ctx context.Context, r StoreRequest) (KeyResult, error) {
	return ask[KeyResult](ctx, c, "store.key.export", r, nil)
}
