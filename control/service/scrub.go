package service

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/diskvault/diskvault/base/problem"
	"github.com/diskvault/diskvault/control/catalog"
	"github.com/diskvault/diskvault/control/home"
	"github.com/diskvault/diskvault/control/job"
	"github.com/diskvault/diskvault/control/resource"
	"github.com/diskvault/diskvault/engine/upkeep"
	"github.com/diskvault/diskvault/store"
)

// scrubEvery is how often a server reads a slice of a store back.
const scrubEvery = time.Hour

// ScrubRequest asks to read a part of a store back: what was read longest ago.
type ScrubRequest struct {
	StoreRequest
	Share   float64       `json:"share"`   // of all bytes, 0 to 1
	Elapsed time.Duration `json:"elapsed"` // of the day that the share is for; 0: a whole day
}

// ScrubResult tells what was read back.
type ScrubResult struct {
	JobID           string         `json:"jobId"`
	Store           string         `json:"store"`
	Packs           int            `json:"packs"` // that were read
	Bytes           int64          `json:"bytes"`
	Of              int            `json:"of"` // all packs
	Points          int            `json:"points"`
	Verified        int            `json:"verified"` // points of which all was read back at some time
	Damage          []store.Damage `json:"damage"`
	DurationSeconds float64        `json:"durationSeconds"`
	upkeep.Account
}

// scrubState is what a data folder knows of the packs of a store. It lies in the
// cache: if it is lost all is read back once more, and nothing else.
type scrubState struct {
	Debt  int64                `json:"debt"`
	Packs map[string]time.Time `json:"packs"`
}

func (s *Service) scrubFile(storeID string) string {
	return filepath.Join(s.folder.Cache(), storeID, "scrub.json")
}

func (s *Service) readScrub(storeID string) (scrubState, error) {
	state := scrubState{}
	text, err := os.ReadFile(s.scrubFile(storeID))
	if err == nil && json.Unmarshal(text, &state) != nil {
		state = scrubState{}
	}
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	if state.Packs == nil {
		state.Packs = map[string]time.Time{}
	}
	return state, err
}

func (s *Service) writeScrub(storeID string, state scrubState) error {
	text, err := json.Marshal(state)
	if err != nil {
		return err
	}
	path := s.scrubFile(storeID)
	if err := os.WriteFile(path+".new", text, 0o600); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

// scrub is the use case of Client.Scrub.
func (s *Service) scrub(ctx context.Context, c call, r ScrubRequest) (ScrubResult, error) {
	result := ScrubResult{Damage: []store.Damage{}}
	st, row, err := s.openStore(ctx, r.StoreRequest)
	if err != nil {
		return result, err
	}
	if r.Elapsed <= 0 {
		r.Elapsed = 24 * time.Hour
	}
	spec := c.spec(resource.OperationVerify)
	spec.Upkeep = true
	err = s.jobs.Do(ctx, spec, s.shared(func(ctx context.Context, run *job.Run) (job.Outcome, error) {
		var live gauge
		run.Follow(live.progress)
		run.Meter.Phase("verify")
		pace := upkeep.NewPace(&s.front)
		started := time.Now()
		result.JobID, result.Store = run.ID, row.URL
		err := s.scrubStore(ctx, st, row.ID, r, pace, &live, run, &result)
		result.Account, result.DurationSeconds = pace.Account(), time.Since(started).Seconds()
		if err != nil {
			return job.Outcome{}, err
		}
		if len(result.Damage) > 0 {
			p := problem.New(problem.DataNotVerified, "There is damage in %s of the store, the first is %s (%s).", damagedText(len(result.Damage)), result.Damage[0].Object, result.Damage[0].What)
			return job.Outcome{}, p.With("damage", result.Damage).With("jobId", run.ID)
		}
		return job.Outcome{Result: result}, nil
	}))
	return result, err
}

func (s *Service) scrubStore(ctx context.Context, st *store.Store, storeID string, r ScrubRequest, pace *upkeep.Pace, live *gauge, run *job.Run, result *ScrubResult) error {
	state, err := s.readScrub(storeID)
	if err != nil {
		return err
	}
	packs, err := st.Packs(ctx)
	if err != nil {
		return err
	}
	result.Of = len(packs)
	byID := make(map[string]store.Pack, len(packs))
	var all []upkeep.Scrubbed
	for _, p := range packs {
		byID[p.ID] = p
		all = append(all, upkeep.Scrubbed{ID: p.ID, Bytes: p.Bytes, Verified: state.Packs[p.ID]})
	}
	for id := range state.Packs {
		if _, there := byID[id]; !there {
			delete(state.Packs, id)
		}
	}
	chosen, debt := upkeep.PlanScrub(all, upkeep.ScrubBudget{Share: r.Share}, time.Now(), r.Elapsed, state.Debt)
	state.Debt = debt
	for i, p := range chosen {
		began := time.Now()
		damage, err := st.ReadBack(ctx, byID[p.ID])
		if err != nil {
			return errors.Join(err, s.writeScrub(storeID, state))
		}
		if damage != nil {
			delete(state.Packs, p.ID)
			result.Damage = append(result.Damage, *damage)
		} else {
			state.Packs[p.ID] = began.UTC()
		}
		result.Packs++
		result.Bytes += p.Bytes
		run.Meter.Mark(p.Bytes)
		live.set(int64(i+1), int64(len(chosen)))
		if err := pace.Yield(ctx, time.Since(began)); err != nil {
			return errors.Join(err, s.writeScrub(storeID, state))
		}
	}
	if err := s.writeScrub(storeID, state); err != nil {
		return err
	}
	return s.noteScrubbed(ctx, st, storeID, state, result)
}

// noteScrubbed writes down since when all of each point was read back.
func (s *Service) noteScrubbed(ctx context.Context, st *store.Store, storeID string, state scrubState, result *ScrubResult) error {
	for p, err := range st.Points(ctx) {
		if problem.Is(err, problem.StoreDamaged) {
			continue
		}
		if err != nil {
			return err
		}
		result.Points++
		at, ok, err := st.VerifiedAt(ctx, p, func(id string) (time.Time, bool) {
			t, ok := state.Packs[id]
			return t, ok
		})
		if problem.Is(err, problem.CollectBlocked) {
			continue // damaged: a check says what it lacks
		}
		if err != nil {
			return err
		}
		if ok {
			result.Verified++
			if err := s.catalog.SetVerified(ctx, storeID, p.ID, at); err != nil {
				return err
			}
		}
	}
	return nil
}

// ScrubDue reads a slice of each store back, at the share of a day that the last
// one was ago.
func (s *Service) ScrubDue(ctx context.Context, share float64, now time.Time) error {
	known, err := s.catalog.Stores(ctx)
	if err != nil || share <= 0 {
		return err
	}
	var failed error
	for _, row := range known {
		mine, err := s.catalog.TakeTurn(ctx, catalog.Scrubbed+row.ID, now.Add(-scrubEvery), now)
		if err != nil {
			return errors.Join(failed, err)
		}
		if !mine {
			continue
		}
		c := call{asked: now, trigger: resource.Scheduled, emit: func(home.Event) {}}
		if _, err := s.scrub(ctx, c, ScrubRequest{StoreRequest: StoreRequest{URL: row.URL}, Share: share, Elapsed: scrubEvery}); err != nil {
			failed = errors.Join(failed, fmt.Errorf("scrubbing %s: %w", row.URL, err))
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
	}
	return failed
}
