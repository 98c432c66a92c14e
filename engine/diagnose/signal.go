package diagnose

import (
	"fmt"
	"strconv"
)

// unit says how the numbers of a signal are read.
type unit string

const (
	seconds unit = "s"
	millis  unit = "ms"
	bytes   unit = "B"
	rate    unit = "B/s"
	share   unit = "share" // 0 to 1
	count   unit = "count"
	yes     unit = "yes" // 1: it is so, 0: it is not
	factor  unit = "x"
)

// A signal is a number that rules may look at. Those that begin with J are made
// from the run's own account, the others are recorded from its surroundings.
type signal struct {
	unit unit
	says string // for sentences: "others' share of the source disk"
}

var signals = map[string]signal{
	"J.wait.queue":      {seconds, "time in the queue of jobs"},
	"J.wait.dispatch":   {seconds, "time from its slot until it was asked for"},
	"J.wait.lock":       {seconds, "time in wait for a lock"},
	"J.discovery":       {seconds, "time to find out what changed"},
	"J.snapshot":        {seconds, "time to take the capture"},
	"J.opening":         {seconds, "time to open the store"},
	"J.tail":            {seconds, "time behind the transfer"},
	"J.progress.gap":    {seconds, "time between two signs of progress"},
	"J.idle":            {seconds, "time without progress"},
	"J.operationAge":    {seconds, "age of the oldest operation"},
	"J.transferred":     {share, "part of the disk that is dealt with"},
	"J.bytesPerSecond":  {rate, "bytes of the disk dealt with in a second"},
	"J.concurrency":     {count, "workers at work at a time"},
	"J.busiest.work":    {share, "working time of the busiest stage"},
	"J.busiest.workers": {count, "workers of the busiest stage"},
	"J.others.work":     {share, "working time of the next busiest stage"},
	"J.variation":       {share, "variation of the rate"},
	"J.stepDown":        {share, "fall of the rate at one moment"},
	"J.attempts":        {count, "attempts"},
	"J.restarts":        {count, "processes that ran it"},
	"J.sentPerStored":   {factor, "bytes sent for each byte stored"},
	"J.limitReached":    {share, "rate as part of the limit that was set"},
	"J.incremental":     {yes, "the run is incremental"},
	"J.untracked":       {yes, "change tracking could not be used"},
	"J.noHistory":       {yes, "there are no runs to compare with"},
	"J.steady":          {factor, "slowest stage's rate, as part of the usual one"},
	"J.work":            {factor, "work, compared with the runs before"},

	"J.bytes.read":        {bytes, "data read"},
	"J.bytes.changed":     {bytes, "data reported as changed"},
	"J.bytes.different":   {bytes, "data that really changed"},
	"J.bytes.new":         {bytes, "new data"},
	"J.bytes.provisioned": {bytes, "size of the disk"},
	"J.newPerChanged":     {share, "new part of the changed data"},
	"J.changedPerNew":     {factor, "changed data for each byte of new data"},
	"J.zeroShare":         {share, "zeros among the data read"},
	"J.sameShare":         {share, "data read that is as before"},
	"J.storedPerNew":      {share, "size after compression"},

	"J.read.bottleneck":     {share, "time in which reading held the run back"},
	"J.decide.bottleneck":   {share, "time in which hashing and looking up held the run back"},
	"J.compress.bottleneck": {share, "time in which compression held the run back"},
	"J.encrypt.bottleneck":  {share, "time in which encryption held the run back"},
	"J.put.bottleneck":      {share, "time in which storing held the run back"},
	"J.read.work":           {share, "working time of the readers"},
	"J.put.work":            {share, "working time of the workers that store"},
	"J.limited":             {share, "time held back by a limit that was set"},
	"J.backoff":             {share, "time in wait before retries"},
	"J.read.bytesPerSecond": {rate, "rate of a reader at work"},
	"J.put.bytesPerSecond":  {rate, "rate of a worker that stores"},
	"J.cpu.workers":         {count, "workers of the processor stage"},
	"J.cryptShare":          {share, "hash and cipher in the processor's work"},
	"J.decideNsPerByte":     {factor, "nanoseconds to hash and look up a byte"},

	"J.source.p50":    {seconds, "median time of a read"},
	"J.source.p99":    {seconds, "time of the slowest hundredth of reads"},
	"J.source.tail":   {factor, "slowest reads, compared with the median"},
	"J.source.errors": {count, "reads that failed"},

	"O.put.p50":        {seconds, "median time of a put"},
	"O.put.p99":        {seconds, "time of the slowest hundredth of puts"},
	"O.requests":       {count, "requests to the store"},
	"O.errorShare":     {share, "requests to the store that failed"},
	"O.throttled":      {count, "requests that the store refused as too many"},
	"O.throttledShare": {share, "requests that the store refused as too many"},
	"O.objectBytes":    {bytes, "size of an object"},
	"O.pipeBound":      {share, "rate as part of what requests in flight allow"},

	"D.src.rAwaitMs":          {millis, "time of a read on the source disk"},
	"D.src.rSizeBytes":        {bytes, "size of a read on the source disk"},
	"D.src.depth":             {count, "requests at a time on the source disk"},
	"D.src.busy":              {share, "time in which the source disk was busy"},
	"D.src.bytesPerSecond":    {rate, "rate of the source disk"},
	"D.src.othersShare":       {share, "others' share of the source disk"},
	"D.src.othersCorrelation": {factor, "correlation of our rate with others'"},
	"D.src.rotational":        {yes, "the source disk rotates"},
	"D.src.limitBytes":        {rate, "limit of the source disk"},
	"D.dst.wAwaitMs":          {millis, "time of a write on the store's disk"},
	"D.dst.fAwaitMs":          {millis, "time of a flush on the store's disk"},
	"D.dst.depth":             {count, "requests at a time on the store's disk"},
	"D.dst.busy":              {share, "time in which the store's disk was busy"},
	"D.dst.bytesPerSecond":    {rate, "rate of the store's disk"},
	"D.dst.othersShare":       {share, "others' share of the store's disk"},
	"D.dst.rotational":        {yes, "the store's disk rotates"},

	"H.cpu.cores":      {count, "processors that may be used"},
	"H.cpu.busy":       {share, "time in which the processors were busy"},
	"H.cpu.own":        {share, "our share of the processors"},
	"H.cpu.steal":      {share, "time that the hypervisor took"},
	"H.cpu.throttled":  {share, "time held back by a processor quota"},
	"H.cpu.pressure":   {share, "time in which work waited for a processor"},
	"H.cpu.frequency":  {share, "clock of the processors as part of their highest"},
	"H.cpu.overheated": {count, "times that heat slowed the processors"},
	"H.cpu.aes":        {yes, "the processor has instructions for AES-GCM"},
	"H.cpu.vector":     {yes, "the processor has instructions for fast hashing"},
	"H.cpu.virtual":    {yes, "the machine is virtual"},

	"H.mem.pressureFull":  {share, "time in which all waited for memory"},
	"H.mem.swapInBytes":   {rate, "data swapped in"},
	"H.mem.refaultBytes":  {rate, "cached data read again"},
	"H.mem.oomKills":      {count, "processes killed for lack of memory"},
	"H.mem.gcShare":       {share, "processor time of the garbage collector"},
	"H.mem.heapShare":     {share, "heap as part of its limit"},
	"H.psi.ioSome":        {share, "time in which something waited for a disk"},
	"N.if.txShare":        {share, "use of the network line"},
	"N.if.speed":          {rate, "speed of the network line"},
	"N.if.halfDuplex":     {yes, "the network line is half duplex"},
	"N.if.errors":         {count, "errors of the network line"},
	"N.if.carrierChanges": {count, "times that the network line was lost"},
	"N.if.ownShare":       {share, "our share of the network line"},
	"N.tcp.retransShare":  {share, "data sent again because it was lost"},
	"N.tcp.rttMs":         {millis, "round trip to the store"},
	"N.tcp.minRttMs":      {millis, "shortest round trip to the store"},
	"N.tcp.rttInflation":  {factor, "round trip, compared with the shortest"},
	"N.tcp.windowLimited": {share, "sending time limited by buffers"},

	"R.freeShare":              {share, "free room of the store"},
	"R.freeInodeShare":         {share, "free inodes of the store"},
	"R.maintenance.timeShare":  {share, "time in which maintenance ran on the store"},
	"R.maintenance.ioShare":    {share, "maintenance's share of the store's traffic"},
	"R.maintenance.bytes":      {rate, "rate of the maintenance"},
	"R.maintenance.verify":     {yes, "the maintenance was a verification"},
	"S.extents":                {count, "extents of the map"},
	"X.md.active":              {yes, "the array of the source is being checked or rebuilt"},
	"X.md.degraded":            {count, "disks that the array of the source misses"},
	"X.thin.poolShare":         {share, "fill of the thin pool"},
	"S.changesReason":          {yes, "a reason was recorded"},
	"J.wait.holder":            {yes, "the holder of the lock is known"},
	"J.bytesRemaining":         {bytes, "data left"},
	"J.put.requestPerTransfer": {factor, "time of a put, compared with its time on the line"},
}

