package cli

import (
	"os"
	"runtime"
	"runtime/pprof"

	"github.com/diskvault/diskvault/base/problem"
)

// profile writes profiles of the whole command, for those who work on its
// speed.
type profile struct {
	cpu, memory string
	file        *os.File
}

func (p *profile) start() error {
	if p.cpu == "" {
		return nil
	}
	f, err := os.Create(p.cpu)
	if err != nil {
		return problem.Wrap(err, problem.InvalidArgument, "The profile %s cannot be written.", p.cpu)
	}
	p.file = f
	return pprof.StartCPUProfile(f)
}

func (p *profile) stop() error {
	if p.file != nil {
		pprof.StopCPUProfile()
		if err := p.file.Close(); err != nil {
			return err
		}
	}
	if p.memory == "" {
		return nil
	}
	f, err := os.Create(p.memory)
	if err != nil {
		return problem.Wrap(err, problem.InvalidArgument, "The profile %s cannot be written.", p.memory)
	}
	runtime.GC()
	if err := pprof.Lookup("allocs").WriteTo(f, 0); err != nil {
		f.Close()
		return err
	}
	return f.Close()
}
