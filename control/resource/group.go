package resource

import "time"

// Subscription holds resource groups.
type Subscription struct {
	ID         ID        `json:"id"`
	Name       string    `json:"name"`
	Registered []string  `json:"registered"` // provider namespaces, in the case that clients expect
	Created    time.Time `json:"created"`
}

// Group is a resource group. As a snapshot resource group it stands for the
// store in which the operational tier of its instances lies.
type Group struct {
	ID       ID                `json:"id"`
	Location string            `json:"location"`
	Tags     map[string]string `json:"tags,omitempty"`
	Store    string            `json:"store,omitempty"` // ID of the store; empty: the default one
	Created  time.Time         `json:"created"`
}

// ResourceID is the ID of the subscription.
func (s Subscription) ResourceID() ID { return s.ID }

// ResourceID is the ID of the group.
func (g Group) ResourceID() ID { return g.ID }
