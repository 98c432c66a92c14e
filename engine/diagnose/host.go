package diagnose

// Causes in processors and memory.
var hostRules = []rule{
	{
		id: "C16", code: "CODEC_CPU", fault: true,
		title:    "compression needs all processors",
		meaning:  "The processors are busy compressing, and everything else waits for them.",
		phases:   []string{transfer},
		must:     all(heldBack("compress"), over("H.cpu.busy", 0.85)),
		supports: []condition{over("J.storedPerNew", 0.9), over("H.cpu.own", 0.7)},
		refutes:  []condition{over("H.cpu.throttled", 0.1), over("H.cpu.steal", 0.1), under("H.cpu.own", 0.4)},
		blame:    slowed("compress"), lookalikes: []string{"C17", "C18", "C19"},
		actions: []Action{{ID: "fasterCodec", Risk: "the store grows more", Text: "Use --compression fast, or none if the data is encrypted or compressed already."}},
	},
	{
		id: "C17", code: "NO_HW_ACCEL", fault: true,
		title:    "the processor lacks instructions for encryption or hashing",
		meaning:  "Hash and cipher run in software: often a virtual machine does not see what its host can do.",
		phases:   []string{transfer},
		must:     all(either(heldBack("decide"), heldBack("encrypt")), either(isNot("H.cpu.aes"), isNot("H.cpu.vector")), over("J.cryptShare", 0.4)),
		supports: []condition{is("H.cpu.virtual")},
		blame:    slowed("decide", "encrypt"), lookalikes: []string{"C16", "C18", "C30"},
		actions: []Action{{ID: "hostCPU", Risk: "the machine can no longer move to older hosts", Text: "Give the virtual machine the processor model of its host."}},
	},
	{
		id: "C18", code: "CPU_STARVED", fault: true,
		title:   "the backup gets too little processor time",
		meaning: "A quota, the hypervisor, other programs or heat keep the processors from the backup.",
		phases:  []string{preflight, discovery, transfer},
		must: either(over("H.cpu.throttled", 0.1), over("H.cpu.steal", 0.1),
			all(over("H.cpu.pressure", 0.4), under("H.cpu.own", 0.5), grew("H.cpu.pressure", 1.5)),
			all(under("H.cpu.frequency", 0.7), over("H.cpu.overheated", 1))),
		supports: []condition{over("H.cpu.pressure", 0.4)},
		refutes:  []condition{under("H.cpu.busy", 0.3)},
		blame:    slowed("decide", "compress", "encrypt"), lookalikes: []string{"C16", "C17"},
		actions: []Action{{ID: "moreCPU", Risk: "others get less", Text: "Raise the processor quota, or back up when the other programs rest. With a quota more workers make it worse."}},
	},
	{
		id: "C19", code: "SERIAL_STAGE", fault: true,
		title:   "one worker does what many could",
		meaning: "One stage has one worker, which is always busy, while the others wait for it.",
		phases:  []string{transfer},
		must: either(all(under("J.busiest.workers", 2), over("J.busiest.work", 0.9), under("J.others.work", 0.5)),
			all(under("J.busiest.work", 0.4), under("J.concurrency", 2), under("J.limited", 0.05), under("J.backoff", 0.05), over("J.concurrency", 0.2))),
		refutes: []condition{grew("O.put.p50", 2), grew("J.source.p50", 2), over("D.dst.busy", 0.9), over("D.src.busy", 0.9), over("J.idle", 60)},
		blame:   func(c *comparison) float64 { return c.excesses()[transfer] }, lookalikes: []string{"C23", "C12", "C16"},
		actions: []Action{{ID: "moreWorkers", Automatic: false, Risk: "more memory", Text: "Give the process more processors (GOMAXPROCS, the quota of its container): its workers follow them."}},
	},
	{
		id: "C20", code: "MEM_PRESSURE", fault: true,
		title:   "the host is short of memory",
		meaning: "Memory is swapped, caches are read again and again, or the garbage collector runs against its limit.",
		phases:  []string{preflight, snapshot, discovery, transfer, commit, cleanup},
		must: either(over("H.mem.pressureFull", 0.05), over("H.mem.swapInBytes", 1e6), all(over("H.mem.refaultBytes", 100e6), grew("H.mem.refaultBytes", 2)),
			all(over("H.mem.gcShare", 0.25), over("H.mem.heapShare", 0.9)), over("H.mem.oomKills", 1)),
		supports: []condition{grew("J.decideNsPerByte", 3), over("H.mem.pressureFull", 0.2)},
		refutes:  []condition{under("H.mem.pressureFull", 0.001)},
		blame: func(c *comparison) float64 {
			return max(c.elapsed*c.facts["H.mem.pressureFull"], c.excesses()[transfer]*min(1, 4*c.facts["H.mem.pressureFull"]))
		}, lookalikes: []string{"C30"},
		actions: []Action{{ID: "moreMemory", Text: "Give the backup more memory, or run fewer jobs at a time: --jobs."}},
	},
}
