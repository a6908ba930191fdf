package nvme_test

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"lintel.io/lintel/internal/block"
	"lintel.io/lintel/internal/initiator/nvme"
	"lintel.io/lintel/internal/initiator/nvme/nvmetest"
	controller "lintel.io/lintel/internal/nvme"
	"lintel.io/lintel/internal/nvme/dhchap"
	wire "lintel.io/lintel/internal/wire/nvme"
)

// These tests hold Lintel's own controller and transport to the protocol, with a host
// that ends a queue for whatever is wrong.

func serve(t *testing.T, grant controller.Grant) *nvmetest.Server {
	t.Helper()
	s, err := nvmetest.Start(grant, block.NewMem(64<<20), block.NewNull(1<<40))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func dial(t *testing.T, s *nvmetest.Server, change func(*nvme.Options)) *nvme.Controller {
	t.Helper()
	o := nvme.Options{Subsystem: nvmetest.NQN, IOQueues: 2, Depth: 64, KeepAlive: 5 * time.Second}
	if change != nil {
		change(&o)
	}
	c, err := nvme.Dial(t.Context(), s.Address(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// TestLintelData checks all ways of data through Lintel's transport (NVMe/TCP 1.0 §3.3.2).
func TestLintelData(t *testing.T) {
	s := serve(t, controller.Grant{})
	for i := range 16 {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			c := dial(t, s, func(o *nvme.Options) {
				o.HeaderDigest, o.DataDigest, o.FlowControl = i&1 != 0, i&2 != 0, i&4 != 0
				if i&8 != 0 {
					o.Align, o.MaxR2T = 31, 4
				}
			})
			q := c.Queues()[1]
			for _, n := range []int{512, 4096, 8192, 8704, 65536, 1 << 20} {
				want := pattern(n)
				if err := q.Write(t.Context(), 1, 3, 512, want, nvme.FUA); err != nil {
					t.Fatal(err)
				}
				got := make([]byte, n)
				if err := q.Read(t.Context(), 1, 3, 512, got); err != nil {
					t.Fatal(err)
				}
				if !bytes.Equal(got, want) {
					t.Fatalf("%d bytes came back changed", n)
				}
				if err := q.Compare(t.Context(), 1, 3, 512, want); err != nil {
					t.Fatal(err)
				}
				want[n-1]++
				if err := q.Compare(t.Context(), 1, 3, 512, want); nvme.StatusOf(err) != wire.CompareFailure {
					t.Fatal(err)
				}
			}
			if err := c.Shutdown(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestLintelCommands checks every command helper against Lintel's controller.
func TestLintelCommands(t *testing.T) {
	s := serve(t, controller.Grant{})
	c := dial(t, s, nil)
	q := c.Queues()[0]
	ctx := t.Context()
	must := func(what string, err error) {
		t.Helper()
		if err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	if list, err := c.ActiveNamespaces(ctx, 0); err != nil || !slices.Equal(list, []uint32{1, 2}) {
		t.Error(list, err)
	}
	if n, err := c.IdentifyNamespace(ctx, 1); err != nil || n.Blocks != 64<<20/512 || n.BlockSize != 512 || n.NGUID == [16]byte{} {
		t.Errorf("%+v, %v", n.NGUID, err)
	}
	if d, err := c.Descriptors(ctx, 1); err != nil || len(d) < 2 {
		t.Error(d, err)
	}
	if v, err := c.Feature(ctx, wire.FeatureQueues, 0, nil); err != nil || v == 0 {
		t.Error(v, err)
	}
	must("SMART", c.LogPage(ctx, nvme.LogRequest{Page: wire.LogSMART, NSID: wire.AllNamespaces}, make([]byte, 512)))
	if err := c.LogPage(ctx, nvme.LogRequest{Page: 0xC7}, make([]byte, 512)); nvme.StatusOf(err) != wire.InvalidLogPage {
		t.Error(err)
	}
	one, two := bytes.Repeat([]byte{1}, 4096), bytes.Repeat([]byte{2}, 4096)
	must("write", q.Write(ctx, 1, 0, 512, one, 0))
	must("compare and write", q.CompareAndWrite(ctx, 1, 0, 512, one, two))
	if err := q.CompareAndWrite(ctx, 1, 0, 512, one, two); nvme.StatusOf(err) != wire.CompareFailure {
		t.Error(err)
	}
	must("flush", q.Flush(ctx, 1))
	must("verify", q.Verify(ctx, 1, 0, 8))
	must("copy", q.Copy(ctx, 1, 100, nvme.Range{LBA: 0, Blocks: 4}, nvme.Range{LBA: 4, Blocks: 4}))
	must("compare", q.Compare(ctx, 1, 100, 512, two))
	must("write zeroes", q.WriteZeroes(ctx, 1, 0, 4, nvme.Deallocate))
	must("deallocate", q.Deallocate(ctx, 1, nvme.Range{LBA: 4, Blocks: 4}, nvme.Range{LBA: 100, Blocks: 8}))
	must("compare zeros", q.Compare(ctx, 1, 0, 512, make([]byte, 4096)))
	if err := q.Read(ctx, 1, 1<<40, 512, one); nvme.StatusOf(err) != wire.LBAOutOfRange {
		t.Error(err)
	}
	if err := q.Read(ctx, 9, 0, 512, one); nvme.StatusOf(err) != wire.InvalidNamespace {
		t.Error(err)
	}
	if _, err := c.ConnectQueue(ctx, 1); nvme.StatusOf(err) == 0 {
		t.Error("a queue id twice:", err)
	}
}

// TestLintelReservations checks the reservation helpers with two hosts (NVMe Base 2.0 §8.19).
func TestLintelReservations(t *testing.T) {
	s := serve(t, controller.Grant{})
	a, b := dial(t, s, nil).Queues()[0], dial(t, s, nil).Queues()[0]
	ctx := t.Context()
	for i, q := range []*nvme.Queue{a, b} {
		if err := q.Register(ctx, 1, nvme.Registration{Action: nvme.Register, NewKey: uint64(i + 1)}); err != nil {
			t.Fatal(err)
		}
	}
	if err := a.Acquire(ctx, 1, nvme.Acquire, nvme.WriteExclusive, 1, 0); err != nil {
		t.Fatal(err)
	}
	if err := b.Write(ctx, 1, 0, 512, make([]byte, 512), 0); nvme.StatusOf(err) != wire.ReservationConflict {
		t.Error(err)
	}
	r, err := b.Report(ctx, 1, true)
	if err != nil || r.Type != nvme.WriteExclusive || len(r.Registrants) != 2 || r.Registrants[0].Holder == r.Registrants[1].Holder {
		t.Errorf("%+v, %v", r, err)
	}
	if err := b.Acquire(ctx, 1, nvme.PreemptAndAbort, nvme.ExclusiveAccess, 2, 1); err != nil {
		t.Error(err)
	}
	if err := a.Read(ctx, 1, 0, 512, make([]byte, 512)); nvme.StatusOf(err) != wire.ReservationConflict {
		t.Error(err)
	}
	if err := b.Release(ctx, 1, nvme.Release, nvme.ExclusiveAccess, 2); err != nil {
		t.Error(err)
	}
	if err := b.Register(ctx, 1, nvme.Registration{Action: nvme.Unregister, Key: 2}); err != nil {
		t.Error(err)
	}
}

// TestLintelDiscovery checks the discovery log (NVMe Base 2.0 §5.16.1.23).
func TestLintelDiscovery(t *testing.T) {
	s := serve(t, controller.Grant{})
	log, err := nvme.Discover(t.Context(), s.Address(), nvme.Options{})
	if err != nil {
		t.Fatal(err)
	}
	found := false
	for _, r := range log.Records {
		found = found || r.Subsystem == nvmetest.NQN && r.Endpoint() == s.Address() && r.Transport == 3
	}
	if !found {
		t.Errorf("%+v", log)
	}
}

// TestLintelAuthentication checks DH-HMAC-CHAP with right and wrong keys, one- and bidirectional
// (NVMe Base 2.0 §8.13.5).
func TestLintelAuthentication(t *testing.T) {
	secret := func(h dhchap.Hash) dhchap.Secret {
		s, err := dhchap.GenerateSecret(h)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	host, ctrl := secret(dhchap.SHA384), secret(dhchap.SHA256)
	s := serve(t, controller.Grant{HostKey: host, ControllerKey: ctrl})
	for name, c := range map[string]struct {
		auth *nvme.Auth
		ok   bool
	}{
		"no key":               {nil, false},
		"host":                 {&nvme.Auth{HostKey: host, Groups: []dhchap.Group{dhchap.Null}}, true},
		"both":                 {&nvme.Auth{HostKey: host, ControllerKey: ctrl, Hashes: []dhchap.Hash{dhchap.SHA512}, Groups: []dhchap.Group{dhchap.FFDHE2048}}, true},
		"wrong host key":       {&nvme.Auth{HostKey: secret(dhchap.SHA384), ControllerKey: ctrl}, false},
		"wrong controller key": {&nvme.Auth{HostKey: host, ControllerKey: secret(dhchap.SHA256)}, false},
	} {
		t.Run(name, func(t *testing.T) {
			a, err := nvme.Dial(t.Context(), s.Address(), nvme.Options{Subsystem: nvmetest.NQN, IOQueues: 1, Auth: c.auth})
			if err == nil {
				defer a.Close()
				err = a.Queues()[0].Flush(t.Context(), 1)
			}
			if c.ok && err != nil || !c.ok && !errors.Is(err, nvme.ErrAuthentication) {
				t.Errorf("got %v", err)
			}
		})
	}
}
