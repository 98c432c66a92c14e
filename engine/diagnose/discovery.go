package diagnose

// Causes in what has to be read and stored.
var discoveryRules = []rule{
	{
		id: "C07", code: "MAP_SLOW", fault: true,
		title:    "finding out what changed takes long",
		meaning:  "The map of the source's extents is large or slow to read: a file in very many pieces, or the metadata of a thin pool.",
		phases:   []string{discovery},
		must:     beyond("J.discovery", 60, 3),
		supports: []condition{over("S.extents", 200000), grew("S.extents", 2)},
		blame:    lost(discovery), lookalikes: []string{"C08", "C30", "C33"},
		actions: []Action{{ID: "defragment", Risk: "the copy needs as much room again", Text: "Copy the image to a file in fewer pieces, or take backups more often, so that less changes between them."}},
	},
	{
		id: "C08", code: "CBT_LOST", fault: true, work: true,
		title:    "change tracking could not be used, so all of the disk was read",
		meaning:  "What changed since the last recovery point is not known, so everything is read and compared. Little more than usual is stored, and the next backup is quick again if tracking works.",
		phases:   []string{discovery, transfer},
		must:     all(is("J.incremental"), is("J.untracked"), grewFrom("J.bytes.read", "J.bytes.changed", 1.5), grew("J.bytes.read", 1.5)),
		supports: []condition{is("S.changesReason"), normal("J.bytes.new", 2)},
		blame:    more("J.bytes.read", "J.bytes.read"), lookalikes: []string{"C09", "C31", "C35"},
		actions: []Action{{ID: "keepTracking", Text: "See the reason in `diskvault jobs -o json` (changeTracking). The next backup is quick again unless it stays."}},
	},
	{
		id: "C09", code: "CHURN_HIGH", work: true,
		title:    "more really changed",
		meaning:  "More of the disk changed than between the backups before, and it is new.",
		phases:   []string{transfer},
		must:     all(grew("J.bytes.changed", 2), grew("J.bytes.new", 2), over("J.steady", 0.8)),
		supports: []condition{over("J.newPerChanged", 0.5)},
		blame:    moreNew, lookalikes: []string{"C08", "C10", "C31"},
		actions: []Action{{ID: "moreOften", Text: "Back up more often: each backup then has less to do. Leave swap and scratch disks out."}},
	},
	{
		id: "C10", code: "CHANGE_INFLATED", work: true, fault: true,
		title:    "much is reported as changed that is as before",
		meaning:  "Change tracking names far more than what really differs: trimmed or rewritten with the same content, or coarser than the writes.",
		phases:   []string{discovery, transfer},
		must:     all(isNot("J.untracked"), over("J.changedPerNew", 5), grew("J.bytes.changed", 2), over("J.steady", 0.8)),
		supports: []condition{over("J.sameShare", 0.5), over("J.zeroShare", 0.5)},
		refutes:  []condition{grew("J.bytes.new", 2)},
		blame:    more("J.bytes.changed", "J.bytes.changed"), lookalikes: []string{"C08", "C09"},
		actions: []Action{{ID: "trimAfterBackup", Text: "Trim just after a backup instead of before; stop defragmenting the guest."}},
	},
}

// moreNew is the time that the growth of new data takes in the stage that is
// slowest for it.
func moreNew(c *comparison) float64 {
	grown := max(0, c.facts["J.bytes.new"]-c.facts50["J.bytes.new"])
	x := c.model.rates
	return grown / min(x.Put/max(0.05, c.facts["J.storedPerNew"]), x.Encode*max(1, c.facts["J.cpu.workers"]), x.Read)
}
