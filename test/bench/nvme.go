package main

import (
	"context"
	"fmt"
	"io"

	"lintel.io/lintel/internal/block"
	"lintel.io/lintel/internal/initiator/nvme/nvmetest"
	"lintel.io/lintel/internal/nvme"
)

// nvmeWorkloads compare NVMe/TCP with iSCSI on the null unit.
var nvmeWorkloads = []workload{
	{"NVMe/TCP, null, 4 KiB random read", nullLUN, 2, 32, 4 << 10, 100, true, []goal{iopsAtLeast(1.3), cpuAtMost(.8)}},
	{"NVMe/TCP, null, 4 KiB random write", nullLUN, 2, 32, 4 << 10, 0, true, nil},
	{"NVMe/TCP, null, 1 MiB sequential read", nullLUN, 2, 32, 1 << 20, 100, false, nil},
	{"NVMe/TCP, null, 1 MiB sequential write", nullLUN, 2, 32, 1 << 20, 0, false, nil},
	{"NVMe/TCP, null, 4 KiB random read, depth 1", nullLUN, 1, 1, 4 << 10, 100, true, []goal{p50AtMost(1)}},
}

// floorShare is the share of the floor's IOPS that NVMe/TCP has to reach.
const floorShare = .8

// serveNVMe runs a subsystem with the null unit until its standard input ends.
func serveNVMe() error {
	s, err := nvmetest.Start(nvme.Grant{}, block.NewNull(span))
	if err != nil {
		return err
	}
	announce(s.Address())
	select {}
}

// nvmeServer is the process of serveNVMe.
type nvmeServer struct{ *child }

func (s nvmeServer) url(int) string {
	return fmt.Sprintf("nvme://%s/%s/1", s.address, nvmetest.NQN)
}

// compareNVMe measures NVMe/TCP against our own iSCSI, and its floor, in interleaved rounds.
func (r *report) compareNVMe(ctx context.Context, o options, dir string) error {
	c := &comparison{ours: "NVMe/TCP", theirs: "iSCSI", whose: "iSCSI's"}
	if c.choose(nvmeWorkloads, o); len(c.rows) == 0 {
		return nil
	}
	var started []io.Closer
	defer func() { closeAll(started) }()
	array, err := startLintelPair(ctx, o.lintel, dir, "lintel-iscsi")
	if err != nil {
		return err
	}
	started = append(started, array)
	process, err := startChild("-nvme-server")
	if err != nil {
		return fmt.Errorf("NVMe server: %w", err)
	}
	started = append(started, process)
	floor, err := startFloor(nvmeExchange)
	if err != nil {
		return err
	}
	started = append(started, floor)
	c.floor = []floorRow{{name: "floor, 72 to 4120 bytes", connections: 2, depth: 32}, {name: "floor, depth 1", connections: 1, depth: 1}}
	if err := c.measure(ctx, o, floor, nvmeServer{process}, array); err != nil {
		return err
	}
	r.comparisons = append(r.comparisons, c)
	if first := &c.rows[0]; first.name == nvmeWorkloads[0].name {
		share := median(first.oursSamples).iops / median(c.floor[0].samples).iops
		r.add(first.name+": IOPS of the floor's", fmt.Sprintf("%.2f ×", share), fmt.Sprintf("≥ %.2f ×", floorShare), share >= floorShare)
	}
	return nil
}
