// Package e2e runs a real lintel process against real initiators, and pulls
// the plug on it.
package e2e

import (
	"bytes"
	"crypto/rand"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"lintel.io/lintel/test/harness"
)

func TestMain(m *testing.M) { harness.Main(m) }

// TestDemoVolumeServesRealInitiators is the tour of the README: discovery with
// LUNs, then reads and writes by QEMU's initiator.
func TestDemoVolumeServesRealInitiators(t *testing.T) {
	harness.Need(t, "iscsi-ls", "libiscsi-bin")
	harness.Need(t, "qemu-io", "qemu-utils")
	a := harness.Serve(t, 1, "--demo")

	out, err := harness.Command("iscsi-ls", "-s", "iscsi://"+a.Portals[0])
	if err != nil {
		t.Fatal(err)
	}
	// iscsi-ls computes the size from the last block's address and rounds down.
	if !strings.Contains(out, "Type:DIRECT_ACCESS") || !strings.Contains(out, "(Size:1023M)") {
		t.Errorf("iscsi-ls does not show the demo volume of 1 GiB:\n%s", out)
	}
	lun := ""
	for f := range strings.FieldsSeq(out) {
		if n, ok := strings.CutPrefix(f, "Lun:"); ok {
			lun = n
		}
	}
	url := "iscsi://" + a.Portals[0] + "/" + a.IQN() + "/" + lun
	for _, script := range []string{
		"write -P 0x5a 1M 3M", "flush", "read -P 0x5a 1M 3M", "read -P 0 0 1M",
		"write -z 2M 1M", "discard 3M 512k", "read -P 0x5a 1M 1M", "read -P 0 2M 1M", "read -P 0 3M 512k",
	} {
		out, err := harness.Command("qemu-io", "-f", "raw", "-c", script, url)
		if err != nil || strings.Contains(out, "failed") {
			t.Errorf("qemu-io %q: %v\n%s", script, err, out)
		}
	}
}

// TestImageRoundTrip copies an image of random bytes onto a volume and back,
// across a restart of the array.
func TestImageRoundTrip(t *testing.T) {
	harness.Need(t, "qemu-img", "qemu-utils")
	harness.Need(t, "iscsi-ls", "libiscsi-bin")
	for _, blockSize := range []string{"512", "4096"} {
		t.Run(blockSize, func(t *testing.T) {
			a := harness.Serve(t, 1)
			a.Run("volume", "create", "img", "--size", "32MiB", "--block-size", blockSize)
			a.Run("host", "create", "any", "--iqn", "*")
			a.Run("map", "img", "any", "--lun", "3")
			dir := t.TempDir()
			want := make([]byte, 32<<20)
			rand.Read(want[:24<<20]) // the rest stays zero, as in a sparse image
			src, dst := filepath.Join(dir, "src"), filepath.Join(dir, "dst")
			if err := os.WriteFile(src, want, 0o600); err != nil {
				t.Fatal(err)
			}
			if _, err := harness.Command("qemu-img", "convert", "-n", "-f", "raw", "-O", "raw", src, a.URL(0, 3)); err != nil {
				t.Fatal(err)
			}
			a.Stop()
			a.Start()
			if _, err := harness.Command("qemu-img", "convert", "-f", "raw", "-O", "raw", a.URL(0, 3), dst); err != nil {
				t.Fatal(err)
			}
			got, err := os.ReadFile(dst)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got, want) {
				t.Error("the image read back differs from the one written")
			}
		})
	}
}

// TestSecondServeIsRefused starts a second process on a directory in use.
func TestSecondServeIsRefused(t *testing.T) {
	a := harness.Serve(t, 1)
	_, err := harness.Command(a.Bin, "serve", "--data-dir", a.Dir, "--portal", "127.0.0.1:0")
	if err == nil || !strings.Contains(err.Error(), "in use") && !strings.Contains(err.Error(), "lock") {
		t.Errorf("a second serve on the same directory: %v", err)
	}
}

// TestCHAP refuses an initiator without the secret and serves one that has it.
func TestCHAP(t *testing.T) {
	harness.Need(t, "iscsi-inq", "libiscsi-bin")
	a := harness.Serve(t, 1)
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte("correct horse 42\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	a.Run("volume", "create", "vol", "--size", "16MiB")
	a.Run("host", "create", "client", "--iqn", "iqn.2007-10.com.github:sahlberg:libiscsi:*", "--chap-user", "u1", "--chap-secret-file", secret)
	a.Run("map", "vol", "client", "--lun", "0")
	iqn := targetName(t, a)
	good := "iscsi://u1%correct horse 42@" + a.Portals[0] + "/" + iqn + "/0"
	if out, err := harness.Command("iscsi-inq", good); err != nil || !strings.Contains(out, "LINTEL") {
		t.Errorf("with the right secret: %v\n%s", err, out)
	}
	for name, url := range map[string]string{
		"wrong secret": "iscsi://u1%wrong horse 4242@" + a.Portals[0] + "/" + iqn + "/0",
		"wrong user":   "iscsi://u2%correct horse 42@" + a.Portals[0] + "/" + iqn + "/0",
		"no secret":    "iscsi://" + a.Portals[0] + "/" + iqn + "/0",
	} {
		if out, err := harness.Command("iscsi-inq", url); err == nil && strings.Contains(out, "LINTEL") {
			t.Errorf("%s: served\n%s", name, out)
		}
	}
}
