package lab

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/BurntSushi/toml"
)

// Management is the network that every guest has first: the lab's own commands
// go through it, so it is never cut or disturbed.
const Management = "mgmt"

// Limits of a topology.
const (
	maxGuests   = 32
	maxNetworks = 8
	maxDisks    = 7 // ubd has eight devices, the first is the root file system
)

// Topology says what a lab consists of.
type Topology struct {
	// Name is part of the lab's own name; empty stands for "lab".
	Name string `toml:"name" json:"name"`
	// Networks are the networks beside the management network, in order:
	// network number n, from 1, has the addresses 10.77.n.0/24 and
	// fd77:0:0:n::/64, of which 1 is the host side's and 11 the first guest's.
	Networks []string `toml:"networks" json:"networks"`
	// Guests are the machines of the lab, at least one.
	Guests []GuestSpec `toml:"guest" json:"guests"`
	// Disks are what the guests have beside their root file system.
	Disks []DiskSpec `toml:"disk" json:"disks"`
}

// GuestSpec describes a guest.
type GuestSpec struct {
	// Name is the host name, 1 to 15 of a-z, 0-9 and -.
	Name string `toml:"name" json:"name"`
	// Role is what the guest is for, such as "head" or "host"; the lab only shows it.
	Role string `toml:"role" json:"role"`
	// Memory of the guest; 0 stands for 512 MiB.
	Memory Size `toml:"memory" json:"memory"`
	// CPU is the processor that the guest is pinned to; nil lets the lab
	// choose. A guest that wanders between processors is five times slower.
	CPU *int `toml:"cpu" json:"cpu,omitempty"`
	// Networks that the guest is in; nil stands for all.
	Networks []string `toml:"networks" json:"networks,omitempty"`
	// Off leaves the guest without power until it is switched on.
	Off bool `toml:"off" json:"off,omitempty"`
}

// DiskSpec describes a disk, which is a sparse file of the host side.
type DiskSpec struct {
	// Name of the disk: in its guests it is /dev/lab/NAME.
	Name string `toml:"name" json:"name"`
	// Size in bytes.
	Size Size `toml:"size" json:"size"`
	// Guests that have the disk; more than one share it.
	Guests []string `toml:"guests" json:"guests"`
}

// Size is a number of bytes that is written as "512MiB" in files.
type Size int64

// Units of Size.
const (
	MiB Size = 1 << 20
	GiB Size = 1 << 30
)

// String returns the size in the largest unit that divides it.
func (s Size) String() string {
	switch {
	case s != 0 && s%GiB == 0:
		return fmt.Sprintf("%dGiB", s/GiB)
	case s%MiB == 0:
		return fmt.Sprintf("%dMiB", s/MiB)
	}
	return fmt.Sprintf("%dB", int64(s))
}

// MarshalText writes the size as String does.
func (s Size) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText reads a size in MiB or GiB.
func (s *Size) UnmarshalText(text []byte) error {
	for suffix, unit := range map[string]Size{"B": 1, "MiB": MiB, "GiB": GiB} {
		digits, ok := strings.CutSuffix(string(text), suffix)
		if !ok {
			continue
		}
		n, err := strconv.ParseInt(strings.TrimSpace(digits), 10, 33)
		if err != nil || n < 0 {
			continue
		}
		*s = Size(n) * unit
		return nil
	}
	return fmt.Errorf("size %q: write a number with MiB or GiB", text)
}

// LoadTopology reads a topology from a TOML file. It refuses keys that it does
// not know.
func LoadTopology(path string) (Topology, error) {
	var t Topology
	meta, err := toml.DecodeFile(path, &t)
	if err != nil {
		return t, fmt.Errorf("read topology: %w", err)
	}
	if unknown := meta.Undecoded(); len(unknown) > 0 {
		return t, fmt.Errorf("%s: unknown key %q", path, unknown[0])
	}
	return t, t.Validate()
}

var (
	guestName = regexp.MustCompile(`^[a-z][a-z0-9-]{0,14}$`)
	labName   = regexp.MustCompile(`^[a-z][a-z0-9-]{0,22}$`)
)

// HostSide is the name by which the machine that runs the lab is called among
// its machines.
const HostSide = "lab"

// Validate checks the topology and fills in its defaults.
func (t *Topology) Validate() error {
	if t.Name == "" {
		t.Name = "lab"
	}
	if !labName.MatchString(t.Name) {
		return fmt.Errorf("lab name %q: use up to 23 of a-z, 0-9 and -, a letter first", t.Name)
	}
	if len(t.Guests) == 0 || len(t.Guests) > maxGuests {
		return fmt.Errorf("a lab has 1 to %d guests, not %d", maxGuests, len(t.Guests))
	}
	if err := t.validateNetworks(); err != nil {
		return err
	}
	for i := range t.Guests {
		if err := t.validateGuest(i); err != nil {
			return err
		}
	}
	return t.validateDisks()
}

func (t *Topology) validateNetworks() error {
	if len(t.Networks) > maxNetworks {
		return fmt.Errorf("a lab has at most %d networks beside %s", maxNetworks, Management)
	}
	seen := map[string]bool{Management: true}
	for _, n := range t.Networks {
		if !guestName.MatchString(n) {
			return fmt.Errorf("network name %q: use up to 15 of a-z, 0-9 and -, a letter first", n)
		}
		if seen[n] {
			return fmt.Errorf("network %s is there twice (%s always is)", n, Management)
		}
		seen[n] = true
	}
	return nil
}

func (t *Topology) validateGuest(i int) error {
	g := &t.Guests[i]
	if !guestName.MatchString(g.Name) || g.Name == HostSide {
		return fmt.Errorf("guest name %q: use up to 15 of a-z, 0-9 and -, a letter first, and not %s", g.Name, HostSide)
	}
	if slices.ContainsFunc(t.Guests[:i], func(o GuestSpec) bool { return o.Name == g.Name }) {
		return fmt.Errorf("guest %s is there twice", g.Name)
	}
	if g.Memory == 0 {
		g.Memory = 512 * MiB
	}
	if g.Memory < 128*MiB {
		return fmt.Errorf("guest %s: %s of memory are too few, the least is 128MiB", g.Name, g.Memory)
	}
	if g.Networks == nil {
		g.Networks = slices.Clone(t.Networks)
	}
	for _, n := range g.Networks {
		if !slices.Contains(t.Networks, n) {
			return fmt.Errorf("guest %s: the lab has no network %q", g.Name, n)
		}
	}
	return nil
}

func (t *Topology) validateDisks() error {
	count := map[string]int{}
	seen := map[string]bool{}
	for _, d := range t.Disks {
		switch {
		case !guestName.MatchString(d.Name):
			return fmt.Errorf("disk name %q: use up to 15 of a-z, 0-9 and -, a letter first", d.Name)
		case seen[d.Name]:
			return fmt.Errorf("disk %s is there twice", d.Name)
		case d.Size < MiB:
			return fmt.Errorf("disk %s needs a size of 1MiB or more", d.Name)
		}
		seen[d.Name] = true
		for _, g := range d.Guests {
			if !slices.ContainsFunc(t.Guests, func(s GuestSpec) bool { return s.Name == g }) {
				return fmt.Errorf("disk %s: the lab has no guest %q", d.Name, g)
			}
			if count[g]++; count[g] > maxDisks {
				return errors.New("guest " + g + " has more disks than the seven it can have")
			}
		}
	}
	return nil
}
