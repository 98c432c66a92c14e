package job

import (
	"fmt"
	"runtime/debug"

	"github.com/diskvault/diskvault/base/problem"
)

// crash makes a problem of a panic; the stack is in its details, for the
// report that the table asks for.
func crash(p any) error {
	return problem.Wrap(fmt.Errorf("panic: %v", p), problem.InternalError, "diskvault met a condition that it does not know.").
		With("stack", string(debug.Stack()))
}
