package bench

import (
	"bytes"
	"errors"
	"flag"
	"math"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"pgregory.net/rapid"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestHistogramBuckets(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		v := rapid.Uint64Range(0, 1<<topBits-1).Draw(t, "ns")
		i := bucketOf(v)
		top := upperBound(i)
		if v > top || i > 0 && v <= upperBound(i-1) || float64(top) > float64(v)*(1+1./64)+1 {
			t.Fatalf("%d is in bucket %d, up to %d", v, i, top)
		}
	})
	if got := bucketOf(math.MaxUint64); got != buckets-1 {
		t.Errorf("the largest value is in bucket %d of %d", got, buckets)
	}
}

func TestHistogramQuantiles(t *testing.T) {
	var all, even, odd Histogram
	if all.Quantile(.5) != 0 || all.Mean() != 0 {
		t.Error("an empty histogram has quantiles")
	}
	rng := rand.New(rand.NewPCG(1, 2))
	values := make([]time.Duration, 10_001)
	for i := range values {
		values[i] = time.Duration(rng.ExpFloat64() * 1e5)
		all.Record(values[i])
		if i%2 == 0 {
			even.Record(values[i])
		} else {
			odd.Record(values[i])
		}
	}
	even.Add(&odd)
	even.Add(&Histogram{})
	if even != all {
		t.Error("adding is not recording")
	}
	slices.Sort(values)
	if all.Count() != uint64(len(values)) || all.Min() != values[0] || all.Max() != values[len(values)-1] || all.Quantile(1) != all.Max() {
		t.Errorf("count %d, min %v, max %v", all.Count(), all.Min(), all.Max())
	}
	for _, q := range []float64{0, .01, .5, .9, .99, .999} {
		want := float64(values[int(q*float64(len(values)-1))])
		if got := float64(all.Quantile(q)); math.Abs(got-want) > want/30+10 {
			t.Errorf("quantile %v is %v, want %v", q, got, want)
		}
	}
	if n := testing.AllocsPerRun(10, func() { all.Record(time.Second); all.Quantile(.5) }); n > 0 {
		t.Errorf("%v allocations", n)
	}
	all.Reset()
	all.Record(-5)
	if all.Max() != 0 || all.Count() != 1 {
		t.Error("a negative latency is not zero")
	}
}

func TestPattern(t *testing.T) {
	p := make([]byte, 4096)
	Fill(p, 1<<40, 7, 9)
	if g, err := Check(p, 1<<40, 7); g != 9 || err != nil {
		t.Errorf("generation %d, %v", g, err)
	}
	for i := range p {
		p[i] ^= 1 << (i % 8)
		if _, err := Check(p, 1<<40, 7); err == nil {
			t.Fatalf("a changed byte %d goes unnoticed", i)
		}
		p[i] ^= 1 << (i % 8)
	}
	var corrupt *CorruptError
	if _, err := Check(p, 0, 7); !errors.As(err, &corrupt) || corrupt.Off != 0 {
		t.Errorf("data of another place: %v", err)
	}
	if _, err := Check(p, 1<<40, 8); !errors.Is(err, ErrNoPattern) {
		t.Errorf("data of another run: %v", err)
	}
	Fill(p[1024:2048], 1<<40+1024, 7, 8)
	if _, err := Check(p, 1<<40, 7); !errors.As(err, &corrupt) || corrupt.Off != 1<<40+1024 {
		t.Errorf("torn write: %v", err)
	}
	if _, err := Check(make([]byte, 512), 0, 7); !errors.Is(err, ErrNoPattern) {
		t.Errorf("zeros: %v", err)
	}
}

func TestParseURL(t *testing.T) {
	for text, want := range map[string]URL{
		"iscsi://h/iqn.a:b/0":                                       {Address: "h:3260", Target: "iqn.a:b"},
		"iscsi://h:1/iqn.a/16383":                                   {Address: "h:1", Target: "iqn.a", LUN: 16383},
		"iscsi://[::1]/iqn.a/1":                                     {Address: "[::1]:3260", Target: "iqn.a", LUN: 1},
		"iscsi://[::1]:99/iqn.a/1":                                  {Address: "[::1]:99", Target: "iqn.a", LUN: 1},
		"iscsi://me%p@ss@h/iqn.a/1":                                 {Address: "h:3260", Target: "iqn.a", LUN: 1, User: "me", Password: "p@ss"},
		"iscsi://me@h":                                              {Address: "h:3260", User: "me"},
		"iscsi://h/iqn.a/1?target_user=t&target_password=q":         {Address: "h:3260", Target: "iqn.a", LUN: 1, MutualUser: "t", MutualPassword: "q"},
		"iscsi://h/iqn.a/1?header_digest=crc32c&data_digest=CRC32C": {Address: "h:3260", Target: "iqn.a", LUN: 1, HeaderDigest: true, DataDigest: true},
		"iscsi://h/iqn.a/1?data_digest=none":                        {Address: "h:3260", Target: "iqn.a", LUN: 1},
		"nvme://h/nqn.2026-11.io.lintel:x/4294967294":               {NVMe: true, Address: "h:4420", Target: "nqn.2026-11.io.lintel:x", NSID: 1<<32 - 2},
		"nvme://[::1]:8009":                                         {NVMe: true, Address: "[::1]:8009"},
		"nvme://h/nqn.a/1?dhchap_secret=a&dhchap_ctrl_secret=b":     {NVMe: true, Address: "h:4420", Target: "nqn.a", NSID: 1, Password: "a", MutualPassword: "b"},
		"nvme://h/nqn.a/1?header_digest=crc32c":                     {NVMe: true, Address: "h:4420", Target: "nqn.a", NSID: 1, HeaderDigest: true},
	} {
		if got, err := ParseURL(text); got != want || err != nil {
			t.Errorf("%s: %+v, %v", text, got, err)
		}
	}
	for _, text := range []string{
		"", "http://h/iqn.a/1", "iscsi:///iqn.a/1", "iscsi://h:0/iqn.a/1", "iscsi://h:x/iqn.a/1", "iscsi://[::1/iqn.a/1", "iscsi://[::1]x/iqn.a/1",
		"iscsi://h/iqn.a", "iscsi://h/iqn.a/x", "iscsi://h/iqn.a/16384", "iscsi://h/iqn.a/-1", "iscsi://h//1",
		"iscsi://h/iqn.a/1?color=red", "iscsi://h/iqn.a/1?data_digest=md5", "iscsi://h/iqn.a/1?%zz",
		"nvme://h/nqn.a/0", "nvme://h/nqn.a/4294967295", "nvme://h/nqn.a", "nvme://h/nqn.a/1?target_user=x", "iscsi://h/iqn.a/1?dhchap_secret=x", "nvme://me@h/nqn.a/1",
	} {
		if got, err := ParseURL(text); err == nil {
			t.Errorf("%s: %+v", text, got)
		}
	}
}

