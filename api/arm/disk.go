package arm

import (
	"context"
	"encoding/json"
	"maps"
	"net/http"
	"strings"

	"github.com/diskvault/diskvault/base/problem"
	"github.com/diskvault/diskvault/control/resource"
	"github.com/diskvault/diskvault/control/service"
)

type diskBody struct {
	ID         string            `json:"id,omitempty"`
	Name       string            `json:"name,omitempty"`
	Type       string            `json:"type,omitempty"`
	Location   string            `json:"location"`
	Tags       map[string]string `json:"tags,omitempty"`
	Zones      []string          `json:"zones,omitempty"`
	SKU        *skuBody          `json:"sku,omitempty"`
	Properties map[string]any    `json:"properties"`
}

type skuBody struct {
	Name string `json:"name,omitempty"`
	Tier string `json:"tier,omitempty"`
}

type creationData struct {
	Option    string `json:"createOption"`
	SourceURI string `json:"sourceUri"`
	Source    string `json:"sourceResourceId"`
}

// tagSource names the source of a disk, for tools that cannot set
// creationData.sourceUri.
const tagSource = "diskvault-source"

// own are the properties that diskvault itself tells; all others are kept for
// clients as they were sent.
var own = []string{
	"creationData", "diskSizeGB", "diskSizeBytes", "timeCreated", "provisioningState", "diskState", "uniqueId", "incremental",
	"incrementalSnapshotFamilyId", "completionPercent", "snapshotAccessState",
}

// settings are what is asked for of a disk or snapshot.
type settings struct {
	creation creationData
	size     int64           // bytes; 0: not said
	rest     json.RawMessage // for clients
}

const gibibyte = 1 << 30

// settings reads the properties, whose names may be in any case.
func (b diskBody) settings() (s settings, err error) {
	rest := map[string]any{}
	for name, value := range b.Properties {
		known := ""
		for _, o := range own {
			if strings.EqualFold(o, name) {
				known = o
			}
		}
		data, err := json.Marshal(value)
		if err != nil {
			return s, err
		}
		switch known {
		case "creationData":
			if err := json.Unmarshal(data, &s.creation); err != nil {
				return s, problem.New(problem.RequestUnreadable, "properties.creationData cannot be read.")
			}
		case "diskSizeGB":
			var n *float64
			if err := json.Unmarshal(data, &n); err != nil || valueOf(n) < 0 || valueOf(n) > 1<<20 {
				return s, problem.New(problem.RequestUnreadable, "properties.diskSizeGB must be a number of GiB.")
			}
			s.size = int64(valueOf(n)) * gibibyte
		case "":
			if value != nil {
				rest[name] = value
			}
		}
	}
	s.rest, err = json.Marshal(rest)
	return s, err
}

// wire gives the properties of a disk or snapshot as clients read them: what
// they may not miss, then what was sent, then what is so.
func wire(kept json.RawMessage, facts map[string]any) (map[string]any, error) {
	out := map[string]any{
		"encryption": map[string]any{"type": "EncryptionAtRestWithPlatformKey"}, "networkAccessPolicy": "AllowAll", "publicNetworkAccess": "Enabled",
	}
	if len(kept) > 0 {
		sent := map[string]any{}
		if err := json.Unmarshal(kept, &sent); err != nil {
			return nil, err
		}
		maps.Copy(out, sent)
	}
	maps.Copy(out, facts)
	return out, nil
}

func skuOf(name, otherwise string) *skuBody {
	if name == "" {
		name = otherwise
	}
	tier, _, _ := strings.Cut(name, "_")
	return &skuBody{name, tier}
}

// gigabytes is a size in GiB, rounded up.
func gigabytes(size int64) int64 { return (size + gibibyte - 1) / gibibyte }

