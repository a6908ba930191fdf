package copy

import (
	"bytes"
	"testing"

	"lintel.io/lintel/internal/block"
	"lintel.io/lintel/internal/scsi"
	"lintel.io/lintel/internal/scsi/scsitest"
	"lintel.io/lintel/internal/unit"
	wire "lintel.io/lintel/internal/wire/scsi"
)

// TestBlockToBlock checks EXTENDED COPY(LID1), block device to block device segments (SPC-4 §6.4.6.5, §6.4.6.8).
func TestBlockToBlock(t *testing.T) {
	r := newRig(t)
	targets := list(r.describe(0), r.describe(1))
	// Within a unit, to another, from this one, and more than one chunk.
	r.good(r.extendedCopy(copyParameters(1, usageHold, targets, list(
		blockToBlock(0, 0, 100, 10, 5000),
		blockToBlock(0, 1, 2048, 0, 6000),
		blockToBlock(ownUnit, 1, 3, 7, 0),
		blockToBlock(0, 1, 0, 0, 0),
		blockOffset(0, 1, 1<<20+512, 1, 100, 512, 1024),
	))))
	r.wantCopied(0, 10<<9, 0, 5000<<9, 100<<9)
	r.wantCopied(0, 0, 1, 6000<<9, 2048<<9)
	r.wantCopied(0, 7<<9, 1, 0, 3<<9)
	r.wantCopied(0, 2<<9, 1, 102<<9, 1<<20+512)
	if !bytes.Equal(r.load(1, 3<<9, 512), make([]byte, 512)) {
		t.Error("written past the end of the segment")
	}
	r.good(r.extendedCopy(nil))
	r.good(r.extendedCopy(copyParameters(0, usageNone, nil, nil)))
}

// TestDesignators checks EXTENDED COPY(LID1), identification descriptors (SPC-4 §6.4.5.3, §7.8.6).
func TestDesignators(t *testing.T) {
	r := newRig(t)
	a := r.Units[1].Attributes()
	for i, d := range [][]byte{
		describe(wire.DesignatorNAA, a.NAA),
		describe(wire.DesignatorEUI64, a.EUI64),
		describe(wire.DesignatorT10, []byte("LINTEL  bench-1")),
	} {
		at := uint64(i * 10)
		d[1] = 0xC0 // LU ID TYPE is ignored
		r.good(r.extendedCopy(copyParameters(1, usageDiscard, list(r.describe(0), d), list(blockToBlock(0, 1, 10, 50, at)))))
		r.wantCopied(0, 50<<9, 1, int64(at)<<9, 10<<9)
	}
	one := list(blockToBlock(0, 1, 1, 0, 0))
	for name, c := range map[string]struct {
		change func(d []byte)
		code   uint16
	}{
		"unknown":      {func(d []byte) { d[9]++ }, wire.CopyTargetNotReachable},
		"of a port":    {func(d []byte) { d[5] |= 0x10 }, wire.CopyTargetNotReachable},
		"other type":   {func(d []byte) { d[5] = 8 }, wire.CopyTargetNotReachable},
		"long":         {func(d []byte) { d[7] = 255 }, wire.CopyTargetNotReachable},
		"tape":         {func(d []byte) { d[1] = 1 }, wire.IncorrectCopyTargetType},
		"block length": {func(d []byte) { d[30] = 0x10 }, wire.IncorrectCopyTargetType},
	} {
		t.Run(name, func(t *testing.T) {
			r := r.sub(t)
			d := r.describe(1)
			c.change(d)
			r.aborted(r.extendedCopy(copyParameters(1, usageHold, list(r.describe(0), d), one)), c.code)
		})
	}
	// A unit that the nexus does not see is no target.
	r.n.SetLUNs(scsi.LUNMap{0: {LU: r.LUs[0]}})
	r.n.Do(0, make([]byte, 6), nil) // REPORTED LUNS DATA HAS CHANGED
	r.aborted(r.extendedCopy(copyParameters(1, usageHold, list(r.describe(0), r.describe(1)), one)), wire.CopyTargetNotReachable)
}

