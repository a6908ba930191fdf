package bench

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"lintel.io/lintel/internal/initiator/iscsi"
)

func TestRun(t *testing.T) {
	for _, c := range []Config{
		{ReadPercent: 100, Count: 1000},
		{ReadPercent: 100, Count: 1001, Random: true, Connections: 4, QueueDepth: 3},
		{ReadPercent: 100, Count: 100, Connections: 4, SessionConnections: 2, BlockSize: 16384},
		{Count: 500, QueueDepth: 64, BlockSize: 512},
		{Count: 2, Connections: 3, BlockSize: 65536},
		{ReadPercent: 50, Count: 5000, Random: true, Verify: true, Connections: 2},
		{ReadPercent: 70, Count: 5000, Verify: true, Offset: 8192, Span: 65536, QueueDepth: 100},
		{ReadPercent: 30, Random: true, Duration: 30 * time.Millisecond, Ramp: 10 * time.Millisecond},
	} {
		t.Run(fmt.Sprintf("%+v", c), func(t *testing.T) {
			m := startTarget(t, 1<<20, 512)
			c.URL = m.url()
			res, err := Run(t.Context(), c, nil)
			if err != nil {
				t.Fatal(err)
			}
			if c.Count > 0 && (res.Total.IOs != uint64(c.Count) || m.ios != int(c.Count)) {
				t.Errorf("%d I/Os told, %d done, %d asked for", res.Total.IOs, m.ios, c.Count)
			}
			if res.Read.IOs+res.Write.IOs != res.Total.IOs || c.ReadPercent == 100 && res.Write.IOs > 0 || c.ReadPercent == 0 && res.Read.IOs > 0 {
				t.Errorf("%d reads, %d writes", res.Read.IOs, res.Write.IOs)
			}
			if c.Verify && res.Verified == 0 {
				t.Error("nothing was verified")
			}
			if c.Span > 0 {
				for i, b := range m.data {
					if b != 0 && (i < int(c.Offset) || i >= int(c.Offset+c.Span)) {
						t.Fatalf("byte %d outside of the span was written", i)
					}
				}
			}
		})
	}
}

func TestRunLargeUnit(t *testing.T) {
	m := startTarget(t, 1<<20, 4096)
	if _, err := Run(t.Context(), Config{URL: m.url(), BlockSize: 2048, Count: 1}, nil); err == nil {
		t.Error("blocks smaller than the unit's")
	}
	for _, c := range []Config{
		{Offset: 1 << 20, Span: 4096},
		{Offset: 2 << 20},
		{Connections: 2, BlockSize: 1 << 20},
	} {
		c.URL, c.Count = m.url(), 1
		if _, err := Run(t.Context(), c, nil); err == nil {
			t.Errorf("%+v fits into 1 MiB", c)
		}
	}
}

// TestRunSeed checks that a later run with the same seed checks what an earlier one wrote.
func TestRunSeed(t *testing.T) {
	m := startTarget(t, 1<<20, 512)
	c := Config{URL: m.url(), Verify: true, Seed: 42, Count: 256}
	if _, err := Run(t.Context(), c, nil); err != nil {
		t.Fatal(err)
	}
	c.ReadPercent = 100
	if _, err := Run(t.Context(), c, nil); err != nil {
		t.Fatal(err)
	}
	m.data[70_000] ^= 1
	var corrupt *CorruptError
	if _, err := Run(t.Context(), c, nil); !errors.As(err, &corrupt) || corrupt.Off != 70_000/512*512 {
		t.Errorf("got %v", err)
	}
	c.Seed = 43
	if _, err := Run(t.Context(), c, nil); err != nil {
		t.Errorf("data of another seed: %v", err)
	}
}

// TestRunFindsLostWrites checks that a block that has gone back to an earlier
// generation is found, though its checksum is right.
func TestRunFindsLostWrites(t *testing.T) {
	m := startTarget(t, 64<<10, 512)
	before := map[*byte][]byte{}
	m.fault = func(n int, write bool, p []byte) (byte, []byte) {
		if p[0] == 0 {
			return 0, nil
		}
		if old, ok := before[&p[0]]; ok && !write && n > 300 {
			copy(p, old)
		} else if write && !ok {
			before[&p[0]] = bytes.Clone(p)
		}
		return 0, nil
	}
	var corrupt *CorruptError
	res, err := Run(t.Context(), Config{URL: m.url(), Verify: true, ReadPercent: 50, Random: true, Count: 10_000, QueueDepth: 4, Seed: 5}, nil)
	if !errors.As(err, &corrupt) {
		t.Errorf("got %v in %d I/Os", err, res.Total.IOs)
	}
}

func TestRunErrors(t *testing.T) {
	m := startTarget(t, 64<<10, 512)
	m.fault = func(n int, write bool, _ []byte) (byte, []byte) {
		switch n {
		case 5:
			return statusBusy, nil
		case 6:
			return statusTaskSetFull, nil
		case 7:
			return statusCheckCondition, []byte{0x70, 0, 6, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0x2a, 9, 0, 0, 0, 0}
		}
		return 0, nil
	}
	res, err := Run(t.Context(), Config{URL: m.url(), ReadPercent: 100, Count: 100}, nil)
	if err != nil || res.Retries != 3 || res.Total.IOs != 100 {
		t.Errorf("%+v, %v", res, err)
	}
	m.ios = 0
	m.fault = func(n int, write bool, _ []byte) (byte, []byte) {
		if n == 50 {
			return statusCheckCondition, []byte{0x72, 3, 0x11, 0, 0, 0, 0, 0}
		}
		return 0, nil
	}
	var status *iscsi.StatusError
	if _, err := Run(t.Context(), Config{URL: m.url(), ReadPercent: 100, Count: 100}, nil); !errors.As(err, &status) || status.Status != 2 {
		t.Errorf("got %v", err)
	}
	if _, err := Run(t.Context(), Config{URL: m.url(), Count: 1, ServerPID: -1}, nil); err == nil {
		t.Error("the missing server process was not told")
	}
	if _, err := Run(t.Context(), Config{URL: "iscsi://127.0.0.1:1/iqn.a/0"}, nil); err == nil {
		t.Error("logged in nowhere")
	}
}

func TestRunCancelled(t *testing.T) {
	m := startTarget(t, 64<<10, 512)
	ctx, cancel := context.WithCancel(t.Context())
	m.fault = func(n int, _ bool, _ []byte) (byte, []byte) {
		if n == 200 {
			cancel()
		}
		return 0, nil
	}
	res, err := Run(ctx, Config{URL: m.url(), ReadPercent: 100, Duration: time.Hour, QueueDepth: 2}, nil)
	if !errors.Is(err, context.Canceled) || res.Total.IOs < 190 {
		t.Errorf("%d I/Os, %v", res.Total.IOs, err)
	}
}

func TestProgress(t *testing.T) {
	m := startTarget(t, 64<<10, 512)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var got []Snapshot
	_, err := Run(ctx, Config{URL: m.url(), ReadPercent: 100, Duration: time.Hour, QueueDepth: 2}, func(s Snapshot) {
		if got = append(got, s); len(got) == 2 {
			cancel()
		}
	})
	if !errors.Is(err, context.Canceled) || len(got) < 2 || got[1].IOs <= got[0].IOs || got[1].IOPS == 0 || got[1].P50 == 0 {
		t.Errorf("%+v, %v", got, err)
	}
}
