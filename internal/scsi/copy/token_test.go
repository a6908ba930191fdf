package copy

import (
	"bytes"
	"encoding/binary"
	"testing"
	"time"

	"lintel.io/lintel/internal/block"
	"lintel.io/lintel/internal/scsi"
	"lintel.io/lintel/internal/scsi/scsitest"
	"lintel.io/lintel/internal/unit"
	wire "lintel.io/lintel/internal/wire/scsi"
)

// TestTokenCopy checks POPULATE TOKEN, WRITE USING TOKEN and RECEIVE ROD TOKEN INFORMATION (SBC-3 §5.8, §5.49, SPC-4 §6.28).
func TestTokenCopy(t *testing.T) {
	r := newRig(t)
	r.illegal(r.tokenInformation(0, 1), wire.InvalidFieldInCDB)
	token := r.token(blockRange{0, 100}, blockRange{3000, 1000}, blockRange{500, 0})
	if wire.Uint32(token) != typeChangeVulnerable || wire.Uint16(token[6:]) != 504 || wire.Uint64(token[56:]) != 1100<<9 {
		t.Errorf("token begins with %x", token[:64])
	}
	b := r.good(r.tokenInformation(0, 1)).In
	if wire.Uint32(b) != uint32(len(b)-4) || b[4] != actionPopulateToken || b[5] != 1 || b[15] != 0xF1 || wire.Uint64(b[16:]) != 1100 {
		t.Errorf("token information %x", b[:32])
	}
	r.good(r.writeToken(1, 7, writeParameters(0, 0, token, blockRange{10, 50}, blockRange{2000, 1050})))
	r.wantCopied(0, 0, 1, 10<<9, 50<<9)
	r.wantCopied(0, 50<<9, 1, 2000<<9, 50<<9)
	r.wantCopied(0, 3000<<9, 1, 2050<<9, 1000<<9)
	b = r.good(r.tokenInformation(1, 7)).In
	if b[4] != actionWriteToken || b[5] != 1 || wire.Uint64(b[16:]) != 1100 || wire.Uint16(b[24:]) != 2 || len(b) != 36 {
		t.Errorf("token information %x", b)
	}
	// From an offset, by another initiator, and as the last use.
	other := r.Nexus("b", 2)
	data := writeParameters(2, 150, token, blockRange{0, 10})
	r.good(other.Do(1, outCDB(actionWriteToken, 1, len(data)), data))
	r.wantCopied(0, 3050<<9, 1, 0, 10<<9)
	r.illegal(r.writeToken(1, 1, data), wire.TokenUnknown) // deleted
	if len(r.m.tokens.byID) != 0 || len(r.m.tokens.ofUnit) != 0 {
		t.Error("a deleted token is kept")
	}
	r.good(r.populate(0, 1, nil))
	r.good(r.writeToken(0, 1, nil))
}

// TestTokenIsRevoked checks WRITE USING TOKEN with a token whose data has changed (SPC-4 §5.16.6).
func TestTokenIsRevoked(t *testing.T) {
	r := newRig(t)
	token := r.token(blockRange{100, 10}, blockRange{200, 10})
	data := writeParameters(0, 0, token, blockRange{0, 20})
	r.store(0, 110<<9, make([]byte, 90<<9)) // between the ranges
	r.good(r.writeToken(1, 1, data))
	r.store(0, 209<<9, make([]byte, 512))
	r.illegal(r.writeToken(1, 1, data), wire.TokenRevoked)

	// While it is copied: what was read before the change is not written.
	token = r.token(blockRange{0, 4096})
	reading := make(chan struct{})
	r.probes[0].stopped[block.Read] = reading
	data = writeParameters(0, 0, token, blockRange{0, 4096})
	writes := r.probes[1].count(block.Write)
	p := r.n.Start(1, scsi.AttrSimple, outCDB(actionWriteToken, 2, len(data)), data)
	<-reading
	if b := r.good(r.tokenInformation(1, 2)).In; b[5] != 0x11 {
		t.Errorf("in progress: %x", b[:32])
	}
	r.illegal(r.writeToken(1, 2, data), wire.OperationInProgress)
	r.store(0, 0, make([]byte, 512))
	reading <- struct{}{}
	r.illegal(p.Wait(), wire.TokenRevoked)
	if n := r.probes[1].count(block.Write); n != writes {
		t.Errorf("%d writes", n-writes)
	}
	if b := r.good(r.tokenInformation(1, 2)).In; b[5] != 2 || b[12] != 2 || b[13] != 18 {
		t.Errorf("token information %x", b)
	}
}

