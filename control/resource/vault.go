package resource

import (
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
)

// DefaultName is the name of the vault and of the policy that exist from the
// first backup on.
const DefaultName = "default"

// Vault gathers backup instances under common settings, and acts with an
// identity of its own.
type Vault struct {
	Name     string            `json:"name"`
	ID       ID                `json:"id"`
	Location string            `json:"location"`
	Tags     map[string]string `json:"tags,omitempty"`
	Created  time.Time         `json:"created"`

	Identity                 Identity         `json:"identity"`
	Storage                  []StorageSetting `json:"storage"`
	Stores                   []VaultStore     `json:"stores,omitempty"` // of the vault tier; none: there is no such tier
	SoftDelete               SoftDelete       `json:"softDelete"`
	Immutability             string           `json:"immutability"`             // Disabled, Unlocked, Locked
	JobFailureAlerts         string           `json:"jobFailureAlerts"`         // Enabled, Disabled
	CrossSubscriptionRestore string           `json:"crossSubscriptionRestore"` // Enabled, Disabled, PermanentlyDisabled
}

// StorageSetting is the redundancy of a tier of a vault.
type StorageSetting struct {
	Tier       string `json:"tier"`       // OperationalStore, VaultStore, ArchiveStore
	Redundancy string `json:"redundancy"` // LocallyRedundant, GeoRedundant, ZoneRedundant
}

// VaultStore is a store of the vault tier. The URL leads there from a machine
// that knows nothing but the vault's record.
type VaultStore struct {
	ID  string `json:"id"`
	URL string `json:"url"`
}

// MaxVaultStores is how many stores a vault may have: one is locally redundant,
// two are geo-redundant.
const MaxVaultStores = 2

// Keeps tells whether a store belongs to the vault tier of the vault.
func (v Vault) Keeps(storeID string) bool {
	return slices.ContainsFunc(v.Stores, func(s VaultStore) bool { return s.ID == storeID })
}

// Identity is what a vault acts as.
type Identity struct {
	Type        string `json:"type"`                  // None, SystemAssigned, UserAssigned or SystemAssigned,UserAssigned
	PrincipalID string `json:"principalId,omitempty"` // of the system-assigned identity; a new one whenever it is switched on
	// Users are the user-assigned identities by their resource IDs.
	Users map[ID]UserIdentity `json:"users,omitempty"`
}

// UserIdentity is a user-assigned identity.
type UserIdentity struct {
	PrincipalID string `json:"principalId"`
	ClientID    string `json:"clientId"`
}

// System tells whether the vault has an identity of its own.
func (i Identity) System() bool { return strings.HasPrefix(i.Type, "SystemAssigned") }

// Of gives the principal of the user-assigned identity with the ID, which may
// be written in any case.
func (i Identity) Of(id ID) (principal string, ok bool) {
	for u, v := range i.Users {
		if u.Same(id) {
			return v.PrincipalID, true
		}
	}
	return "", false
}

// Normal fills in what a vault does not say, as for one whose record was
// written before there was anything to say.
func (v Vault) Normal() Vault {
	fill := func(s *string, value string) {
		if *s == "" {
			*s = value
		}
	}
	if v.ID == "" {
		v.ID = VaultID(v.Name)
	}
	v.Name = v.ID.Name()
	fill(&v.Location, HomeLocation)
	v.Location = Location(v.Location)
	if v.Identity.Type == "" && v.ID.Same(VaultID(DefaultName)) {
		// The vault of a first backup must act. Its principal follows from
		// its ID, so that a rebuilt catalog knows the same one.
		v.Identity = Identity{Type: "SystemAssigned", PrincipalID: uuid.NewSHA1(uuid.NameSpaceURL, []byte(v.ID.Key())).String()}
	}
	fill(&v.Identity.Type, "None")
	v.SoftDelete = v.SoftDelete.Effective()
	fill(&v.Immutability, "Disabled")
	fill(&v.JobFailureAlerts, "Enabled")
	fill(&v.CrossSubscriptionRestore, "Enabled")
	if len(v.Storage) == 0 {
		v.Storage = []StorageSetting{{Tier: "VaultStore", Redundancy: "LocallyRedundant"}}
	}
	return v
}

// Ref is how policies and instances refer to the vault: by its name in the
// home group, elsewhere by its ID.
func (v Vault) Ref() string { return VaultRef(v.Normal().ID) }

// SoftDelete says what becomes of deleted instances.
type SoftDelete struct {
	State SoftDeleteState `json:"state"`
	Days  int             `json:"retentionDurationInDays"` // how long they can be undeleted; 0 if off
}

// SoftDeleteState tells whether deletions are soft.
type SoftDeleteState string

const (
	SoftDeleteOff      SoftDeleteState = "Off"
	SoftDeleteOn       SoftDeleteState = "On"
	SoftDeleteAlwaysOn SoftDeleteState = "AlwaysOn" // cannot be taken back
)

// The range of SoftDelete.Days unless it is off. The least is the default.
const (
	MinSoftDeleteDays = 14
	MaxSoftDeleteDays = 180
)

// Effective fills in the defaults: on, for 14 days.
func (s SoftDelete) Effective() SoftDelete {
	if s.State == "" {
		s.State = SoftDeleteOn
	}
	if s.State == SoftDeleteOff {
		s.Days = 0
	} else if s.Days == 0 {
		s.Days = MinSoftDeleteDays
	}
	return s
}
