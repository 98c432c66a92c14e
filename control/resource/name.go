// Package resource holds the nouns of the control plane: vaults, policies,
// backup instances, recovery points as people see them, and jobs; and the
// rules that their names must follow.
package resource

import (
	"regexp"

	"github.com/diskvault/diskvault/base/problem"
)

// The patterns are those of Azure, so that what is made here can be managed
// by its clients too.
var (
	vaultPattern    = regexp.MustCompile(`^[A-Za-z][-A-Za-z0-9]{0,48}[A-Za-z0-9]$`)
	policyPattern   = regexp.MustCompile(`^[A-Za-z][-A-Za-z0-9]{1,148}[A-Za-z0-9]$`)
	instancePattern = regexp.MustCompile(`^[A-Za-z0-9]([-_.A-Za-z0-9]{0,78}[_A-Za-z0-9])?$`)
)

// CheckVaultName returns an InvalidArgument problem unless the name can be
// that of a vault.
func CheckVaultName(name string) error {
	if !vaultPattern.MatchString(name) {
		return problem.New(problem.InvalidArgument, "%q cannot name a vault: 2 to 50 letters, digits and hyphens are allowed, the first a letter, the last no hyphen.", name)
	}
	return nil
}

// CheckPolicyName returns an InvalidArgument problem unless the name can be
// that of a backup policy.
func CheckPolicyName(name string) error {
	if !policyPattern.MatchString(name) {
		return problem.New(problem.InvalidArgument, "%q cannot name a policy: 3 to 150 letters, digits and hyphens are allowed, the first a letter, the last no hyphen.", name)
	}
	return nil
}

// CheckInstanceName returns an InvalidArgument problem unless the name can be
// that of a backup instance. The rule is that of a managed disk's name.
func CheckInstanceName(name string) error {
	if !instancePattern.MatchString(name) {
		return problem.New(problem.InvalidArgument, "%q cannot name a disk: 1 to 80 letters, digits, underscores, dots and hyphens are allowed, the first a letter or digit, the last no dot or hyphen.", name)
	}
	return nil
}