func FuzzParseURL(f *testing.F) {
	f.Add("iscsi://me%secret@[::1]:3260/iqn.2026-11.io.lintel:x/7?header_digest=crc32c")
	f.Fuzz(func(_ *testing.T, s string) { _, _ = ParseURL(s) })
}

func TestFlags(t *testing.T) {
	c := DefaultConfig()
	fs := flag.NewFlagSet("", flag.ContinueOnError)
	fs.SetOutput(&bytes.Buffer{})
	c.AddFlags(fs)
	if got := fs.Lookup("block-size").DefValue; got != "4KiB" {
		t.Errorf("default block size %s", got)
	}
	err := fs.Parse([]string{"-block-size", "1MiB", "-offset=1kB", "-span", "3G", "-random=false", "-queue-depth=7", "-ramp=1s"})
	if err != nil || c.BlockSize != 1<<20 || c.Offset != 1000 || c.Span != 3<<30 || c.Random || c.QueueDepth != 7 || c.Ramp != time.Second {
		t.Errorf("%+v, %v", c, err)
	}
	for _, bad := range []string{"", "x", "-1", "1XB", "9999999TiB", "99999999999999999999", "1.5MiB"} {
		if err := fs.Parse([]string{"-span", bad}); err == nil {
			t.Errorf("%q taken as %d", bad, c.Span)
		}
	}
	for n, want := range map[int64]string{0: "0", 5: "5", 1 << 10: "1KiB", 3 << 20: "3MiB", 1 << 30: "1GiB", 1<<40 + 512: "1099511628288"} {
		if got := (byteSize[int64]{&n}).String(); got != want {
			t.Errorf("%d is written %s", n, got)
		}
	}
}

func TestBadConfig(t *testing.T) {
	for name, c := range map[string]Config{
		"queue depth":  {QueueDepth: MaxQueueDepth + 1},
		"connections":  {Connections: -1},
		"sessions":     {Connections: 3, SessionConnections: 2},
		"block size":   {BlockSize: 513},
		"large blocks": {BlockSize: MaxBlockSize * 2},
		"read share":   {ReadPercent: 101},
		"offset":       {Offset: 100},
		"duration":     {Duration: -1},
		"URL":          {URL: "x"},
		"no target":    {URL: "iscsi://h"},
	} {
		if _, err := Run(t.Context(), c, nil); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestProcessCPU(t *testing.T) {
	if _, err := os.Stat("/proc/self/stat"); err != nil {
		t.Skip("not run: this system has no /proc")
	}
	before, err := ProcessCPU(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	x := uint64(1)
	for range 40_000_000 {
		x = mix(x)
	}
	if after, err := ProcessCPU(os.Getpid()); err != nil || after <= before {
		t.Errorf("%v after %v, %v (%d)", after, before, err, x)
	}
	if _, err := ProcessCPU(-1); err == nil {
		t.Error("a process that does not exist has CPU time")
	}
}

func TestTable(t *testing.T) {
	var h Histogram
	for i := range 1000 {
		h.Record(time.Duration(i) * 1234)
	}
	r := Result{Elapsed: 2 * time.Second, Retries: 3, Verified: 4096, ServerCPU: 2345, ClientCPU: 1234567}
	r.Read.set(&h, 4096, r.Elapsed)
	r.Write.set(&h, 4096, r.Elapsed)
	r.Total.set(&h, 4096, r.Elapsed)
	var out strings.Builder
	if err := r.WriteTable(&out); err != nil {
		t.Fatal(err)
	}
	want := `         I/Os  IOPS  MB/s   mean    p50     p90     p99   p99.9     max
   read  1000   500   2.0  616µs  623µs  1.11ms  1.23ms  1.23ms  1.23ms
  write  1000   500   2.0  616µs  623µs  1.11ms  1.23ms  1.23ms  1.23ms
   both  1000   500   2.0  616µs  623µs  1.11ms  1.23ms  1.23ms  1.23ms
measured 2s; server CPU 2.35µs per I/O; client CPU 1.23ms per I/O; 4096 bytes verified; 3 retries
`
	if out.String() != want {
		t.Errorf("got\n%s", out.String())
	}
	s := Snapshot{Elapsed: 3 * time.Second, Ramp: true, IOPS: 1234, BytesPerSecond: 5e6, P50: 100 * time.Microsecond, P99: time.Millisecond}
	if want := "   3 s (ramp)  1234 IOPS  5.0 MB/s  p50 100µs  p99 1ms"; s.String() != want {
		t.Errorf("got %q", s)
	}
}
