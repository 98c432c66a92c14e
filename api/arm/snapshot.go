package arm

import (
	"net/http"
	"strings"

	"github.com/diskvault/diskvault/base/problem"
	"github.com/diskvault/diskvault/control/resource"
	"github.com/diskvault/diskvault/control/service"
)

// snapshotOf writes a snapshot down.
func snapshotOf(n resource.Snapshot) (diskBody, error) {
	p, err := wire(n.Properties, map[string]any{
		"creationData": map[string]any{"createOption": "Copy", "sourceResourceId": string(n.Disk), "sourceUniqueId": n.DiskUnique},
		"diskSizeGB":   gigabytes(n.Size), "diskSizeBytes": n.Size, "incremental": true, "incrementalSnapshotFamilyId": n.DiskUnique, "completionPercent": 100,
		"snapshotAccessState": "Available", "timeCreated": timeText(n.Created), "provisioningState": "Succeeded", "diskState": "Unattached", "uniqueId": n.UniqueID,
	})
	return diskBody{ID: string(n.ID), Name: n.ID.Name(), Type: resource.TypeSnapshot, Location: short(n.Location), Tags: n.Tags, SKU: skuOf(n.SKU, "Standard_ZRS"), Properties: p}, err
}

func putSnapshot(q *request) (reply, error) {
	var b diskBody
	if err := q.read(&b); err != nil {
		return reply{}, err
	}
	s, err := b.settings()
	if err != nil {
		return reply{}, err
	}
	if !strings.EqualFold(s.creation.Option, "Copy") {
		return reply{}, problem.New(problem.DiskOptionUnsupported, "A snapshot is made with createOption Copy of a disk, and not with %q.", s.creation.Option)
	}
	of, err := idIn(s.creation.Source)
	if err != nil {
		return reply{}, err
	}
	if of.Type() != resource.TypeDisk {
		return reply{}, problem.New(problem.DiskOptionUnsupported, "A snapshot is made of a disk, and not of %q.", s.creation.Source)
	}
	if err := q.as.Allow(q.Context(), q.operation.Name, "", q.at, of); err != nil {
		return reply{}, err
	}
	n, _, err := q.as.ShowPoint(q.Context(), resource.Snapshot{ID: q.at, Tags: b.Tags, SKU: valueOf(b.SKU).Name, Disk: of, Properties: s.rest}, q.match())
	if err != nil {
		return reply{}, err
	}
	body, err := snapshotOf(n)
	return reply{status: http.StatusOK, body: body}, err
}

func patchSnapshot(q *request) (reply, error) {
	var b diskBody
	if err := q.read(&b); err != nil {
		return reply{}, err
	}
	s, err := b.settings()
	if err != nil {
		return reply{}, err
	}
	n, err := q.as.Snapshot(q.Context(), q.at)
	if err != nil {
		return reply{}, err
	}
	was := resource.ETag(n)
	if b.Tags != nil {
		n.Tags = b.Tags
	}
	if n.Properties, err = merged(n.Properties, s.rest); err != nil {
		return reply{}, err
	}
	if n, _, err = q.as.PutSnapshot(q.Context(), n, was); err != nil {
		return reply{}, err
	}
	body, err := snapshotOf(n)
	return reply{status: http.StatusOK, body: body}, err
}

func getSnapshot(q *request) (reply, error) {
	n, err := q.as.Snapshot(q.Context(), q.at)
	if err != nil {
		return reply{}, err
	}
	body, err := snapshotOf(n)
	return reply{status: http.StatusOK, body: body}, err
}

func listSnapshots(q *request) (reply, error) {
	return list(q, func(p service.Page) ([]resource.Snapshot, error) { return q.as.Snapshots(q.Context(), q.at, p) }, snapshotOf)
}

func deleteSnapshot(q *request) (reply, error) { return done(q.as.DeleteSnapshot(q.Context(), q.at)) }
