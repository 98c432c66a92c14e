package arm

import (
	"strings"

	"github.com/diskvault/diskvault/base/problem"
	"github.com/diskvault/diskvault/control/resource"
	"github.com/diskvault/diskvault/control/service"
)

type policyBody struct {
	ID         string           `json:"id"`
	Name       string           `json:"name"`
	Type       string           `json:"type"`
	Properties policyProperties `json:"properties"`
}

type policyProperties struct {
	ObjectType      string       `json:"objectType"`
	DatasourceTypes []string     `json:"datasourceTypes"`
	PolicyRules     []policyRule `json:"policyRules"`
}

// policyRule is a backup rule or a retention rule, by its objectType.
type policyRule struct {
	ObjectType       string       `json:"objectType"`
	Name             string       `json:"name"`
	BackupParameters *typed       `json:"backupParameters,omitempty"`
	DataStore        *dataStore   `json:"dataStore,omitempty"`
	Trigger          *trigger     `json:"trigger,omitempty"`
	IsDefault        *bool        `json:"isDefault,omitempty"`
	Lifecycles       *[]lifecycle `json:"lifecycles,omitempty"`
}

type typed struct {
	ObjectType string `json:"objectType"`
	BackupType string `json:"backupType,omitempty"`
}

type dataStore struct {
	Tier       string `json:"dataStoreType"`
	ObjectType string `json:"objectType"`
}

type trigger struct {
	ObjectType string `json:"objectType"`
	Schedule   struct {
		Intervals []string `json:"repeatingTimeIntervals"`
		TimeZone  string   `json:"timeZone"`
	} `json:"schedule"`
	Tagging []tagging `json:"taggingCriteria"`
}

type tagging struct {
	IsDefault bool        `json:"isDefault"`
	Priority  int         `json:"taggingPriority"`
	Tag       tagInfo     `json:"tagInfo"`
	Criteria  []criterion `json:"criteria,omitempty"`
}

type tagInfo struct {
	Name string `json:"tagName"`
	ID   string `json:"id"`
}

type criterion struct {
	ObjectType string   `json:"objectType"`
	Absolute   []string `json:"absoluteCriteria"`
	// Others that the schema has are refused rather than passed over.
	DaysOfMonth     []any    `json:"daysOfMonth,omitempty"`
	DaysOfTheWeek   []string `json:"daysOfTheWeek,omitempty"`
	MonthsOfYear    []string `json:"monthsOfYear,omitempty"`
	WeeksOfTheMonth []string `json:"weeksOfTheMonth,omitempty"`
	ScheduleTimes   []string `json:"scheduleTimes,omitempty"`
}

type lifecycle struct {
	DeleteAfter struct {
		ObjectType string `json:"objectType"`
		Duration   string `json:"duration"`
	} `json:"deleteAfter"`
	Source dataStore     `json:"sourceDataStore"`
	Copies []copySetting `json:"targetDataStoreCopySettings"`
}

type copySetting struct {
	CopyAfter typed     `json:"copyAfter"`
	DataStore dataStore `json:"dataStore"`
}

const (
	operational = "OperationalStore"
	vaultTier   = "VaultStore"
)

func storeInfo(tier string) dataStore { return dataStore{tier, "DataStoreInfoBase"} }

