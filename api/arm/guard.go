package arm

import (
	"net/http"
	"slices"
	"strings"

	"github.com/diskvault/diskvault/base/problem"
	"github.com/diskvault/diskvault/control/resource"
	"github.com/diskvault/diskvault/control/service"
)

type guardBody struct {
	ID         string            `json:"id"`
	Name       string            `json:"name"`
	Type       string            `json:"type"`
	Location   string            `json:"location"`
	Tags       map[string]string `json:"tags,omitempty"`
	ETag       string            `json:"eTag,omitempty"`
	Properties guardProperties   `json:"properties"`
}

type guardProperties struct {
	ProvisioningState string           `json:"provisioningState,omitempty"`
	AllowAutoApproval bool             `json:"allowAutoApprovals"`
	Excluded          []string         `json:"vaultCriticalOperationExclusionList"`
	Description       string           `json:"description,omitempty"`
	Operations        []guardOperation `json:"resourceGuardOperations,omitempty"`
}

type guardOperation struct {
	Operation string `json:"vaultCriticalOperation"`
	Request   string `json:"requestResourceType"`
}

func guardOf(g resource.Guard) (guardBody, error) {
	b := guardBody{ID: string(g.ID), Name: g.ID.Name(), Type: resource.TypeGuard, Location: short(g.Location), Tags: g.Tags, ETag: resource.ETag(g),
		Properties: guardProperties{ProvisioningState: "Succeeded", AllowAutoApproval: true, Excluded: append([]string{}, g.Excluded...), Description: g.Description}}
	for _, o := range resource.CriticalOperations {
		if !slices.Contains(g.Excluded, o.Operation) {
			b.Properties.Operations = append(b.Properties.Operations, guardOperation{o.Operation, resource.TypeGuard + "/" + o.Requests})
		}
	}
	return b, nil
}

func putGuard(q *request) (reply, error) {
	var b guardBody
	if err := q.read(&b); err != nil {
		return reply{}, err
	}
	g, created, err := q.as.PutGuard(q.Context(), resource.Guard{ID: q.at, Location: b.Location, Tags: b.Tags, Excluded: b.Properties.Excluded, Description: b.Properties.Description}, q.match())
	if err != nil {
		return reply{}, err
	}
	status := http.StatusOK
	if created {
		status = http.StatusCreated
	}
	body, err := guardOf(g)
	return reply{status: status, body: body}, err
}

func patchGuard(q *request) (reply, error) {
	var b guardBody
	if err := q.read(&b); err != nil {
		return reply{}, err
	}
	g, err := q.as.Guard(q.Context(), q.at)
	if err != nil {
		return reply{}, err
	}
	was := resource.ETag(g)
	if b.Tags != nil {
		g.Tags = b.Tags
	}
	if g, _, err = q.as.PutGuard(q.Context(), g, was); err != nil {
		return reply{}, err
	}
	body, err := guardOf(g)
	return reply{status: http.StatusOK, body: body}, err
}

func getGuard(q *request) (reply, error) {
	g, err := q.as.Guard(q.Context(), q.at)
	if err != nil {
		return reply{}, err
	}
	body, err := guardOf(g)
	return reply{status: http.StatusOK, body: body}, err
}

func listGuards(q *request) (reply, error) {
	return list(q, func(p service.Page) ([]resource.Guard, error) { return q.as.Guards(q.Context(), q.at, p) }, guardOf)
}

func deleteGuard(q *request) (reply, error) { return done(q.as.DeleteGuard(q.Context(), q.at)) }

// guardRequests gives the guard of a path and the collection of requests that
// it names: each holds one entry, the right on which is the right to pass.
func guardRequests(q *request) (resource.Guard, string, error) {
	name := q.names["requests"]
	id := q.at
	for id.Type() != resource.TypeGuard && id != "" {
		id = id.Parent()
	}
	g, err := q.as.Guard(q.Context(), id)
	if err != nil {
		return g, "", err
	}
	for _, o := range resource.CriticalOperations {
		if strings.EqualFold(o.Requests, name) {
			return g, o.Requests, nil
		}
	}
	return g, "", problem.New(problem.TypeUnknown, "A resource guard has no collection %q.", name)
}