// diskOf writes a disk down.
func diskOf(d resource.Disk) (diskBody, error) {
	creation := map[string]any{"createOption": "Empty"}
	var kept struct {
		Made map[string]any `json:"diskvaultCreation"`
	}
	if len(d.Properties) > 0 {
		if err := json.Unmarshal(d.Properties, &kept); err != nil {
			return diskBody{}, err
		}
	}
	switch {
	case kept.Made != nil:
		creation = kept.Made
	case d.Source != "":
		creation = map[string]any{"createOption": "Import", "sourceUri": sourceURI(d.Source)}
	}
	p, err := wire(d.Properties, map[string]any{
		"creationData": creation, "diskSizeGB": gigabytes(d.Size), "diskSizeBytes": d.Size, "timeCreated": timeText(d.Created),
		"provisioningState": "Succeeded", "diskState": "Unattached", "uniqueId": d.UniqueID,
	})
	delete(p, "diskvaultCreation")
	return diskBody{ID: string(d.ID), Name: d.ID.Name(), Type: resource.TypeDisk, Location: short(d.Location), Tags: d.Tags, Zones: d.Zones, SKU: skuOf(d.SKU, "Standard_LRS"), Properties: p}, err
}

func sourceURI(source string) string {
	if strings.HasPrefix(source, "/") {
		return "file://" + source
	}
	return source
}

func putDisk(q *request) (reply, error) {
	var b diskBody
	if err := q.read(&b); err != nil {
		return reply{}, err
	}
	s, err := b.settings()
	if err != nil {
		return reply{}, err
	}
	d := resource.Disk{ID: q.at, Location: b.Location, Tags: b.Tags, Zones: b.Zones, SKU: valueOf(b.SKU).Name, Size: s.size, Properties: s.rest}
	d.Source = s.creation.SourceURI
	if d.Source == "" {
		d.Source = b.Tags[tagSource]
	}
	work, err := q.makeDisk(d, s)
	if err != nil {
		return reply{}, err
	}
	return q.diskWork(d, work)
}

// makeDisk gives the work that makes a disk.
func (q *request) makeDisk(d resource.Disk, s settings) (func(context.Context) (resource.Disk, error), error) {
	if d.Source != "" {
		return func(ctx context.Context) (resource.Disk, error) {
			made, _, err := q.as.RegisterDisk(ctx, d, q.match())
			return made, err
		}, nil
	}
	from := resource.ID("")
	switch {
	case strings.EqualFold(s.creation.Option, "Empty"), s.creation.Option == "":
	case strings.EqualFold(s.creation.Option, "Copy"):
		var err error
		if from, err = idIn(s.creation.Source); err != nil {
			return nil, err
		}
		if from.Type() != resource.TypeSnapshot {
			return nil, problem.New(problem.DiskOptionUnsupported, "A disk can be copied from a snapshot, and not from %q.", s.creation.Source)
		}
	default:
		return nil, problem.New(problem.DiskOptionUnsupported, "A disk cannot be made with createOption %q.", s.creation.Option)
	}
	// How it was made is kept, as clients compare it with what they asked for.
	made := map[string]any{"createOption": "Empty"}
	if from != "" {
		made = map[string]any{"createOption": "Copy", "sourceResourceId": string(from)}
	}
	rest := map[string]any{}
	if err := json.Unmarshal(d.Properties, &rest); err != nil {
		return nil, err
	}
	rest["diskvaultCreation"] = made
	var err error
	if d.Properties, err = json.Marshal(rest); err != nil {
		return nil, err
	}
	_, known := q.as.Disk(q.Context(), d.ID)
	if from == "" && d.Size == 0 && problem.Is(known, problem.ResourceNotFound) {
		return nil, problem.New(problem.ParameterInvalid, "An empty disk needs properties.diskSizeGB.")
	}
	return func(ctx context.Context) (resource.Disk, error) {
		out, _, err := q.as.MakeDisk(ctx, d, from, q.match())
		return out, err
	}, nil
}

