package scsi_test

import (
	"bytes"
	"testing"

	"lintel.io/lintel/internal/scsi"
	"lintel.io/lintel/internal/scsi/scsitest"
	"lintel.io/lintel/internal/unit"
	wire "lintel.io/lintel/internal/wire/scsi"
)

func inquiryCDB(page int, allocation uint16) []byte {
	cdb := []byte{wire.OpInquiry, 0, 0, byte(allocation >> 8), byte(allocation), 0}
	if page >= 0 {
		cdb[1], cdb[2] = 1, byte(page)
	}
	return cdb
}

// vitalPage reads a page and returns what follows its header.
func vitalPage(t *testing.T, n *scsitest.Nexus, page byte) []byte {
	t.Helper()
	r := n.Do(0, inquiryCDB(int(page), 1024), nil)
	wantGood(t, r)
	if len(r.In) < 4 || r.In[0] != 0 || r.In[1] != page || int(wire.Uint16(r.In[2:])) != len(r.In)-4 {
		t.Fatalf("page %02Xh has header % X and %d bytes", page, r.In[:4], len(r.In))
	}
	return r.In[4:]
}

// TestStandardInquiry checks INQUIRY, standard data (SPC-4 §6.6.2).
func TestStandardInquiry(t *testing.T) {
	b := scsitest.New(t, scsitest.Config{})
	n := b.Nexus("a", 1)
	r := n.Do(0, inquiryCDB(-1, 512), nil)
	wantGood(t, r)
	in := r.In
	if len(in) != 96 || int(in[4]) != len(in)-5 {
		t.Fatalf("%d bytes, additional length %d", len(in), in[4])
	}
	if in[0] != 0 || in[1] != 0 || in[2] != 6 || in[3] != 0x12 || in[5] != 0x30 || in[6] != 0x10 || in[7] != 0x02 {
		t.Errorf("flags % X", in[:8])
	}
	if got := string(in[8:36]); got != "LINTEL  VIRTUAL-DISK    0001" {
		t.Errorf("names %q", got)
	}
	want := []byte{0x00, 0xA0, 0x04, 0x60, 0x04, 0xC0, 0x09, 0x60, 0, 0, 0, 0, 0, 0, 0, 0}
	if !bytes.Equal(in[58:74], want) {
		t.Errorf("version descriptors % X", in[58:74])
	}
}

// TestInquiryAllocationLength checks INQUIRY, allocation length (SPC-4 §4.2.5.6).
func TestInquiryAllocationLength(t *testing.T) {
	n := scsitest.New(t, scsitest.Config{}).Nexus("a", 1)
	for _, length := range []uint16{0, 1, 5, 36, 95, 96, 255, 256, 511, 65535} {
		r := n.Do(0, inquiryCDB(-1, length), nil)
		wantGood(t, r)
		if len(r.In) != min(96, int(length)) {
			t.Errorf("allocation length %d gives %d bytes", length, len(r.In))
		}
	}
}

// TestInquiryErrors checks INQUIRY, invalid pages (SPC-4 §6.6.1).
func TestInquiryErrors(t *testing.T) {
	n := scsitest.New(t, scsitest.Config{}).Nexus("a", 1)
	for _, cdb := range [][]byte{
		{wire.OpInquiry, 0, 1, 0, 255, 0},    // a page code without EVPD
		{wire.OpInquiry, 1, 0xD7, 0, 255, 0}, // no such page
		{wire.OpInquiry, 1, 0x8F, 0, 255, 0}, // a page that no family gives
		{wire.OpInquiry, 2, 0, 0, 255, 0},    // CMDDT is obsolete
		{wire.OpInquiry, 0, 0, 0, 255, 4},    // NACA
	} {
		wantSense(t, n.Do(0, cdb, nil), wire.KeyIllegalRequest, wire.InvalidFieldInCDB)
	}
}

// TestInquiryNoUnit checks INQUIRY to a LUN without unit (SPC-4 §6.6.2, SAM-5 §4.7).
func TestInquiryNoUnit(t *testing.T) {
	n := scsitest.New(t, scsitest.Config{}).Nexus("a", 1)
	r := n.Do(7, inquiryCDB(-1, 96), nil)
	wantGood(t, r)
	if r.In[0] != 0x7F {
		t.Errorf("peripheral %02Xh, want 7Fh", r.In[0])
	}
	r = n.Do(7, inquiryCDB(0, 96), nil)
	wantGood(t, r)
	if !bytes.Equal(r.In, []byte{0x7F, 0, 0, 1, 0}) {
		t.Errorf("page 00h: % X", r.In)
	}
	wantSense(t, n.Do(7, inquiryCDB(0x83, 96), nil), wire.KeyIllegalRequest, wire.InvalidFieldInCDB)
	wantSense(t, n.Do(7, []byte{wire.OpInquiry, 0x80, 0, 0, 96, 0}, nil), wire.KeyIllegalRequest, wire.InvalidFieldInCDB)
}

