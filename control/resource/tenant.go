package resource

// Tenant is the directory of a deployment, in which its principals live. There
// is one.
type Tenant struct {
	ID string `json:"id"` // a GUID
}

// ResourceID is a place for the tenant among the resources.
func (Tenant) ResourceID() ID { return In("", "diskvault/tenants", "home") }
