package arm

import (
	"net/http"
	"slices"
	"strings"

	"github.com/diskvault/diskvault/base/problem"
	"github.com/diskvault/diskvault/control/access"
	"github.com/diskvault/diskvault/control/resource"
	"github.com/diskvault/diskvault/control/service"
)

type groupBody struct {
	ID         string            `json:"id"`
	Name       string            `json:"name"`
	Type       string            `json:"type"`
	Location   string            `json:"location"`
	Tags       map[string]string `json:"tags,omitempty"`
	Properties struct {
		ProvisioningState string `json:"provisioningState,omitempty"`
	} `json:"properties"`
}

func groupOf(g resource.Group) (groupBody, error) {
	b := groupBody{ID: string(g.ID), Name: g.ID.Name(), Type: resource.TypeGroup, Location: short(g.Location), Tags: g.Tags}
	b.Properties.ProvisioningState = "Succeeded"
	return b, nil
}

// tagStore names the store that a snapshot resource group stands for.
const tagStore = "diskvault-store"

func checkGroup(q *request) (reply, error) {
	_, err := q.as.Group(q.Context(), q.at)
	if problem.Is(err, problem.GroupNotFound) {
		return reply{status: http.StatusNotFound}, nil
	}
	return reply{status: http.StatusNoContent}, err
}

func putGroup(q *request) (reply, error) {
	var b groupBody
	if err := q.read(&b); err != nil {
		return reply{}, err
	}
	g, created, err := q.as.PutGroup(q.Context(), resource.Group{ID: q.at, Location: b.Location, Tags: b.Tags, Store: b.Tags[tagStore]}, q.match())
	if err != nil {
		return reply{}, err
	}
	status := http.StatusOK
	if created {
		status = http.StatusCreated
	}
	body, err := groupOf(g)
	return reply{status: status, body: body}, err
}

func patchGroup(q *request) (reply, error) {
	var b groupBody
	if err := q.read(&b); err != nil {
		return reply{}, err
	}
	g, err := q.as.Group(q.Context(), q.at)
	if err != nil {
		return reply{}, err
	}
	if b.Tags != nil {
		g.Tags = b.Tags
	}
	if g, _, err = q.as.PutGroup(q.Context(), g, ""); err != nil {
		return reply{}, err
	}
	body, err := groupOf(g)
	return reply{status: http.StatusOK, body: body}, err
}

func getGroup(q *request) (reply, error) {
	g, err := q.as.Group(q.Context(), q.at)
	if err != nil {
		return reply{}, err
	}
	body, err := groupOf(g)
	return reply{status: http.StatusOK, body: body}, err
}

func listGroups(q *request) (reply, error) {
	return list(q, func(p service.Page) ([]resource.Group, error) { return q.as.Groups(q.Context(), q.at, p) }, groupOf)
}

// deleteGroup removes an empty group: it never takes what lies in it along.
func deleteGroup(q *request) (reply, error) {
	if _, err := q.as.Group(q.Context(), q.at); err != nil {
		return reply{}, err
	}
	return done(q.as.DeleteGroup(q.Context(), q.at))
}

func listResources(q *request) (reply, error) {
	limit, err := q.top()
	if err != nil {
		return reply{}, err
	}
	found, err := q.as.InGroup(q.Context(), q.at, limit)
	if err != nil {
		return reply{}, err
	}
	out := page[map[string]any]{Value: []map[string]any{}}
	for _, id := range found {
		out.Value = append(out.Value, map[string]any{"id": string(id), "name": id.Name(), "type": id.Type(), "provisioningState": "Succeeded"})
	}
	return ok(out)
}

func subscriptionBody(q *request, s resource.Subscription) map[string]any {
	return map[string]any{
		"id": string(s.ID), "subscriptionId": s.ID.Name(), "displayName": s.Name, "state": "Enabled", "tenantId": q.server.tenant(q), "authorizationSource": "RoleBased",
		"subscriptionPolicies": map[string]any{"locationPlacementId": "Public_2014-09-01", "quotaId": "SelfHosted", "spendingLimit": "Off"}, "managedByTenants": []any{},
	}
}

