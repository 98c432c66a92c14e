package retention

import (
	"flag"
	"fmt"
	"math/rand"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/diskvault/diskvault/base/problem"
	"github.com/diskvault/diskvault/control/resource"
)

var update = flag.Bool("update", false, "write the golden files anew")

// golden compares text with a file of testdata.
func golden(t *testing.T, name, got string) {
	t.Helper()
	path := "testdata/" + name + ".txt"
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s: got\n%s\nwant\n%s", path, got, want)
	}
}

var day0 = time.Date(2026, 3, 1, 1, 0, 0, 0, time.UTC)

func at(days int) time.Time { return day0.AddDate(0, 0, days) }

func point(id string, made int, d resource.Duration, good bool) Point {
	return Point{ID: id, Created: at(made).Add(time.Minute), Time: at(made), Tag: "Default", Duration: d, Good: good}
}

var configured = State{Protection: resource.ProtectionConfigured}

func TestDecide(t *testing.T) {
	points := []Point{
		point("new", 22, "P30D", true),
		point("odd", 21, "soon", true),
		point("mid", 20, "P30D", true),
		point("held", 1, "", true),
		point("old", 0, "P30D", true),
	}
	bad := slices.Clone(points)
	bad[0].Good, bad[1].Good = false, false
	worse := slices.Clone(bad)
	for i := range worse {
		worse[i].Good = false
	}
	ahead := slices.Clone(points)
	for i := range ahead {
		ahead[i].Created = at(4000 - i)
	}
	var b strings.Builder
	for _, c := range []struct {
		what   string
		points []Point
		st     State
		now    time.Time
	}{
		{"protected, after 40 days", points, configured, at(40)},
		{"protected, after years", points, configured, at(2000)},
		{"the very moment of expiry", points[3:], configured, at(30).Add(time.Minute)},
		{"the moment before", points[2:], configured, at(30).Add(time.Minute - 1)},
		{"the newest ones are not good", bad, configured, at(60)},
		{"none is good", worse, configured, at(60)},
		{"backups fail", points, State{Protection: resource.ProtectionError}, at(60)},
		{"backups suspended, retain by policy", points, State{Protection: resource.BackupSchedulesSuspended}, at(60)},
		{"stopped, retain for ever", points, State{Protection: resource.ProtectionStopped}, at(60)},
		{"retention suspended", points, State{Protection: resource.RetentionSchedulesSuspended}, at(60)},
		{"soft-deleted", points, State{Protection: resource.SoftDeleted, Purge: at(74)}, at(60)},
		{"soft-deleted, to be purged", points, State{Protection: resource.SoftDeleted, Purge: at(74)}, at(74)},
		{"soft-deleted, nobody knows when", points, State{Protection: resource.SoftDeleted}, at(4000)},
		{"soft-deleted and due, but paused", points, State{Protection: resource.SoftDeleted, Purge: at(74), Paused: true}, at(80)},
		{"paused", points, State{Protection: resource.ProtectionConfigured, Paused: true}, at(4000)},
		{"a state that is not known", points, State{Protection: "Strange"}, at(4000)},
		{"created under a clock of ten years ahead", ahead, configured, at(60)},
		{"no points", nil, configured, at(60)},
	} {
		fmt.Fprintln(&b, c.what)
		ds := Decide(c.points, c.st, c.now)
		gone := Expire(nil, c.points, c.st, c.now)
		for i, d := range ds {
			keep, expiry := "go", "-"
			if d.Keep {
				keep = "keep"
			}
			if d.Expiry != nil {
				expiry = d.Expiry.Format(time.DateOnly)
			}
			fmt.Fprintf(&b, "  %s %s %s: %s\n", d.ID, keep, expiry, strings.Join(d.Reasons, "; "))
			if d.Keep == slices.Contains(gone, i) {
				t.Errorf("%s: Decide and Expire differ on %s", c.what, d.ID)
			}
			if len(d.Reasons) == 0 {
				t.Errorf("%s: no reason for %s", c.what, d.ID)
			}
		}
	}
	golden(t, "decide", b.String())
}

