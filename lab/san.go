package lab

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"lintel.io/lintel/internal/hostconfig"
)

// KeeperAddress is where every guest reaches its lab's keeper.
const KeeperAddress = "10.77.0.1:7001"

// pollInterval is how often a state that does not announce itself is looked at.
const pollInterval = 50 * time.Millisecond

// until calls ready again and again until it has no error, at most until the
// context ends.
func until(ctx context.Context, what string, ready func() error) error {
	for {
		err := ready()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s: %w", what, err)
		case <-time.After(pollInterval):
		}
	}
}

// IQN returns the initiator name of a guest.
func (m *Machine) IQN() string { return "iqn.2026-11.io.lintel.lab:" + m.Name }

// multipathConf is what the guests' multipath needs beside the array's stanza: their
// own disks are none of its, and tests do not wait for its usual five seconds.
const multipathConf = `defaults {
	user_friendly_names yes
	find_multipaths no
	polling_interval 2
	max_polling_interval 2
}
blacklist {
	devnode "^(ubd|loop|ram|md|dm-|nbd|drbd)"
}
`

// iscsidConf makes open-iscsi notice a dead path sooner than a host would.
const iscsidConf = `node.conn[0].timeo.noop_out_interval = 2
node.conn[0].timeo.noop_out_timeout = 2
`

// StartInitiator starts what a host of a SAN runs: iscsid and multipathd, set up as
// lintel host config says, with times that suit tests. It may be called again.
func (m *Machine) StartInitiator(ctx context.Context) error {
	for path, text := range map[string]string{
		"/etc/multipath.conf":         multipathConf,
		hostconfig.Multipath.Path:     hostconfig.Multipath.Text(),
		hostconfig.ISCSID.Path + ".d": hostconfig.ISCSID.Text() + iscsidConf,
	} {
		if err := m.WriteFile(ctx, path, strings.NewReader(text), 0o644); err != nil {
			return err
		}
	}
	_, err := m.Sh(ctx, `
		cd /etc/iscsi
		[ -e iscsid.conf.debian ] || cp iscsid.conf iscsid.conf.debian
		cat iscsid.conf.debian iscsid.conf.d >iscsid.conf
		pgrep -x iscsid >/dev/null || iscsid >/dev/null 2>&1
		pgrep -x multipathd >/dev/null || multipathd >/dev/null 2>&1
		for i in $(seq 600); do multipathd show status >/dev/null 2>&1 && exit 0; sleep 0.1; done
		multipathd show status`)
	return err
}

// Login discovers the targets behind the portals and logs in to all of them.
func (m *Machine) Login(ctx context.Context, portals ...string) error {
	for _, p := range portals {
		if _, err := m.Run(ctx, "iscsiadm", "-m", "discovery", "-t", "sendtargets", "-p", p); err != nil {
			return err
		}
	}
	for _, p := range portals {
		if _, err := m.Run(ctx, "iscsiadm", "-m", "node", "-p", p, "--login"); err != nil {
			return err
		}
	}
	_, err := m.Run(ctx, "udevadm", "settle", "-t", "60")
	return err
}

// Logout ends all sessions and forgets their targets.
func (m *Machine) Logout(ctx context.Context) error {
	_, err := m.Sh(ctx, `
		multipath -F >/dev/null 2>&1 || true
		iscsiadm -m session >/dev/null 2>&1 && iscsiadm -m node -U all >/dev/null
		iscsiadm -m node -o delete >/dev/null 2>&1 || true`)
	return err
}

// Single is a lab of one head and one host with two networks between them.
func Single() Topology {
	return Topology{
		Name:     "single",
		Networks: []string{"san-a", "san-b"},
		Guests:   []GuestSpec{{Name: "head1", Role: "head"}, {Name: "host1", Role: "host"}},
		Disks:    []DiskSpec{{Name: "data", Size: 4 * GiB, Guests: []string{"head1"}}},
	}
}

// SetUpSingle makes an array with one volume on the head of Single, and logs the host
// in to it over both networks; the volume is the host's multipath device
// /dev/mapper/mpatha.
func SetUpSingle(ctx context.Context, l *Lab) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	head, host := l.Machine("head1"), l.Machine("host1")
	var initiator error
	var wg sync.WaitGroup
	wg.Go(func() { initiator = host.StartInitiator(ctx) })
	array, err := setUpHead(ctx, head, host)
	wg.Wait()
	if err := errors.Join(err, initiator); err != nil {
		return err
	}
	if err := host.Login(ctx, array.Portals...); err != nil {
		return err
	}
	_, err = host.Multipath(ctx, 2)
	return err
}

// setUpHead puts a file system on the head's disk, and in it an array with a volume
// for the host.
func setUpHead(ctx context.Context, head, host *Machine) (*Array, error) {
	if _, err := head.Sh(ctx, "mkfs.ext4 -q /dev/lab/data && mkdir -p /data && mount /dev/lab/data /data"); err != nil {
		return nil, err
	}
	array, err := head.Serve(ctx, "/data/array", []string{"san-a", "san-b"})
	if err != nil {
		return nil, err
	}
	for _, args := range [][]string{
		{"volume", "create", "db1", "--size", "1GiB"},
		{"host", "create", host.Name, "--iqn", host.IQN()},
		{"map", "db1", host.Name, "--lun", "1"},
	} {
		if _, err := array.Lintel(ctx, args...); err != nil {
			return nil, err
		}
	}
	return array, nil
}

// Multipath waits until the host has a multipath device of a Lintel volume with the
// given number of usable paths, and returns its path.
func (m *Machine) Multipath(ctx context.Context, paths int) (string, error) {
	var device string
	err := until(ctx, fmt.Sprintf("no multipath device with %d paths on %s", paths, m.Name), func() error {
		out, err := m.Sh(ctx, `multipathd show maps raw format "%n %N" ; multipathd show paths raw format "%d %t %T"`)
		if err != nil {
			return err
		}
		lines := strings.Split(out, "\n")
		name, _, _ := strings.Cut(lines[0], " ")
		n := strings.Count(out, "active ready")
		if name == "" || n != paths {
			return fmt.Errorf("it has %d, multipathd says:\n%s", n, out)
		}
		device = "/dev/mapper/" + name
		_, err = m.Run(ctx, "test", "-b", device)
		return err
	})
	return device, err
}

// Heal ends all failures of a guest: its power is on, it is not frozen, and its links
// are whole and calm.
func (l *Lab) Heal(ctx context.Context, guest string) error {
	m := l.Machine(guest)
	status, err := l.Status(ctx)
	if err != nil {
		return err
	}
	for _, g := range status.Guests {
		if g.Name != guest {
			continue
		}
		if g.State == stateFrozen {
			if err := m.Thaw(ctx); err != nil {
				return err
			}
		}
		if err := m.PowerOn(ctx); err != nil {
			return err
		}
		for _, n := range g.Networks {
			if n.Name == Management {
				continue
			}
			if err := m.Heal(ctx, n.Name); err != nil {
				return err
			}
			if err := m.Disturb(ctx, n.Name, ""); err != nil {
				return err
			}
		}
	}
	return nil
}