// TestTokenWaitsForWrites checks that POPULATE TOKEN does not catch half of a write.
func TestTokenWaitsForWrites(t *testing.T) {
	r := newRig(t)
	var write unit.RangeGuard
	r.Units[0].Ranges.Shared(&write, 5, 1, nil)
	data := populateParameters(0, 0, blockRange{0, 10})
	p := r.n.Start(0, scsi.AttrSimple, outCDB(actionPopulateToken, 1, len(data)), data)
	for !r.Units[0].Ranges.Atomic() {
	}
	if p.Done() {
		t.Error("made while a write was under way")
	}
	r.Units[0].Ranges.Release(&write)
	r.good(p.Wait())
}

// TestTokenExpires checks WRITE USING TOKEN after the inactivity timeout (SPC-4 §5.16.6).
func TestTokenExpires(t *testing.T) {
	r := newRig(t)
	r.good(r.populate(0, 1, populateParameters(10, typePointInTime, blockRange{0, 8})))
	b := r.good(r.tokenInformation(0, 1)).In
	data := writeParameters(0, 0, b[len(b)-tokenLength:], blockRange{0, 8})
	for range 3 { // each use begins a new period
		r.clock.advance(9 * time.Second)
		r.good(r.writeToken(1, 1, data))
	}
	r.clock.advance(11 * time.Second)
	r.illegal(r.writeToken(1, 1, data), wire.TokenExpired)
	r.token(blockRange{0, 1})
	r.illegal(r.writeToken(1, 1, data), wire.TokenUnknown)
}

// TestTokenErrors checks POPULATE TOKEN and WRITE USING TOKEN, parameter list errors (SBC-3 §5.8.2, §5.49.2).
func TestTokenErrors(t *testing.T) {
	r := newRig(t)
	set := func(b []byte, at int, v byte) []byte {
		b = bytes.Clone(b)
		b[at] = v
		return b
	}
	good := populateParameters(0, 0, blockRange{0, 8})
	for name, c := range map[string]struct {
		data []byte
		code uint16
	}{
		"short":         {good[:15], wire.ParameterListLengthError},
		"data length":   {set(good, 1, 99), wire.InvalidFieldInParameterList},
		"no data":       {set(good, 1, 3), wire.InvalidFieldInParameterList},
		"type":          {populateParameters(0, 0x00010000, blockRange{0, 8}), wire.InvalidFieldInParameterList},
		"timeout":       {populateParameters(1<<31, 0, blockRange{0, 8}), wire.InvalidFieldInParameterList},
		"no ranges":     {populateParameters(0, 0), wire.InvalidFieldInParameterList},
		"ranges beyond": {set(good, 15, 32), wire.InvalidFieldInParameterList},
		"half a range":  {set(good, 15, 8), wire.InvalidFieldInParameterList},
		"too many":      {populateParameters(0, 0, make([]blockRange, maxRanges+1)...), wire.TooManySegmentDescriptors},
		"past the end":  {populateParameters(0, 0, blockRange{rigBlocks - 1, 2}), wire.LBAOutOfRange},
		"overlap":       {populateParameters(0, 0, blockRange{0, 8}, blockRange{7, 2}), wire.InvalidFieldInParameterList},
	} {
		t.Run("populate "+name, func(t *testing.T) {
			r := r.sub(t)
			r.illegal(r.populate(0, 1, c.data), c.code)
		})
	}
	token := r.token(blockRange{0, 100})
	good = writeParameters(0, 0, token, blockRange{0, 8})
	for name, c := range map[string]struct {
		data []byte
		code uint16
	}{
		"short":        {good[:535], wire.ParameterListLengthError},
		"offset":       {writeParameters(0, 101, token, blockRange{0, 1}), wire.InvalidFieldInParameterList},
		"too long":     {writeParameters(0, 93, token, blockRange{0, 8}), wire.InvalidFieldInParameterList},
		"no ranges":    {writeParameters(0, 0, token), wire.InvalidFieldInParameterList},
		"past the end": {writeParameters(0, 0, token, blockRange{rigBlocks, 1}), wire.LBAOutOfRange},
		"type":         {set(good, writeToken, 1), wire.UnsupportedTokenType},
		"length":       {set(good, writeToken+7, 1), wire.InvalidTokenLength},
		"unknown":      {set(good, writeToken+8, token[8]+1), wire.TokenUnknown},
		"corrupt":      {set(good, writeToken+128, token[128]+1), wire.TokenCorrupt},
	} {
		t.Run("write "+name, func(t *testing.T) {
			r := r.sub(t)
			r.illegal(r.writeToken(1, 1, c.data), c.code)
		})
	}
	big := newRig(t, func(c *scsitest.Config) { c.Blocks = 2 * maxTokenBytes >> 9; c.Units = 1 })
	big.illegal(big.populate(0, 1, populateParameters(0, 0, blockRange{0, maxTokenBytes>>9 + 1})), wire.InvalidFieldInParameterList)
	mixed := newRig(t, func(c *scsitest.Config) {
		c.Attributes = func(i int, a *unit.Attributes) {
			if i == 1 {
				a.BlockSize = 4096
			}
		}
	})
	mixed.illegal(mixed.writeToken(1, 1, writeParameters(0, 0, mixed.token(blockRange{0, 8}), blockRange{0, 1})), wire.InvalidTokenOperation)
}

