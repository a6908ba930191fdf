package e2e

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"lintel.io/lintel/internal/initiator/iscsi"
	"lintel.io/lintel/test/harness"
)

// sense returns the sense key and code of a failed command, zeros for others.
func sense(err error) (uint8, uint16) {
	var status *iscsi.StatusError
	if errors.As(err, &status) {
		return iscsi.SenseCode(status.Sense)
	}
	return 0, 0
}

// mapped makes a volume and shows it to any initiator.
func mapped(a *harness.Array, name string, lunNumber string, create ...string) {
	a.Run(append([]string{"volume", "create", name}, create...)...)
	if out, _ := a.Try("host", "show", "any"); !strings.Contains(out, "any") {
		a.Run("host", "create", "any", "--iqn", "*")
	}
	a.Run("map", name, "any", "--lun", lunNumber)
}

// TestFullDisk fills the file system under a thin volume: the initiator gets
// DATA PROTECT, SPACE ALLOCATION FAILED WRITE PROTECT (SBC-3 §4.7.3.6), what was
// written stays, overwriting goes on, and new writes succeed when space is back.
func TestFullDisk(t *testing.T) {
	const mib = 1 << 20
	a := harness.ServeIn(t, 160*mib, 1)
	mapped(a, "thin", "1", "--size", "512MiB", "--block-size", "4096")
	mapped(a, "other", "2", "--size", "32MiB", "--block-size", "4096")
	iqn := targetName(t, a)
	s := dial(t, a, iqn)
	defer s.Close()
	ctx := context.Background()
	unit, other := iscsi.LUN(1), iscsi.LUN(2)
	if err := s.Ready(ctx, other); err != nil {
		t.Fatal(err)
	}
	const perMiB = mib / 4096
	fill := func(p []byte, block uint64) []byte {
		for i := 0; i < len(p); i += 8 {
			binary.LittleEndian.PutUint64(p[i:], block<<20|uint64(i))
		}
		return p
	}
	buf := make([]byte, mib)
	if err := s.Write(ctx, other, 0, 4096, fill(buf, 77)); err != nil {
		t.Fatal(err)
	}
	var full error
	written := uint64(0)
	for ; written < 512; written++ {
		if full = s.Write(ctx, unit, written*perMiB, 4096, fill(buf, written)); full != nil {
			break
		}
	}
	if key, code := sense(full); key != 7 || code != 0x2707 {
		t.Fatalf("writing to a full file system after %d MiB: sense %x/%04x, %v", written, key, code, full)
	}
	for m := range written {
		if err := s.Read(ctx, unit, m*perMiB, 4096, buf); err != nil || !bytes.Equal(buf, fill(make([]byte, mib), m)) {
			t.Fatalf("MiB %d after the disk was full: %v", m, err)
		}
	}
	if err := s.Write(ctx, unit, 0, 4096, fill(buf, 0)); err != nil {
		t.Errorf("overwriting on a full file system: %v", err)
	}
	if err := s.Flush(ctx, unit); err != nil {
		t.Errorf("flush on a full file system: %v", err)
	}
	a.Run("volume", "list") // management goes on
	// UNMAP 8 MiB from the second one on.
	list := make([]byte, 24)
	binary.BigEndian.PutUint16(list, 22)
	binary.BigEndian.PutUint16(list[2:], 16)
	binary.BigEndian.PutUint64(list[8:], perMiB)
	binary.BigEndian.PutUint32(list[16:], 8*perMiB)
	if r, err := s.Do(ctx, unit, []byte{0x42, 0, 0, 0, 0, 0, 0, 0, 24, 0}, list, 0); err != nil || r.Status != 0 {
		t.Fatalf("UNMAP: %v, status %#x", err, r.Status)
	}
	for m := written; m < written+4; m++ {
		if err := s.Write(ctx, unit, m*perMiB, 4096, fill(buf, m)); err != nil {
			t.Fatalf("writing when space is back: %v", err)
		}
		if err := s.Read(ctx, unit, m*perMiB, 4096, buf); err != nil || !bytes.Equal(buf, fill(make([]byte, mib), m)) {
			t.Fatalf("MiB %d when space is back: %v", m, err)
		}
	}
	if err := s.Flush(ctx, unit); err != nil {
		t.Errorf("flush when space is back: %v", err)
	}
	if err := s.Read(ctx, other, 0, 4096, buf); err != nil || !bytes.Equal(buf, fill(make([]byte, mib), 77)) {
		t.Errorf("the other volume: %v", err)
	}
}

// backing returns the path of the only volume's file.
func backing(t *testing.T, a *harness.Array) string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(a.Dir, "pools", "default", "volumes", "*"))
	if err != nil || len(files) != 1 {
		t.Fatalf("backing files: %v, %v", files, err)
	}
	return files[0]
}

