package lab_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"lintel.io/lintel/lab"
)

// nobody is a user without any right.
const nobody = 65534

// TestWithoutRoot starts a lab by the command line as a user who is not root, in user
// namespaces, and does with it what others do as root.
func TestWithoutRoot(t *testing.T) {
	if os.Getenv(lab.TestVariable) == "" {
		t.Skipf("starts a lab of guests: set %s=1 (make lab-test)", lab.TestVariable)
	}
	if os.Geteuid() != 0 {
		t.Skip("needs root to become another user; all other labs of this run are labs without root")
	}
	t.Parallel()
	// Sockets are in it, whose paths must not be long.
	dir, err := os.MkdirTemp("", "lab")
	must(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	must(t, os.Chown(dir, nobody, nobody))
	as := func(argv ...string) (string, error) {
		cmd := exec.CommandContext(within(t, 5*time.Minute), argv[0], argv[1:]...)
		cmd.Dir = dir
		cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + dir, "TMPDIR=" + dir, "LINTEL_LAB_CACHE=" + dir + "/cache", lab.KernelVariable + "=" + dir + "/linux"}
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
		out, err := cmd.CombinedOutput()
		return strings.TrimSpace(string(out)), err
	}
	if out, err := as("unshare", "--user", "--map-root-user", "--net", "--pid", "--fork", "sh", "-c", "exec 3<>/dev/net/tun"); err != nil {
		t.Skipf("users may not make namespaces and network devices here: %v: %s", err, out)
	}
	images, err := lab.BuildImages(within(t, 5*time.Minute), func(string) {})
	must(t, err)
	must(t, os.Mkdir(dir+"/cache", 0o755))
	for _, c := range [][]string{
		{"go", "build", "-trimpath", "-o", dir + "/lintel", "lintel.io/lintel/cmd/lintel"},
		{"cp", images.Kernel, dir + "/linux"},
		{"cp", "--sparse=always", images.Root, dir + "/cache/" + filepath.Base(images.Root)},
		{"chown", strconv.Itoa(nobody), dir + "/cache"},
	} {
		cmd := exec.CommandContext(within(t, 5*time.Minute), c[0], c[1:]...)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%q: %v: %s", c, err, out)
		}
	}
	lintel := func(args ...string) string {
		t.Helper()
		out, err := as(append([]string{dir + "/lintel", "lab"}, args...)...)
		if err != nil {
			t.Fatalf("%q: %v: %s", args, err, out)
		}
		return out
	}
	t.Cleanup(func() { _, _ = as(dir+"/lintel", "lab", "down", "--all") }) // there is none unless the test has failed

	contains(t, lintel("up", "single"), "Lab single is up", "head1", "host1")
	contains(t, lintel("run", "host1", "id -u; multipath -ll"), "0\n", "LINTEL,VIRTUAL-DISK")
	contains(t, lintel("fail", "host1", "--cut", "san-a"), "(cut:both)")
	lintel("run", "host1", "mkfs.ext4 -q /dev/mapper/mpatha; mount /dev/mapper/mpatha /mnt; echo kept >/mnt/file; sync /mnt/file")
	lintel("heal", "host1")
	lintel("fail", "host1", "--reset")
	contains(t, lintel("run", "head1", "--", "lintel", "session", "list"), "INITIATOR")
	contains(t, lintel("status"), "host1")
	contains(t, lintel("down"), "Lab single is gone.")
	// The lab's folder is gone a moment before the process that has removed it.
	for deadline := time.Now().Add(time.Minute); len(processesWith(dir)) > 0; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("processes are left: %q", processesWith(dir))
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "lintel-lab-"+strconv.Itoa(nobody), "single")); !os.IsNotExist(err) {
		t.Errorf("the folder of the lab is left: %v", err)
	}
}
