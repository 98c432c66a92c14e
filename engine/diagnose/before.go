package diagnose

// Causes from before work begins.
var beforeRules = []rule{
	{
		id: "C01", code: "START_DELAYED", fault: true,
		title:   "the run waited for its turn",
		meaning: "The backup was due or asked for, and other jobs had all the turns, or no server was there to begin it.",
		phases:  []string{due, admission},
		must:    either(beyond("J.wait.queue", 60, 1), beyond("J.wait.dispatch", 60, 1)),
		refutes: []condition{over("J.wait.lock", 30)},
		blame:   waitedFor("J.wait.queue", "J.wait.dispatch"), lookalikes: []string{"C02", "C03"},
		actions: []Action{
			{ID: "stagger", Risk: "some backups begin later", Text: "Give policies different hours, so that fewer backups are due at the same time."},
			{ID: "raiseSlots", Risk: "jobs share disks and line", Text: "Let more jobs run at a time: --jobs."},
		},
	},
	{
		id: "C02", code: "LOCK_WAIT", fault: true,
		title:   "another operation held the lock",
		meaning: "An operation that must be alone with the disk or the store ran, and this one waited for its end.",
		phases:  []string{admission, preflight, commit},
		must:    all(over("J.wait.lock", 30), is("J.wait.holder")),
		blame:   waitedFor("J.wait.lock"), lookalikes: []string{"C01", "C28"},
		actions: []Action{{ID: "moveHolder", Risk: "the other operation ends later", Text: "Have the other operation done at another hour; `diskvault jobs` shows it."}},
	},
	{
		id: "C03", code: "LIMIT_CONFIGURED", fault: true,
		title:    "a limit that was set holds it back",
		meaning:  "Somebody limited the rate of reading, and the backup reached the limit.",
		phases:   []string{transfer, admission},
		must:     either(over("J.limited", 0.25), over("J.limitReached", 0.95)),
		supports: []condition{over("J.limited", 0.5), over("J.limitReached", 0.95)},
		refutes:  []condition{under("J.limited", 0.05)},
		blame:    ofTransfer("J.limited"), lookalikes: []string{"C24", "C21", "C14"},
		actions: []Action{{ID: "raiseLimit", Risk: "the disk and the line are used more", Text: "Raise --limit-rate, or leave it away at night."}},
	},
	{
		id: "C04", code: "QUIESCE_SLOW", needs: "freezing of guests or hooks",
		title:   "the freeze of the guest or a hook did not come back",
		meaning: "An agent in the guest or a command of the user takes long to bring the data to rest.",
		phases:  []string{quiesce, cleanup}, lookalikes: []string{"C05", "C33"},
	},
	{
		id: "C05", code: "SNAPSHOT_PENDING", needs: "source whose provider copies a snapshot in the background",
		title:   "the provider is still copying the snapshot",
		meaning: "A cloud copies a snapshot before it can be read.",
		phases:  []string{snapshot}, lookalikes: []string{"C06", "C14", "C33"},
	},
	{
		id: "C06", code: "CONTROL_PLANE_THROTTLED", needs: "source behind a cloud's management interface",
		title:   "the cloud's management interface refuses calls",
		meaning: "Too many management calls in a subscription.",
		phases:  []string{preflight, snapshot, cleanup}, lookalikes: []string{"C24", "C32"},
	},
}
