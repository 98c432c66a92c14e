package service

import (
	"context"
	"time"

	"github.com/diskvault/diskvault/disk"
	"github.com/diskvault/diskvault/disk/capture"
)

// ProbeResult tells what a disk is, and how a backup would capture it.
type ProbeResult struct {
	Disk    *disk.Source       `json:"disk"`
	Capture capture.Assessment `json:"capture"`
}

// ProbeDisk looks at a disk of this host, protected or not, and changes nothing.
// It needs no data folder. stallBudget is how long a capture may hold up the
// writers of the disk; 0: the default. Errors: those of disk.Probe.
func ProbeDisk(ctx context.Context, path string, stallBudget time.Duration) (ProbeResult, error) {
	src, err := disk.Probe(ctx, path)
	if err != nil {
		return ProbeResult{}, err
	}
	a, err := capture.Options{StallBudget: stallBudget}.Assess(ctx, src)
	return ProbeResult{src, a}, err
}
