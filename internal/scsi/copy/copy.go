// Package copy is the copy manager: EXTENDED COPY(LID1) with the commands that
// report its results, and token-based copies (POPULATE TOKEN, WRITE USING TOKEN,
// RECEIVE ROD TOKEN INFORMATION), which move data between the units of an array
// without a way through the initiator.
//
// A copy runs on a goroutine of its own, of which a fixed number run at a time,
// and moves one bounded chunk after the other: it reads into a pooled buffer,
// then holds the destination's range and writes. Before each step it asks whether
// its command was aborted and whether the units may still be used.
//
// Tokens are of the type "point in time copy, change vulnerable": a token stands
// for its blocks as they were when it was made, and is revoked by the first
// write to any of them. IMMED is accepted and the status comes when the copy has
// ended, so that task management finds every copy.
package copy

import (
	"crypto/rand"
	"io"
	"sync"
	"time"

	"lintel.io/lintel/internal/block"
	"lintel.io/lintel/internal/scsi"
	"lintel.io/lintel/internal/unit"
	wire "lintel.io/lintel/internal/wire/scsi"
)

// The service actions of THIRD-PARTY COPY OUT and IN (SPC-4 §6.4, §6.21 ff.).
const (
	actionExtendedCopy  = 0x00
	actionPopulateToken = 0x10
	actionWriteToken    = 0x11

	actionCopyStatus          = 0x00
	actionReceiveData         = 0x01
	actionOperatingParameters = 0x03
	actionFailureDetails      = 0x04
	actionTokenInformation    = 0x07
)

// What the copy manager takes; VPD page 8Fh and RECEIVE COPY OPERATING
// PARAMETERS tell initiators.
const (
	maxTargets         = 16
	maxSegments        = 64
	maxDescriptorBytes = 32 * (maxTargets + maxSegments)
	maxSegmentBytes    = 256 << 20
	maxConcurrent      = 16 // copies that move data at a time
	maxRanges          = 8  // block device range descriptors of a token command
	maxTokenBytes      = 4 << 30
	maxTokens          = 1024
	maxTokensOfUnit    = 64
	maxResults         = 1024
	maxParameters      = 16 << 10

	chunkBytes = 1 << 20  // moved through memory at a time
	holeBytes  = 16 << 20 // unallocated source blocks turned into zeros at a time

	defaultTimeout = 30 * time.Second // token inactivity
	maxTimeout     = 5 * time.Minute
)

// Config is what a Manager is made of. The zero value takes the system's clock
// and random numbers.
type Config struct {
	Now    func() time.Time
	Random io.Reader // never fails
}

// Manager is the copy manager of a target device. Its methods may be called concurrently.
type Manager struct {
	now    func() time.Time
	random io.Reader
	slots  chan struct{} // one for each copy that moves data

	mu      sync.Mutex // leaf but for unit.Ranges
	results results
	tokens  tokens
}

// New returns a copy manager.
func New(c Config) *Manager {
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Random == nil {
		c.Random = rand.Reader
	}
	return &Manager{
		now:    c.Now,
		random: c.Random,
		slots:  make(chan struct{}, maxConcurrent),
		results: results{
			entries: make(map[resultKey]*result),
		},
		tokens: tokens{
			byID:   make(map[uint64]*token),
			ofUnit: make(map[*unit.Unit]int),
		},
	}
}

// Commands returns the command descriptions of this family.
func (m *Manager) Commands() []scsi.Command {
	const op, in = wire.OpThirdPartyCopyOut, wire.OpThirdPartyCopyIn
	return []scsi.Command{
		{Name: "EXTENDED COPY(LID1)", Op: op, ServiceAction: actionExtendedCopy, Usage: usage(op, 10, 11, 12, 13), Access: unit.AccessWrite, DataOut: outLength, Run: m.runExtendedCopy},
		{Name: "POPULATE TOKEN", Op: op, ServiceAction: actionPopulateToken, Usage: usage(op, 6, 7, 8, 9, 10, 11, 12, 13, 14), Access: unit.AccessRead, DataOut: outLength, Run: m.runPopulateToken},
		{Name: "WRITE USING TOKEN", Op: op, ServiceAction: actionWriteToken, Usage: usage(op, 6, 7, 8, 9, 10, 11, 12, 13, 14), Access: unit.AccessWrite, ChangesMedium: true, DataOut: outLength, Run: m.runWriteUsingToken},

		{Name: "RECEIVE COPY STATUS(LID1)", Op: in, ServiceAction: actionCopyStatus, Usage: usage(in, 2, 10, 11, 12, 13), Access: unit.AccessWrite, Run: m.runCopyStatus},
		{Name: "RECEIVE COPY DATA(LID1)", Op: in, ServiceAction: actionReceiveData, Usage: usage(in, 2, 10, 11, 12, 13), Access: unit.AccessWrite, Run: m.runReceiveData},
		{Name: "RECEIVE COPY OPERATING PARAMETERS", Op: in, ServiceAction: actionOperatingParameters, Usage: usage(in, 10, 11, 12, 13), Access: unit.AccessWrite, Run: runOperatingParameters},
		{Name: "RECEIVE COPY FAILURE DETAILS(LID1)", Op: in, ServiceAction: actionFailureDetails, Usage: usage(in, 2, 10, 11, 12, 13), Access: unit.AccessWrite, Run: m.runFailureDetails},
		{Name: "RECEIVE ROD TOKEN INFORMATION", Op: in, ServiceAction: actionTokenInformation, Usage: usage(in, 2, 3, 4, 5, 10, 11, 12, 13), Run: m.runTokenInformation},
	}
}

// usage returns the usage data of a 16-byte CDB of which the given bytes are evaluated.
func usage(op byte, fields ...int) []byte {
	const groupNumber = 14
	b := make([]byte, 16)
	b[0], b[1] = op, 0x1F
	for _, i := range fields {
		b[i] = 0xFF
		if i == groupNumber {
			b[i] = 0x1F
		}
	}
	return b
}

func length(cdb []byte) uint32 { return wire.Uint32(cdb[10:]) }

func outLength(t *scsi.Task) int {
	if n := length(t.CDB); n <= maxParameters {
		return int(n)
	}
	return 0
}

// reply ends a command with data, cut to the allocation length.
func reply(t *scsi.Task, data []byte) {
	t.Reply(data, int(min(length(t.CDB), block.MaxBuffer)))
}

// start runs a copy on a goroutine when a slot is free, and ends its task with what
// run returns.
func (m *Manager) start(t *scsi.Task, r *result, run func() error) {
	go func() {
		err := errCancelled
		if m.takeSlot(t) {
			err = run()
			<-m.slots
		}
		m.end(r, err)
		finish(t, err)
	}()
}

// slotCheck is how often a copy that waits for a slot asks whether it was aborted.
const slotCheck = 20 * time.Millisecond

// takeSlot waits for a slot; it returns false where the task was aborted meanwhile: who
// aborts it does not have to wait for the copies of others.
func (m *Manager) takeSlot(t *scsi.Task) bool {
	select {
	case m.slots <- struct{}{}:
		return true
	default:
	}
	check := time.NewTicker(slotCheck)
	defer check.Stop()
	for {
		select {
		case m.slots <- struct{}{}:
			return true
		case <-check.C:
			if t.Cancelled() {
				return false
			}
		}
	}
}