// policy is one that Check accepts unless a test says otherwise.
func policy(interval, zone string, rules ...resource.RetentionRule) resource.Policy {
	return resource.Policy{Vault: "v", Name: "p", Schedule: resource.Schedule{Interval: "R/2026-01-01T01:00:00Z/" + interval, TimeZone: zone}, Retention: rules}
}

func fallback(d resource.Duration) resource.RetentionRule {
	return resource.RetentionRule{Tag: "Default", Duration: d, Default: true}
}

func rule(tag string, d resource.Duration, c resource.Criterion, priority int) resource.RetentionRule {
	return resource.RetentionRule{Tag: tag, Duration: d, Criterion: c, Priority: priority}
}

func all(d resource.Duration) []resource.RetentionRule {
	return []resource.RetentionRule{
		rule("Yearly", "P1Y", resource.FirstOfYear, 5), rule("Monthly", "P6M", resource.FirstOfMonth, 10),
		fallback(d), rule("Daily", "P14D", resource.FirstOfDay, 25), rule("Weekly", "P8W", resource.FirstOfWeek, 20),
	}
}

func TestScheduledTags(t *testing.T) {
	var b strings.Builder
	for _, c := range []struct {
		what, zone, last, slot string
		rules                  []resource.RetentionRule
	}{
		{"the first ever", "", "", "2026-11-25T05:00:00Z", all("P7D")},
		{"a Monday", "", "2026-11-22T21:00:00Z", "2026-11-23T01:00:00Z", all("P7D")},
		{"a Tuesday", "", "2026-11-23T21:00:00Z", "2026-11-24T01:00:00Z", all("P7D")},
		{"later on that Tuesday", "", "2026-11-24T01:00:00Z", "2026-11-24T05:00:00Z", all("P7D")},
		{"the first of a month", "", "2026-10-31T21:00:00Z", "2026-11-01T01:00:00Z", all("P7D")},
		{"the first of a year", "", "2026-12-31T21:00:00Z", "2027-01-01T01:00:00Z", all("P7D")},
		{"the first run of Monday failed", "", "2026-11-22T21:00:00Z", "2026-11-23T05:00:00Z", all("P7D")},
		{"all of Monday failed", "", "2026-11-22T21:00:00Z", "2026-11-24T05:00:00Z", all("P7D")},
		{"three weeks of failures over the end of a month", "", "2026-10-22T21:00:00Z", "2026-11-11T05:00:00Z", all("P7D")},
		{"still Sunday in New York", "Eastern Standard Time", "2026-11-22T21:00:00Z", "2026-11-23T01:00:00Z", all("P7D")},
		{"already Monday in Berlin", "W. Europe Standard Time", "2026-11-22T22:30:00Z", "2026-11-22T23:30:00Z", all("P7D")},
		{"two hours on the day of the gap in Berlin", "Europe/Berlin", "2026-03-29T00:00:00Z", "2026-03-29T02:00:00Z", all("P7D")},
		{"only the default rule", "", "2026-11-22T21:00:00Z", "2026-11-23T01:00:00Z", []resource.RetentionRule{fallback("P7D")}},
		{"Daily wins by its priority", "", "2026-11-22T21:00:00Z", "2026-11-23T01:00:00Z", []resource.RetentionRule{
			fallback("P7D"), rule("Weekly", "P8W", resource.FirstOfWeek, 30), rule("Daily", "P14D", resource.FirstOfDay, 25)}},
		{"the last success lies in the future: a clock was wrong", "", "2037-01-01T00:00:00Z", "2026-11-25T01:00:00Z", all("P7D")},
	} {
		last := time.Time{}
		if c.last != "" {
			last = instant(t, c.last)
		}
		g, err := Scheduled(policy("PT4H", c.zone, c.rules...), last, instant(t, c.slot))
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&b, "%s\n  slot %s after %q: %s for %s: %s\n", c.what, c.slot, c.last, g.Rule.Tag, g.Rule.Duration, g.Reason)
	}
	golden(t, "tags", b.String())
}

