package arm

import (
	"net/http"

	"github.com/diskvault/diskvault/control/resource"
	"github.com/diskvault/diskvault/control/service"
)

type vaultBody struct {
	ID         string            `json:"id"`
	Name       string            `json:"name"`
	Type       string            `json:"type"`
	Location   string            `json:"location"`
	Tags       map[string]string `json:"tags,omitempty"`
	ETag       string            `json:"eTag,omitempty"`
	Identity   *identityBody     `json:"identity,omitempty"`
	Properties vaultProperties   `json:"properties"`
}

type identityBody struct {
	Type        string                       `json:"type"`
	PrincipalID string                       `json:"principalId,omitempty"`
	TenantID    string                       `json:"tenantId,omitempty"`
	Users       map[string]*userIdentityBody `json:"userAssignedIdentities,omitempty"`
}

type userIdentityBody struct {
	PrincipalID string `json:"principalId,omitempty"`
	ClientID    string `json:"clientId,omitempty"`
}

type vaultProperties struct {
	ProvisioningState string              `json:"provisioningState,omitempty"`
	StorageSettings   []storageBody       `json:"storageSettings"`
	Guarded           *bool               `json:"isVaultProtectedByResourceGuard,omitempty"`
	Monitoring        *monitoringSettings `json:"monitoringSettings,omitempty"`
	Security          *securitySettings   `json:"securitySettings,omitempty"`
	Features          *featureSettings    `json:"featureSettings,omitempty"`
	SecureScore       string              `json:"secureScore,omitempty"`
	ReplicatedRegions []string            `json:"replicatedRegions"`
}

type storageBody struct {
	Tier       string `json:"datastoreType"`
	Redundancy string `json:"type"`
}

type stateBody struct {
	State string `json:"state,omitempty"`
}

type monitoringSettings struct {
	Alerts *struct {
		JobFailures string `json:"alertsForAllJobFailures,omitempty"`
	} `json:"azureMonitorAlertSettings,omitempty"`
}

type securitySettings struct {
	SoftDelete   *softDeleteBody `json:"softDeleteSettings,omitempty"`
	Immutability *stateBody      `json:"immutabilitySettings,omitempty"`
}

type softDeleteBody struct {
	State string  `json:"state,omitempty"`
	Days  float64 `json:"retentionDurationInDays"`
}

type featureSettings struct {
	CrossSubscription *stateBody `json:"crossSubscriptionRestoreSettings,omitempty"`
}

// vault writes a vault down.
func (q *request) vault(v resource.Vault) (vaultBody, error) {
	v = v.Normal()
	guarded, err := q.as.VaultGuarded(q.Context(), v.ID)
	if err != nil {
		return vaultBody{}, err
	}
	b := vaultBody{
		ID: string(v.ID), Name: v.Name, Type: resource.TypeVault, Location: short(v.Location), Tags: v.Tags, ETag: resource.ETag(v),
		Identity: identityOf(v.Identity, q.server.tenant(q)),
		Properties: vaultProperties{
			ProvisioningState: "Succeeded", Guarded: &guarded, SecureScore: secureScore(v), ReplicatedRegions: []string{},
			Monitoring: &monitoringSettings{},
			Security:   &securitySettings{SoftDelete: &softDeleteBody{string(v.SoftDelete.State), float64(v.SoftDelete.Days)}, Immutability: &stateBody{v.Immutability}},
			Features:   &featureSettings{&stateBody{v.CrossSubscriptionRestore}},
		},
	}
	b.Properties.Monitoring.Alerts = &struct {
		JobFailures string `json:"alertsForAllJobFailures,omitempty"`
	}{v.JobFailureAlerts}
	for _, s := range v.Storage {
		b.Properties.StorageSettings = append(b.Properties.StorageSettings, storageBody{s.Tier, s.Redundancy})
	}
	return b, nil
}