func getSubscription(q *request) (reply, error) {
	s, err := q.as.Subscription(q.Context(), q.at)
	return reply{status: http.StatusOK, body: subscriptionBody(q, s)}, err
}

func listSubscriptions(q *request) (reply, error) {
	found, err := q.as.Subscriptions(q.Context())
	if err != nil {
		return reply{}, err
	}
	out := page[map[string]any]{Value: []map[string]any{}}
	for _, s := range found {
		out.Value = append(out.Value, subscriptionBody(q, s))
	}
	return ok(out)
}

func knownNamespace(namespace string) bool {
	return slices.ContainsFunc(service.Providers, func(p string) bool { return strings.EqualFold(p, namespace) })
}

// resourceTypes are the types that a provider has, as clients look them up.
var resourceTypes = map[string][]string{
	"Microsoft.DataProtection": {"backupVaults", "backupVaults/backupPolicies", "backupVaults/backupInstances", "resourceGuards", "operations", "locations"},
	"Microsoft.Compute":        {"disks", "snapshots", "locations"}, "Microsoft.Resources": {"resourceGroups", "subscriptions"},
	"Microsoft.Authorization": {"roleAssignments", "roleDefinitions"}, "Microsoft.ManagedIdentity": {"userAssignedIdentities"},
}

func providerBody(s resource.Subscription, namespace string) map[string]any {
	state := "NotRegistered"
	if slices.Contains(s.Registered, namespace) {
		state = "Registered"
	}
	types := []any{}
	for _, t := range resourceTypes[namespace] {
		types = append(types, map[string]any{"resourceType": t, "locations": []string{}, "apiVersions": []string{newestVersion, "2025-07-01", "2023-11-01", oldestVersion}, "defaultApiVersion": "2023-11-01"})
	}
	return map[string]any{"id": string(s.ID) + "/providers/" + namespace, "namespace": namespace, "registrationState": state, "registrationPolicy": "RegistrationRequired", "resourceTypes": types}
}

func listProviders(q *request) (reply, error) {
	s, err := q.as.Subscription(q.Context(), q.at)
	if err != nil {
		return reply{}, err
	}
	out := page[map[string]any]{Value: []map[string]any{}}
	for _, p := range service.Providers {
		out.Value = append(out.Value, providerBody(s, p))
	}
	return ok(out)
}

func (q *request) provider() (string, error) {
	for _, p := range service.Providers {
		if strings.EqualFold(p, q.names["namespace"]) {
			return p, nil
		}
	}
	return "", problem.New(problem.NamespaceUnknown, "The resource namespace %q is invalid.", q.names["namespace"])
}

func getProvider(q *request) (reply, error) {
	p, err := q.provider()
	if err != nil {
		return reply{}, err
	}
	s, err := q.as.Subscription(q.Context(), q.at)
	return reply{status: http.StatusOK, body: providerBody(s, p)}, err
}

func registerProvider(q *request) (reply, error)   { return q.register(true) }
func unregisterProvider(q *request) (reply, error) { return q.register(false) }

func (q *request) register(use bool) (reply, error) {
	p, err := q.provider()
	if err != nil {
		return reply{}, err
	}
	s, err := q.as.Register(q.Context(), q.at, p, use)
	return reply{status: http.StatusOK, body: providerBody(s, p)}, err
}

// listOperations lists what can be done with the data protection provider.
func listOperations(*request) (reply, error) {
	out := page[map[string]any]{Value: []map[string]any{}}
	for _, a := range access.Actions() {
		kind, verb := a, ""
		if n := strings.LastIndexByte(a, '/'); n > 0 {
			kind, verb = a[:n], a[n+1:]
		}
		out.Value = append(out.Value, map[string]any{"name": a, "isDataAction": false, "origin": "user",
			"display": map[string]string{"provider": "Microsoft.DataProtection", "resource": kind, "operation": verb, "description": a}})
	}
	return ok(out)
}