// TestBlockZeroToken checks WRITE USING TOKEN with the block device zero ROD token (SBC-3 §4.30.4).
func TestBlockZeroToken(t *testing.T) {
	r := newRig(t)
	zero := make([]byte, tokenLength)
	binary.BigEndian.PutUint32(zero, typeBlockZero)
	r.illegal(r.writeToken(0, 1, writeParameters(0, 0, zero, blockRange{1, 9})), wire.InvalidTokenLength)
	zero[6], zero[7] = 1, 0xF8
	r.good(r.writeToken(0, 1, writeParameters(0, 0, zero, blockRange{1, 9}, blockRange{20, 3})))
	for _, z := range []blockRange{{1, 9}, {20, 3}} {
		if !bytes.Equal(r.load(0, int64(z.first)<<9, int64(z.count)<<9), make([]byte, z.count<<9)) {
			t.Errorf("blocks %v are not zero", z)
		}
	}
	if bytes.Equal(r.load(0, 10<<9, 512), make([]byte, 512)) {
		t.Error("zeroed too much")
	}
	r.probes[0].fail[block.Discard] = block.KindMedium
	r.want(r.writeToken(0, 1, writeParameters(0, 0, zero, blockRange{4, 1})), wire.KeyHardwareError, wire.WriteError)
}

// TestTokenAccess checks WRITE USING TOKEN, what stands against it (SPC-4 §5.13.3, SBC-3 §4.17).
func TestTokenAccess(t *testing.T) {
	r := newRig(t)
	token := r.token(blockRange{0, 8})
	data := writeParameters(0, 0, token, blockRange{0, 8})
	other := unit.Initiator{Name: "iqn.other", Port: 1}
	rs := &r.Units[0].Reservations
	if err := rs.Register(unit.Register{From: other, NewKey: 1}); err != nil {
		t.Fatal(err)
	}
	if err := rs.Reserve(other, 1, unit.ExclusiveAccess); err != nil {
		t.Fatal(err)
	}
	r.aborted(r.writeToken(1, 1, data), wire.ThirdPartyDeviceFailure)
	if res := r.populate(0, 1, populateParameters(0, 0, blockRange{0, 8})); res.Status != scsi.StatusReservationConflict {
		t.Errorf("source is reserved: %v", res)
	}
	if err := rs.Clear(other, 1); err != nil {
		t.Fatal(err)
	}
	r.n.SetLUNs(scsi.LUNMap{0: {LU: r.LUs[0]}, 1: {LU: r.LUs[1], ReadOnly: true}})
	r.n.Do(1, make([]byte, 6), nil) // MODE PARAMETERS CHANGED
	r.want(r.writeToken(1, 1, data), wire.KeyDataProtect, wire.WriteProtected)
	r.n.SetLUNs(r.LUNs())
	r.n.Do(1, make([]byte, 6), nil)
	r.probes[0].fail[block.Read] = block.KindIO
	r.aborted(r.writeToken(1, 1, data), wire.ThirdPartyDeviceFailure)
}