// policyOf writes a policy down.
func policyOf(p resource.Policy) (policyBody, error) {
	id := p.ResourceID()
	b := policyBody{ID: string(id), Name: p.Name, Type: resource.TypePolicy, Properties: policyProperties{ObjectType: "BackupPolicy", DatasourceTypes: []string{resource.TypeDisk}}}
	t := &trigger{ObjectType: "ScheduleBasedTriggerContext", Tagging: []tagging{}}
	t.Schedule.Intervals, t.Schedule.TimeZone = []string{p.Schedule.Interval}, p.Schedule.TimeZone
	store := storeInfo(operational)
	rules := []policyRule{{ObjectType: "AzureBackupRule", Name: service.RuleName(p), BackupParameters: &typed{"AzureBackupParams", "Incremental"}, DataStore: &store, Trigger: t}}
	for _, r := range p.Retention {
		tag := tagging{IsDefault: r.Default, Priority: r.Priority, Tag: tagInfo{r.Tag, r.Tag + "_"}}
		if r.Default {
			tag.Priority = 99
		} else {
			tag.Criteria = []criterion{{ObjectType: "ScheduleBasedBackupCriteria", Absolute: []string{string(r.Criterion)}}}
		}
		t.Tagging = append(t.Tagging, tag)
		l := lifecycle{Source: storeInfo(operational), Copies: []copySetting{}}
		l.DeleteAfter.ObjectType, l.DeleteAfter.Duration = "AbsoluteDeleteOption", string(r.Duration)
		all := []lifecycle{l}
		if r.VaultDuration != "" {
			all[0].Copies = []copySetting{{typed{ObjectType: "ImmediateCopyOption"}, storeInfo(vaultTier)}}
			v := lifecycle{Source: storeInfo(vaultTier), Copies: []copySetting{}}
			v.DeleteAfter.ObjectType, v.DeleteAfter.Duration = "AbsoluteDeleteOption", string(r.VaultDuration)
			all = append(all, v)
		}
		isDefault := r.Default
		rules = append(rules, policyRule{ObjectType: "AzureRetentionRule", Name: r.Tag, IsDefault: &isDefault, Lifecycles: &all})
	}
	b.Properties.PolicyRules = rules
	return b, nil
}

// is compares a discriminator, which clients write in any case or leave empty.
func is(objectType, want string) bool {
	return objectType == "" || strings.EqualFold(objectType, want)
}

// policy reads a policy. What the schema allows and diskvault does not do is
// refused, so that nobody relies on it.
func (b policyBody) policy(id resource.ID) (resource.Policy, error) {
	bad := func(code problem.Code, format string, args ...any) (resource.Policy, error) {
		return resource.Policy{}, problem.New(code, format, args...)
	}
	out := resource.Policy{Vault: resource.VaultRef(id.Parent()), Name: id.Name()}
	if !is(b.Properties.ObjectType, "BackupPolicy") {
		return bad(problem.InvalidArgument, "%q is no type of policy: it is BackupPolicy.", b.Properties.ObjectType)
	}
	for _, t := range b.Properties.DatasourceTypes {
		if !strings.EqualFold(t, resource.TypeDisk) {
			return bad(problem.InvalidArgument, "diskvault backs up %s, and not %s.", resource.TypeDisk, t)
		}
	}
	var tags []tagging
	backups := 0
	for _, r := range b.Properties.PolicyRules {
		if !strings.EqualFold(r.ObjectType, "AzureBackupRule") {
			continue
		}
		backups++
		if r.Trigger == nil || len(r.Trigger.Schedule.Intervals) != 1 {
			return bad(problem.PolicyScheduleInvalid, "The backup rule %q must have one repeating interval.", r.Name)
		}
		if r.DataStore != nil && r.DataStore.Tier != "" && r.DataStore.Tier != operational {
			return bad(problem.InvalidArgument, "Backups of disks go to the OperationalStore first, and not to the %s.", r.DataStore.Tier)
		}
		if r.BackupParameters != nil && r.BackupParameters.BackupType != "" && !strings.EqualFold(r.BackupParameters.BackupType, "Incremental") {
			return bad(problem.InvalidArgument, "Backups of disks are Incremental, and not %s.", r.BackupParameters.BackupType)
		}
		out.Schedule = resource.Schedule{Name: r.Name, Interval: r.Trigger.Schedule.Intervals[0], TimeZone: r.Trigger.Schedule.TimeZone}
		tags = r.Trigger.Tagging
	}
	if backups != 1 {
		return bad(problem.PolicyScheduleInvalid, "A policy has one backup rule, and this one has %d.", backups)
	}
	for _, r := range b.Properties.PolicyRules {
		switch {
		case strings.EqualFold(r.ObjectType, "AzureBackupRule"):
			continue
		case !strings.EqualFold(r.ObjectType, "AzureRetentionRule"):
			return bad(problem.InvalidArgument, "%q is no type of rule: it is AzureBackupRule or AzureRetentionRule.", r.ObjectType)
		}
		rule, err := r.retention(tags)
		if err != nil {
			return resource.Policy{}, err
		}
		out.Retention = append(out.Retention, rule)
	}
	for _, t := range tags {
		if _, err := out.Rule(t.Tag.Name); err != nil || t.Tag.Name == "" {
			return bad(problem.PolicyRetentionInvalid, "The tag %q has no retention rule.", t.Tag.Name)
		}
	}
	return out, nil
}

