package unit

import (
	"math"
	"runtime"
	"sync/atomic"
)

// Step is what one step of a command has done.
type Step uint8

// The outcomes of a step.
const (
	Again   Step = iota // the next one may follow
	Waiting             // a request or a range is under way
	Ended               // the command does not exist any more
)

// Stepper is a command of more than one step.
type Stepper interface {
	// Next looks at how the step before has ended, and either starts one asynchronous
	// step as the last thing it does, or asks to be called again, or ends the command.
	Next() Step
}

// Turn advances a Stepper:
//
//	   Again              a request completed, a range is held
//	  +-----+      +------------------------------------------+
//	  v     |      v                                          |
//	Next ---+--> Waiting -------------------------------- Resume
//	  |
//	  +--------> Ended
//
// The zero value is ready for use; the Stepper embeds it.
type Turn struct{ state atomic.Int32 }

// Whose turn it is between the goroutine that started a step and the one that
// completes it: the later one of the two goes on.
const (
	turnNone      int32 = iota
	turnStarted         // the starter has gone
	turnCompleted       // the step has completed
)

// maxSteps is how many steps a command makes on a goroutine that is not its own: that
// of a transport, or of a device that completes a request.
const maxSteps = 32

// Run advances s until it waits or ends, elsewhere if that takes long.
func (t *Turn) Run(s Stepper) {
	if !t.advance(s, maxSteps) {
		go t.advance(s, math.MaxInt)
	}
}

// Resume tells that the step under way has completed, and advances s.
func (t *Turn) Resume(s Stepper) {
	if t.state.Swap(turnCompleted) == turnStarted {
		t.Run(s)
	}
}

// advance makes up to steps steps and reports whether s waits or has ended then. Steps
// that complete at once do not nest, and from the time on that a command counts as long
// it lets others have the processor between its steps.
func (t *Turn) advance(s Stepper, steps int) bool {
	for i := range steps {
		if i >= maxSteps {
			runtime.Gosched()
		}
		t.state.Store(turnNone)
		switch s.Next() {
		case Ended:
			return true
		case Waiting:
			if t.state.CompareAndSwap(turnNone, turnStarted) {
				return true
			}
		case Again:
		}
	}
	return false
}
