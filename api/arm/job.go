package arm

import (
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/diskvault/diskvault/control/catalog"
	"github.com/diskvault/diskvault/control/resource"
)

type jobBody struct {
	ID         string        `json:"id"`
	Name       string        `json:"name"`
	Type       string        `json:"type"`
	Properties jobProperties `json:"properties"`
}

// jobProperties are written in full, nulls among them, as Azure does.
type jobProperties struct {
	ActivityID          string        `json:"activityID"`
	SubscriptionID      string        `json:"subscriptionId"`
	InstanceID          *string       `json:"backupInstanceId"`
	FriendlyName        string        `json:"backupInstanceFriendlyName"`
	PolicyID            *string       `json:"policyId"`
	PolicyName          *string       `json:"policyName"`
	DataSourceID        string        `json:"dataSourceId"`
	DataSourceName      string        `json:"dataSourceName"`
	DataSourceSetName   *string       `json:"dataSourceSetName"`
	DataSourceType      string        `json:"dataSourceType"`
	DataSourceLocation  string        `json:"dataSourceLocation"`
	SourceGroup         string        `json:"sourceResourceGroup"`
	SourceSubscription  string        `json:"sourceSubscriptionID"`
	VaultName           string        `json:"vaultName"`
	SourceTier          *string       `json:"sourceDataStoreName"`
	DestinationTier     *string       `json:"destinationDataStoreName"`
	ProgressEnabled     bool          `json:"progressEnabled"`
	ProgressURL         *string       `json:"progressUrl"`
	ETag                string        `json:"etag"`
	Category            string        `json:"operationCategory"`
	Operation           string        `json:"operation"`
	Status              string        `json:"status"`
	IsUserTriggered     bool          `json:"isUserTriggered"`
	RestoreType         *string       `json:"restoreType"`
	RehydrationPriority *string       `json:"rehydrationPriority"`
	SupportedActions    []string      `json:"supportedActions"`
	StartTime           string        `json:"startTime"`
	EndTime             *string       `json:"endTime"`
	Duration            string        `json:"duration"`
	ErrorDetails        []*userFacing `json:"errorDetails"`
	ExtendedInfo        *jobDetails   `json:"extendedInfo"`
}

type jobDetails struct {
	InstanceState  *string           `json:"backupInstanceState"`
	Transferred    *float64          `json:"dataTransferredInBytes"`
	Destination    *string           `json:"recoveryDestination"`
	SourcePoint    *jobPoint         `json:"sourceRecoverPoint"`
	TargetPoint    *jobPoint         `json:"targetRecoverPoint"`
	SubTasks       []subTask         `json:"subTasks"`
	AdditionalInfo map[string]string `json:"additionalDetails"`
	WarningDetails []*userFacing     `json:"warningDetails"`
}

type jobPoint struct {
	ID   string `json:"recoveryPointID"`
	Time string `json:"recoveryPointTime"`
}

type subTask struct {
	ID       int               `json:"taskId"`
	Name     string            `json:"taskName"`
	Status   string            `json:"taskStatus"`
	Progress *float64          `json:"taskProgress"`
	Details  map[string]string `json:"additionalDetails"`
}

// jobStatus is a job's state by Azure's words, which have none for a job that
// waits.
func jobStatus(s resource.Status) string {
	if s == resource.Queued {
		return string(resource.InProgress)
	}
	return string(s)
}

