package lab_test

import (
	"strings"
	"testing"
)

// reservationActions goes through the service actions of PERSISTENT RESERVE that the
// types and the move of a reservation do without.
func reservationActions(t *testing.T, c *cluster) {
	disks := c.share(t, "actions", "16MiB")
	if one, two := sh(t, c.hosts[0], "sg_vpd -p sn %s", disks[0]), sh(t, c.hosts[1], "sg_vpd -p sn %s", disks[1]); one != two {
		t.Errorf("serial numbers differ between hosts: %s, %s", one, two)
	}
	contains(t, sh(t, c.hosts[0], "sg_persist --in --read-keys %s", disks[0]), "there are NO registered reservation keys")
	contains(t, sh(t, c.hosts[0], "sg_persist --in --report-capabilities %s", disks[0]), "Specify Initiator Ports Capable(SIP_C): 1", "All Target Ports Capable(ATP_C): 1",
		"Persist Through Power Loss Capable(PTPL_C): 1", "Type Mask Valid(TMV): 1", "Write Exclusive, registrants only: 1", "Exclusive Access, all registrants: 1")
	for i, h := range c.hosts {
		sh(t, h, "sg_persist --out --register --param-sark=%s %s", keys[i], disks[i])
	}
	contains(t, sh(t, c.hosts[0], "sg_persist --in --read-keys %s", disks[0]), "2 registered reservation keys", keys[0], keys[1])
	sh(t, c.hosts[0], "sg_persist --out --reserve --param-rk=%s --prout-type=%d %s", keys[0], writeExclusive, disks[0])
	for what, command := range map[string]string{
		"another type":          "--reserve --param-rk=" + keys[1] + " --prout-type=3",
		"a key that is not its": "--register --param-rk=" + keys[0] + " --param-sark=0x3333",
	} {
		t.Run(what, func(t *testing.T) {
			contains(t, refused(t, c.hosts[1], "sg_persist --out %s %s", command, disks[1]), "Reservation conflict")
		})
	}
	// One who is registered and holds nothing releases nothing, and that is no error.
	sh(t, c.hosts[1], "sg_persist --out --release --param-rk=%s --prout-type=%d %s", keys[1], writeExclusive, disks[1])
	contains(t, sh(t, c.hosts[1], "sg_persist --in --read-reservation %s", disks[1]), "Write Exclusive", keys[0])

	// PREEMPT takes the reservation with another type, and the other's registration.
	sh(t, c.hosts[1], "sg_persist --out --preempt --param-rk=%s --param-sark=%s --prout-type=%d %s", keys[1], keys[0], writeRegistrants, disks[1])
	contains(t, sh(t, c.hosts[1], "sg_persist --in --read-reservation %s", disks[1]), "Write Exclusive, registrants only", keys[1])
	contains(t, sh(t, c.hosts[1], "sg_persist --in --read-keys %s", disks[1]), "1 registered reservation key")
	contains(t, refused(t, c.hosts[0], "sg_turs %s >/dev/null 2>&1 || true; dd if=/dev/zero of=%[1]s bs=512 count=1 oflag=direct", disks[0]), "Invalid exchange")

	// RELEASE leaves the registration, REGISTER with no key ends it.
	sh(t, c.hosts[1], "sg_persist --out --release --param-rk=%s --prout-type=%d %s", keys[1], writeRegistrants, disks[1])
	contains(t, sh(t, c.hosts[1], "sg_persist --in --read-reservation %s", disks[1]), "there is NO reservation held")
	sh(t, c.hosts[0], "dd if=/dev/zero of=%s bs=512 count=1 oflag=direct status=none", disks[0])
	sh(t, c.hosts[0], "sg_persist --out --register-ignore --param-sark=%s %s", keys[0], disks[0])
	for i, h := range c.hosts {
		sh(t, h, "sg_persist --out --register --param-rk=%s --param-sark=0 %s", keys[i], disks[i])
	}
	if out := sh(t, c.hosts[1], "sg_persist --in --read-full-status %s", disks[1]); strings.Contains(out, "Key=") {
		t.Errorf("registrations are left:\n%s", out)
	}
}