// TestBackingVanishes takes a volume's file away while it is used and while the
// array starts: the volume says that it is not ready, and comes back with the file.
func TestBackingVanishes(t *testing.T) {
	a := harness.Serve(t, 1)
	mapped(a, "vol", "1", "--size", "16MiB", "--block-size", "4096")
	mapped(a, "null", "2", "--size", "16MiB", "--kind", "null")
	iqn := targetName(t, a)
	ctx := context.Background()
	unit := iscsi.LUN(lun)
	buf := make([]byte, 4096)
	s := dial(t, a, iqn)
	pattern(buf, 3, 9)
	if err := s.Write(ctx, unit, 3, 4096, buf); err != nil {
		t.Fatal(err)
	}
	file := backing(t, a)
	if err := os.Rename(file, file+".away"); err != nil {
		t.Fatal(err)
	}
	err := s.Flush(ctx, unit)
	if key, _ := sense(err); key != 2 {
		t.Errorf("flush without the file: %v", err)
	}
	s.Close()
	a.Kill() // an orderly stop would rightly complain of the file
	a.Start()
	if s, err = iscsi.Dial(ctx, a.Portals[0], iscsi.Options{Target: iqn}); err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := s.Ready(ctx, iscsi.LUN(2)); err != nil {
		t.Errorf("the other volume: %v", err)
	}
	luns, err := s.LUNs(ctx)
	if err != nil || len(luns) != 2 {
		t.Errorf("LUNs while the file is away: %x, %v", luns, err)
	}
	for range 3 { // past unit attentions
		err = s.Read(ctx, unit, 3, 4096, buf)
	}
	if key, code := sense(err); key != 2 || code>>8 != 0x04 {
		t.Errorf("reading while the file is away: sense %x/%04x, %v", key, code, err)
	}
	if err := os.Rename(file+".away", file); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
		if err = s.Read(ctx, unit, 3, 4096, buf); err == nil {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("the volume does not come back: %v", err)
		}
	}
	if gen, err := readGeneration(buf, 3); err != nil || gen != 9 {
		t.Errorf("after the file came back: generation %d, %v", gen, err)
	}
}

// TestBackingShrinks cuts a volume's file short under it: what is lost is a
// medium error, never zeros.
func TestBackingShrinks(t *testing.T) {
	a := harness.Serve(t, 1)
	mapped(a, "vol", "1", "--size", "16MiB", "--block-size", "4096")
	s := dial(t, a, targetName(t, a))
	defer s.Close()
	ctx := context.Background()
	unit := iscsi.LUN(lun)
	buf := make([]byte, 4096)
	for _, block := range []uint64{1, 3000} {
		pattern(buf, block, 5)
		if err := s.Write(ctx, unit, block, 4096, buf); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Truncate(backing(t, a), 8<<20); err != nil {
		t.Fatal(err)
	}
	err := s.Read(ctx, unit, 3000, 4096, buf)
	if key, _ := sense(err); key != 3 {
		t.Errorf("reading what was cut off: %v", err)
	}
	if err := s.Read(ctx, unit, 1, 4096, buf); err != nil {
		t.Errorf("reading what is left: %v", err)
	}
	if gen, err := readGeneration(buf, 1); err != nil || gen != 5 {
		t.Errorf("what is left: generation %d, %v", gen, err)
	}
	a.Kill() // an orderly stop would rightly complain of the file
}

// TestDamagedMetadataIsRefused destroys the configuration: serve refuses it and
// says what is wrong, check finds it, and neither changes a byte.
func TestDamagedMetadataIsRefused(t *testing.T) {
	a := harness.Serve(t, 1)
	mapped(a, "vol", "1", "--size", "16MiB")
	a.Stop()
	if out, err := harness.Command(a.Bin, "check", a.Dir); err != nil {
		t.Fatalf("check of a whole directory: %v\n%s", err, out)
	}
	path := filepath.Join(a.Dir, "pools", "default", "metadata")
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	// Every 4 KiB that holds anything is hit, both copies of everything.
	damaged := bytes.Clone(whole)
	for at := 0; at+4096 <= len(damaged); at += 4096 {
		if bytes.IndexFunc(damaged[at:at+4096], func(r rune) bool { return r != 0 }) >= 0 {
			damaged[at+40] ^= 0xff
		}
	}
	if err := os.WriteFile(path, damaged, 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := harness.Command(a.Bin, "serve", "--data-dir", a.Dir, "--portal", a.Portals[0])
	if err == nil || !strings.Contains(err.Error(), "metadata") {
		t.Errorf("serving damaged metadata: %v\n%s", err, out)
	}
	if out, err := harness.Command(a.Bin, "check", a.Dir); err == nil {
		t.Errorf("check finds nothing wrong:\n%s", out)
	}
	after, err := os.ReadFile(path)
	if err != nil || !bytes.Equal(after, damaged) {
		t.Errorf("the damaged metadata was changed (%v)", err)
	}
	if err := os.WriteFile(path, whole, 0o600); err != nil {
		t.Fatal(err)
	}
	a.Start()
	if out := a.Run("volume", "list"); !containsWord(out, "vol") {
		t.Errorf("the volume is gone:\n%s", out)
	}
}
