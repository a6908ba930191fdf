package harness

import (
	"context"
	"testing"

	"lintel.io/lintel/internal/serve"
)

// Apart is an array whose target and agent are two processes.
type Apart struct {
	*Array // without its own process
	Target *Process
	Agent  *Process
}

// ServeApart starts target and agent of a new array with the given number of portals on free
// loopback ports and stops them when the test ends.
func ServeApart(t testing.TB, portals int) *Apart {
	t.Helper()
	a := &Apart{Array: newArray(t, portals, nil)}
	role := func(name string, ready func() bool) *Process {
		return newProcess(t, "lintel "+name+" serve", []string{a.Bin, name, "serve", "--data-dir", a.Dir}, ready)
	}
	a.Target = role("target", a.controlled)
	a.Agent = role("agent", a.manages)
	a.Target.Start()
	a.Agent.Start()
	for _, p := range a.Portals {
		a.Run("portal", "add", p)
	}
	a.Target.ready = func() bool { return a.listens() && a.controlled() }
	return a
}

// controlled reports whether the target takes the agent's calls.
func (a *Apart) controlled() bool {
	c, err := serve.DialUnix(context.Background(), serve.ControlPath(a.Dir))
	if err != nil {
		return false
	}
	c.Close()
	return true
}
