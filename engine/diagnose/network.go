package diagnose

// Causes on the way to the store.
var networkRules = []rule{
	{
		id: "C21", code: "NET_SATURATED", fault: true,
		title:    "the network line is full",
		meaning:  "The line to the store carries all that it can, of this backup or of others.",
		phases:   []string{transfer},
		must:     all(heldBack("put"), over("N.if.txShare", 0.85)),
		supports: []condition{over("N.tcp.rttInflation", 2), either(over("N.if.ownShare", 0.8), under("N.if.ownShare", 0.5))},
		blame:    slowed("put"), lookalikes: []string{"C03", "C22", "C23"},
		actions: []Action{{ID: "stagger", Risk: "some backups begin later", Text: "Let fewer backups run at the same time, or use --compression max: the line is slower than the processors."}},
	},
	{
		id: "C22", code: "NET_PATH_DEFECT", fault: true,
		title:   "the network loses data or the line is slower than it was",
		meaning: "Data is lost and sent again, or a cable, port or adapter works at a lower speed than before.",
		phases:  []string{preflight, transfer},
		must: all(over("J.put.bottleneck", 0.3), either(over("N.tcp.retransShare", 0.01), all(over("N.tcp.retransShare", 0.001), over("N.tcp.rttMs", 20)),
			fell("N.if.speed", 0.9), is("N.if.halfDuplex"), over("N.if.errors", 10), over("N.if.carrierChanges", 1))),
		supports: []condition{over("N.tcp.retransShare", 0.01), fell("N.if.speed", 0.5)},
		refutes:  []condition{over("N.if.txShare", 0.85)},
		blame:    slowed("put"), lookalikes: []string{"C21", "C25"},
		actions: []Action{{ID: "checkLine", Text: "Look at cable, port and driver: `ethtool` shows speed and errors of the interface."}},
	},
	{
		id: "C23", code: "NET_LATENCY_BOUND", fault: true,
		title:   "too little is on its way for this distance",
		meaning: "Each request takes much longer than its data is on the line, and the line is mostly idle: more requests at a time would help.",
		phases:  []string{preflight, transfer},
		must: all(heldBack("put"), under("O.pipeBound", 1.3), over("J.put.requestPerTransfer", 3), under("N.if.txShare", 0.5),
			under("N.tcp.retransShare", 0.01), over("N.tcp.minRttMs", 10)),
		supports: []condition{over("N.tcp.windowLimited", 0.2), under("O.objectBytes", 1<<20), grew("N.tcp.minRttMs", 1.5)},
		refutes:  []condition{over("O.throttledShare", 0.005)},
		blame:    slowed("put"), lookalikes: []string{"C19", "C24", "C21"},
		actions: []Action{{ID: "nearerStore", Risk: "the data must be copied", Text: "Use a store that is nearer, or larger socket buffers (net.ipv4.tcp_wmem)."}},
	},
}
