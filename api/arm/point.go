package arm

import (
	"context"
	"net/http"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/diskvault/diskvault/base/problem"
	"github.com/diskvault/diskvault/control/resource"
	"github.com/diskvault/diskvault/control/service"
)

type pointBody struct {
	ID         string          `json:"id"`
	Name       string          `json:"name"`
	Type       string          `json:"type"`
	Properties pointProperties `json:"properties"`
}

type pointProperties struct {
	ObjectType   string         `json:"objectType"`
	ID           string         `json:"recoveryPointId"`
	FriendlyName string         `json:"friendlyName"`
	Time         string         `json:"recoveryPointTime"`
	PointType    string         `json:"recoveryPointType"`
	State        string         `json:"recoveryPointState"`
	PolicyName   string         `json:"policyName"`
	Tag          string         `json:"retentionTagName"`
	Stores       []storeDetails `json:"recoveryPointDataStoresDetails"`
	Expiry       *string        `json:"expiryTime,omitempty"`
}

type storeDetails struct {
	ID       string  `json:"id"`
	Tier     string  `json:"type"`
	Creation string  `json:"creationTime"`
	Visible  bool    `json:"visible"`
	State    string  `json:"state"`
	Expiry   *string `json:"expiryTime,omitempty"`
}

// pointOf writes a recovery point down. The newest has no expiry.
func pointOf(i resource.Instance, p resource.RecoveryPoint) pointBody {
	state := "Completed"
	if p.Consistency == "inconsistent" {
		state = "Partial"
	}
	expiry := timeOrNull(p.Expiry)
	b := pointBody{ID: string(i.ResourceID().Child("recoveryPoints", p.ID)), Name: p.ID, Type: resource.TypeInstance + "/recoveryPoints", Properties: pointProperties{
		ObjectType: "AzureBackupDiscreteRecoveryPoint", ID: p.ID, FriendlyName: p.ID, Time: timeText(p.Time), PointType: "Incremental", State: state,
		PolicyName: i.Policy, Tag: p.RetentionTag, Stores: []storeDetails{}, Expiry: expiry,
	}}
	for _, place := range p.Placements {
		// The same for all points of an instance.
		id := uuid.NewSHA1(uuid.NameSpaceURL, []byte(i.ID+"/"+place.Tier+"/"+place.Store)).String()
		b.Properties.Stores = append(b.Properties.Stores, storeDetails{id, place.Tier, timeText(p.Time), true, "COMMITTED", expiry})
	}
	return b
}

func getPoint(q *request) (reply, error) {
	i, err := q.as.Instance(q.Context(), q.at.Parent())
	if err != nil {
		return reply{}, err
	}
	p, err := q.as.RecoveryPoint(q.Context(), q.at.Parent(), q.names["point"])
	return reply{status: http.StatusOK, body: pointOf(i, p)}, err
}

func listPoints(q *request) (reply, error) {
	r := service.RecoveryPointsRequest{ID: q.at}
	terms, err := parseFilter(q.query.Get("$filter"))
	if err != nil {
		return reply{}, err
	}
	for _, t := range terms {
		switch {
		case strings.EqualFold(t.name, "startDate") && (t.operator == "eq" || t.operator == "ge"):
			r.Since, err = t.time()
		case strings.EqualFold(t.name, "endDate") && (t.operator == "eq" || t.operator == "le"):
			// The end itself is included; times on the wire have seven digits.
			if r.Until, err = t.time(); err == nil {
				r.Until = r.Until.Add(100 * time.Nanosecond)
			}
		default:
			err = t.unknown()
		}
		if err != nil {
			return reply{}, err
		}
	}
	limit, err := q.top()
	if err != nil {
		return reply{}, err
	}
	if r.After, err = q.skip(); err != nil {
		return reply{}, err
	}
	i, err := q.as.Instance(q.Context(), q.at)
	if err != nil {
		return reply{}, err
	}
	r.Limit = limit + 1
	found, err := q.as.RecoveryPoints(q.Context(), r)
	if err != nil {
		return reply{}, err
	}
	out := page[pointBody]{Value: []pointBody{}}
	if len(found) > limit {
		found = found[:limit]
		out.NextLink = q.next(found[limit-1].ID)
	}
	for _, p := range found {
		out.Value = append(out.Value, pointOf(i, p))
	}
	return ok(out)
}

