package resource

import (
	"strings"
	"time"

	"github.com/diskvault/diskvault/base/problem"
)

// DefaultTag is the retention tag of points that no other rule claims.
const DefaultTag = "Default"

// Policy says when a disk is backed up and how long its points are kept.
type Policy struct {
	Vault     string          `json:"vault"`
	Name      string          `json:"name"`
	Schedule  Schedule        `json:"schedule"`
	Retention []RetentionRule `json:"retention"`
	Created   time.Time       `json:"created"`
	// Modified is when its rules were last replaced; zero: never. New rules
	// govern new points: those that exist carry their own duration.
	Modified time.Time `json:"modified,omitzero"`
}

// Schedule is a repeating interval of ISO 8601 with its time zone.
type Schedule struct {
	Name     string `json:"name,omitempty"` // of the backup rule on the wire, such as BackupHourly
	Interval string `json:"interval"`       // R/<start>/<duration>; a start in the past only sets the phase
	TimeZone string `json:"timeZone"`       // a Windows or IANA name; empty means UTC
}

// Criterion picks the backups that a retention rule keeps.
type Criterion string

// The criteria of a rule that is not the default. First means the first
// scheduled backup that succeeds in the period, by the policy's time zone.
const (
	FirstOfDay   Criterion = "FirstOfDay"
	FirstOfWeek  Criterion = "FirstOfWeek" // weeks begin on Monday
	FirstOfMonth Criterion = "FirstOfMonth"
	FirstOfYear  Criterion = "FirstOfYear"
)

// RetentionRule keeps the points of one tag for a duration.
type RetentionRule struct {
	Tag       string    `json:"tag"`
	Duration  Duration  `json:"duration"` // in the operational tier
	Default   bool      `json:"isDefault"`
	Criterion Criterion `json:"criterion,omitempty"` // empty in the default rule
	Priority  int       `json:"priority,omitempty"`  // if several rules claim a point, the smallest wins; the default rule comes last
	// VaultDuration is how long the copy in the vault tier is kept; empty: the
	// rule copies nothing there.
	VaultDuration Duration `json:"vaultDuration,omitempty"`
}

// DefaultPolicy is what a disk gets when nobody asks for anything else: daily
// at 01:00 UTC, each point kept for 30 days.
func DefaultPolicy(vault string, now time.Time) Policy {
	return Policy{
		Vault:     vault,
		Name:      DefaultName,
		Schedule:  Schedule{Interval: "R/2024-01-01T01:00:00+00:00/P1D", TimeZone: "UTC"},
		Retention: []RetentionRule{{Tag: DefaultTag, Duration: "P30D", Default: true}},
		Created:   now,
	}
}

// ResourceID is the ID of the policy.
func (p Policy) ResourceID() ID { return PolicyID(p.Vault, p.Name) }

// Rule gives the retention rule of a tag, or a RetentionTagNotFound problem.
// Tags are compared without case; an empty one means the default rule.
func (p Policy) Rule(tag string) (RetentionRule, error) {
	for _, r := range p.Retention {
		if strings.EqualFold(r.Tag, tag) || tag == "" && r.Default {
			return r, nil
		}
	}
	return RetentionRule{}, problem.New(problem.RetentionTagNotFound, "The policy %q has no retention tag %q.", p.Name, tag).
		With("policy", p.Name).With("tag", tag)
}