// TestDescriptorErrors checks EXTENDED COPY(LID1), parameter list errors (SPC-4 §6.4.3).
func TestDescriptorErrors(t *testing.T) {
	r := newRig(t)
	target, segment := r.describe(0), blockToBlock(0, 0, 2048, 0, rigBlocks-2048)
	many := func(n int, d []byte) (all [][]byte) {
		for range n {
			all = append(all, d)
		}
		return all
	}
	changed := func(d []byte, at int, v byte) []byte {
		d = bytes.Clone(d)
		d[at] = v
		return d
	}
	good := copyParameters(1, usageHold, list(target), list(segment))
	for name, c := range map[string]struct {
		data []byte
		key  uint8
		code uint16
	}{
		"short header":      {good[:15], 5, wire.ParameterListLengthError},
		"cut target":        {good[:47], 5, wire.ParameterListLengthError},
		"cut segment":       {good[:len(good)-1], 5, wire.ParameterListLengthError},
		"targets":           {copyParameters(1, 0, many(maxTargets+1, target), list(segment)), 5, wire.TooManyTargetDescriptors},
		"segments":          {copyParameters(1, 0, list(target), many(maxSegments+1, segment)), 5, wire.TooManySegmentDescriptors},
		"descriptor bytes":  {copyParameters(1, 0, many(maxTargets+1, target), many(81, segment)), 5, wire.ParameterListLengthError},
		"target type":       {copyParameters(1, 0, list(changed(target, 0, 0xE0)), list(segment)), 5, wire.UnsupportedTargetDescriptor},
		"segment type":      {copyParameters(1, 0, list(target), list(changed(segment, 0, 3))), 5, wire.UnsupportedSegmentDescriptor},
		"segment length":    {copyParameters(1, 0, list(target), list(changed(segment, 3, 20))), 5, wire.InvalidFieldInParameterList},
		"segment cut":       {copyParameters(1, 0, list(target), list(segment[:20])), 5, wire.ParameterListLengthError},
		"bytes":             {copyParameters(1, 0, list(target), list(blockOffset(0, 0, maxSegmentBytes+512, 0, 0, 0, 0))), 5, wire.InvalidFieldInParameterList},
		"half a target":     {copyParameters(1, 0, list(target[:16]), list(segment)), 5, wire.InvalidFieldInParameterList},
		"list id usage":     {copyParameters(1, 1, list(target), list(segment)), 5, wire.InvalidFieldInParameterList},
		"list id, none":     {copyParameters(1, usageNone, list(target), list(segment)), 5, wire.InvalidFieldInParameterList},
		"inline data":       {append(changed(good, 15, 4), 0, 0, 0, 0), 5, wire.InlineDataLengthExceeded},
		"target id":         {copyParameters(1, 0, list(target), list(blockToBlock(0, 1, 2048, 0, 0))), 0xA, wire.CopyTargetNotReachable},
		"source id":         {copyParameters(1, 0, list(target), list(blockToBlock(1, 0, 2048, 0, 0))), 0xA, wire.CopyTargetNotReachable},
		"past the end":      {copyParameters(1, 0, list(target), list(blockToBlock(0, 0, 2048, 0, rigBlocks-1))), 0xA, 0},
		"from past the end": {copyParameters(1, 0, list(target), list(blockToBlock(0, 0, 1, 1<<63, 0))), 0xA, 0},
		"byte count":        {copyParameters(1, 0, list(target), list(blockOffset(0, 0, 100, 0, 0, 0, 0))), 0xA, inexactSegment},
		"byte offset":       {copyParameters(1, 0, list(target), list(blockOffset(0, 0, 512, 0, 0, 0, 1))), 0xA, inexactSegment},
	} {
		t.Run(name, func(t *testing.T) {
			r := r.sub(t)
			r.want(r.extendedCopy(c.data), c.key, c.code)
		})
	}
	r.illegal(r.n.Do(0, outCDB(actionExtendedCopy, 0, 1<<20), nil), wire.ParameterListLengthError)
	if n := r.probes[0].count(block.Write); n != 0 {
		t.Errorf("%d writes", n)
	}
	// The number of the segment that failed is told, and nothing was copied.
	res := r.extendedCopy(copyParameters(1, 0, list(target), list(segment, blockToBlock(0, 5, 1, 0, 0))))
	if r.aborted(res, wire.CopyTargetNotReachable); res.Sense.CommandSpecific != 1 || r.probes[0].count(block.Write) != 0 {
		t.Errorf("segment %d, %d writes", res.Sense.CommandSpecific, r.probes[0].count(block.Write))
	}
}