// TestTokensAreBounded checks INSUFFICIENT RESOURCES TO CREATE ROD TOKEN (SPC-4 §5.16.6).
func TestTokensAreBounded(t *testing.T) {
	r := newRig(t)
	for range maxTokensOfUnit {
		r.good(r.populate(0, 1, populateParameters(0, 0, blockRange{0, 8})))
	}
	r.illegal(r.populate(0, 1, populateParameters(0, 0, blockRange{0, 8})), insufficientTokens)
	r.good(r.populate(1, 1, populateParameters(0, 0, blockRange{0, 8})))
	r.clock.advance(defaultTimeout + time.Second)
	r.good(r.populate(0, 1, populateParameters(0, 0, blockRange{0, 8})))
	if n := len(r.m.tokens.byID); n != 1 {
		t.Errorf("%d tokens", n)
	}
	r.m.random = noRandom{}
	r.illegal(r.populate(0, 1, populateParameters(0, 0, blockRange{0, 8})), insufficientTokens)
	r.m.random = sameRandom{}
	r.good(r.populate(0, 1, populateParameters(0, 0, blockRange{0, 8})))
	r.illegal(r.populate(0, 1, populateParameters(0, 0, blockRange{0, 8})), insufficientTokens)
}

type sameRandom struct{}

func (sameRandom) Read(b []byte) (int, error) { return len(b), nil }

// TestAbortedTokenCommands checks ABORT TASK SET of POPULATE TOKEN and WRITE USING TOKEN (SAM-5 §7.3).
func TestAbortedTokenCommands(t *testing.T) {
	r := newRig(t)
	var write unit.RangeGuard
	r.Units[0].Ranges.Shared(&write, 5, 1, nil)
	data := populateParameters(0, 0, blockRange{0, 10})
	p := r.n.Start(0, scsi.AttrSimple, outCDB(actionPopulateToken, 1, len(data)), data)
	for !r.Units[0].Ranges.Atomic() {
	}
	response := make(chan scsi.Response, 1)
	go func() { response <- r.n.Manage(scsi.AbortTaskSet, 0, 0) }()
	for !p.Task.Cancelled() {
	}
	r.Units[0].Ranges.Release(&write)
	if got := <-response; got != scsi.FunctionComplete || !p.Wait().Aborted {
		t.Errorf("response %d, %v", got, p.Wait())
	}
	if b := r.good(r.tokenInformation(0, 1)).In; b[5] != 0x60 {
		t.Errorf("token information %x", b)
	}
	if len(r.m.tokens.byID) != 0 {
		t.Error("a token was made")
	}

	// A write that waits for its range does not reach the device.
	token := r.token(blockRange{0, 8})
	r.Units[1].Ranges.Exclusive(&write, 0, 100, nil)
	data = writeParameters(0, 0, token, blockRange{0, 8})
	p = r.n.Start(1, scsi.AttrSimple, outCDB(actionWriteToken, 1, len(data)), data)
	for r.probes[0].count(block.Read) == 0 {
	}
	go func() { response <- r.n.Manage(scsi.LogicalUnitReset, 1, 0) }()
	for !p.Task.Cancelled() {
	}
	r.Units[1].Ranges.Release(&write)
	if got := <-response; got != scsi.FunctionComplete || r.probes[1].count(block.Write) != 0 {
		t.Errorf("response %d, %d writes", got, r.probes[1].count(block.Write))
	}
}

func FuzzTokenLists(f *testing.F) {
	f.Add(populateParameters(0, typePointInTime, blockRange{0, 8}, blockRange{9, 1}))
	f.Add(writeParameters(2, 5, make([]byte, tokenLength), blockRange{0, 8}))
	f.Fuzz(func(t *testing.T, b []byte) {
		if p, err := parsePopulate(b, uint32(len(b))); err == nil && (len(p.ranges) == 0 || len(p.ranges) > maxRanges) {
			t.Errorf("%d ranges", len(p.ranges))
		}
		w, err := parseWriteToken(b, uint32(len(b)))
		if err == nil && (len(w.ranges) == 0 || len(w.ranges) > maxRanges || len(w.token) != tokenLength) {
			t.Errorf("%d ranges, token of %d bytes", len(w.ranges), len(w.token))
		}
	})
}
