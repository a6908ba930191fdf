package block

import (
	"testing"
	"testing/synctest"
)

func TestGatePauseHoldsAndResumeSubmits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate()
		inside := &Request{}
		if g.enter(inside) != entered {
			t.Fatal("an open gate did not let a request in")
		}
		paused := false
		go func() {
			g.pause(nil)
			paused = true
		}()
		synctest.Wait()
		if paused {
			t.Fatal("pause did not wait for the request inside")
		}
		late := []*Request{{Off: 1}, {Off: 2}}
		for _, r := range late {
			if g.enter(r) != held {
				t.Fatal("a paused gate let a request in")
			}
		}
		g.leave()
		synctest.Wait()
		if !paused {
			t.Fatal("pause waits for nobody")
		}
		var got []*Request
		g.resume(func(r *Request) { got = append(got, r) })
		if len(got) != 2 || got[0] != late[0] || got[1] != late[1] {
			t.Fatalf("resume submitted %v", got)
		}
		if g.enter(inside) != entered {
			t.Fatal("a resumed gate did not let a request in")
		}
		g.leave()
		g.close()
		if g.enter(inside) != refused || !g.closed() {
			t.Fatal("a closed gate let a request in")
		}
	})
}

// A request that finds the gate shut, and then open when it asks why, is in.
func TestGateOpensWhileAsked(t *testing.T) {
	g := newGate()
	g.state.Add(1)
	if g.enterShut(&Request{}) != entered {
		t.Fatal("not let in")
	}
	g.leave()
	g.close()
}