// TestCopyBetweenBlockSizes checks EXTENDED COPY(LID1), DC (SPC-4 §6.4.6.5).
func TestCopyBetweenBlockSizes(t *testing.T) {
	r := newRig(t, func(c *scsitest.Config) {
		c.Attributes = func(i int, a *unit.Attributes) {
			if i == 1 {
				a.BlockSize = 4096
			}
		}
	})
	targets := list(r.describe(0), r.describe(1))
	r.good(r.extendedCopy(copyParameters(1, 0, targets, list(blockToBlock(0, 1, 24, 9, 2)))))
	r.wantCopied(0, 9<<9, 1, 2<<12, 24<<9)
	s := blockToBlock(0, 1, 3, 100, 10)
	s[1] = 2 // DC
	r.good(r.extendedCopy(copyParameters(1, 0, targets, list(s))))
	r.wantCopied(0, 100<<9, 1, 10<<12, 3<<12)
	r.aborted(r.extendedCopy(copyParameters(1, 0, targets, list(blockToBlock(0, 1, 7, 0, 0)))), inexactSegment)
}

// TestCopyHoles checks that what is not allocated is not moved through memory.
func TestCopyHoles(t *testing.T) {
	for _, thin := range []bool{true, false} {
		r := newRig(t, func(c *scsitest.Config) {
			c.Attributes = func(_ int, a *unit.Attributes) { a.Thin = thin }
		})
		r.store(1, 0, bytes.Repeat([]byte{0xAA}, 1<<20))
		// The second half of unit 0 has never been written.
		r.good(r.extendedCopy(copyParameters(1, 0, list(r.describe(0), r.describe(1)), list(blockToBlock(0, 1, 2048, rigBlocks/2, 0)))))
		r.wantCopied(0, rigBlocks/2<<9, 1, 0, 1<<20)
		op := map[bool]block.Op{true: block.Discard, false: block.Zero}[thin]
		if p := r.probes[1]; p.count(block.Write) != 0 || p.count(op) == 0 || r.probes[0].count(block.Read) != 0 {
			t.Errorf("thin %v: %d writes, %d %vs, %d reads", thin, p.count(block.Write), p.count(op), op, r.probes[0].count(block.Read))
		}
	}
}

