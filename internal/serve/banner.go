package serve

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	lintelv1 "lintel.io/lintel/api/lintel/v1"
)

// running is what an array that runs tells whoever has started it.
type running struct {
	name    string
	iqn     string
	nqn     string
	version string
	dataDir string
	demo    bool
	endpoints

	iscsi, nvme, discovery portals
}

// endpoints are where a manager answers.
type endpoints struct {
	api     []string
	metrics string
}

func (e endpoints) print(w io.Writer) {
	for _, a := range e.api {
		printLine(w, "api", a)
	}
	if e.metrics != "" {
		printLine(w, "metrics", "http://"+e.metrics+"/metrics")
	}
}

func printLine(w io.Writer, what, value string) { fmt.Fprintf(w, "  %-8s %s\n", what, value) }

// portals are those of one protocol.
type portals struct {
	listening []string
	broken    []string // with the reason
}

func (p portals) all() []string { return slices.Concat(p.listening, p.broken) }

// print says where the array listens and what to do next.
func (r running) print(w io.Writer) {
	var b strings.Builder
	fmt.Fprintf(&b, "lintel %s serves array %s\n\n", r.version, r.name)
	line := func(what, value string) { printLine(&b, what, value) }
	line("target", r.iqn)
	for _, p := range r.iscsi.all() {
		line("portal", p)
	}
	if nvme := r.nvme.all(); len(nvme) > 0 {
		line("nqn", r.nqn)
		for _, p := range nvme {
			line("nvme", p)
		}
	}
	for _, p := range r.discovery.all() {
		line("discover", p)
	}
	r.endpoints.print(&b)
	line("data", r.dataDir)

	if len(r.iscsi.listening)+len(r.nvme.listening) > 0 {
		b.WriteString("\nConnect:\n")
	}
	if len(r.iscsi.listening) > 0 {
		portal := reachable(r.iscsi.listening[0])
		fmt.Fprintf(&b, "  iscsi-ls -s iscsi://%s\n", portal)
		fmt.Fprintf(&b, "  sudo iscsiadm -m discovery -t sendtargets -p %s && sudo iscsiadm -m node -T %s -p %s --login\n", portal, r.iqn, portal)
		if r.demo {
			fmt.Fprintf(&b, "  qemu-img info iscsi://%s/%s/0\n", portal, r.iqn)
		}
	}
	if len(r.nvme.listening) > 0 {
		if host, port, err := net.SplitHostPort(reachable(r.nvme.listening[0])); err == nil {
			fmt.Fprintf(&b, "  sudo nvme connect-all -t tcp -a %s -s %s\n", host, port)
		}
	}
	b.WriteString(manageText(r.dataDir))
	_, _ = io.WriteString(w, b.String()) // nobody may be there to read it
}

// manageText says how to manage the array in a data directory.
func manageText(dataDir string) string {
	return strings.ReplaceAll(`
Manage:
  lintel volume create db1 --size 10GiB
  lintel host create esx1 --iqn iqn.1998-01.com.vmware:esx1
  lintel map db1 esx1

`, "  lintel ", "  lintel --data-dir "+quote(dataDir)+" ")
}

func portalAddress(p *lintelv1.Portal) string {
	return net.JoinHostPort(p.GetSpec().GetAddress(), strconv.Itoa(int(p.GetSpec().GetPort())))
}

// reachable is the address to connect to for one that is listened on.
func reachable(listening string) string {
	ap, err := netip.ParseAddrPort(listening)
	if err != nil || !ap.Addr().IsUnspecified() {
		return listening
	}
	local := netip.AddrFrom4([4]byte{127, 0, 0, 1})
	if ap.Addr().Is6() {
		local = netip.IPv6Loopback()
	}
	return netip.AddrPortFrom(local, ap.Port()).String()
}

// quote makes a path one word of a shell.
func quote(path string) string {
	for _, r := range path {
		if !strings.ContainsRune("/._-+:@", r) && (r < '0' || r > '9') && (r < 'A' || r > 'Z') && (r < 'a' || r > 'z') {
			return "'" + strings.ReplaceAll(path, "'", `'\''`) + "'"
		}
	}
	return path
}
