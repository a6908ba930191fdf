package bench

import (
	"errors"
	"fmt"
	"net/url"
	"testing"
	"time"

	"lintel.io/lintel/internal/block"
	host "lintel.io/lintel/internal/initiator/nvme"
	"lintel.io/lintel/internal/initiator/nvme/nvmetest"
	"lintel.io/lintel/internal/nvme"
	"lintel.io/lintel/internal/nvme/dhchap"
	wire "lintel.io/lintel/internal/wire/nvme"
)

func startNVMe(t *testing.T, grant nvme.Grant, d block.Device) *nvmetest.Server {
	t.Helper()
	s, err := nvmetest.Start(grant, d)
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

func TestRunNVMe(t *testing.T) {
	for _, c := range []Config{
		{ReadPercent: 100, Count: 1000},
		{ReadPercent: 100, Count: 1001, Random: true, Connections: 4, QueueDepth: 3},
		{ReadPercent: 100, Count: 100, Connections: 4, SessionConnections: 2, BlockSize: 16384},
		{Count: 500, QueueDepth: 64, BlockSize: 512},
		{ReadPercent: 50, Count: 5000, Random: true, Verify: true, Connections: 2},
		{ReadPercent: 70, Count: 5000, Verify: true, Offset: 8192, Span: 65536, QueueDepth: 100},
		{ReadPercent: 50, Count: 100, Verify: true, BlockSize: 256 << 10, QueueDepth: 3, Connections: 2},
		{ReadPercent: 30, Random: true, Duration: 30 * time.Millisecond, Ramp: 10 * time.Millisecond},
	} {
		t.Run(fmt.Sprintf("%+v", c), func(t *testing.T) {
			s := startNVMe(t, nvme.Grant{}, block.NewMem(4<<20))
			c.URL = s.URL(1) + "?header_digest=crc32c&data_digest=crc32c"
			res, err := Run(t.Context(), c, nil)
			if err != nil {
				t.Fatal(err)
			}
			if c.Count > 0 && res.Total.IOs != uint64(c.Count) {
				t.Errorf("%d I/Os told, %d asked for", res.Total.IOs, c.Count)
			}
			if c.Verify && res.Verified == 0 {
				t.Error("nothing was verified")
			}
		})
	}
}

func TestRunNVMeErrors(t *testing.T) {
	key, err := dhchap.GenerateSecret(dhchap.SHA256)
	if err != nil {
		t.Fatal(err)
	}
	ctrl, err := dhchap.GenerateSecret(dhchap.SHA512)
	if err != nil {
		t.Fatal(err)
	}
	s := startNVMe(t, nvme.Grant{HostKey: key, ControllerKey: ctrl}, block.NewMem(1<<20))
	run := func(url string, blockSize int) error {
		_, err := Run(t.Context(), Config{URL: url, ReadPercent: 100, Count: 10, BlockSize: blockSize}, nil)
		return err
	}
	keys := "?" + url.Values{"dhchap_secret": {key.Text()}, "dhchap_ctrl_secret": {ctrl.Text()}}.Encode()
	if err := run(s.URL(1)+keys, 4096); err != nil {
		t.Error(err)
	}
	if err := run(s.URL(1), 4096); !errors.Is(err, host.ErrAuthentication) {
		t.Errorf("without a key: %v", err)
	}
	if err := run(s.URL(1)+"?dhchap_secret=x", 4096); err == nil {
		t.Error("with a key that is none")
	}
	if err := run(s.URL(2)+keys, 4096); err == nil {
		t.Error("found a namespace that is not there")
	}
	if err := run(s.URL(1)+keys, MaxBlockSize); err == nil {
		t.Error("more than the namespace has")
	}
	if err := run("nvme://127.0.0.1:1/nqn.2026-11.io.lintel:x/1", 4096); err == nil {
		t.Error("connected to nobody")
	}
}

// TestNVMePassing checks which statuses lead to another try.
func TestNVMePassing(t *testing.T) {
	for status, want := range map[wire.Status]bool{
		wire.NamespaceNotReady: true, wire.PathTransition: true, wire.PathTransition.DNR(): false, wire.LBAOutOfRange: false, wire.ReservationConflict: false,
	} {
		io := nvmeTransfer{}
		if io.cmd.Status = status; io.passing() != want {
			t.Errorf("%v", status)
		}
	}
}