// TestCopyAccess checks EXTENDED COPY(LID1), what stands against it on a unit (SPC-4 §5.16.7.4).
func TestCopyAccess(t *testing.T) {
	r := newRig(t)
	params := copyParameters(1, 0, list(r.describe(0), r.describe(1)), list(blockToBlock(0, 1, 8, 0, 0)))
	other := unit.Initiator{Name: "iqn.other", Port: 1}
	reserve := func(i int, typ unit.ReservationType) {
		t.Helper()
		rs := &r.Units[i].Reservations
		if err := rs.Register(unit.Register{From: other, NewKey: 1, IgnoreKey: true}); err != nil {
			t.Fatal(err)
		}
		if err := rs.Reserve(other, 1, typ); err != nil {
			t.Fatal(err)
		}
	}
	clearAll := func(i int) {
		t.Helper()
		if err := r.Units[i].Reservations.Clear(other, 1); err != nil {
			t.Fatal(err)
		}
	}
	reserve(1, unit.WriteExclusive)
	r.aborted(r.extendedCopy(params), wire.ThirdPartyDeviceFailure)
	clearAll(1)
	reserve(0, unit.ExclusiveAccess)
	if res := r.extendedCopy(params); res.Status != scsi.StatusReservationConflict {
		t.Errorf("the unit that received the command is reserved: %v", res)
	}
	if res := r.n.Do(1, outCDB(actionExtendedCopy, 0, len(params)), params); !res.Is(wire.KeyCopyAborted, wire.ThirdPartyDeviceFailure) {
		t.Errorf("source is reserved: %v", res)
	}
	clearAll(0)

	r.n.SetLUNs(scsi.LUNMap{0: {LU: r.LUs[0]}, 1: {LU: r.LUs[1], ReadOnly: true}})
	r.aborted(r.extendedCopy(params), wire.WriteProtected)
	r.n.SetLUNs(r.LUNs())
	a := r.Units[1].Attributes().Clone()
	a.ReadOnly = true
	if err := r.Units[1].SetAttributes(a); err != nil {
		t.Fatal(err)
	}
	r.aborted(r.extendedCopy(params), wire.WriteProtected)
	a.ReadOnly, a.WriteThrough = false, true
	if err := r.Units[1].SetAttributes(a); err != nil {
		t.Fatal(err)
	}
	r.good(r.extendedCopy(params))
	if r.probes[1].flags&block.FUA == 0 {
		t.Error("a write-through unit was written without FUA")
	}
	r.LUs[1].StartSanitize()
	r.aborted(r.extendedCopy(params), wire.CopyTargetNotReachable)
	r.LUs[1].SetSanitizeState(scsi.SanitizeIdle)
	r.good(r.extendedCopy(params))

	// A unit of another group may be out of reach.
	far := newRig(t)
	far.Group.SetState(1, unit.Standby)
	if err := (endpoint{lu: far.LUs[0]}).allow(far.n.Nexus, unit.AccessRead); senseOf(err).Code != wire.CopyTargetNotReachable {
		t.Errorf("standby: %v", err)
	}
}

// TestCopyDeviceErrors checks EXTENDED COPY(LID1), errors of devices (SPC-4 §5.16.7.4).
func TestCopyDeviceErrors(t *testing.T) {
	for _, c := range []struct {
		unit int
		op   block.Op
		kind block.Kind
		key  uint8
		code uint16
	}{
		{0, block.Read, block.KindMedium, wire.KeyCopyAborted, wire.ThirdPartyDeviceFailure},
		{1, block.Write, block.KindGone, wire.KeyCopyAborted, wire.ThirdPartyDeviceFailure},
		{1, block.Write, block.KindNoSpace, wire.KeyDataProtect, wire.SpaceAllocationFailed},
	} {
		r := newRig(t)
		r.probes[c.unit].fail[c.op] = c.kind
		res := r.extendedCopy(copyParameters(3, 0, list(r.describe(0), r.describe(1)), list(
			blockToBlock(0, 1, 0, 0, 0), blockToBlock(0, 1, 8, 0, 0))))
		r.want(res, c.key, c.code)
		if res.Sense.CommandSpecific != 1 {
			t.Errorf("failed segment %d", res.Sense.CommandSpecific)
		}
		b := r.good(r.n.Do(0, inCDB(actionFailureDetails, 3, 1024), nil)).In
		if len(b) < 60 || b[56] != byte(scsi.StatusCheckCondition) || wire.Uint16(b[58:]) != uint16(len(b)-60) || wire.Uint32(b) != uint32(len(b)-4) {
			t.Fatalf("failure details %x", b)
		}
		if s, err := wire.ParseSense(b[60:]); err != nil || s.Code != c.code || s.Key != c.key {
			t.Errorf("failure details: %v %v", s, err)
		}
		if b := r.good(r.n.Do(0, inCDB(actionCopyStatus, 3, 1024), nil)).In; b[4] != 2 || wire.Uint16(b[5:]) != 1 {
			t.Errorf("copy status %x", b)
		}
	}
}

