package arm

import (
	"context"
	"net/http"
	"strconv"
	"time"

	"github.com/diskvault/diskvault/control/resource"
)

// fast is how long an answer waits for the work, so that what is refused at
// once is an error of the request itself.
const fast = 2 * time.Second

// begin starts work that goes on after the answer. With wait an error that
// comes soon is returned.
func (q *request) begin(target resource.ID, wait bool, work func(context.Context) (string, error)) (resource.Operation, error) {
	ended := make(chan error, 1)
	o, err := q.as.Begin(q.Context(), target, func(ctx context.Context) (string, error) {
		job, err := q.guarded(ctx, work)
		ended <- err
		return job, err
	})
	if err != nil || !wait {
		return o, err
	}
	select {
	case err = <-ended:
	case <-time.After(fast):
	case <-q.Context().Done():
	}
	return o, err
}

// guarded keeps a fault in the work of one request from ending the server.
func (q *request) guarded(ctx context.Context, work func(context.Context) (string, error)) (job string, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = q.server.fault(q.URL.Path, p)
		}
	}()
	return work(ctx)
}

// finished gives an operation whose work is done.
func (q *request) finished(target resource.ID, job string) (resource.Operation, error) {
	return q.begin(target, true, func(context.Context) (string, error) { return job, nil })
}

// vaultOf gives the vault that a resource is or lies in; empty if there is none.
func vaultOf(id resource.ID) resource.ID {
	for ; id != ""; id = id.Parent() {
		if id.Type() == resource.TypeVault {
			return id
		}
		if id.Parent() == id {
			break
		}
	}
	return ""
}

// statusURL is where the state of an operation is read.
func (q *request) statusURL(o resource.Operation) string {
	return q.base() + statusPath(o) + "?api-version=" + q.version()
}

func statusPath(o resource.Operation) string {
	return string(vaultOf(o.Target)) + "/operationStatus/" + o.Name
}

// locationURL is where the result of an operation is read.
func (q *request) locationURL(o resource.Operation) string {
	return q.base() + string(resource.SubscriptionID(o.Target.Subscription())) + "/providers/Microsoft.DataProtection/locations/" + q.location(o.Target) +
		"/operationResults/" + o.Name + "?api-version=" + q.version()
}

// location is that of a vault, for the path of an operation, where it means
// nothing: who may not read the vault gets the home location.
func (q *request) location(target resource.ID) string {
	if v, err := q.as.Vault(q.Context(), vaultOf(target)); err == nil {
		return v.Location
	}
	return resource.HomeLocation
}

// accepted answers a request whose work goes on.
func (q *request) accepted(o resource.Operation, after int) reply {
	return reply{status: http.StatusAccepted, header: map[string]string{
		"Azure-AsyncOperation": q.statusURL(o), "Location": q.locationURL(o), "Retry-After": strconv.Itoa(after),
	}}
}

type operationBody struct {
	ID         string        `json:"id"`
	Name       string        `json:"name"`
	Status     string        `json:"status"`
	StartTime  string        `json:"startTime"`
	EndTime    string        `json:"endTime"`
	Properties *extendedInfo `json:"properties,omitempty"`
	Error      *errorBody    `json:"error,omitempty"`
}

type extendedInfo struct {
	JobID      string `json:"jobId,omitempty"`
	ObjectType string `json:"objectType"`
}

func extendedOf(o resource.Operation) extendedInfo {
	e := extendedInfo{ObjectType: "OperationJobExtendedInfo"}
	if o.Job != "" {
		e.JobID = string(vaultOf(o.Target).Child("backupJobs", o.Job))
	}
	return e
}

// operationStatus tells the state of an operation. One that failed is told by
// its body, not by the status of this answer.
func operationStatus(q *request) (reply, error) {
	o, err := q.as.Operation(q.Context(), q.names["operation"])
	if err != nil {
		return reply{}, err
	}
	b := operationBody{ID: statusPath(o), Name: o.Name, Status: "Inprogress", StartTime: timeText(o.Start), EndTime: "0001-01-01T00:00:00Z"}
	if o.End == nil {
		return reply{status: http.StatusOK, body: b, header: map[string]string{"Retry-After": "1"}}, nil
	}
	b.EndTime, b.Status = timeText(*o.End), "Succeeded"
	if o.Error != nil {
		b.Status = "Failed"
		e := errorOf(o.Error, q.who.Activity, true)
		b.Error = &e
	} else if o.Job != "" {
		e := extendedOf(o)
		b.Properties = &e
	}
	return ok(b)
}

// operationResult gives what an operation has led to: the resource itself where
// the path is that of one, else the job.
func operationResult(q *request) (reply, error) {
	o, err := q.as.Operation(q.Context(), q.names["operation"])
	if err != nil {
		return reply{}, err
	}
	if o.End == nil {
		return q.accepted(o, 1), nil
	}
	if o.Error != nil {
		return reply{}, o.Error.Problem()
	}
	headers := map[string]string{"Azure-AsyncOperation": q.statusURL(o)}
	switch q.operation.Name {
	case "BackupVaults.GetOperationResult":
		v, err := q.as.Vault(q.Context(), q.at.Parent())
		if err != nil {
			return reply{}, err
		}
		body, err := q.vault(v)
		return reply{http.StatusOK, body, headers}, err
	case "BackupInstances.GetBackupInstanceOperationResult":
		i, err := q.as.Instance(q.Context(), q.at.Parent())
		if err != nil {
			return reply{}, err
		}
		return reply{http.StatusOK, instanceOf(i), headers}, nil
	}
	return reply{http.StatusOK, extendedOf(o), headers}, nil
}
