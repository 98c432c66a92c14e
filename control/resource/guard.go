package resource

import "time"

// Guard is a resource guard: it lists the operations that need a second
// person.
type Guard struct {
	ID          ID                `json:"id"`
	Location    string            `json:"location"`
	Tags        map[string]string `json:"tags,omitempty"`
	Excluded    []string          `json:"excluded"` // critical operations that it does not guard
	Description string            `json:"description,omitempty"`
	Created     time.Time         `json:"created"`
}

// ResourceID is the ID of the guard.
func (g Guard) ResourceID() ID { return g.ID }

// CriticalOperations are those that a guard guards unless they are excluded,
// with the collection of requests for each.
var CriticalOperations = []struct{ Operation, Requests string }{
	{"Microsoft.DataProtection/backupVaults/backupInstances/delete", "deleteBackupInstanceRequests"},
	{"Microsoft.DataProtection/backupVaults/backupResourceGuardProxies/delete", "deleteResourceGuardProxyRequests"},
	{"Microsoft.DataProtection/backupVaults/write#reduceSoftDeleteSecurity", "disableSoftDeleteRequests"},
	{"Microsoft.DataProtection/backupVaults/backupInstances/stopProtection/action", "stopProtectionRequests"},
	{"Microsoft.DataProtection/backupVaults/backupInstances/suspendBackups/action", "suspendBackupsRequests"},
	{"Microsoft.DataProtection/backupVaults/write#reduceImmutabilityState", "reduceImmutabilityStateRequests"},
}

// GuardProxy ties a vault to a guard.
type GuardProxy struct {
	ID          ID        `json:"id"` // below the vault
	Guard       ID        `json:"guard"`
	Description string    `json:"description,omitempty"`
	Updated     time.Time `json:"updated"`
	// UnlockedUntil is until when the critical operations may be done without
	// the guard; zero: they may not.
	UnlockedUntil time.Time `json:"unlockedUntil,omitzero"`
}

// ResourceID is the ID of the proxy.
func (p GuardProxy) ResourceID() ID { return p.ID }

// Link is the vault whose proxies are looked for.
func (p GuardProxy) Link() string { return p.ID.Parent().Key() }