// TestAbortedCopy checks ABORT TASK of EXTENDED COPY(LID1) (SAM-5 §7.2).
func TestAbortedCopy(t *testing.T) {
	r := newRig(t)
	reading := make(chan struct{})
	r.probes[0].stopped[block.Read] = reading
	params := copyParameters(1, 0, list(r.describe(0), r.describe(1)), list(blockToBlock(0, 1, 2048, 0, 0)))
	p := r.n.Start(0, scsi.AttrSimple, outCDB(actionExtendedCopy, 0, len(params)), params)
	<-reading
	again := r.extendedCopy(params)
	r.illegal(again, wire.OperationInProgress)
	if b := r.good(r.n.Do(0, inCDB(actionCopyStatus, 1, 1024), nil)).In; b[4] != 0 {
		t.Errorf("copy status in progress: %x", b)
	}
	r.illegal(r.n.Do(0, inCDB(actionReceiveData, 1, 1024), nil), wire.InvalidFieldInCDB)
	r.illegal(r.n.Do(0, inCDB(actionFailureDetails, 1, 1024), nil), wire.InvalidFieldInCDB)
	response := make(chan scsi.Response, 1)
	go func() { response <- r.n.Manage(scsi.AbortTask, 0, p.Tag()) }()
	for !p.Task.Cancelled() {
	}
	reading <- struct{}{}
	if got := <-response; got != scsi.FunctionComplete {
		t.Errorf("response %d", got)
	}
	if res := p.Wait(); !res.Aborted {
		t.Errorf("got %v", res)
	}
	if n := r.probes[1].count(block.Write); n != 0 {
		t.Errorf("%d writes after the abort", n)
	}
	if b := r.good(r.n.Do(0, inCDB(actionFailureDetails, 1, 1024), nil)).In; len(b) != 4 {
		t.Errorf("failure details of an aborted copy: %x", b)
	}
}

// TestReceiveCopyResults checks RECEIVE COPY STATUS(LID1) and RECEIVE COPY DATA(LID1) (SPC-4 §6.21, §6.25).
func TestReceiveCopyResults(t *testing.T) {
	r := newRig(t)
	r.illegal(r.n.Do(0, inCDB(actionCopyStatus, 1, 1024), nil), wire.InvalidFieldInCDB)
	r.good(r.extendedCopy(copyParameters(1, 0, list(r.describe(0), r.describe(1)), list(blockToBlock(0, 1, 100, 0, 0)))))
	b := r.good(r.n.Do(0, inCDB(actionCopyStatus, 1, 1024), nil)).In
	if len(b) != 12 || wire.Uint32(b) != 8 || b[4] != 1 || wire.Uint16(b[5:]) != 1 || b[7] != 0 || wire.Uint32(b[8:]) != 51200 {
		t.Errorf("copy status %x", b)
	}
	if b := r.good(r.n.Do(0, inCDB(actionCopyStatus, 1, 5), nil)).In; len(b) != 5 {
		t.Errorf("cut to %d bytes", len(b))
	}
	for _, action := range []byte{actionReceiveData, actionFailureDetails} {
		if b := r.good(r.n.Do(0, inCDB(action, 1, 1024), nil)).In; !bytes.Equal(b, make([]byte, 4)) {
			t.Errorf("service action %d: %x", action, b)
		}
	}
	// Another nexus and another unit have results of their own.
	if res := r.Nexus("b", 1).Do(0, inCDB(actionCopyStatus, 1, 1024), nil); !res.Is(wire.KeyIllegalRequest, wire.InvalidFieldInCDB) {
		t.Errorf("another nexus: %v", res)
	}
	r.illegal(r.n.Do(1, inCDB(actionCopyStatus, 1, 1024), nil), wire.InvalidFieldInCDB)
	if u, n := transferCount(1 << 40); u != 1 || n != 1<<30 {
		t.Errorf("a large transfer count: %d x 1024^%d", n, u)
	}
}