func instant(t *testing.T, text string) time.Time {
	t.Helper()
	v, err := time.Parse(time.RFC3339, text)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// The documented maxima pass, and one day more does not.
func TestDocumentedMaxima(t *testing.T) {
	for interval, longest := range map[string]int{"PT1H": 18, "PT2H": 37, "PT4H": 75, "PT6H": 112, "PT8H": 150, "PT12H": 225, "P1D": 365} {
		for _, zone := range []string{"", "Europe/Berlin"} {
			f, err := Check(policy(interval, zone, fallback(days(longest))))
			if err != nil || f.LongestDefault != longest {
				t.Errorf("%s for %d days: longest %d, %v", interval, longest, f.LongestDefault, err)
			}
			if _, err = Check(policy(interval, zone, fallback(days(longest+1)))); !problem.Is(err, problem.PolicyLimitExceeded) {
				t.Errorf("%s for %d days: %v", interval, longest+1, err)
			}
		}
	}
}

func TestCheck(t *testing.T) {
	vaulted := func(d resource.Duration) resource.RetentionRule {
		r := fallback("P7D")
		r.VaultDuration = d
		return r
	}
	odd := fallback("P7D")
	odd.Criterion = resource.FirstOfDay
	var b strings.Builder
	for _, c := range []struct {
		what   string
		policy resource.Policy
	}{
		{"the default policy", resource.DefaultPolicy("v", day0)},
		{"all rules", policy("PT4H", "", all("P7D")...)},
		{"hourly, all rules, 18 days", policy("PT1H", "", all("P18D")...)},
		{"hourly, all rules, 16 days", policy("PT1H", "", all("P16D")...)},
		{"12 months are a year", policy("P1D", "", fallback("P12M"))},
		{"53 weeks are more", policy("P1D", "", fallback("P53W"))},
		{"99 years in the vault tier", policy("PT4H", "", vaulted("P99Y"))},
		{"100 years in the vault tier", policy("PT4H", "", vaulted("P100Y"))},
		{"a word in the vault tier", policy("PT4H", "", vaulted("ever"))},
		{"a bad schedule", policy("PT3H", "", fallback("P7D"))},
		{"no rules", policy("PT4H", "")},
		{"two default rules", policy("PT4H", "", fallback("P7D"), fallback("P8D"))},
		{"no default rule", policy("PT4H", "", rule("Daily", "P7D", resource.FirstOfDay, 25))},
		{"a default rule with a criterion", policy("PT4H", "", odd)},
		{"a rule without criterion", policy("PT4H", "", fallback("P7D"), rule("Daily", "P7D", "", 25))},
		{"AllBackup", policy("PT4H", "", fallback("P7D"), rule("Daily", "P7D", "AllBackup", 25))},
		{"twice the criterion and the priority", policy("PT4H", "", fallback("P7D"), rule("A", "P7D", resource.FirstOfDay, 25), rule("B", "P7D", resource.FirstOfDay, 25))},
		{"twice the tag", policy("PT4H", "", fallback("P7D"), rule("default", "P7D", resource.FirstOfDay, 25))},
		{"no tag, no duration", policy("PT4H", "", fallback("P7D"), rule("", "", resource.FirstOfDay, 25))},
	} {
		f, err := Check(c.policy)
		fmt.Fprintln(&b, c.what)
		if err == nil {
			fmt.Fprintf(&b, "  ok: %d a day, at most %d at a time %v, the default rule could keep %d days\n", f.PerDay, f.Most, f.Tags, f.LongestDefault)
			continue
		}
		p := problem.From(err)
		fmt.Fprintf(&b, "  %s: %s\n", p.Code, p.Message)
		for _, a := range p.Actions {
			fmt.Fprintf(&b, "    do: %s\n", a)
		}
		if faults, ok := p.Details["faults"].([]string); ok {
			for _, f := range faults[1:] {
				fmt.Fprintf(&b, "    also: %s\n", f)
			}
		}
	}
	golden(t, "check", b.String())
}

func TestAdmit(t *testing.T) {
	if err := Admit(MaxPoints - 1); err != nil {
		t.Error(err)
	}
	if err := Admit(MaxPoints); !problem.Is(err, problem.SnapshotLimitReached) {
		t.Error(err)
	}
}

func TestSimulate(t *testing.T) {
	sim, err := Simulate(policy("PT12H", "Europe/Berlin", fallback("P2D"), rule("Daily", "P4D", resource.FirstOfDay, 25), rule("Weekly", "P2W", resource.FirstOfWeek, 20)),
		instant(t, "2026-03-26T00:00:00Z"), 8)
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s; at most %d at a time here, %d in the long run\n", sim.Words, sim.Most, sim.Footprint.Most)
	for _, r := range sim.Runs {
		fmt.Fprintf(&b, "%s %s until %s: %s\n", r.ID, r.Tag, r.Expiry.Format("2006-01-02T15:04Z"), r.Reason)
	}
	b.WriteString("kept\n")
	for _, d := range sim.Kept {
		fmt.Fprintf(&b, "%s: %s\n", d.ID, strings.Join(d.Reasons, "; "))
	}
	golden(t, "simulate", b.String())

	if _, err := Simulate(policy("PT1H", "", fallback("P20D")), day0, 1); !problem.Is(err, problem.PolicyLimitExceeded) {
		t.Error(err)
	}
	// What Check foretells is what a simulation of two years holds, but for the
	// newest point, which is kept beyond its rule.
	for _, p := range []resource.Policy{policy("PT4H", "", all("P60D")...), policy("PT1H", "", fallback("P18D")), policy("PT8H", "", all("P30D")...)} {
		f, err := Check(p)
		if err != nil {
			t.Fatal(err)
		}
		sim, err := Simulate(p, time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), 730)
		if err != nil {
			t.Fatal(err)
		}
		if sim.Most > f.Most+1 || sim.Most < f.Most-1 {
			t.Errorf("%v: %d points, Check says %d", p.Retention, sim.Most, f.Most)
		}
	}
}

