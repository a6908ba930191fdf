package scsi_test

import (
	"strings"
	"testing"

	"lintel.io/lintel/internal/scsi"
	"lintel.io/lintel/internal/scsi/scsitest"
	"lintel.io/lintel/internal/unit"
	wire "lintel.io/lintel/internal/wire/scsi"
)

func TestNewTargetRefuses(t *testing.T) {
	run := func(*scsi.Task) {}
	for name, c := range map[string]scsi.TargetConfig{
		"no name":        {},
		"long name":      {Name: strings.Repeat("x", 224)},
		"taken code":     {Name: "x", Families: [][]scsi.Command{{{Op: wire.OpInquiry, ServiceAction: -1, Usage: []byte{wire.OpInquiry, 0, 0, 0, 0, 0}, Run: run}}}},
		"taken action":   {Name: "x", Families: [][]scsi.Command{{{Op: wire.OpMaintenanceIn, ServiceAction: 0x0C, Usage: []byte{wire.OpMaintenanceIn, 0, 0, 0, 0, 0}, Run: run}}}},
		"no run":         {Name: "x", Families: [][]scsi.Command{{{Op: 0xC0, ServiceAction: -1, Usage: []byte{0xC0, 0, 0, 0, 0, 0}}}}},
		"usage of other": {Name: "x", Families: [][]scsi.Command{{{Op: 0xC0, ServiceAction: -1, Usage: []byte{0xC1, 0, 0, 0, 0, 0}, Run: run}}}},
	} {
		if _, err := scsi.NewTarget(c); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestPorts(t *testing.T) {
	b := scsitest.New(t, scsitest.Config{})
	n := b.Nexus("a", 2)
	if n.Group() != 2 || n.Target() != b.Target || b.Target.Name() != scsitest.TargetName {
		t.Error("the nexus does not know where it is")
	}
	for _, bad := range [][]scsi.PortConfig{
		{{Name: "a", Relative: 0, Group: 1}},
		{{Name: "a", Relative: 1, Group: 0}},
		{{Name: "a", Relative: 1, Group: 1}, {Name: "b", Relative: 1, Group: 2}},
	} {
		if err := b.Target.SetPorts(bad); err == nil {
			t.Errorf("%+v was taken", bad)
		}
	}
	if err := b.Target.SetPorts([]scsi.PortConfig{{Name: "b", Relative: 2, Group: 7}}); err != nil {
		t.Fatal(err)
	}
	if n.Group() != 7 || len(b.Target.Ports()) != 1 {
		t.Errorf("group %d, ports %v", n.Group(), b.Target.Ports())
	}
	for _, c := range []scsi.NexusConfig{{}, {Initiator: unit.Initiator{Name: "x", Port: 1}}} {
		if _, err := b.Target.NewNexus(c); err == nil {
			t.Errorf("%+v was taken", c)
		}
	}
}

func TestVisible(t *testing.T) {
	b := scsitest.New(t, scsitest.Config{Units: 3})
	n := b.Nexus("a", 1)
	var luns []uint16
	n.Visible(func(lun uint16, m scsi.Mapping) bool {
		luns = append(luns, lun)
		if m.LU != b.LUs[lun] {
			t.Errorf("LUN %d leads elsewhere", lun)
		}
		return lun < 1
	})
	if len(luns) != 2 {
		t.Errorf("visited %d", luns)
	}
	if units := b.Target.Units(); len(units) != 3 || units[0] != b.LUs[0] || units[0].Unit() != b.Units[0] {
		t.Error("units are not in order")
	}
	if _, ok := n.Lookup(1 << 63); ok {
		t.Error("a LUN of another form leads somewhere")
	}
}