// TestResultsAreBounded checks that the oldest results make room.
func TestResultsAreBounded(t *testing.T) {
	m := New(Config{})
	running := m.begin(resultKey{id: 0}, 0, 9)
	for i := range uint32(3 * maxResults) {
		m.end(m.begin(resultKey{id: i + 1}, 0, 9), nil)
	}
	if n := len(m.results.entries); n > maxResults || n != len(m.results.order) || m.results.entries[running.key] != running {
		t.Errorf("%d results, %d in order", n, len(m.results.order))
	}
}

// TestOperatingParameters checks RECEIVE COPY OPERATING PARAMETERS (SPC-4 §6.23).
func TestOperatingParameters(t *testing.T) {
	r := newRig(t)
	b := r.good(r.n.Do(0, inCDB(actionOperatingParameters, 0, 1024), nil)).In
	if len(b) != 47 || wire.Uint32(b) != 43 || b[4] != 1 || wire.Uint16(b[8:]) != maxTargets || wire.Uint16(b[10:]) != maxSegments ||
		wire.Uint32(b[12:]) != maxDescriptorBytes || wire.Uint32(b[16:]) != maxSegmentBytes || !bytes.Equal(b[43:], []byte{3, 0x02, 0x0A, 0xE4}) {
		t.Errorf("operating parameters %x", b)
	}
}

// TestThirdPartyCopyPage checks the Third-Party Copy VPD page (SPC-4 §7.8.17).
func TestThirdPartyCopyPage(t *testing.T) {
	r := newRig(t)
	b := r.good(r.n.Do(0, []byte{wire.OpInquiry, 1, 0x8F, 4, 0, 0}, nil)).In
	if len(b) < 4 || b[1] != 0x8F || int(wire.Uint16(b[2:])) != len(b)-4 || len(b) > 1024 {
		t.Fatalf("page %x", b)
	}
	commands := make(map[[2]byte]bool)
	var codes []uint16
	for d := b[4:]; len(d) > 0; {
		code, n := wire.Uint16(d), int(wire.Uint16(d[2:]))
		if n%4 != 0 || 4+n > len(d) {
			t.Fatalf("descriptor %04X has %d bytes", code, n)
		}
		if code == 1 {
			for l := d[5 : 5+d[4]]; len(l) > 0; l = l[2+l[1]:] {
				for _, a := range l[2 : 2+l[1]] {
					commands[[2]byte{l[0], a}] = true
				}
			}
		}
		codes = append(codes, code)
		d = d[4+n:]
	}
	for _, c := range r.m.Commands() {
		if !commands[[2]byte{c.Op, byte(c.ServiceAction)}] {
			t.Errorf("%s is not listed", c.Name)
		}
	}
	if len(commands) != len(r.m.Commands()) || len(codes) != 8 {
		t.Errorf("%d commands, descriptors %x", len(commands), codes)
	}
}

func FuzzCopyList(f *testing.F) {
	d := describe(wire.DesignatorNAA, make([]byte, 16))
	f.Add(copyParameters(1, 0, list(d, d), list(blockToBlock(0, 1, 8, 0, 0), blockOffset(1, 0, 512, 1, 2, 0, 512))))
	f.Add(copyParameters(0, usageNone, nil, nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := parseCopyList(b)
		if err != nil {
			return
		}
		if len(c.targets) > maxTargets || len(c.segments) > maxSegments {
			t.Errorf("%d targets, %d segments", len(c.targets), len(c.segments))
		}
		a := &unit.Attributes{NAA: make([]byte, 16), Vendor: "LINTEL", T10ID: "x"}
		for i := range c.targets {
			c.targets[i].names(a)
		}
	})
}