func TestSoftDelete(t *testing.T) {
	type sd = resource.SoftDelete
	var b strings.Builder
	for _, c := range []struct {
		s      sd
		secure bool
	}{{sd{}, false}, {sd{State: "On", Days: 30}, false}, {sd{State: "AlwaysOn", Days: 180}, true}, {sd{State: "Off"}, false}, {sd{State: "Off"}, true}} {
		r := Remove(c.s, c.secure, at(0))
		fmt.Fprintf(&b, "%v secure=%v: soft=%v purge %s: %s\n", c.s, c.secure, r.Soft, clock(r.Purge), r.Reason)
	}
	for _, c := range []struct {
		from, to sd
		secure   bool
	}{
		{sd{}, sd{State: "Off"}, false}, {sd{}, sd{State: "Off"}, true}, {sd{}, sd{State: "On", Days: 13}, false}, {sd{}, sd{State: "On", Days: 181}, false},
		{sd{}, sd{State: "AlwaysOn"}, true}, {sd{State: "AlwaysOn"}, sd{State: "On", Days: 20}, false}, {sd{State: "AlwaysOn"}, sd{State: "AlwaysOn", Days: 20}, false},
		{sd{}, sd{State: "Sometimes"}, false}, {sd{State: "Off"}, sd{State: "On", Days: 14}, true},
	} {
		err := CheckSoftDelete(c.from, c.to, c.secure)
		text := "ok"
		if err != nil {
			text = string(problem.From(err).Code) + ": " + err.Error()
		}
		fmt.Fprintf(&b, "%v -> %v secure=%v: %s\n", c.from, c.to, c.secure, text)
	}
	golden(t, "softdelete", b.String())
}