// text writes a value as a person reads it.
func (u unit) text(v float64) string {
	switch u {
	case seconds:
		return duration(v)
	case millis:
		return strconv.FormatFloat(v, 'g', 3, 64) + " ms"
	case bytes:
		return size(v)
	case rate:
		return size(v) + "/s"
	case share:
		return fmt.Sprintf("%.3g %%", 100*v)
	case factor:
		return fmt.Sprintf("%.3g", v)
	case yes:
		if v != 0 {
			return "yes"
		}
		return "no"
	}
	return strconv.FormatFloat(v, 'g', 4, 64)
}

func duration(s float64) string {
	switch {
	case s < 0.1:
		return fmt.Sprintf("%.3g ms", 1000*s)
	case s < 10:
		return fmt.Sprintf("%.1f s", s)
	case s < 120:
		return fmt.Sprintf("%.0f s", s)
	case s < 2*3600:
		return fmt.Sprintf("%.0f min", s/60)
	}
	m := int(s/60 + 0.5)
	return fmt.Sprintf("%d h %02d min", m/60, m%60)
}

func size(v float64) string {
	for _, u := range []struct {
		n    float64
		name string
	}{{1e12, "TB"}, {1e9, "GB"}, {1e6, "MB"}, {1e3, "kB"}} {
		if v >= u.n {
			return fmt.Sprintf("%.3g %s", v/u.n, u.name)
		}
	}
	return fmt.Sprintf("%.0f B", v)
}