// TestSupportedPages checks INQUIRY, Supported VPD Pages page (SPC-4 §7.8.13).
func TestSupportedPages(t *testing.T) {
	b := scsitest.New(t, scsitest.Config{Pages: map[byte]func(*scsi.LogicalUnit) []byte{
		0x8F: func(*scsi.LogicalUnit) []byte { return []byte{1, 2, 3, 4} },
		0xC0: func(*scsi.LogicalUnit) []byte { return nil },
	}})
	n := b.Nexus("a", 1)
	list := vitalPage(t, n, 0)
	if !bytes.Equal(list, []byte{0x00, 0x80, 0x83, 0x86, 0x8F, 0xB0, 0xB1, 0xB2}) {
		t.Fatalf("pages % X", list)
	}
	for _, page := range list {
		vitalPage(t, n, page)
	}
	if r := n.Do(0, inquiryCDB(-1, 96), nil); r.In[5]&0x08 == 0 {
		t.Error("3PC is not set though there is a third-party copy page")
	}
}

// TestIdentification checks INQUIRY, Device Identification page (SPC-4 §7.8.5).
func TestIdentification(t *testing.T) {
	b := scsitest.New(t, scsitest.Config{})
	n := b.Nexus("a", 2)
	page := vitalPage(t, n, 0x83)
	a := b.Units[0].Attributes()
	want := []wire.Designator{
		{Type: wire.DesignatorNAA, CodeSet: wire.CodeBinary, Protocol: -1, ID: a.NAA},
		{Type: wire.DesignatorEUI64, CodeSet: wire.CodeBinary, Protocol: -1, ID: a.EUI64},
		{Type: wire.DesignatorT10, CodeSet: wire.CodeASCII, Protocol: -1, ID: []byte("LINTEL  bench-0")},
		{Type: wire.DesignatorRelativePort, CodeSet: wire.CodeBinary, Association: 1, Protocol: 5, ID: []byte{0, 0, 0, 2}},
		{Type: wire.DesignatorPortGroup, CodeSet: wire.CodeBinary, Association: 1, Protocol: 5, ID: []byte{0, 0, 0, 2}},
		{Type: wire.DesignatorNameString, CodeSet: wire.CodeUTF8, Association: 1, Protocol: 5, ID: wire.NameString(scsitest.TargetName + ",t,0x0002")},
		{Type: wire.DesignatorNameString, CodeSet: wire.CodeUTF8, Association: 2, Protocol: 5, ID: wire.NameString(scsitest.TargetName)},
	}
	for i, w := range want {
		d, rest, err := wire.ParseDesignator(page)
		if err != nil {
			t.Fatal(err)
		}
		if d.Type != w.Type || d.CodeSet != w.CodeSet || d.Association != w.Association || d.Protocol != w.Protocol || !bytes.Equal(d.ID, w.ID) {
			t.Errorf("designator %d is %+v, want %+v", i, d, w)
		}
		page = rest
	}
	if len(page) != 0 {
		t.Errorf("%d bytes are left", len(page))
	}
}

// TestOtherPages checks INQUIRY, serial number and extended data pages (SPC-4 §7.8.7, §7.8.14).
func TestOtherPages(t *testing.T) {
	b := scsitest.New(t, scsitest.Config{Attributes: func(_ int, a *unit.Attributes) { a.EUI64 = nil }})
	n := b.Nexus("a", 1)
	if got := vitalPage(t, n, 0x80); string(got) != "SERIAL00" {
		t.Errorf("serial number %q", got)
	}
	ext := vitalPage(t, n, 0x86)
	if len(ext) != 60 || ext[1] != 0x07 || ext[3] != 0x01 || ext[9] != scsi.MaxSense {
		t.Errorf("extended INQUIRY data % X", ext)
	}
	if len(b.LUs[0].Designators()) != 2 {
		t.Error("a unit without EUI-64 has another number of designators than 2")
	}
}