// secureScore says how much of what keeps backups from being deleted is on.
func secureScore(v resource.Vault) string {
	switch {
	case v.SoftDelete.State == resource.SoftDeleteAlwaysOn && v.Immutability == "Locked":
		return "Maximum"
	case v.SoftDelete.State != resource.SoftDeleteOff && v.Immutability != "Disabled":
		return "Adequate"
	case v.SoftDelete.State != resource.SoftDeleteOff:
		return "Minimum"
	}
	return "None"
}

func identityOf(i resource.Identity, tenant string) *identityBody {
	b := &identityBody{Type: i.Type, PrincipalID: i.PrincipalID}
	if i.System() {
		b.TenantID = tenant
	}
	for id, u := range i.Users {
		if b.Users == nil {
			b.Users = map[string]*userIdentityBody{}
		}
		b.Users[string(id)] = &userIdentityBody{u.PrincipalID, u.ClientID}
	}
	return b
}

func (b *identityBody) identity() *resource.Identity {
	if b == nil {
		return nil
	}
	i := resource.Identity{Type: b.Type}
	for id := range b.Users {
		if i.Users == nil {
			i.Users = map[resource.ID]resource.UserIdentity{}
		}
		i.Users[resource.ID(id)] = resource.UserIdentity{}
	}
	return &i
}

// tenant gives the ID of the directory; empty if it cannot be read, which the
// use case of the request reports.
func (s *Server) tenant(q *request) string {
	id, err := s.service.Tenant(q.Context())
	if err != nil {
		return ""
	}
	return id
}

func (p vaultProperties) softDelete() *resource.SoftDelete {
	if p.Security == nil || p.Security.SoftDelete == nil || p.Security.SoftDelete.State == "" {
		return nil
	}
	return &resource.SoftDelete{State: resource.SoftDeleteState(p.Security.SoftDelete.State), Days: int(p.Security.SoftDelete.Days)}
}

func (p vaultProperties) immutability() *string {
	if p.Security == nil || p.Security.Immutability == nil || p.Security.Immutability.State == "" {
		return nil
	}
	return &p.Security.Immutability.State
}

func (p vaultProperties) alerts() *string {
	if p.Monitoring == nil || p.Monitoring.Alerts == nil || p.Monitoring.Alerts.JobFailures == "" {
		return nil
	}
	return &p.Monitoring.Alerts.JobFailures
}

func (p vaultProperties) crossSubscription() *string {
	if p.Features == nil || p.Features.CrossSubscription == nil || p.Features.CrossSubscription.State == "" {
		return nil
	}
	return &p.Features.CrossSubscription.State
}

func valueOf[T any](p *T) (v T) {
	if p != nil {
		v = *p
	}
	return v
}

func putVault(q *request) (reply, error) {
	var b vaultBody
	if err := q.read(&b); err != nil {
		return reply{}, err
	}
	p := b.Properties
	v := resource.Vault{
		ID: q.at, Location: b.Location, Tags: b.Tags, SoftDelete: valueOf(p.softDelete()), Immutability: valueOf(p.immutability()),
		JobFailureAlerts: valueOf(p.alerts()), CrossSubscriptionRestore: valueOf(p.crossSubscription()), Identity: valueOf(b.Identity.identity()),
	}
	if b.Identity != nil && v.Identity.Type == "" {
		v.Identity.Type = "None"
	}
	for _, s := range p.StorageSettings {
		v.Storage = append(v.Storage, resource.StorageSetting{Tier: s.Tier, Redundancy: s.Redundancy})
	}
	v, created, err := q.as.PutVault(q.Context(), service.VaultRequest{Vault: v, Match: q.match(), SecureByDefault: q.secure()})
	if err != nil {
		return reply{}, err
	}
	body, err := q.vault(v)
	if err != nil {
		return reply{}, err
	}
	if !created {
		return reply{http.StatusOK, body, map[string]string{"ETag": body.ETag}}, nil
	}
	o, err := q.finished(v.ID, "")
	if err != nil {
		return reply{}, err
	}
	body.Properties.ProvisioningState = "Provisioning"
	return reply{http.StatusCreated, body, map[string]string{"Azure-AsyncOperation": q.statusURL(o), "Retry-After": "1", "ETag": body.ETag}}, nil
}