// diskWork does what makes a disk: it answers with the disk if that is soon
// done, else with an operation.
func (q *request) diskWork(d resource.Disk, work func(context.Context) (resource.Disk, error)) (reply, error) {
	made := make(chan resource.Disk, 1)
	o, err := q.begin(d.ID, true, func(ctx context.Context) (string, error) {
		out, err := work(ctx)
		if err == nil {
			made <- out
		}
		return "", err
	})
	if err != nil {
		return reply{}, err
	}
	select {
	case out := <-made:
		body, err := diskOf(out)
		return reply{status: http.StatusOK, body: body}, err
	default:
	}
	body, err := diskOf(d)
	body.Properties["provisioningState"] = "Updating"
	url := q.base() + string(resource.SubscriptionID(d.ID.Subscription())) + "/providers/Microsoft.Compute/locations/" + short(d.Location) + "/DiskOperations/" + o.Name + "?api-version=" + q.version()
	return reply{http.StatusAccepted, body, map[string]string{"Azure-AsyncOperation": url, "Location": url + "&monitor=true", "Retry-After": "1"}}, err
}

// diskOperation tells the state of an operation on a disk, or its result.
func diskOperation(q *request) (reply, error) {
	o, err := q.as.Operation(q.Context(), q.names["operation"])
	if err != nil {
		return reply{}, err
	}
	var output any
	if o.End != nil && o.Error == nil {
		d, err := q.as.Disk(q.Context(), o.Target)
		if err != nil {
			return reply{}, err
		}
		if output, err = diskOf(d); err != nil {
			return reply{}, err
		}
	}
	if q.query.Get("monitor") == "true" {
		switch {
		case o.End == nil:
			return reply{status: http.StatusAccepted, header: map[string]string{"Location": q.base() + q.URL.RequestURI(), "Retry-After": "1"}}, nil
		case o.Error != nil:
			return reply{}, o.Error.Problem()
		}
		return ok(output)
	}
	b := map[string]any{"name": o.Name, "startTime": timeText(o.Start), "status": "InProgress"}
	if o.End != nil {
		b["endTime"], b["status"] = timeText(*o.End), "Succeeded"
		if o.Error != nil {
			b["status"], b["error"] = "Failed", errorOf(o.Error, q.who.Activity, false)
		} else {
			b["properties"] = map[string]any{"output": output}
		}
	}
	return ok(b)
}

func patchDisk(q *request) (reply, error) {
	var b diskBody
	if err := q.read(&b); err != nil {
		return reply{}, err
	}
	s, err := b.settings()
	if err != nil {
		return reply{}, err
	}
	d, err := q.as.Disk(q.Context(), q.at)
	if err != nil {
		return reply{}, err
	}
	was := resource.ETag(d)
	if b.Tags != nil {
		d.Tags = b.Tags
	}
	if b.SKU != nil {
		d.SKU = b.SKU.Name
	}
	if s.size > gigabytes(d.Size)*gibibyte {
		return reply{}, problem.New(problem.PropertyFixed, "diskvault does not grow disks.").Do("Grow the disk on its host; the next backup notices.")
	}
	if d.Properties, err = merged(d.Properties, s.rest); err != nil {
		return reply{}, err
	}
	if d, _, err = q.as.PutDisk(q.Context(), d, was); err != nil {
		return reply{}, err
	}
	body, err := diskOf(d)
	return reply{status: http.StatusOK, body: body}, err
}

// merged adds properties to those that are kept.
func merged(kept, more json.RawMessage) (json.RawMessage, error) {
	all := map[string]any{}
	for _, data := range []json.RawMessage{kept, more} {
		if len(data) == 0 {
			continue
		}
		if err := json.Unmarshal(data, &all); err != nil {
			return nil, err
		}
	}
	return json.Marshal(all)
}

func getDisk(q *request) (reply, error) {
	d, err := q.as.Disk(q.Context(), q.at)
	if err != nil {
		return reply{}, err
	}
	body, err := diskOf(d)
	return reply{status: http.StatusOK, body: body}, err
}

func listDisks(q *request) (reply, error) {
	return list(q, func(p service.Page) ([]resource.Disk, error) { return q.as.Disks(q.Context(), q.at, p) }, diskOf)
}

func deleteDisk(q *request) (reply, error) { return done(q.as.DeleteDisk(q.Context(), q.at)) }
