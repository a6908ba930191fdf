package lab

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
)

// Direction is which way of a link is meant, seen from the guest.
type Direction string

// The directions of a link.
const (
	Both Direction = "both"
	In   Direction = "in"  // what the guest receives
	Out  Direction = "out" // what the guest sends
)

// networkCommands is the input of "ip -batch" that makes the lab's networks: a
// bridge each, with the host side's address, and a tap for every guest in it.
func (t *Topology) networkCommands() string {
	var b strings.Builder
	fmt.Fprintln(&b, "link set lo up")
	for _, n := range append([]string{Management}, t.Networks...) {
		br := t.bridge(n)
		fmt.Fprintf(&b, "link add %s type bridge forward_delay 0 mcast_snooping 0\n", br)
		fmt.Fprintf(&b, "addr add %s/24 dev %s\n", t.Address(HostSide, n), br)
		fmt.Fprintf(&b, "addr add %s/64 dev %s nodad\n", t.Address6(HostSide, n), br)
		fmt.Fprintf(&b, "link set %s up\n", br)
	}
	for _, g := range t.Guests {
		for _, n := range g.allNetworks() {
			tap := t.tap(g.Name, n)
			fmt.Fprintf(&b, "tuntap add dev %s mode tap\n", tap)
			fmt.Fprintf(&b, "link set %s txqueuelen 5000 master %s up\n", tap, t.bridge(n))
		}
	}
	return b.String()
}

// makeNetworks makes the networks in the namespace of this process.
func makeNetworks(ctx context.Context, t *Topology) error {
	// Addresses are usable at once: nobody else can have them.
	if err := os.WriteFile("/proc/sys/net/ipv6/conf/default/accept_dad", []byte("0"), 0o644); err != nil && !os.IsNotExist(err) {
		return fmt.Errorf("set up networks: %w", err)
	}
	return tool(ctx, t.networkCommands(), "ip", "-batch", "-")
}

// tool runs a program of iproute2.
func tool(ctx context.Context, stdin string, argv ...string) error {
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	cmd.Stdin = strings.NewReader(stdin)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", strings.Join(argv, " "), err, bytes.TrimSpace(out))
	}
	return nil
}

// linkOptions are the settings of a bridge's port that open or cut the ways of a
// link. Setting the tap itself down would leave the guest's interface dead for good.
//
// A port without flooding and without an entry in the forwarding table gets no
// frames; a locked port without an entry takes none.
func linkOptions(inCut, outCut bool) []string {
	onOff := func(on bool) string {
		if on {
			return "on"
		}
		return "off"
	}
	options := []string{"state", "3"}
	if inCut && outCut {
		options[1] = "0"
	}
	return append(options,
		"flood", onOff(!inCut), "mcast_flood", onOff(!inCut), "bcast_flood", onOff(!inCut),
		"locked", onOff(outCut), "learning", onOff(!inCut && !outCut))
}

// setLink cuts or heals a link of a guest.
func setLink(ctx context.Context, t *Topology, guest, network string, inCut, outCut bool) error {
	tap := t.tap(guest, network)
	if err := tool(ctx, "", append([]string{"bridge", "link", "set", "dev", tap}, linkOptions(inCut, outCut)...)...); err != nil {
		return err
	}
	// What the bridge has learnt of the guest would still let frames through.
	return tool(ctx, "", "ip", "link", "set", tap, "type", "bridge_slave", "fdb_flush")
}
