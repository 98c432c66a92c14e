package service

import (
	"context"
	"time"

	"github.com/diskvault/diskvault/base/meter"
	"github.com/diskvault/diskvault/control/job"
	"github.com/diskvault/diskvault/control/resource"
	"github.com/diskvault/diskvault/disk"
	"github.com/diskvault/diskvault/engine/upkeep"
	"github.com/diskvault/diskvault/store"
)

// HealRequest asks to mend what is damaged in a store.
type HealRequest struct {
	StoreRequest
	From     StoreRequest `json:"from,omitzero"` // a copy to take from; no URL: none
	ReadData bool         `json:"readData,omitempty"`
	NoDisks  bool         `json:"noDisks,omitempty"` // do not read the disks again
}

// HealResult tells what was mended and what is lost.
type HealResult struct {
	JobID   string          `json:"jobId"`
	Store   string          `json:"store"`
	Status  resource.Status `json:"status"`
	Damaged int             `json:"damaged"` // objects that the check before found damaged
	store.HealReport
	upkeep.Account
	DurationSeconds float64             `json:"durationSeconds"`
	Phases          []meter.PhaseRecord `json:"phases"`
}

// HealStore mends what is damaged in a store.
func (c Client) HealStore(ctx context.Context, r HealRequest, e Events) (HealResult, error) {
	return ask[HealResult](ctx, c, "store.heal", r, e)
}

// healStore is the use case of Client.HealStore.
func (s *Service) healStore(ctx context.Context, c call, r HealRequest) (HealResult, error) {
	var result HealResult
	st, row, err := s.openStore(ctx, r.StoreRequest)
	if err != nil {
		return result, err
	}
	o := store.HealOptions{}
	if r.From.URL != "" {
		if o.From, err = s.stores.open(ctx, r.From.URL, r.From.Key); err != nil {
			return result, err
		}
		if err := o.From.MayCopyTo(st); err != nil {
			return result, err
		}
	}
	spec := c.spec(resource.OperationHeal)
	spec.Upkeep = true
	err = s.jobs.Do(ctx, spec, s.shared(func(ctx context.Context, run *job.Run) (job.Outcome, error) {
		var live gauge
		run.Follow(live.progress)
		pace := upkeep.NewPace(&s.front)
		started := time.Now()
		expect, err := s.expected(ctx, st, nil)
		if err != nil {
			return job.Outcome{}, err
		}
		run.Meter.Phase("check")
		found, err := st.Check(ctx, store.CheckOptions{
			ReadData: r.ReadData, Expect: expect, Meter: run.Meter,
			Progress: func(done, total int64) { live.step("check", done, total) },
		})
		if err != nil {
			return job.Outcome{}, err
		}
		run.Meter.Phase("heal")
		if err := s.sealAgain(ctx, st, found.Damage); err != nil {
			return job.Outcome{}, err
		}
		disks := &openDisks{service: s, byID: map[string]*disk.Reader{}}
		defer disks.close()
		o.Expect, o.Yield, o.Meter = expect, pace.Yield, run.Meter
		o.Progress = func(done, total int64) { live.step("heal", done, total) }
		if !r.NoDisks {
			o.Disk = disks.read
		}
		report, err := st.Heal(ctx, o)
		if err != nil {
			return job.Outcome{}, err
		}
		if err := s.nameLost(ctx, st, report.Lost); err != nil {
			return job.Outcome{}, err
		}
		run.Meter.Finish()
		result = HealResult{
			JobID: run.ID, Store: row.URL, Status: resource.Completed, Damaged: len(found.Damage), HealReport: report, Account: pace.Account(),
			DurationSeconds: time.Since(started).Seconds(), Phases: run.Meter.Record().Phases,
		}
		if len(report.Lost) > 0 {
			result.Status = resource.CompletedWithWarnings
		}
		return job.Outcome{Result: result, Warnings: len(report.Lost) > 0}, nil
	}))
	return result, err
}

// sealAgain writes the records of the protection of all disks in the store anew,
// if anything in it is damaged: a record that is whole is not written again.
func (s *Service) sealAgain(ctx context.Context, st *store.Store, damage []store.Damage) error {
	if len(damage) == 0 {
		return nil
	}
	instances, err := s.catalog.Instances(ctx)
	if err != nil {
		return err
	}
	for _, i := range instances {
		if i.Store != st.Header().StoreID.String() {
			continue
		}
		v, err := s.catalog.Vault(ctx, i.Vault)
		if err != nil {
			return err
		}
		p, err := s.catalog.Policy(ctx, i.Vault, i.Policy)
		if err != nil {
			return err
		}
		if err := s.seal(ctx, st, v, p, i); err != nil {
			return err
		}
	}
	return nil
}

// nameLost adds the names of disks to points that cannot say them themselves.
func (s *Service) nameLost(ctx context.Context, st *store.Store, lost []store.Damage) error {
	listed, err := s.listed(ctx, st.Header().StoreID.String())
	if err != nil {
		return err
	}
	for _, d := range lost {
		for n := range d.Losses {
			if l := &d.Losses[n]; l.Name == "" {
				l.Name = listed[l.Point].Name
			}
		}
	}
	return nil
}

// openDisks are the disks of instances, opened for reading when they are first
// asked for. A disk that cannot be read is as good as none: what is read counts
// only if it is what was lost.
type openDisks struct {
	service *Service
	byID    map[string]*disk.Reader // nil: cannot be read
}

func (d *openDisks) read(ctx context.Context, instance string, p []byte, off int64) bool {
	r, known := d.byID[instance]
	if !known {
		r = d.open(ctx, instance)
		d.byID[instance] = r
	}
	if r == nil {
		return false
	}
	return r.Read(ctx, p, off) == nil
}

func (d *openDisks) open(ctx context.Context, instance string) *disk.Reader {
	named, err := d.service.catalog.InstancesNamed(ctx, instance)
	if err != nil || len(named) == 0 {
		return nil
	}
	src, err := disk.Probe(ctx, named[0].Disk)
	if err != nil {
		return nil
	}
	r, err := src.Open(ctx, disk.ReadOptions{})
	if err != nil {
		return nil
	}
	return r
}

func (d *openDisks) close() {
	for _, r := range d.byID {
		if r != nil {
			_ = r.Close() // was only read
		}
	}
}