// Whatever happens to a disk, the newest good point is there, and there are
// never more than MaxPoints; with one policy and no extra backups never more
// than MaxScheduled and the newest.
func TestRetentionProperty(t *testing.T) {
	seed := time.Now().UnixNano()
	r := rand.New(rand.NewSource(seed))
	pick := func(n int) int { return r.Intn(n) }
	rounds := 9
	if n, err := strconv.Atoi(os.Getenv("DISKVAULT_SEEDS")); err == nil {
		rounds = n
	}
	for round := range rounds {
		usable := func() resource.Policy {
			for {
				interval := []string{"PT1H", "PT2H", "PT4H", "PT6H", "PT8H", "PT12H", "P1D"}[pick(7)]
				rules := []resource.RetentionRule{fallback(days(1 + pick(380)))}
				for i, c := range []resource.Criterion{resource.FirstOfDay, resource.FirstOfWeek, resource.FirstOfMonth, resource.FirstOfYear} {
					if pick(3) == 0 {
						rules = append(rules, rule(string(c), days(1+pick(380)), c, 1+i))
					}
				}
				p := policy(interval, []string{"", "Europe/Berlin", "Tokyo Standard Time"}[pick(3)], rules...)
				if _, err := Check(p); err == nil {
					return p
				}
			}
		}
		calm := round%3 == 0 // one policy, scheduled backups only, a clock that runs
		p, st := usable(), configured
		f, err := Check(p)
		if err != nil {
			t.Fatal(err)
		}
		now, lastSlot := at(0), time.Time{}
		var points []Point // newest first
		for step := range 1500 {
			now = now.Add(time.Duration(pick(8*60)) * time.Minute)
			scheduled := true
			if calm {
				now = at(0).Add(time.Duration(step) * 24 * time.Hour / time.Duration(f.PerDay))
			} else {
				switch pick(40) {
				case 0:
					p = usable()
				case 1:
					now = now.AddDate(0, 0, pick(90))
				case 2:
					now = now.AddDate(0, 0, -pick(30))
				case 3:
					st.Protection = []resource.Protection{resource.ProtectionConfigured, resource.ProtectionStopped, resource.BackupSchedulesSuspended,
						resource.RetentionSchedulesSuspended, resource.ProtectionError}[pick(5)]
				case 4:
					st.Paused = !st.Paused
				}
				scheduled = pick(3) > 0
			}
			if st.Protection.BacksUp() && Admit(len(points)) == nil && (calm || pick(5) > 0) {
				rule, _ := p.Rule("")
				if scheduled {
					g, err := Scheduled(p, lastSlot, now)
					if err != nil {
						t.Fatal(err)
					}
					rule, lastSlot = g.Rule, now
				}
				created := now
				if len(points) > 0 && !created.After(points[0].Created) {
					created = points[0].Created.Add(1) // as the store does
				}
				points = slices.Insert(points, 0, Point{ID: fmt.Sprint(step), Created: created, Time: now, Tag: rule.Tag, Duration: rule.Duration, Good: calm || pick(6) > 0})
			}
			good := firstGood(points)
			for _, i := range slices.Backward(Expire(nil, points, st, now)) {
				if i == 0 || i == good {
					t.Fatalf("seed %d: point %d of %d is let go, the newest good one is %d", seed, i, len(points), good)
				}
				if !st.Protection.Expires() || st.Paused {
					t.Fatalf("seed %d: a point is let go in %+v", seed, st)
				}
				points = slices.Delete(points, i, i+1)
			}
			if len(points) > MaxPoints || calm && len(points) > MaxScheduled+1 {
				t.Fatalf("seed %d: %d points of %+v", seed, len(points), p)
			}
		}
	}
}

// An instance with all its points must be judged in microseconds and without
// garbage: there are ten thousand of them.
func TestExpireIsCheap(t *testing.T) {
	points := full()
	var gone []int
	gone = Expire(gone, points, configured, at(50))
	if len(gone) == 0 || len(gone) > 440 {
		t.Fatalf("%d points go", len(gone))
	}
	if n := testing.AllocsPerRun(100, func() { gone = Expire(gone[:0], points, configured, at(50)) }); n > 0 {
		t.Errorf("%v allocations", n)
	}
}

func full() (points []Point) {
	for i := range MaxScheduled {
		points = append(points, Point{ID: fmt.Sprint(i), Created: at(40).Add(-time.Hour * time.Duration(i)), Tag: "Default", Duration: "P18D", Good: true})
	}
	return points
}

func BenchmarkExpire(b *testing.B) {
	points := full()
	var gone []int
	for b.Loop() {
		gone = Expire(gone[:0], points, configured, at(50))
	}
}
