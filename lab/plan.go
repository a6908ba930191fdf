package lab

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
)

// agentPort is where the agent of a guest listens on the management network, and
// keeperPort where the lab's keeper does on its host side.
const (
	agentPort  = 7000
	keeperPort = 7001
)

// networkIndex returns the number of a network, the management network's is 0, or
// -1 for one that the lab does not have.
func (t *Topology) networkIndex(name string) int {
	if name == Management {
		return 0
	}
	if i := slices.Index(t.Networks, name); i >= 0 {
		return i + 1
	}
	return -1
}

// guestIndex returns the place of a guest in the topology, or -1.
func (t *Topology) guestIndex(name string) int {
	return slices.IndexFunc(t.Guests, func(g GuestSpec) bool { return g.Name == name })
}

// hostPart is the last part of the addresses of a machine: guests are 11 and
// up, the host side is 1.
func (t *Topology) hostPart(machine string) int {
	if machine == HostSide {
		return 1
	}
	return 11 + t.guestIndex(machine)
}

// Address returns the IPv4 address of a machine in a network. Both must exist.
func (t *Topology) Address(machine, network string) string {
	return fmt.Sprintf("10.77.%d.%d", t.networkIndex(network), t.hostPart(machine))
}

// Address6 returns the IPv6 address of a machine in a network. Both must exist.
func (t *Topology) Address6(machine, network string) string {
	return fmt.Sprintf("fd77:0:0:%d::%d", t.networkIndex(network), t.hostPart(machine))
}

// allNetworks returns the networks of a guest, the management network first.
func (g *GuestSpec) allNetworks() []string {
	return append([]string{Management}, g.Networks...)
}

// tap is the name of the host side of a guest's network interface.
func (t *Topology) tap(guest, network string) string {
	return fmt.Sprintf("g%dn%d", t.guestIndex(guest), t.networkIndex(network))
}

// bridge is the name of the bridge that is a network.
func (t *Topology) bridge(network string) string {
	return fmt.Sprintf("net%d", t.networkIndex(network))
}

// guestDisks returns the disks of a guest; the first one is its second ubd device.
func (t *Topology) guestDisks(guest string) []DiskSpec {
	var out []DiskSpec
	for _, d := range t.Disks {
		if slices.Contains(d.Guests, guest) {
			out = append(out, d)
		}
	}
	return out
}

// hosts is the /etc/hosts of every guest: a machine's plain name is its
// management address, and NAME.NETWORK the one in that network.
func (t *Topology) hosts() string {
	var b strings.Builder
	fmt.Fprintln(&b, "127.0.0.1 localhost\n::1 localhost")
	fmt.Fprintf(&b, "%s %s\n", t.Address(HostSide, Management), HostSide)
	for _, n := range t.Networks {
		fmt.Fprintf(&b, "%s %s.%s\n%s %[2]s.%[3]s\n", t.Address(HostSide, n), HostSide, n, t.Address6(HostSide, n))
	}
	for _, g := range t.Guests {
		fmt.Fprintf(&b, "%s %s\n", t.Address(g.Name, Management), g.Name)
		for _, n := range g.Networks {
			fmt.Fprintf(&b, "%s %s.%s\n%s %[2]s.%[3]s\n", t.Address(g.Name, n), g.Name, n, t.Address6(g.Name, n))
		}
	}
	return b.String()
}

// layout is where the files of a lab are.
type layout struct{ dir string }

func (l layout) path(parts ...string) string {
	return filepath.Join(append([]string{l.dir}, parts...)...)
}
func (l layout) lock() string                { return l.path("lock") }
func (l layout) startMark() string           { return l.path("starting") }
func (l layout) topology() string            { return l.path("lab.json") }
func (l layout) control() string             { return l.path("control") }
func (l layout) dial() string                { return l.path("dial") }
func (l layout) share() string               { return l.path("share") }
func (l layout) uml() string                 { return l.path("uml") }
func (l layout) memory() string              { return l.path("memory") }
func (l layout) log(machine string) string   { return l.path("log", machine+".log") }
func (l layout) root(guest string) string    { return l.path("disk", guest+".root") }
func (l layout) disk(name string) string     { return l.path("disk", name+".img") }
func (l layout) console(guest string) string { return l.path("uml", guest, "mconsole") }

// kernelArguments returns the command line of a guest's kernel. Blanks separate
// arguments in the guest, so none has one.
func (t *Topology) kernelArguments(l layout, images Images, guest string) []string {
	g := &t.Guests[t.guestIndex(guest)]
	args := []string{
		fmt.Sprintf("mem=%dM", g.Memory/MiB),
		"umid=" + g.Name, "uml_dir=" + l.uml(),
		"ubd0=" + l.root(g.Name) + "," + images.Root, "root=/dev/ubda", "rw",
		"hostfs=" + l.share(), "init=/sbin/lab-init",
		"con=null", "con0=null,fd:1", "con1=null", "ssl=null", "pty.legacy_count=0",
		// Without these a guest under load can lose its clock tick for good.
		"highres=off", "nohz=off",
		// Built in, these make disks by themselves unless told not to.
		"scsi_debug.add_host=0", "null_blk.nr_devices=0", "nbd.nbds_max=0",
		"quiet", "printk.time=1", "panic=-1",
	}
	var disks, nets []string
	for i, d := range t.guestDisks(g.Name) {
		args = append(args, ubdArgument(l, d, i+1))
		disks = append(disks, ubdDevice(i+1)+":"+d.Name)
	}
	for i, n := range g.allNetworks() {
		args = append(args, fmt.Sprintf("vec%d:transport=tap,ifname=%s,depth=128,gro=1,mac=02:4c:4e:00:%02x:%02x",
			i, t.tap(g.Name, n), t.networkIndex(n), t.hostPart(g.Name)))
		nets = append(nets, fmt.Sprintf("vec%d=%s=%s/24=%s/64", i, n, t.Address(g.Name, n), t.Address6(g.Name, n)))
	}
	return append(args, "lab.name="+g.Name, "lab.net="+strings.Join(nets, ","), "lab.disks="+strings.Join(disks, ","),
		fmt.Sprintf("lab.agent=%s:%d", t.Address(g.Name, Management), agentPort),
		fmt.Sprintf("lab.keeper=%s:%d", t.Address(HostSide, Management), keeperPort))
}

// ubdDevice is the guest's name of its n-th disk, the root file system being 0.
func ubdDevice(n int) string { return "ubd" + string(rune('a'+n)) }

// ubdArgument attaches a disk as the n-th: raw, shared between guests where more
// than one has it, with its name as the serial number.
func ubdArgument(l layout, d DiskSpec, n int) string {
	flags := "d"
	if len(d.Guests) > 1 {
		flags = "cd"
	}
	return fmt.Sprintf("ubd%d%s=%s,,%s", n, flags, l.disk(d.Name), d.Name)
}
