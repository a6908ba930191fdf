package iscsi_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"lintel.io/lintel/internal/initiator/iscsi"
	wire "lintel.io/lintel/internal/wire/iscsi"
)

// tgtd is a running tgtd with target tgtIQN: LUN 1 is a file, LUN 2 null.
type tgtd struct {
	address string
	control int
}

const tgtIQN = "iqn.2026-11.io.lintel:tgt"

func (d tgtd) admin(t *testing.T, args ...string) {
	t.Helper()
	args = append([]string{"-C", strconv.Itoa(d.control), "--lld", "iscsi"}, args...)
	if out, err := exec.Command("tgtadm", args...).CombinedOutput(); err != nil {
		t.Fatalf("tgtadm %v: %v\n%s", args, err, out)
	}
}

// startTgtd starts tgtd, or skips the test where Debian's tgt is not installed.
func startTgtd(t *testing.T) tgtd {
	t.Helper()
	if _, err := exec.LookPath("tgtd"); err != nil {
		t.Skip("not run: tgtd is not installed (apt-get install tgt)")
	}
	if os.Geteuid() != 0 {
		t.Skip("not run: tgtd needs root for its control socket")
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	l.Close()
	d := tgtd{address: address, control: 1 + os.Getpid()%30000}
	cmd := exec.Command("tgtd", "-f", "--iscsi", "portal="+address, "-C", strconv.Itoa(d.control))
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		for _, suffix := range []string{"", ".lock"} {
			_ = os.Remove(fmt.Sprintf("/var/run/tgtd/socket.%d%s", d.control, suffix))
		}
	})
	for i := 0; ; i++ {
		c, err := net.Dial("tcp", address)
		if err == nil {
			c.Close()
			break
		}
		if i == 100 {
			t.Fatalf("tgtd does not listen: %v", err)
		}
		time.Sleep(50 * time.Millisecond)
	}
	file := filepath.Join(t.TempDir(), "lun1")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(file, 64<<20); err != nil {
		t.Fatal(err)
	}
	d.admin(t, "--op", "new", "--mode", "target", "--tid", "1", "-T", tgtIQN)
	d.admin(t, "--op", "new", "--mode", "logicalunit", "--tid", "1", "--lun", "1", "-b", file)
	d.admin(t, "--op", "new", "--mode", "logicalunit", "--tid", "1", "--lun", "2", "--bstype", "null", "-b", "1g")
	d.admin(t, "--op", "bind", "--mode", "target", "--tid", "1", "-I", "ALL")
	return d
}

func TestTgt(t *testing.T) {
	d := startTgtd(t)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()

	records, err := iscsi.Discover(ctx, d.address, iscsi.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if len(records) != 1 || records[0].Name != tgtIQN || len(records[0].Portals) != 1 || records[0].Portals[0].Address != d.address {
		t.Fatalf("discovered %+v", records)
	}

	for _, digest := range []string{"None", "CRC32C"} {
		t.Run(digest, func(t *testing.T) {
			for _, key := range []string{"HeaderDigest", "DataDigest"} {
				d.admin(t, "--op", "update", "--mode", "target", "--tid", "1", "-n", key, "-v", digest)
			}
			op := iscsi.DefaultOperational()
			op.HeaderDigest, op.DataDigest = []string{digest}, []string{digest}
			s, err := iscsi.Dial(ctx, d.address, iscsi.Options{Target: tgtIQN, Operational: &op})
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			t.Logf("%+v", s.Parameters())
			lun := iscsi.LUN(1)
			if err := s.Ready(ctx, lun); err != nil {
				t.Fatal(err)
			}
			luns, err := s.LUNs(ctx)
			if err != nil || fmt.Sprint(luns) != fmt.Sprint([]uint64{0, iscsi.LUN(1), iscsi.LUN(2)}) {
				t.Errorf("LUNs %#x, %v", luns, err)
			}
			blocks, size, err := s.Capacity(ctx, lun)
			if err != nil || blocks != 64<<20/512 || size != 512 {
				t.Errorf("capacity %d x %d, %v", blocks, size, err)
			}
			for _, n := range []int{512, 4096, 65536, 1 << 20, 3<<20 + 512} {
				out, in := make([]byte, n), make([]byte, n)
				rand.Read(out)
				if err := s.Write(ctx, lun, 8, 512, out); err != nil {
					t.Fatalf("%d bytes: %v", n, err)
				}
				if err := s.Read(ctx, lun, 8, 512, in); err != nil {
					t.Fatalf("%d bytes: %v", n, err)
				}
				if !bytes.Equal(in, out) {
					t.Errorf("%d bytes: read something else than was written", n)
				}
			}
			var status *iscsi.StatusError
			if err := s.Read(ctx, lun, 64<<20/512, 512, make([]byte, 512)); !errors.As(err, &status) {
				t.Errorf("read past the end: %v", err)
			} else if key, code := iscsi.SenseCode(status.Sense); key != 5 || code != 0x2100 {
				t.Errorf("read past the end: %v", err)
			}
			if data, err := s.Connections()[0].Ping(ctx, []byte("hello")); err != nil || string(data) != "hello" {
				t.Errorf("ping: %q, %v", data, err)
			}
			if r, err := s.Manage(ctx, iscsi.LogicalUnitReset, lun, nil); err != nil || r != iscsi.FunctionComplete {
				t.Errorf("reset: %d, %v", r, err)
			}
			if err := s.Logout(ctx); err != nil {
				t.Error(err)
			}
			if err := s.Flush(ctx, lun); !errors.Is(err, iscsi.ErrClosed) {
				t.Errorf("after the logout: %v", err)
			}
		})
	}
}

var errRefused = errors.New("refused")

func TestTgtCHAP(t *testing.T) {
	d := startTgtd(t)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	d.admin(t, "--op", "new", "--mode", "account", "--user", "alice", "--password", "secretsecret")
	d.admin(t, "--op", "bind", "--mode", "account", "--tid", "1", "--user", "alice")
	d.admin(t, "--op", "new", "--mode", "account", "--user", "target", "--password", "mutualsecret")
	d.admin(t, "--op", "bind", "--mode", "account", "--tid", "1", "--user", "target", "--outgoing")
	// tgt takes algorithm 7 for SHA-1, so only MD5 is common ground.
	md5 := []int{wire.CHAPMD5}
	for _, test := range []struct {
		name string
		chap *iscsi.CHAP
		want error // nil for success; errRefused for a refused login
	}{
		{"none", nil, errRefused},
		{"one way", &iscsi.CHAP{User: "alice", Secret: "secretsecret", Algorithms: md5}, nil},
		{"wrong", &iscsi.CHAP{User: "alice", Secret: "wrong", Algorithms: md5}, errRefused},
		{"mutual", &iscsi.CHAP{User: "alice", Secret: "secretsecret", TargetUser: "target", TargetSecret: "mutualsecret", Algorithms: md5}, nil},
		{"mutual wrong", &iscsi.CHAP{User: "alice", Secret: "secretsecret", TargetSecret: "wrong", Algorithms: md5}, iscsi.ErrAuthentication},
	} {
		t.Run(test.name, func(t *testing.T) {
			s, err := iscsi.Dial(ctx, d.address, iscsi.Options{Target: tgtIQN, CHAP: test.chap})
			if err == nil {
				defer s.Close()
				err = s.Ready(ctx, iscsi.LUN(1))
			}
			if refused := (*iscsi.LoginError)(nil); errors.As(err, &refused) {
				err = errRefused
			}
			if !errors.Is(err, test.want) {
				t.Errorf("got %v, want %v", err, test.want)
			}
		})
	}
}
