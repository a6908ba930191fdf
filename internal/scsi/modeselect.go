package scsi

import (
	"bytes"

	"lintel.io/lintel/internal/block"
	wire "lintel.io/lintel/internal/wire/scsi"
)

// modeSelect6 runs MODE SELECT(6) (SPC-4 §6.9).
func modeSelect6(t *Task) { t.modeSelect(4, int(t.CDB[4])) }

// modeSelect10 runs MODE SELECT(10) (SPC-4 §6.10).
func modeSelect10(t *Task) { t.modeSelect(8, int(wire.Uint16(t.CDB[7:]))) }

// modeSelect checks the whole parameter list before it changes anything.
func (t *Task) modeSelect(header, length int) {
	list := t.DataOut
	if length == 0 {
		t.Finish(StatusGood)
		return
	}
	if t.CDB[1]&0x10 == 0 { // PF
		t.FailField(false, 1, 4)
		return
	}
	if len(list) < length || length < header {
		t.fail(wire.KeyIllegalRequest, wire.ParameterListLengthError)
		return
	}
	list = list[:length]
	start, ok := t.modeHeader(list, header)
	if !ok {
		return
	}
	var pages modeChange
	for at := start; at < len(list); {
		n, ok := t.modePage(list, at, &pages)
		if !ok {
			return
		}
		at += n
	}
	save := t.CDB[1]&0x01 != 0
	if old := t.LU.modeCurrent(); pages.apply(old) == old && !save {
		t.Finish(StatusGood)
		return
	}
	go t.changeModes(pages, save)
}

// modeChange are the mode pages that a command gives new values to.
type modeChange []givenPage

// givenPage is a mode page with the data that a command gives it.
type givenPage struct {
	page *modePage
	data []byte
}

// apply returns the values with those of the pages.
func (c modeChange) apply(v modeValues) modeValues {
	for _, p := range c {
		p.page.read(p.data, &v)
	}
	return v
}

// modeHeader checks the mode parameter header and block descriptor, and returns
// where the pages begin. Where it returns false the task has ended.
func (t *Task) modeHeader(list []byte, header int) (start int, ok bool) {
	long, descriptor, at := false, int(list[3]), 3
	medium := 1
	if header == 8 {
		long, descriptor, at = list[4]&1 != 0, int(wire.Uint16(list[6:])), 6
		medium = 2
	}
	if list[medium] != 0 {
		t.FailField(true, medium, -1)
		return 0, false
	}
	if descriptor == 0 {
		return header, true
	}
	current := t.LU.blockDescriptor(long)
	if descriptor != len(current) {
		t.FailField(true, at, -1)
		return 0, false
	}
	start = header + descriptor
	if len(list) < start {
		t.fail(wire.KeyIllegalRequest, wire.ParameterListLengthError)
		return 0, false
	}
	got := list[header:start]
	count := len(current) / 2 // of the bytes that give the number of blocks
	same := bytes.Equal(got[count:], current[count:])
	blocks := got[:count]
	keep := isAll(blocks, 0) || isAll(blocks, 0xFF) || bytes.Equal(blocks, current[:count])
	if !same || !keep {
		t.FailField(true, header, -1)
		return 0, false
	}
	return start, true
}

func isAll(b []byte, v byte) bool {
	for _, x := range b {
		if x != v {
			return false
		}
	}
	return true
}

// modePage checks the page at an offset of the list, adds it to pages and
// returns its length. Where it returns false the task has ended.
func (t *Task) modePage(list []byte, at int, pages *modeChange) (length int, ok bool) {
	b := list[at:]
	if len(b) < 2 {
		t.fail(wire.KeyIllegalRequest, wire.ParameterListLengthError)
		return 0, false
	}
	subpage := byte(0)
	if b[0]&0x40 != 0 {
		subpage = b[1]
		if len(b) < 4 || subpage == 0 {
			t.FailField(true, at+1, -1)
			return 0, false
		}
	}
	p := t.LU.modePage(b[0]&0x3F, subpage)
	if p == nil {
		t.FailField(true, at, 5)
		return 0, false
	}
	current := p.render(t.LU, t.LU.modeCurrent())
	header := 2
	if subpage != 0 {
		header = 4
	}
	if !bytes.Equal(b[1:header], current[1:header]) {
		t.FailField(true, at+1, -1)
		return 0, false
	}
	if len(b) < len(current) {
		t.fail(wire.KeyIllegalRequest, wire.ParameterListLengthError)
		return 0, false
	}
	for i := header; i < len(current); i++ {
		mask := byte(0)
		if p.mask != nil {
			mask = p.mask[i]
		}
		if diff := (b[i] ^ current[i]) &^ mask; diff != 0 {
			t.FailField(true, at+i, highBit(diff))
			return 0, false
		}
	}
	if p.read != nil {
		*pages = append(*pages, givenPage{p, b})
	}
	return len(current), true
}

func highBit(b byte) int {
	bit := 7
	for ; bit > 0 && b&(1<<bit) == 0; bit-- {
	}
	return bit
}

// changeModes makes the pages' values current, tells the other initiators, and where
// the write cache was switched off ends the task after what it held is stable.
func (t *Task) changeModes(pages modeChange, save bool) {
	old, v, err := t.LU.changeModes(pages, save)
	if err != nil {
		t.fail(wire.KeyHardwareError, wire.InternalTargetFailure)
		return
	}
	if v != old {
		t.LU.modesChanged(t.path)
	}
	if old.WriteThrough || !v.WriteThrough {
		t.Finish(StatusGood)
		return
	}
	t.Step = func(t *Task) {
		if t.Req.Err != nil {
			t.FailIO(t.Req.Err)
			return
		}
		t.Finish(StatusGood)
	}
	t.Req = block.Request{Op: block.Flush, Done: t}
	t.LU.unit.Device().Submit(&t.Req)
}

// modesChanged tells all initiators but one that mode parameters have changed.
func (lu *LogicalUnit) modesChanged(by *path) {
	for _, p := range lu.listPaths() {
		if p == by {
			p.dropAttention(wire.ModeParametersChanged) // the unit told everybody
			continue
		}
		p.attend(wire.ModeParametersChanged)
	}
}
