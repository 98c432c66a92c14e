package resource

import "time"

// DefaultName is the name of the vault and of the policy that exist from the
// first backup on.
const DefaultName = "default"

// Vault gathers backup instances under common settings.
type Vault struct {
	Name    string    `json:"name"`
	Created time.Time `json:"created"`
}
