package diagnose

// Causes in reading the source.
var sourceRules = []rule{
	{
		id: "C11", code: "SOURCE_CONTENTION", fault: true,
		title:    "others use the source disk",
		meaning:  "The disk serves its workload at the same time, and each read of the backup waits for it.",
		phases:   []string{transfer},
		must:     all(heldBack("read"), over("D.src.othersShare", 0.5), grew("D.src.rAwaitMs", 2)),
		supports: []condition{over("H.psi.ioSome", 0.2), under("D.src.othersCorrelation", -0.5)},
		refutes:  []condition{under("D.src.othersShare", 0.1)},
		blame:    slowed("read"), lookalikes: []string{"C12", "C13", "C15"},
		actions: []Action{{ID: "otherHour", Risk: "the recovery point is of another hour", Text: "Back up when the disk is idle, or read from a replica."}},
	},
	{
		id: "C12", code: "SOURCE_SLOW", fault: true,
		title:    "the source disk is the limit",
		meaning:  "Nobody else uses the disk: it, or the way to it, gives no more for such reads.",
		phases:   []string{transfer},
		must:     all(heldBack("read"), under("D.src.othersShare", 0.2), normal("D.src.rAwaitMs", 1.2)),
		supports: []condition{all(is("D.src.rotational"), under("D.src.rSizeBytes", 256<<10)), under("D.src.depth", 2)},
		blame:    slowed("read"), lookalikes: []string{"C11", "C13", "C14", "C19"},
		actions: []Action{{ID: "fasterDisk", Risk: "the image must be moved", Text: "Nothing in the way of the disk: this is what it gives for such reads. Change tracking reads less of it."}},
	},
	{
		id: "C13", code: "SOURCE_DEGRADED", fault: true,
		title:   "the source disk is being rebuilt or checked, or is failing",
		meaning: "An array is rebuilt or checked, or reads fail or take many times as long as others.",
		phases:  []string{discovery, transfer},
		must: either(is("X.md.active"), over("X.md.degraded", 1), over("J.source.errors", 1),
			all(over("J.source.tail", 20), grew("J.source.p99", 5), normal("J.source.p50", 2))),
		blame: slowed("read"), lookalikes: []string{"C26", "C12", "C11"},
		actions: []Action{
			{ID: "backUpNow", Text: "Let this backup end. If reads fail, replace the disk; --allow-unreadable stores what can be read."},
			{ID: "waitForRebuild", Text: "If the array is rebuilt or checked, `cat /proc/mdstat` says for how long."},
		},
	},
	{
		id: "C14", code: "SOURCE_CAPPED", fault: true,
		title:   "the source disk is limited from outside",
		meaning: "The rate is flat at the disk's limit, or fell at one moment and stayed even, as when a credit is used up.",
		phases:  []string{transfer},
		must: all(heldBack("read"), under("J.limited", 0.05),
			either(over("J.stepDown", 0.3), all(under("J.variation", 0.05), over("D.src.limitBytes", 1), grew("D.src.bytesPerSecond", 0)))),
		supports: []condition{under("D.src.othersShare", 0.2)},
		refutes:  []condition{over("D.src.othersShare", 0.5)},
		blame:    slowed("read"), lookalikes: []string{"C03", "C12"},
		actions: []Action{{ID: "largerTier", Risk: "may cost money", Text: "Give the disk a higher limit for the time of its backup, or back up when its credit is full."}},
	},
	{
		id: "C15", code: "SNAPSHOT_OVERHEAD", needs: "measurement of the origin beside its snapshot",
		title:   "the snapshot itself is expensive",
		meaning: "Reads through the snapshot, or the guest's writes beside it, take far longer than without it.",
		phases:  []string{transfer}, lookalikes: []string{"C11"},
	},
}
