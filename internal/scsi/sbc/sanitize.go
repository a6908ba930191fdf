package sbc

import (
	"encoding/json"
	"fmt"
	"math"

	"lintel.io/lintel/internal/block"
	"lintel.io/lintel/internal/scsi"
	wire "lintel.io/lintel/internal/wire/scsi"
)

// Service actions and bits of SANITIZE (SBC-3 §5.25). CRYPTOGRAPHIC ERASE does
// not exist: it changes a key, and no unit has one.
const (
	actionOverwrite       = 0x01
	actionBlockErase      = 0x02
	actionExitFailureMode = 0x1F

	bitSanitizeImmed    = 0x80
	bitUnrestrictedExit = 0x20 // AUSE

	overwriteHeader    = 4
	bitInvert          = 0x80
	bitsTest           = 0x60
	bitsOverwriteCount = 0x1F
)

// sanitizeKey is where a unit's settings keep the operation that is under way or
// has failed, so that a restart neither unlocks nor forgets it.
const sanitizeKey = "sanitize"

const sanitizeVersion = 1

// sanitizeRecord describes a sanitize operation.
type sanitizeRecord struct {
	Version      int    `json:"version"`
	Action       uint8  `json:"action"`
	Count        uint8  `json:"count,omitempty"` // passes of OVERWRITE, 1 to 31
	Invert       bool   `json:"invert,omitempty"`
	Pattern      []byte `json:"pattern,omitempty"`
	Unrestricted bool   `json:"unrestricted,omitempty"` // a failure may be left
	Failed       bool   `json:"failed,omitempty"`
}

// sanitizing is the state of an operation between its steps.
type sanitizing struct {
	lu     *scsi.LogicalUnit
	record sanitizeRecord
	pass   uint8
	passes uint8
}

func sanitizeOut(t *scsi.Task) int { return int(wire.Uint16(t.CDB[7:])) }

// runSanitize is SANITIZE with OVERWRITE and BLOCK ERASE (SBC-3 §5.25). Once it
// has begun the operation goes on whatever becomes of the task (SBC-3 §4.11.2).
func runSanitize(t *scsi.Task) {
	if state, _ := t.LU.SanitizeState(); state == scsi.SanitizeRunning {
		failSanitizing(t)
		return
	}
	r := sanitizeRecord{
		Version:      sanitizeVersion,
		Action:       t.CDB[1] & 0x1F,
		Unrestricted: t.CDB[1]&bitUnrestrictedExit != 0,
	}
	if r.Action == actionOverwrite && !r.parseOverwrite(t) {
		return
	}
	if !t.LU.StartSanitize() {
		failSanitizing(t)
		return
	}
	go beginSanitize(t, r)
}

// parseOverwrite reads the parameter list of OVERWRITE; it ends the task where
// something is wrong with it.
func (r *sanitizeRecord) parseOverwrite(t *scsi.Task) bool {
	size := int(t.LU.Unit().BlockSize())
	length := int(wire.Uint16(t.CDB[7:]))
	if length <= overwriteHeader || length > overwriteHeader+size {
		t.FailField(false, 7, -1)
		return false
	}
	list := t.DataOut
	if len(list) < length {
		failLength(t)
		return false
	}
	r.Count, r.Invert = list[0]&bitsOverwriteCount, list[0]&bitInvert != 0
	n := int(wire.Uint16(list[2:]))
	switch {
	case list[0]&bitsTest != 0:
		t.FailField(true, 0, 6)
		return false
	case r.Count == 0:
		t.FailField(true, 0, 4)
		return false
	case n == 0 || n > size || n > length-overwriteHeader:
		t.FailField(true, 2, -1)
		return false
	}
	r.Pattern = append([]byte(nil), list[overwriteHeader:overwriteHeader+n]...)
	return true
}

func failSanitizing(t *scsi.Task) {
	_, progress := t.LU.SanitizeState()
	t.Fail(scsi.Sense{Key: wire.KeyNotReady, Code: wire.SanitizeInProgress, Specific: wire.Progress(progress)})
}

// beginSanitize records the operation and runs it, after the answer where IMMED
// asks for that.
func beginSanitize(t *scsi.Task, r sanitizeRecord) {
	lu := t.LU
	if err := r.save(lu); err != nil {
		lu.SetSanitizeState(scsi.SanitizeIdle)
		t.Fail(scsi.Sense{Key: wire.KeyHardwareError, Code: wire.InternalTargetFailure})
		return
	}
	o := newSanitize(lu, r)
	if t.CDB[1]&bitSanitizeImmed != 0 {
		t.Finish(scsi.StatusGood)
	} else {
		o.t = t
	}
	o.run()
}

func newSanitize(lu *scsi.LogicalUnit, r sanitizeRecord) *op {
	o := ops.Get().(*op)
	o.u, o.next, o.guard = lu.Unit(), sanitizeTake, &o.own
	o.sanitizing = &sanitizing{lu: lu, record: r, passes: max(r.Count, 1)}
	return o
}