// TestBlockPages checks INQUIRY, block limits, characteristics and provisioning pages (SBC-3 §6.6.3, §6.6.4, §6.6.5).
func TestBlockPages(t *testing.T) {
	b := scsitest.New(t, scsitest.Config{Units: 2, Attributes: func(i int, a *unit.Attributes) {
		a.Thin, a.Rotational = i == 0, i == 1
		if i == 1 {
			a.BlockSize = 4096
		}
	}})
	n := b.Nexus("a", 1)
	limits := vitalPage(t, n, 0xB0)
	if len(limits) != 60 || limits[1] != 255 ||
		wire.Uint32(limits[4:]) != scsi.MaxTransferBytes/512 || wire.Uint32(limits[16:]) != 0xFFFFFFFF ||
		wire.Uint32(limits[20:]) != scsi.MaxUnmapDescriptors || wire.Uint64(limits[32:]) != scsi.MaxWriteSameBlocks ||
		wire.Uint32(limits[40:]) != scsi.MaxAtomicBlocks {
		t.Errorf("block limits % X", limits)
	}
	if lbp := vitalPage(t, n, 0xB2); !bytes.Equal(lbp, []byte{11, 0xE4, 2, 0}) {
		t.Errorf("provisioning % X", lbp)
	}
	if bdc := vitalPage(t, n, 0xB1); len(bdc) != 60 || wire.Uint16(bdc) != 1 || bdc[3] != 0x40 {
		t.Errorf("characteristics % X", bdc)
	}
	thick := func(page int) []byte { return n.Do(1, inquiryCDB(page, 255), nil).In[4:] }
	if p := thick(0xB0); wire.Uint32(p[4:]) != scsi.MaxTransferBytes/4096 || wire.Uint32(p[16:]) != 0 || wire.Uint32(p[20:]) != 0 {
		t.Errorf("block limits of a thick unit % X", p)
	}
	if p := thick(0xB1); wire.Uint16(p) != 7200 {
		t.Errorf("rotation rate %d", wire.Uint16(p))
	}
	if p := thick(0xB2); !bytes.Equal(p, []byte{0, 0, 0, 0}) {
		t.Errorf("provisioning of a thick unit % X", p)
	}
}

func reportLUNsCDB(selectReport byte, allocation uint32) []byte {
	cdb := make([]byte, 12)
	cdb[0], cdb[2] = wire.OpReportLUNs, selectReport
	wire.PutUint32(cdb[6:], allocation)
	return cdb
}

// TestReportLUNs checks REPORT LUNS (SPC-4 §6.33, SAM-5 §4.7).
func TestReportLUNs(t *testing.T) {
	b := scsitest.New(t, scsitest.Config{Units: 3})
	n := b.NewNexus("a", 1, scsi.LUNMap{300: {LU: b.LUs[2]}, 0: {LU: b.LUs[0]}, 7: {LU: b.LUs[1]}, 16384: {LU: b.LUs[0]}})
	want := []byte{0, 0, 0, 24, 0, 0, 0, 0,
		0, 0, 0, 0, 0, 0, 0, 0,
		0, 7, 0, 0, 0, 0, 0, 0,
		0x41, 0x2C, 0, 0, 0, 0, 0, 0}
	for _, all := range []byte{0, 2} {
		r := n.Do(0, reportLUNsCDB(all, 256), nil)
		wantGood(t, r)
		if !bytes.Equal(r.In, want) {
			t.Errorf("select report %d: % X", all, r.In)
		}
	}
	r := n.Do(99, reportLUNsCDB(1, 256), nil)
	wantGood(t, r)
	if !bytes.Equal(r.In, make([]byte, 8)) {
		t.Errorf("well known logical units: % X", r.In)
	}
	if r := n.Do(0, reportLUNsCDB(0, 16), nil); len(r.In) != 16 || wire.Uint32(r.In) != 24 {
		t.Errorf("cut list: % X", r.In)
	}
	wantSense(t, n.Do(0, reportLUNsCDB(0, 15), nil), wire.KeyIllegalRequest, wire.InvalidFieldInCDB)
	wantSense(t, n.Do(0, reportLUNsCDB(3, 256), nil), wire.KeyIllegalRequest, wire.InvalidFieldInCDB)
	wantSense(t, n.Do(300, testUnitReady, nil), wire.KeyUnitAttention, wire.PowerOnReset)
	wantGood(t, n.Do(300, testUnitReady, nil))
	wantSense(t, n.Do(8, testUnitReady, nil), wire.KeyIllegalRequest, wire.LogicalUnitNotSupported)
}
