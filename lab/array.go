package lab

import (
	"context"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Role is a process of an array.
type Role string

// The processes of an array in a guest. On the host side an array is one process.
const (
	Target Role = "target serve" // what initiators log in to
	Agent  Role = "agent serve"  // what manages it

	whole Role = "serve"
)

// Array is an array on a machine of a lab: `lintel target serve` and `lintel agent
// serve` in a guest, `lintel serve` on the host side, so that both forms are in use.
type Array struct {
	*Machine
	Dir     string   // the data directory
	Portals []string // addresses with ports, of those that Serve was asked for

	roles []Role
}

// Program returns the path of lintel on the machine.
func (m *Machine) Program() string {
	if m.Name == HostSide {
		return path.Join(m.lab.layout.share(), "lintel")
	}
	return "/lab/lintel"
}

// Serve starts a new array on the machine, with its data in dir, that listens for iSCSI on
// port 3260 of the machine's addresses in the given networks.
func (m *Machine) Serve(ctx context.Context, dir string, networks []string) (*Array, error) {
	a := &Array{Machine: m, Dir: dir, roles: []Role{Target, Agent}}
	for _, n := range networks {
		a.Portals = append(a.Portals, m.Address(n)+":3260")
	}
	if m.Name == HostSide {
		a.roles = []Role{whole}
		return a, a.Up(ctx)
	}
	if err := a.start(ctx, a.roles); err != nil {
		return nil, err
	}
	for _, p := range a.Portals {
		// Until both processes answer it is refused, and nothing is changed.
		err := until(ctx, "no portal "+p+" on "+a.Name, func() error {
			_, err := a.Lintel(ctx, "portal", "add", p)
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	return a, a.ready(ctx, a.roles)
}

// Up starts the given roles of the array, without any all of them, which do not run, and
// waits until they answer.
func (a *Array) Up(ctx context.Context, roles ...Role) error {
	roles = a.named(roles)
	if err := a.start(ctx, roles); err != nil {
		return err
	}
	return a.ready(ctx, roles)
}

// Kill ends the given roles of the array, without any all of them, as SIGKILL does and
// waits for their end.
func (a *Array) Kill(ctx context.Context, roles ...Role) error {
	return a.end(ctx, unix.SIGKILL, a.named(roles))
}

// Stop ends the given roles of the array, without any all of them, in good order and
// waits for their end.
func (a *Array) Stop(ctx context.Context, roles ...Role) error {
	return a.end(ctx, unix.SIGTERM, a.named(roles))
}

func (a *Array) named(roles []Role) []Role {
	if len(roles) == 0 {
		return a.roles
	}
	return roles
}

// process is the name of a role's process for the machine's agent.
func (a *Array) process(r Role) string {
	return strings.NewReplacer(" ", "-", "/", "-").Replace(string(r) + path.Clean(a.Dir))
}

func (a *Array) start(ctx context.Context, roles []Role) error {
	for _, r := range roles {
		argv := append([]string{a.Program()}, strings.Fields(string(r))...)
		argv = append(argv, "--data-dir", a.Dir)
		if r == whole {
			for _, p := range a.Portals {
				argv = append(argv, "--portal", p)
			}
		}
		if err := a.Start(ctx, a.process(r), argv...); err != nil {
			return err
		}
	}
	return nil
}

// ready waits until the roles answer: a target on its portals, an agent to a command.
func (a *Array) ready(ctx context.Context, roles []Role) error {
	return until(ctx, "the array on "+a.Name+" does not answer", func() error {
		if !slices.Equal(roles, []Role{Agent}) {
			for _, p := range a.Portals {
				if _, err := a.Run(ctx, "bash", "-c", "exec 3<>/dev/tcp/"+strings.ReplaceAll(p, ":", "/")); err != nil {
					return err
				}
			}
		}
		if slices.Equal(roles, []Role{Target}) {
			return nil
		}
		_, err := a.Lintel(ctx, "target", "show")
		return err
	})
}

func (a *Array) end(ctx context.Context, signal unix.Signal, roles []Role) error {
	for _, r := range roles {
		if err := a.Signal(ctx, a.process(r), signal); err != nil {
			return err
		}
	}
	for _, r := range roles {
		if _, err := a.Wait(ctx, a.process(r)); err != nil {
			return err
		}
	}
	return nil
}

// Lintel runs a command of the array's command line and returns what it printed.
func (a *Array) Lintel(ctx context.Context, args ...string) (string, error) {
	r, err := a.Run(ctx, append([]string{a.Program(), "--data-dir", a.Dir}, args...)...)
	return r.Stdout, err
}

// ServeLog returns what the array's processes have logged, one after the other.
func (a *Array) ServeLog(ctx context.Context) (string, error) {
	var log strings.Builder
	for _, r := range a.roles {
		s, err := a.Process(ctx, a.process(r))
		if err != nil {
			return log.String(), err
		}
		text, err := a.ReadFile(ctx, s.Log)
		if err != nil {
			return log.String(), err
		}
		log.Write(text)
	}
	return log.String(), nil
}