func backup(q *request) (reply, error) {
	var b struct {
		Options struct {
			Rule    string `json:"ruleName"`
			Trigger struct {
				Tag string `json:"retentionTagOverride"`
			} `json:"triggerOption"`
		} `json:"backupRuleOptions"`
	}
	if err := q.read(&b); err != nil {
		return reply{}, err
	}
	j, err := q.as.Backup(q.Context(), service.AdhocRequest{ID: q.at, Rule: b.Options.Rule, Tag: b.Options.Trigger.Tag, PerDay: q.server.options.PerDay})
	if err != nil {
		return reply{}, err
	}
	o, err := q.finished(q.at, j.ID)
	return q.accepted(o, 1), err
}

type restoreBody struct {
	ObjectType string `json:"objectType"`
	Point      string `json:"recoveryPointId"`
	SourceTier string `json:"sourceDataStoreType"`
	Target     struct {
		ObjectType string      `json:"objectType"`
		Option     string      `json:"recoveryOption"`
		Location   string      `json:"restoreLocation"`
		DataSource *dataSource `json:"datasourceInfo"`
	} `json:"restoreTargetInfo"`
}

func (b restoreBody) request(q *request) (service.DiskRestoreRequest, error) {
	r := service.DiskRestoreRequest{ID: q.at, Point: b.Point, Location: b.Target.Location, PerDay: q.server.options.PerDay}
	bad := func(format string, args ...any) (service.DiskRestoreRequest, error) {
		return r, problem.New(problem.RequestUnreadable, format, args...)
	}
	switch {
	case !is(b.ObjectType, "AzureBackupRecoveryPointBasedRestoreRequest"):
		return bad("A disk is restored by an AzureBackupRecoveryPointBasedRestoreRequest, and not by %q.", b.ObjectType)
	case b.Point == "":
		return bad("recoveryPointId is missing.")
	case !is(b.Target.ObjectType, "RestoreTargetInfo"):
		return bad("A disk is restored to a RestoreTargetInfo, and not to %q.", b.Target.ObjectType)
	case b.Target.Option != "" && !strings.EqualFold(b.Target.Option, "FailIfExists"):
		return bad("recoveryOption can only be FailIfExists, and not %q.", b.Target.Option)
	case b.SourceTier != "" && b.SourceTier != operational && b.SourceTier != vaultTier && b.SourceTier != "SnapshotStore":
		return bad("sourceDataStoreType can be OperationalStore or VaultStore, and not %q.", b.SourceTier)
	case b.Target.DataSource == nil || b.Target.DataSource.ResourceID == "":
		return bad("restoreTargetInfo.datasourceInfo.resourceID is missing: it is that of the new disk.")
	}
	var err error
	r.Target, err = idIn(b.Target.DataSource.ResourceID)
	return r, err
}

func validateRestore(q *request) (reply, error) {
	var b struct {
		Request restoreBody `json:"restoreRequestObject"`
	}
	if err := q.read(&b); err != nil {
		return reply{}, err
	}
	r, err := b.Request.request(q)
	if err != nil {
		return reply{}, err
	}
	if _, err := q.as.Instance(q.Context(), q.at); err != nil {
		return reply{}, err
	}
	o, err := q.begin(q.at, false, func(ctx context.Context) (string, error) { return "", q.as.ValidateForRestore(ctx, r) })
	return q.accepted(o, 1), err
}

func restore(q *request) (reply, error) {
	var b restoreBody
	if err := q.read(&b); err != nil {
		return reply{}, err
	}
	r, err := b.request(q)
	if err != nil {
		return reply{}, err
	}
	j, err := q.as.RestoreDisk(q.Context(), r)
	if err != nil {
		return reply{}, err
	}
	o, err := q.finished(q.at, j.ID)
	return q.accepted(o, 1), err
}
