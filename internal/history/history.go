// Package history judges block storage by what its users saw of it. A Recorder
// logs every operation that a workload issues, with the time of its call and of
// its answer; Run is such a workload; Check decides whether a history that one
// or several hosts recorded can have happened on a correct volume, and shows the
// few operations that prove the contrary where it cannot.
//
// The judge asks two things of each block. It is linearizable: each operation
// takes effect at one moment between its call and its answer, or, where no
// answer came, at any moment after its call, or never. And it is durable: a
// killed process loses nothing that was acknowledged; a power cut loses
// no write that was acknowledged before the call of a Flush that was
// acknowledged before the cut, and no acknowledged write with FUA. Each other
// write since may be lost or not, independently of the rest.
//
// In doubt the judge acquits: about clocks that are inexact, an acknowledgement that
// arrives after the power cut, a miscompare after a write without an answer.
package history

import (
	"fmt"
	"math"
)

// Kind is what an operation does.
type Kind uint8

// The kinds of operation.
const (
	Read            Kind = iota // of one block
	Write                       // of one block
	CompareAndWrite             // of one block, where its content is Expect
	Flush                       // makes every acknowledged write stable
	Kill                        // of the process that serves the volume
	PowerCut                    // of the machine that serves the volume
)

var kindNames = [...]string{"read", "write", "compare and write", "flush", "kill", "power cut"}

func (k Kind) String() string {
	if int(k) < len(kindNames) {
		return kindNames[k]
	}
	return fmt.Sprintf("kind(%d)", uint8(k))
}

// whole reports whether the operation concerns every block.
func (k Kind) whole() bool { return k >= Flush }

// stores reports whether the operation may change its block's content.
func (k Kind) stores() bool { return k == Write || k == CompareAndWrite }

// Outcome is how an operation ended.
type Outcome uint8

// The outcomes.
const (
	Unknown    Outcome = iota // no answer, or one that leaves open whether it was done
	OK                        // done and acknowledged
	Miscompare                // a CompareAndWrite found another content than Expect
)

func (o Outcome) String() string {
	switch o {
	case Unknown:
		return "no answer"
	case OK:
		return "ok"
	case Miscompare:
		return "miscompare"
	}
	return fmt.Sprintf("outcome(%d)", uint8(o))
}

// Value names the content of a block by the write that stored it: the number of
// the client, and of the write among the client's.
type Value uint64

const (
	// Blank is the content of a block that was never written: zeros.
	Blank Value = 0
	// Torn is a content that no operation stored: mixed from several, damaged,
	// or meant for another block.
	Torn Value = math.MaxUint64
)

// NewValue returns the value of a client's write; clients count from 1 to
// MaxClient.
func NewValue(client, seq uint32) Value { return Value(client)<<32 | Value(seq) }

// MaxClient is the largest number of a client.
const MaxClient = math.MaxUint32 - 1

func (v Value) String() string {
	switch v {
	case Blank:
		return "blank"
	case Torn:
		return "torn"
	}
	return fmt.Sprintf("c%d#%d", uint32(v>>32), uint32(v))
}

// Forever is the Return of an operation that may still take effect.
const Forever = math.MaxInt64

// Op is one operation of a history.
type Op struct {
	// Client is who issued it, 1 to MaxClient. A client has one operation under
	// way at a time; no two hosts or runs of one history share a client.
	Client uint32
	Kind   Kind
	// FUA says that a Write or CompareAndWrite was to be stable when acknowledged.
	FUA     bool
	Outcome Outcome
	Block   uint64
	// Value is what the operation stored or was to store, or what a Read found.
	// No two operations of a history store the same value in one block.
	Value Value
	// Expect is what a CompareAndWrite compared with.
	Expect Value
	// Call and Return are the times, in nanoseconds of the monotonic clock that
	// the history is based on. Return is Forever where the outcome is Unknown.
	Call, Return int64
	// Note says more about the outcome, at most maxNote bytes: an error, or
	// what a torn block is made of.
	Note string
}

func (o Op) String() string {
	s := o.Kind.String()
	switch o.Kind {
	case Write:
		s += " " + o.Value.String()
	case CompareAndWrite:
		s += " " + o.Expect.String() + " -> " + o.Value.String()
	}
	if o.FUA {
		s += " FUA"
	}
	switch {
	case o.Kind == Read && o.Outcome == OK:
		s += ": " + o.Value.String()
	case o.Kind != Kill && o.Kind != PowerCut:
		s += ": " + o.Outcome.String()
	}
	if o.Note != "" {
		s += " (" + o.Note + ")"
	}
	return s
}