type guardRequest struct {
	ID   string `json:"id"`
	Name string `json:"name"`
	Type string `json:"type"`
}

func requestOf(g resource.Guard, collection string) guardRequest {
	return guardRequest{string(g.ID.Child(collection, "default")), "default", resource.TypeGuard + "/" + collection}
}

func listGuardRequests(q *request) (reply, error) {
	g, collection, err := guardRequests(q)
	if err != nil {
		return reply{}, err
	}
	return ok(page[guardRequest]{Value: []guardRequest{requestOf(g, collection)}})
}

func getGuardRequest(q *request) (reply, error) {
	g, collection, err := guardRequests(q)
	if err != nil {
		return reply{}, err
	}
	if q.names["request"] != "default" {
		return reply{}, problem.New(problem.ResourceNotFound, "The collection %s has only the entry \"default\".", collection)
	}
	return ok(requestOf(g, collection))
}

type proxyBody struct {
	ID         string          `json:"id"`
	Name       string          `json:"name"`
	Type       string          `json:"type"`
	Properties proxyProperties `json:"properties"`
}

type proxyProperties struct {
	Guard       string         `json:"resourceGuardResourceId"`
	Description string         `json:"description,omitempty"`
	Updated     string         `json:"lastUpdatedTime,omitempty"`
	Operations  []proxyDetails `json:"resourceGuardOperationDetails,omitempty"`
}

type proxyDetails struct {
	Operation string `json:"vaultCriticalOperation"`
	Request   string `json:"defaultResourceRequest"`
}

// proxy writes a proxy down, with the operations that its guard holds back.
func (q *request) proxy(p resource.GuardProxy) (proxyBody, error) {
	b := proxyBody{ID: string(p.ID), Name: p.ID.Name(), Type: resource.TypeGuardProxy,
		Properties: proxyProperties{Guard: string(p.Guard), Description: p.Description, Updated: timeText(p.Updated)}}
	g, err := q.as.Guard(q.Context(), p.Guard)
	if problem.Is(err, problem.CallerNotAllowed) {
		return b, nil // the guard is another person's
	}
	for _, o := range resource.CriticalOperations {
		if !slices.Contains(g.Excluded, o.Operation) {
			b.Properties.Operations = append(b.Properties.Operations, proxyDetails{o.Operation, string(g.ID.Child(o.Requests, "default"))})
		}
	}
	return b, err
}

func putProxy(q *request) (reply, error) {
	var b proxyBody
	if err := q.read(&b); err != nil {
		return reply{}, err
	}
	guard, err := idIn(b.Properties.Guard)
	if err != nil {
		return reply{}, err
	}
	if err := q.as.Allow(q.Context(), q.operation.Name, "", q.at, guard); err != nil {
		return reply{}, err
	}
	p, err := q.as.PutGuardProxy(q.Context(), resource.GuardProxy{ID: q.at, Guard: guard, Description: b.Properties.Description})
	if err != nil {
		return reply{}, err
	}
	body, err := q.proxy(p)
	return reply{status: http.StatusOK, body: body}, err
}

func getProxy(q *request) (reply, error) {
	p, err := q.as.GuardProxy(q.Context(), q.at)
	if err != nil {
		return reply{}, err
	}
	body, err := q.proxy(p)
	return reply{status: http.StatusOK, body: body}, err
}

func listProxies(q *request) (reply, error) {
	found, err := q.as.GuardProxies(q.Context(), q.at)
	if err != nil {
		return reply{}, err
	}
	out := page[proxyBody]{Value: []proxyBody{}}
	for _, p := range found {
		b, err := q.proxy(p)
		if err != nil {
			return reply{}, err
		}
		out.Value = append(out.Value, b)
	}
	return ok(out)
}

func deleteProxy(q *request) (reply, error) { return done(q.as.DeleteGuardProxy(q.Context(), q.at)) }

func unlockDelete(q *request) (reply, error) {
	until, err := q.as.UnlockDelete(q.Context(), q.at)
	if err != nil {
		return reply{}, err
	}
	return ok(map[string]string{"unlockDeleteExpiryTime": timeText(until)})
}