// retention reads a retention rule, with what the backup rule says of its tag.
func (r policyRule) retention(tags []tagging) (resource.RetentionRule, error) {
	out := resource.RetentionRule{Tag: r.Name, Default: valueOf(r.IsDefault)}
	bad := func(format string, args ...any) (resource.RetentionRule, error) {
		return out, problem.New(problem.PolicyRetentionInvalid, format, args...)
	}
	for _, l := range valueOf(r.Lifecycles) {
		if !is(l.DeleteAfter.ObjectType, "AbsoluteDeleteOption") {
			return bad("The rule %q must delete by an AbsoluteDeleteOption.", r.Name)
		}
		switch l.Source.Tier {
		case operational, "":
			out.Duration = resource.Duration(l.DeleteAfter.Duration)
		case vaultTier:
			out.VaultDuration = resource.Duration(l.DeleteAfter.Duration)
		default:
			return bad("The rule %q names the tier %s, which disks do not have.", r.Name, l.Source.Tier)
		}
	}
	if len(valueOf(r.Lifecycles)) == 0 {
		return bad("The rule %q does not say how long points are kept.", r.Name)
	}
	for _, t := range tags {
		if !strings.EqualFold(t.Tag.Name, r.Name) {
			continue
		}
		if t.IsDefault {
			out.Default = true
			return out, nil
		}
		out.Priority = t.Priority
		if len(t.Criteria) != 1 || len(t.Criteria[0].Absolute) != 1 {
			return bad("The tag %q must have one criterion, such as FirstOfDay.", r.Name)
		}
		c := t.Criteria[0]
		if len(c.DaysOfMonth)+len(c.DaysOfTheWeek)+len(c.MonthsOfYear)+len(c.WeeksOfTheMonth)+len(c.ScheduleTimes) > 0 {
			return bad("The tag %q goes by days, weeks, months or times; for disks it must go by FirstOfDay, FirstOfWeek, FirstOfMonth or FirstOfYear.", r.Name)
		}
		out.Criterion = resource.Criterion(c.Absolute[0])
		return out, nil
	}
	if !out.Default {
		return bad("No tagging criterion leads to the retention rule %q.", r.Name)
	}
	return out, nil
}

func putPolicy(q *request) (reply, error) {
	var b policyBody
	if err := q.read(&b); err != nil {
		return reply{}, err
	}
	p, err := b.policy(q.at)
	if err != nil {
		return reply{}, err
	}
	if p, err = q.as.PutPolicy(q.Context(), service.PolicyRequest{Policy: p, Match: q.match()}); err != nil {
		return reply{}, err
	}
	body, err := policyOf(p)
	return reply{status: 200, body: body}, err
}

func getPolicy(q *request) (reply, error) {
	p, err := q.as.Policy(q.Context(), q.at)
	if err != nil {
		return reply{}, err
	}
	body, err := policyOf(p)
	return reply{status: 200, body: body}, err
}

func listPolicies(q *request) (reply, error) {
	return list(q, func(p service.Page) ([]resource.Policy, error) { return q.as.Policies(q.Context(), q.at, p) }, policyOf)
}

func deletePolicy(q *request) (reply, error) { return done(q.as.DeletePolicy(q.Context(), q.at)) }
