package diagnose

// Causes in the run itself.
var runRules = []rule{
	{
		id: "C32", code: "RETRY_OR_RESTART_LOOP", fault: true,
		title:    "the same work is done again and again",
		meaning:  "The run was begun several times, or far more was sent than is stored.",
		phases:   []string{due, admission, preflight, quiesce, snapshot, discovery, transfer, commit},
		must:     either(over("J.attempts", 3), over("J.restarts", 2), over("J.sentPerStored", 1.3)),
		supports: []condition{over("J.attempts", 3), over("J.restarts", 3), over("H.mem.oomKills", 1)},
		blame: func(c *comparison) float64 {
			again := max(c.facts["J.attempts"], c.facts["J.restarts"], c.facts["J.sentPerStored"], 1)
			return c.elapsed * (1 - 1/again)
		}, lookalikes: []string{"C25", "C04"},
		actions: []Action{{ID: "findTimer", Text: "See in `diskvault jobs` what ended the attempts: a limit of time, a credential that ends, or a disk that is written to."}},
	},
	{
		id: "C33", code: "HUNG_IO", fault: true,
		title:   "one operation does not come back, and nothing moves",
		meaning: "A read, a write or a request has been going on for minutes without an answer or an error.",
		phases:  []string{preflight, quiesce, snapshot, discovery, transfer, commit, cleanup},
		must:    all(over("J.idle", 120), over("J.operationAge", 120)),
		blame:   func(c *comparison) float64 { return c.facts["J.idle"] }, lookalikes: []string{"C34", "C25", "C26"},
		actions: []Action{{ID: "lookAtMount", Text: "Look whether the disk and the store answer at all: a file server that is gone, a path that failed. Cancelling the job keeps what is stored."}},
	},
	{
		id: "C34", code: "TAIL_PHASE", fault: true,
		title:    "the data is there, and finishing takes long",
		meaning:  "All is read and most is stored; the last packs, the point and cleaning up take far longer than usual.",
		phases:   []string{commit, cleanup},
		must:     beyond("J.tail", 60, 3),
		supports: []condition{over("J.transferred", 0.999)},
		refutes:  []condition{all(over("J.idle", 120), over("J.operationAge", 120))},
		blame: func(c *comparison) float64 {
			return max(0, c.facts["J.tail"]-max(c.facts50["J.tail"], c.wanted[commit]+c.wanted[cleanup]))
		}, lookalikes: []string{"C33", "C30"},
		actions: []Action{{ID: "wait", Text: "Let it end: the data is stored. If it stays so, look at the store's disk or line."}},
	},
	{
		id: "C35", code: "WORK_AS_EXPECTED", work: true,
		title:    "nothing is wrong: there is more to do, or nothing to compare it with",
		meaning:  "All rates are as they should be, and the time follows from the work: a first backup, a larger disk, a full read.",
		phases:   []string{transfer},
		must:     all(over("J.steady", 0.8), under("J.limited", 0.25), under("J.backoff", 0.05), either(is("J.noHistory"), over("J.work", 1.2))),
		supports: []condition{isNot("J.incremental"), grew("J.bytes.provisioned", 1.1)},
		blame:    func(*comparison) float64 { return 0 }, lookalikes: []string{"C08", "C09", "C31"},
		actions: []Action{{ID: "wait", Text: "Let it end; the next backups only store what changes."}},
	},
}
