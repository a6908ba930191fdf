package target

import (
	"context"
	"testing"
	"time"

	"lintel.io/lintel/internal/array"
	initiator "lintel.io/lintel/internal/initiator/iscsi"
	nvmehost "lintel.io/lintel/internal/initiator/nvme"
)

// applyDecoded applies the fixture's documents as another process gets them.
func (f *fixture) applyDecoded() {
	f.t.Helper()
	b, err := f.doc.Encode()
	if err != nil {
		f.t.Fatal(err)
	}
	doc, err := array.DecodeDocument(b)
	if err != nil {
		f.t.Fatal(err)
	}
	if b, err = f.pd.Encode(); err != nil {
		f.t.Fatal(err)
	}
	pd, err := array.DecodePoolDocument(b)
	if err != nil {
		f.t.Fatal(err)
	}
	f.doc, f.pd = *doc, *pd
	f.apply()
}

// TestSameStateAgain checks that hosts do not notice that an agent, which has started anew, sends the
// state that there is: nothing ends, and nobody is told of a change.
func TestSameStateAgain(t *testing.T) {
	f := newFixture(t)
	f.addVolume(1, 1<<20, 0)
	f.setHost(0, func(h *array.Host) { h.CHAPUser, h.CHAPSecret = testUser, testSecret })
	f.withNVMe()
	f.applyDecoded()
	s := f.mustLogin(initiator.Options{CHAP: &initiator.CHAP{User: testUser, Secret: testSecret}})
	ctx := context.Background()
	if err := s.Ready(ctx, 0); err != nil {
		t.Fatal(err)
	}
	events := make(chan uint32, 16)
	c := f.mustConnect(nvmehost.Options{IOQueues: 1, OnEvent: func(e uint32) { events <- e }})
	discovery := f.mustConnect(nvmehost.Options{Subsystem: "nqn.2014-08.org.nvmexpress.discovery", KeepAlive: time.Minute, OnEvent: func(e uint32) { events <- e }})
	generation := func() uint64 {
		l, err := nvmehost.Discover(ctx, f.doc.Portals[1].AddrPort().String(), nvmehost.Options{HostNQN: testHostNQN})
		if err != nil {
			t.Fatal(err)
		}
		return l.Generation
	}
	before := generation()
	for range 2 {
		f.applyDecoded()
	}
	if r, err := s.Do(ctx, 0, make([]byte, 6), nil, 0); err != nil || r.Status != 0 {
		t.Errorf("TEST UNIT READY: %+v, %v", r, err)
	}
	if err := c.Queues()[0].Read(ctx, 1, 0, 512, make([]byte, 512)); err != nil {
		t.Errorf("read over NVMe: %v", err)
	}
	if after := generation(); after != before {
		t.Errorf("generation of the discovery log %d, was %d", after, before)
	}
	if _, err := discovery.IdentifyController(ctx); err != nil {
		t.Errorf("discovery controller: %v", err)
	}
	select {
	case e := <-events:
		t.Errorf("event %#x", e)
	default:
	}
}

// TestVolumesOfPoolThatComes checks that hosts see the volumes of a pool that was not there when
// they were mapped, over both protocols, though nothing else has changed.
func TestVolumesOfPoolThatComes(t *testing.T) {
	f := newFixture(t)
	f.addVolume(1, 1<<20, 3)
	f.withNVMe()
	f.doc.Next = array.Counters{Host: 99, HostGroup: 99, Mapping: 99, Portal: 99, PortalTag: 99}
	f.pd.System, f.pd.NextVolume = false, 99
	system := &array.PoolDocument{
		Format: array.Format, Object: array.Object{ID: "p000000000002", Rev: 1}, Name: "system", Kind: array.PoolFile, ArrayID: f.doc.ID, System: true, Extent: 1 << 20,
	}
	doc := &f.doc
	apply := func(pools ...*array.PoolDocument) {
		t.Helper()
		s, err := array.NewState(doc, append(pools, system))
		if err != nil {
			t.Fatal(err)
		}
		doc = s.Document
		if err := f.tgt.Apply(context.Background(), s); err != nil {
			t.Fatal(err)
		}
	}
	apply()
	s := f.login()
	c := f.mustConnect(nvmehost.Options{IOQueues: 1})
	apply(&f.pd)
	if got := f.luns(s); len(got) != 1 || got[0] != initiator.LUN(3) {
		t.Errorf("LUNs %x", got)
	}
	if got, err := c.ActiveNamespaces(context.Background(), 0); err != nil || len(got) != 1 || got[0] != 4 {
		t.Errorf("namespaces %v, %v", got, err)
	}
}