// text gives a pointer to a text; nil for an empty one.
func text(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

// jobOf writes a job down: with its details, or as lists have it.
func jobOf(vault, instance resource.ID, location string, j resource.Job, detailed bool) jobBody {
	start, changed := j.Created, j.Created
	if j.Start != nil {
		start, changed = *j.Start, *j.Start
	}
	if j.End != nil {
		changed = *j.End
	}
	p := jobProperties{
		ActivityID: j.Activity, SubscriptionID: vault.Subscription(), InstanceID: text(string(instance)), FriendlyName: j.Instance, PolicyName: text(j.Policy),
		DataSourceID: string(j.DiskID), DataSourceName: j.DiskID.Name(), DataSourceType: resource.TypeDisk, DataSourceLocation: location,
		SourceGroup: j.DiskID.Group(), SourceSubscription: j.DiskID.Subscription(), VaultName: vault.Name(),
		ETag:     `W/"datetime'` + url.QueryEscape(timeText(changed)) + `'"`,
		Category: j.Operation, Operation: j.Operation, Status: jobStatus(j.Status), IsUserTriggered: j.Trigger != resource.Scheduled,
		SupportedActions: []string{}, StartTime: timeText(start), EndTime: timeOrNull(j.End), Duration: clockDuration(j.Seconds),
	}
	if j.Policy != "" {
		p.PolicyID = text(string(vault.Child("backupPolicies", j.Policy)))
	}
	if j.Error != nil {
		p.ErrorDetails = []*userFacing{userFacingOf(j.Error, j.Activity)}
	}
	if j.Operation == resource.OperationBackup && (j.Status == resource.Completed || j.Status == resource.CompletedWithWarnings) {
		p.DestinationTier = text("OperationalTierStore")
	}
	if detailed {
		p.SupportedActions, p.Duration = []string{""}, "PT0S"
		if j.End != nil {
			p.Duration = isoDuration(j.Seconds)
		}
		p.ExtendedInfo = detailsOf(j)
	}
	return jobBody{ID: string(vault.Child("backupJobs", j.ID)), Name: j.ID, Type: resource.TypeJob, Properties: p}
}

func detailsOf(j resource.Job) *jobDetails {
	d := &jobDetails{SubTasks: []subTask{}}
	if j.Tag != "" {
		d.AdditionalInfo = map[string]string{"RetentionTag": j.Tag}
	}
	for _, t := range j.SubTasks() {
		d.SubTasks = append(d.SubTasks, subTask{t.ID, t.Name, jobStatus(t.Status), nil, t.Details})
	}
	if j.Point != "" {
		point := &jobPoint{ID: j.Point, Time: "0001-01-01T00:00:00Z"}
		if j.PointAt != nil {
			point.Time = timeText(*j.PointAt)
		}
		if j.Operation == resource.OperationRestore {
			d.SourcePoint, d.Destination = point, text(string(j.Target))
		} else {
			d.TargetPoint = point
		}
	}
	return d
}

// isoDuration writes seconds as PT3M39.7214322S.
func isoDuration(seconds float64) string {
	d := time.Duration(seconds * float64(time.Second))
	out := "PT"
	if h := d / time.Hour; h > 0 {
		out += strconv.Itoa(int(h)) + "H"
	}
	if m := d % time.Hour / time.Minute; m > 0 {
		out += strconv.Itoa(int(m)) + "M"
	}
	return out + strings.TrimSuffix(strings.TrimRight(strconv.FormatFloat((d%time.Minute).Seconds(), 'f', 7, 64), "0"), ".") + "S"
}

// clockDuration writes seconds as 00:03:39.7214322.
func clockDuration(seconds float64) string {
	d := time.Duration(seconds * float64(time.Second))
	days := ""
	if n := d / (24 * time.Hour); n > 0 {
		days = strconv.Itoa(int(n)) + "."
	}
	return days + time.Time{}.Add(d%(24*time.Hour)).Format("15:04:05.0000000")
}

func getJob(q *request) (reply, error) {
	vault := q.at.Parent()
	j, err := q.as.VaultJob(q.Context(), vault, q.names["job"])
	if err != nil {
		return reply{}, err
	}
	of, err := q.as.JobInstances(q.Context(), vault, j)
	return reply{status: http.StatusOK, body: jobOf(vault, of[j.InstanceID], q.location(vault), j, true)}, err
}

func listJobs(q *request) (reply, error) {
	f := catalog.JobFilter{}
	terms, err := parseFilter(q.query.Get("$filter"))
	if err != nil {
		return reply{}, err
	}
	var keep []func(resource.Job) bool
	for _, t := range terms {
		switch {
		case strings.EqualFold(t.name, "status") && t.operator == "eq":
			keep = append(keep, func(j resource.Job) bool { return strings.EqualFold(jobStatus(j.Status), t.value) })
		case (strings.EqualFold(t.name, "operation") || strings.EqualFold(t.name, "operationCategory")) && t.operator == "eq":
			keep = append(keep, func(j resource.Job) bool { return strings.EqualFold(j.Operation, t.value) })
		case strings.EqualFold(t.name, "startTime") && (t.operator == "ge" || t.operator == "gt"):
			f.Since, err = t.time()
		case strings.EqualFold(t.name, "startTime") && (t.operator == "le" || t.operator == "lt"):
			var end time.Time
			end, err = t.time()
			keep = append(keep, func(j resource.Job) bool { return !j.Created.After(end) })
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
	if f.After, err = q.skip(); err != nil {
		return reply{}, err
	}
	f.Limit = limit + 1
	location := q.location(q.at)
	out := page[jobBody]{Value: []jobBody{}}
	found, err := q.as.VaultJobs(q.Context(), q.at, f)
	if err != nil {
		return reply{}, err
	}
	// A filter may leave little of a page; there is a next one all the same.
	if len(found) > limit {
		found = found[:limit]
		out.NextLink = q.next(found[limit-1].ID)
	}
	of, err := q.as.JobInstances(q.Context(), q.at, found...)
	if err != nil {
		return reply{}, err
	}
next:
	for _, j := range found {
		for _, fits := range keep {
			if !fits(j) {
				continue next
			}
		}
		out.Value = append(out.Value, jobOf(q.at, of[j.InstanceID], location, j, false))
	}
	return ok(out)
}

func cancelJob(q *request) (reply, error) {
	return reply{status: http.StatusOK}, q.as.CancelJob(q.Context(), vaultOf(q.at), q.names["job"])
}