// ResumeSanitize looks for an operation that was under way, or had failed, when
// the unit was last used, and goes on with it from its beginning or keeps the unit
// locked. It is called once for each unit, before initiators can reach it.
func ResumeSanitize(lu *scsi.LogicalUnit) error {
	blob, err := lu.Unit().LoadSetting(sanitizeKey)
	if err != nil {
		return fmt.Errorf("sbc: unit %s: sanitize state: %w", lu.Unit().ID(), err)
	}
	if blob == nil {
		return nil
	}
	var r sanitizeRecord
	if err := json.Unmarshal(blob, &r); err != nil {
		lu.SetSanitizeState(scsi.SanitizeFailed)
		return fmt.Errorf("sbc: unit %s: sanitize state: %w", lu.Unit().ID(), err)
	}
	if r.Version > sanitizeVersion {
		lu.SetSanitizeState(scsi.SanitizeFailed)
		return fmt.Errorf("sbc: unit %s: sanitize state has version %d, this program knows %d: use a newer one", lu.Unit().ID(), r.Version, sanitizeVersion)
	}
	if r.Failed {
		lu.SetSanitizeState(scsi.SanitizeFailed)
		return nil
	}
	lu.StartSanitize()
	go newSanitize(lu, r).run()
	return nil
}

func (r sanitizeRecord) save(lu *scsi.LogicalUnit) error {
	blob, err := json.Marshal(r)
	if err != nil {
		return err
	}
	return lu.Unit().SaveSetting(sanitizeKey, blob)
}

// sanitizeTake waits for all commands that are under way on the unit.
func sanitizeTake(o *op) step {
	o.end = int64(o.u.Blocks()) << o.u.BlockShift()
	return o.exclusive(o.end, sanitizePass)
}

// sanitizePass begins a pass over all blocks.
func sanitizePass(o *op) step {
	o.pos = 0
	if s := o.sanitizing; s.record.Action == actionOverwrite {
		fillPattern(o.buffer(min(chunk, o.end)), s.record.Pattern, int(o.u.BlockSize()), s.record.Invert && s.pass&1 != 0)
	}
	return sanitizeChunk(o)
}

// fillPattern fills each block with as many copies of the pattern as it takes.
func fillPattern(buf, pattern []byte, size int, invert bool) {
	first := buf[:size]
	for at := 0; at < size; {
		at += copy(first[at:], pattern)
	}
	for i := range first {
		if invert {
			first[i] = ^first[i]
		}
	}
	for at := size; at < len(buf); {
		at += copy(buf[at:], buf[:at])
	}
}

func sanitizeChunk(o *op) step {
	s := o.sanitizing
	if o.cancelled() {
		t := o.t
		o.t = nil
		stopped(t)
	}
	part := (float64(s.pass) + float64(o.pos)/float64(o.end)) / float64(s.passes)
	s.lu.SetSanitizeProgress(uint16(part * math.MaxUint16))
	switch {
	case o.pos == o.end:
		return o.submit(block.Flush, nil, 0, sanitizeFlushed)
	case s.record.Action == actionBlockErase:
		return o.submit(block.Discard, nil, min(o.discardChunk(), o.end-o.pos), sanitizeDone)
	}
	n := o.left()
	return o.submit(block.Write, o.buffer(n), n, sanitizeDone)
}

func sanitizeDone(o *op) step {
	if o.req.Err != nil {
		return sanitizeEnd(o, o.req.Err)
	}
	o.pos += o.req.Length()
	o.next = sanitizeChunk
	return again
}

func sanitizeFlushed(o *op) step {
	s := o.sanitizing
	if o.req.Err != nil {
		return sanitizeEnd(o, o.req.Err)
	}
	if s.pass++; s.pass < s.passes {
		o.next = sanitizePass
		return again
	}
	return sanitizeEnd(o, nil)
}

// sanitizeEnd ends the operation on a goroutine of its own, for it has to write
// the record.
func sanitizeEnd(o *op, err error) step {
	s := o.sanitizing
	t := o.close()
	go s.end(t, err)
	return ended
}

// end records and tells how the operation has ended. Where the device has gone, it
// is taken up again with the next start.
func (s *sanitizing) end(t *scsi.Task, err error) {
	if err == nil {
		err = s.lu.Unit().SaveSetting(sanitizeKey, nil)
	} else if block.KindOf(err) != block.KindGone {
		s.record.Failed = true
		// A record that cannot be written still says that the operation runs:
		// the next start repeats it.
		_ = s.record.save(s.lu)
	}
	if err != nil {
		s.lu.SetSanitizeState(scsi.SanitizeFailed)
		if t != nil {
			t.Fail(scsi.Sense{Key: wire.KeyMediumError, Code: wire.SanitizeFailed})
		}
		return
	}
	s.lu.SetSanitizeState(scsi.SanitizeIdle)
	if t != nil {
		t.Finish(scsi.StatusGood)
	}
}

// runExitFailureMode is SANITIZE with EXIT FAILURE MODE (SBC-3 §5.25.2.5): it
// unlocks a unit whose failed operation allowed that.
func runExitFailureMode(t *scsi.Task) {
	switch state, _ := t.LU.SanitizeState(); state {
	case scsi.SanitizeRunning:
		failSanitizing(t)
	case scsi.SanitizeFailed:
		go exitFailureMode(t)
	default:
		t.Finish(scsi.StatusGood)
	}
}

func exitFailureMode(t *scsi.Task) {
	var r sanitizeRecord
	blob, err := t.LU.Unit().LoadSetting(sanitizeKey)
	if err == nil {
		err = json.Unmarshal(blob, &r)
	}
	if err != nil || !r.Unrestricted || r.Version > sanitizeVersion {
		t.FailField(false, 1, 4)
		return
	}
	if err := t.LU.Unit().SaveSetting(sanitizeKey, nil); err != nil {
		t.Fail(scsi.Sense{Key: wire.KeyHardwareError, Code: wire.InternalTargetFailure})
		return
	}
	t.LU.SetSanitizeState(scsi.SanitizeIdle)
	t.Finish(scsi.StatusGood)
}
