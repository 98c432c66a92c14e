package diagnose

// Causes in the store and what it lies on.
var targetRules = []rule{
	{
		id: "C24", code: "TARGET_THROTTLED", fault: true,
		title:    "the store asks us to slow down",
		meaning:  "The store refuses requests as too many (503 SlowDown, 429), and the backup waits as it asks.",
		phases:   []string{preflight, transfer, commit, cleanup},
		must:     either(over("O.throttledShare", 0.005), all(over("J.backoff", 0.05), over("O.throttled", 1))),
		supports: []condition{over("J.backoff", 0.05), grew("O.put.p50", 2)},
		refutes:  []condition{under("O.throttled", 1)},
		blame:    backedOff, lookalikes: []string{"C25", "C06", "C03"},
		actions: []Action{
			{ID: "fewerJobs", Risk: "others wait for their turn", Text: "Let fewer jobs use the store at a time, or ask its provider for a higher limit."},
		},
	},
	{
		id: "C25", code: "TARGET_UNSTABLE", fault: true, under: "C24",
		title:    "the store fails or answers late now and then",
		meaning:  "Requests fail and are made again, or a few take many times as long as the rest.",
		phases:   []string{preflight, transfer, commit},
		must:     either(over("O.errorShare", 0.005), all(grew("O.put.p99", 10), normal("O.put.p50", 2))),
		supports: []condition{over("J.backoff", 0.05), over("J.sentPerStored", 1.05)},
		blame:    backedOff, lookalikes: []string{"C22", "C24", "C32"},
		actions: []Action{{ID: "askProvider", Text: "Look at the state of the store's provider; a proxy on the way may be the reason as well."}},
	},
	{
		id: "C26", code: "TARGET_DISK_SLOW", fault: true, under: "C28",
		title:   "the disk of the store is the limit",
		meaning: "Writes or flushes on the disk below the store take longer than usual, or it is one spindle that is always busy.",
		phases:  []string{transfer, commit},
		must: all(over("J.put.bottleneck", 0.5), either(grew("D.dst.wAwaitMs", 2), grew("D.dst.fAwaitMs", 2),
			all(over("D.dst.busy", 0.95), under("D.dst.othersShare", 0.2), is("D.dst.rotational")))),
		supports: []condition{over("D.dst.fAwaitMs", 20), over("D.dst.busy", 0.9)},
		refutes:  []condition{under("D.dst.busy", 0.2)},
		blame:    slowed("put"), lookalikes: []string{"C28", "C27", "C33"},
		actions: []Action{{ID: "fasterStoreDisk", Risk: "the store must be copied", Text: "Move the store to a faster disk, or give it a log device: each pack is flushed before it counts."}},
	},
	{
		id: "C27", code: "TARGET_NEAR_FULL", fault: true,
		title:    "the store is nearly full",
		meaning:  "File systems place data slowly when hardly any room is left, and soon nothing can be stored at all.",
		phases:   []string{transfer, commit, cleanup},
		must:     either(under("R.freeShare", 0.10), under("R.freeInodeShare", 0.05), over("X.thin.poolShare", 0.9)),
		supports: []condition{grew("D.dst.wAwaitMs", 2), under("R.freeShare", 0.03)},
		refutes:  []condition{under("J.put.bottleneck", 0.2)},
		blame:    slowed("put"), lookalikes: []string{"C26"},
		actions: []Action{
			{ID: "collect", Text: "`diskvault store collect` frees what nothing refers to."},
			{ID: "extend", Text: "Extend the file system of the store."},
		},
	},
	{
		id: "C28", code: "MAINTENANCE_OVERLAP", fault: true,
		title:    "maintenance of the same store runs at the same time",
		meaning:  "A collection, verification or copy uses the store's disk or line while the backup does.",
		phases:   []string{transfer, commit},
		must:     all(over("R.maintenance.timeShare", 0.3), over("R.maintenance.ioShare", 0.3)),
		supports: []condition{is("R.maintenance.verify"), grew("D.dst.wAwaitMs", 2)},
		blame: func(c *comparison) float64 {
			return c.excesses()[transfer] * min(1, c.facts["R.maintenance.timeShare"]/max(0.01, c.facts["J.put.bottleneck"]))
		}, lookalikes: []string{"C02", "C24", "C26"},
		actions: []Action{{ID: "deferMaintenance", Automatic: true, Risk: "the maintenance ends later", Text: "Have collections, verifications and copies done when no backup runs."}},
	},
	{
		id: "C29", code: "COLD_TIER", needs: "store that archives objects",
		title:   "an object that is needed is archived",
		meaning: "A rule of the bucket moved objects to a tier from which they cannot be read at once.",
		phases:  []string{preflight, discovery, transfer}, lookalikes: []string{"C24", "C25"},
	},
	{
		id: "C30", code: "INDEX_SLOW", fault: true, under: "C20",
		title:    "the index of the store is slow",
		meaning:  "Opening the store or looking blocks up takes far longer than usual: the index is read anew, or does not fit.",
		phases:   []string{preflight, transfer, commit},
		must:     either(beyond("J.opening", 30, 3), all(heldBack("decide"), grew("J.decideNsPerByte", 3), normal("H.cpu.throttled", 2))),
		supports: []condition{grew("J.decideNsPerByte", 10)},
		blame: func(c *comparison) float64 {
			return max(0, c.facts["J.opening"]-max(c.facts50["J.opening"], c.wanted[preflight])) + c.excesses()[transfer]*c.facts["J.decide.bottleneck"]
		}, lookalikes: []string{"C20", "C07", "C25"},
		actions: []Action{{ID: "keepCache", Text: "Keep the data folder between runs, on a fast disk; `diskvault store rebuild-index` makes the index anew."}},
	},
	{
		id: "C31", code: "DEDUP_LOST", fault: true, work: true,
		title:    "data that the store holds is stored again",
		meaning:  "As much changed as usual, yet far more of it is new: the guest began to encrypt, or the store or its settings are others.",
		phases:   []string{transfer},
		must:     all(normal("J.bytes.changed", 2), grew("J.newPerChanged", 3)),
		supports: []condition{over("J.storedPerNew", 0.95)},
		blame:    moreNew, lookalikes: []string{"C09"},
		actions: []Action{{ID: "onceOnly", Text: "If a setting or the guest's encryption changed, this happens once."}},
	},
}

// backedOff is the time that workers waited before retries, and what their
// failed attempts took.
func backedOff(c *comparison) float64 {
	waiting := c.phase[transfer] * c.facts["J.backoff"]
	return max(waiting, c.excesses()[transfer]*max(c.facts["J.put.bottleneck"], min(1, 2*c.facts["J.backoff"])))
}
