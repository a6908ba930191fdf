package lab_test

import (
	"strings"
	"testing"
	"time"
)

// TestLogin checks discovery, logins of all kinds and logout from open-iscsi (RFC 7143 §4.2.7, §6, §12).
func TestLogin(t *testing.T) {
	s := hostSide(t, "host1")
	host, portal := s.host, s.array.Address("san-a")
	s.lintel(t, "host", "create", "host1", "--iqn", host.IQN())
	s.volume(t, "v1", "64MiB", 0)
	iqn := targetName(t, s)
	logout := func() { must(t, host.Logout(within(t, time.Minute))) }
	// set makes a record of the node with these settings.
	set := func(t *testing.T, values ...string) {
		t.Helper()
		sh(t, host, "iscsiadm -m node -T %s -p %s -o new", iqn, portal)
		for _, v := range values {
			name, value, _ := strings.Cut(v, "=")
			sh(t, host, "iscsiadm -m node -T %s -p %s -o update -n %s -v '%s'", iqn, portal, name, value)
		}
	}
	login := "iscsiadm -m node -T " + iqn + " -p " + portal + " --login"

	t.Run("discovery shows every portal", func(t *testing.T) {
		defer logout()
		out := sh(t, host, "iscsiadm -m discovery -t sendtargets -p %s", portal)
		contains(t, out, portal+":3260,", s.array.Address("san-b")+":3260,", "[fd77:0:0:1::1]:3260,", iqn)
	})
	t.Run("an unknown initiator is refused", func(t *testing.T) {
		is := func(name string) {
			stop(t, host, "iscsid")
			sh(t, host, "echo InitiatorName=%s >/etc/iscsi/initiatorname.iscsi; iscsid", name)
		}
		is("iqn.2026-11.io.lintel.lab:stranger")
		defer is(host.IQN())
		out := refused(t, host, "iscsiadm -m discovery -t sendtargets -p %s", portal)
		contains(t, out, "initiator failed authorization")
	})
	t.Run("digests", func(t *testing.T) {
		defer logout()
		set(t, "node.conn[0].iscsi.HeaderDigest=CRC32C", "node.conn[0].iscsi.DataDigest=CRC32C")
		sh(t, host, "%s", login)
		contains(t, sh(t, host, "iscsiadm -m session -P 2"), "HeaderDigest: CRC32C", "DataDigest: CRC32C", "iSCSI Session State: LOGGED_IN")
		verify(t, s, disk(t, host, portal, 0), "--size=16m --bs=64k")
	})
	t.Run("small bursts and R2T", func(t *testing.T) {
		defer logout()
		set(t, "node.session.iscsi.InitialR2T=Yes", "node.session.iscsi.ImmediateData=No", "node.session.iscsi.FirstBurstLength=4096",
			"node.session.iscsi.MaxBurstLength=16384", "node.conn[0].iscsi.MaxRecvDataSegmentLength=8192")
		sh(t, host, "%s", login)
		contains(t, sh(t, host, "iscsiadm -m session -P 2"), "InitialR2T: Yes", "ImmediateData: No", "MaxBurstLength: 16384", "MaxRecvDataSegmentLength: 8192")
		verify(t, s, disk(t, host, portal, 0), "--size=8m --bs=256k")
	})
	t.Run("IPv6", func(t *testing.T) {
		defer logout()
		sh(t, host, "iscsiadm -m discovery -t sendtargets -p [fd77:0:0:1::1]:3260 >/dev/null; iscsiadm -m node -T %s -p [fd77:0:0:1::1]:3260 --login", iqn)
		contains(t, s.lintel(t, "session", "list"), "[fd77:0:0:1::11]")
	})
	// Linux has one connection in a session, so that several connections are several sessions.
	t.Run("two sessions of one initiator", func(t *testing.T) {
		defer logout()
		set(t, "node.session.nr_sessions=2")
		sh(t, host, "%s", login)
		if n := strings.Count(s.lintel(t, "session", "list"), host.IQN()); n != 2 {
			t.Errorf("%d sessions, want 2", n)
		}
	})
	t.Run("CHAP", func(t *testing.T) {
		defer logout()
		s.lintel(t, "host", "set", "host1", "--chap-user", "alice", "--chap-secret", "one-way-secret-1")
		set(t)
		contains(t, refused(t, host, "%s", login), "authorization failure")
		contains(t, refused(t, host, "iscsiadm -m discovery -t sendtargets -p %s", portal), "authorization failure")
		chap := []string{"node.session.auth.authmethod=CHAP", "node.session.auth.username=alice"}
		set(t, append(chap, "node.session.auth.password=a-wrong-secret-9")...)
		contains(t, refused(t, host, "%s", login), "authorization failure")
		chap = append(chap, "node.session.auth.password=one-way-secret-1")
		set(t, chap...)
		sh(t, host, "%s", login)
		logout()
		s.lintel(t, "host", "set", "host1", "--mutual-user", "array", "--mutual-secret", "mutual-secret-22")
		set(t, append(chap, "node.session.auth.username_in=array", "node.session.auth.password_in=not-the-secret-1")...)
		refused(t, host, "%s", login)
		set(t, append(chap, "node.session.auth.username_in=array", "node.session.auth.password_in=mutual-secret-22")...)
		sh(t, host, "%s", login)
		contains(t, sh(t, host, "iscsiadm -m session -P 2"), "username: alice", "username_in: array")
		contains(t, sh(t, host, `
			sed -i.orig -e '$a discovery.sendtargets.auth.authmethod = CHAP' -e '$a discovery.sendtargets.auth.username = alice' \
				-e '$a discovery.sendtargets.auth.password = one-way-secret-1' /etc/iscsi/iscsid.conf
			iscsiadm -m discovery -t sendtargets -p %s; mv /etc/iscsi/iscsid.conf.orig /etc/iscsi/iscsid.conf`, portal), iqn)
	})
	t.Run("logout ends the session", func(t *testing.T) {
		logout()
		s.lintel(t, "host", "set", "host1", "--no-chap")
		for deadline := time.Now().Add(time.Minute); strings.Contains(s.lintel(t, "session", "list"), host.IQN()); {
			if time.Now().After(deadline) {
				t.Fatalf("a session is left:\n%s", s.lintel(t, "session", "list"))
			}
		}
		if out := sh(t, host, "lsblk -dno NAME,VENDOR | grep LINTEL || true"); out != "" {
			t.Errorf("a disk is left: %s", out)
		}
	})
	t.Run("the host starts before the array", func(t *testing.T) {
		set(t)
		contains(t, sh(t, host, "iscsiadm -m node -T %s -p %s -o show; sync", iqn, portal), "node.startup = automatic", "node.session.timeo.replacement_timeout = 5")
		must(t, s.array.Kill(within(t, time.Minute)))
		must(t, host.Reset(within(t, 2*time.Minute)))
		must(t, host.StartInitiator(within(t, time.Minute)))
		// What open-iscsi's service runs.
		must(t, host.Start(within(t, time.Minute), "open-iscsi", "iscsiadm", "-m", "node", "--loginall=automatic"))
		sh(t, host, "for i in $(seq 300); do [ $(nstat -az TcpAttemptFails | awk '/^Tcp/ { print $2 }') -gt 0 ] && exit 0; sleep 0.1; done; exit 1") // nobody answers
		must(t, s.array.Up(within(t, time.Minute)))
		if p, err := host.Wait(within(t, time.Minute), "open-iscsi"); err != nil || p.Code != 0 {
			log, _ := host.ReadFile(within(t, time.Minute), p.Log)
			t.Fatalf("iscsiadm ended with %d, %v: %s", p.Code, err, log)
		}
		verify(t, s, disk(t, host, portal, 0), "--size=8m --bs=64k")
		logout()
	})
}

// targetName returns the name of the array's target.
func targetName(t testing.TB, s *san) string {
	t.Helper()
	for _, word := range strings.Fields(s.lintel(t, "target", "show")) {
		if strings.HasPrefix(word, "iqn.") {
			return word
		}
	}
	t.Fatal("the target has no name")
	return ""
}

// verify writes to a block device with fio and reads back what it wrote.
func verify(t testing.TB, s *san, device, options string) {
	t.Helper()
	sh(t, s.host, "[ -b %s ] && fio --name=v --filename=%[1]s --rw=randwrite --direct=1 --ioengine=libaio --iodepth=8 --verify=crc32c --verify_fatal=1 %s >/tmp/fio.log 2>&1 || { cat /tmp/fio.log; exit 1; }", device, options)
}
