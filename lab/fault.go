package lab

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// FaultyDisk is a layer over a disk of a guest that can make it fail. It is a
// device of its own, which is used in the disk's place.
type FaultyDisk struct {
	m       *Machine
	name    string // of the mapped device
	device  string // what is below
	sectors int64
}

// FaultyDisk puts a layer over a block device of the guest; as long as nothing is asked of
// it, it does what the device does.
func (m *Machine) FaultyDisk(ctx context.Context, device, name string) (*FaultyDisk, error) {
	out, err := m.Sh(ctx, "blockdev --getsz "+device)
	if err != nil {
		return nil, err
	}
	sectors, err := strconv.ParseInt(out, 10, 64)
	if err != nil {
		return nil, fmt.Errorf("size of %s: %w", device, err)
	}
	d := &FaultyDisk{m: m, name: name, device: device, sectors: sectors}
	_, err = m.RunInput(ctx, []byte(d.linear(0, sectors)), "dmsetup", "create", name)
	return d, err
}

// Path returns the device to use.
func (d *FaultyDisk) Path() string { return "/dev/mapper/" + d.name }

// linear is the line of a device-mapper table that passes sectors on.
func (d *FaultyDisk) linear(from, to int64) string {
	if from >= to {
		return ""
	}
	return fmt.Sprintf("%d %d linear %s %d\n", from, to-from, d.device, from)
}

// Heal makes the disk do its work again.
func (d *FaultyDisk) Heal(ctx context.Context) error { return d.load(ctx, d.linear(0, d.sectors)) }

// FailSectors answers every read and write of the sectors from first to last, of 512
// bytes each, with an I/O error.
func (d *FaultyDisk) FailSectors(ctx context.Context, first, last int64) error {
	return d.load(ctx, d.linear(0, first)+fmt.Sprintf("%d %d error\n", first, last+1-first)+d.linear(last+1, d.sectors))
}

// Fail answers everything with an I/O error.
func (d *FaultyDisk) Fail(ctx context.Context) error { return d.FailSectors(ctx, 0, d.sectors-1) }

// Delay adds a time to every read and write.
func (d *FaultyDisk) Delay(ctx context.Context, by time.Duration) error {
	return d.load(ctx, fmt.Sprintf("0 %d delay %s 0 %d\n", d.sectors, d.device, by.Milliseconds()))
}

// DropWrites forgets writes, which it answers as if they had been done.
func (d *FaultyDisk) DropWrites(ctx context.Context) error {
	return d.load(ctx, fmt.Sprintf("0 %d flakey %s 0 0 3600 1 drop_writes\n", d.sectors, d.device))
}

// load replaces the table; what is under way keeps the old one.
func (d *FaultyDisk) load(ctx context.Context, table string) error {
	for _, step := range []struct{ stdin, argv string }{
		{table, "dmsetup load " + d.name},
		{"", "dmsetup suspend --noflush --nolockfs " + d.name},
		{"", "dmsetup resume " + d.name},
	} {
		if _, err := d.m.RunInput(ctx, []byte(step.stdin), strings.Fields(step.argv)...); err != nil {
			return err
		}
	}
	return nil
}
