package main

import (
	"context"
	"io"
)

// nvmeWorkloads compare NVMe/TCP with iSCSI on the null unit of one array.
var nvmeWorkloads = []workload{
	{"NVMe/TCP, null, 4 KiB random read", nullLUN, 2, 32, 4 << 10, 100, true, []goal{iopsAtLeast(1.3), cpuAtMost(.8)}},
	{"NVMe/TCP, null, 4 KiB random write", nullLUN, 2, 32, 4 << 10, 0, true, nil},
	{"NVMe/TCP, null, 1 MiB sequential read", nullLUN, 2, 32, 1 << 20, 100, false, nil},
	{"NVMe/TCP, null, 1 MiB sequential write", nullLUN, 2, 32, 1 << 20, 0, false, nil},
	{"NVMe/TCP, null, 4 KiB random read, depth 1", nullLUN, 1, 1, 4 << 10, 100, true, []goal{p50AtMost(1)}},
}

// floorShare is the share of the floor's IOPS that NVMe/TCP has to reach.
const floorShare = .8

// compareNVMe measures NVMe/TCP against our own iSCSI, and its floor, in interleaved rounds.
func (r *report) compareNVMe(ctx context.Context, o options, dir string) error {
	c := &comparison{ours: "NVMe/TCP", theirs: "iSCSI", whose: "iSCSI's"}
	if c.choose(nvmeWorkloads, o); len(c.rows) == 0 {
		return nil
	}
	var started []io.Closer
	defer func() { closeAll(started) }()
	array, err := startLintelPair(ctx, o.lintel, dir, "lintel-nvme")
	if err != nil {
		return err
	}
	started = append(started, array)
	floor, err := startFloor(nvmeExchange)
	if err != nil {
		return err
	}
	started = append(started, floor)
	c.floor = []floorRow{{name: "floor, 72 to 4120 bytes", connections: 2, depth: 32}, {name: "floor, depth 1", connections: 1, depth: 1}}
	if err := c.measure(ctx, o, floor, overNVMe{array}, array); err != nil {
		return err
	}
	r.comparisons = append(r.comparisons, c)
	if first := &c.rows[0]; first.name == nvmeWorkloads[0].name {
		share := ratio(first.oursSamples, c.floor[0].samples, sampleIOPS)
		r.add(first.name+": IOPS of the floor's", times(share), "≥ "+times(floorShare), share >= floorShare)
	}
	return nil
}