func patchVault(q *request) (reply, error) {
	var b vaultBody
	if err := q.read(&b); err != nil {
		return reply{}, err
	}
	p := b.Properties
	v, err := q.as.PatchVault(q.Context(), service.VaultPatch{
		ID: q.at, Match: q.match(), SecureByDefault: q.secure(), Tags: b.Tags, Identity: b.Identity.identity(), SoftDelete: p.softDelete(),
		Immutability: p.immutability(), JobFailureAlerts: p.alerts(), CrossSubscriptionRestore: p.crossSubscription(),
	})
	if err != nil {
		return reply{}, err
	}
	body, err := q.vault(v)
	return reply{http.StatusOK, body, map[string]string{"ETag": body.ETag}}, err
}

func getVault(q *request) (reply, error) {
	v, err := q.as.Vault(q.Context(), q.at)
	if err != nil {
		return reply{}, err
	}
	body, err := q.vault(v)
	if err != nil {
		return reply{}, err
	}
	header := map[string]string{"ETag": body.ETag}
	if q.unchanged(body.ETag) {
		return reply{status: http.StatusNotModified, header: header}, nil
	}
	return reply{http.StatusOK, body, header}, nil
}

func listVaults(q *request) (reply, error) {
	return list(q, func(p service.Page) ([]vaultItem, error) {
		found, err := q.as.Vaults(q.Context(), q.at, p)
		out := make([]vaultItem, len(found))
		for n, v := range found {
			out[n] = vaultItem{v.Normal()}
		}
		return out, err
	}, func(v vaultItem) (vaultBody, error) { return q.vault(v.Vault) })
}

// vaultItem is a vault with an ID, as lists need it.
type vaultItem struct{ resource.Vault }

func (v vaultItem) ResourceID() resource.ID { return v.ID }

func deleteVault(q *request) (reply, error) {
	location := q.location(q.at)
	was, err := q.as.DeleteVault(q.Context(), q.at)
	if err != nil || !was {
		return done(was, err)
	}
	o, err := q.finished(q.at, "")
	if err != nil {
		return reply{}, err
	}
	// Below the vault nothing can be asked for any more.
	path := string(q.at.GroupID()) + "/providers/Microsoft.DataProtection/locations/" + location
	sub := string(resource.SubscriptionID(q.at.Subscription())) + "/providers/Microsoft.DataProtection/locations/" + location
	return reply{status: http.StatusAccepted, header: map[string]string{
		"Azure-AsyncOperation": q.base() + path + "/operationStatus/" + o.Name + "?api-version=" + q.version(),
		"Location":             q.base() + sub + "/operationResults/" + o.Name + "?api-version=" + q.version(), "Retry-After": "1",
	}}, nil
}

func checkVaultName(q *request) (reply, error) {
	var b struct {
		Name string `json:"name"`
		Type string `json:"type"`
	}
	if err := q.read(&b); err != nil {
		return reply{}, err
	}
	reason, err := q.as.VaultNameFree(q.Context(), q.at.GroupID(), b.Name)
	if err != nil {
		return reply{}, err
	}
	out := map[string]any{"nameAvailable": reason == ""}
	if reason != "" {
		out["message"], out["reason"] = reason, "Invalid"
		if resource.CheckVaultName(b.Name) == nil {
			out["reason"] = "AlreadyExists"
		}
	}
	return ok(out)
}

// checkFeature tells whether a feature can be used with a type of data source.
func checkFeature(q *request) (reply, error) {
	var b struct {
		ObjectType  string `json:"objectType"`
		FeatureType string `json:"featureType"`
		FeatureName string `json:"featureName"`
	}
	if err := q.read(&b); err != nil {
		return reply{}, err
	}
	supported := "NotSupported"
	if b.FeatureType == "DataSourceType" && b.FeatureName == resource.TypeDisk {
		supported = "GenerallyAvailable"
	}
	return ok(map[string]any{"objectType": "FeatureValidationResponse", "featureType": b.FeatureType,
		"features": []any{map[string]any{"featureName": b.FeatureName, "supportStatus": supported, "exposureControlledFeatures": []string{}}}})
}
