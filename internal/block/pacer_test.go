package block

import "testing"

func TestPacer(t *testing.T) {
	var p pacer
	now := int64(0)
	call := func(took int64, times int) {
		for range times {
			p.begin(now)
			p.note(now, now+took)
			now += took
		}
	}
	call(1000, 1000)
	call(2*slowCall, 1)
	if !p.inline(now) {
		t.Error("one slow call among many sent the next to the workers")
	}
	call(1000, slowWithin)
	call(2*slowCall, 1)
	if !p.inline(now) {
		t.Error("rare slow calls sent the next to the workers")
	}
	call(1000, slowWithin-1)
	call(2*slowCall, 1)
	if p.inline(now) || p.inline(now+slowFor-1) || !p.inline(now+slowFor) {
		t.Error("frequent slow calls did not leave slowFor to the workers")
	}
	now += slowFor
	call(1000, 1000)
	call(stuckCall, 1)
	if p.inline(now) || !p.inline(now+slowFor) {
		t.Error("one very slow call did not leave slowFor to the workers")
	}
	now += slowFor
	p.begin(now)
	p.begin(now + slowCall/2)
	if !p.inline(now+slowCall) || p.inline(now+slowCall+1) {
		t.Error("calls that do not come back did not send the next to the workers")
	}
	p.note(now+slowCall/2, now+slowCall)
	if !p.inline(now + 2*slowCall) {
		t.Error("of two calls one came back, and the next went to the workers")
	}
	p.note(now, now+2*slowCall)
	if !p.inline(now + 2*slowCall + slowFor) {
		t.Error("when all had come back, the next went to the workers")
	}
}
