package lab

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestTopologyFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lab.toml")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(`
name = "pair"
networks = ["san-a", "san-b"]
[[guest]]
name = "head1"
role = "head"
memory = "1GiB"
cpu = 1
[[guest]]
name = "host1"
networks = ["san-b"]
[[disk]]
name = "data"
size = "2GiB"
guests = ["head1", "host1"]
`)
	topology, err := LoadTopology(path)
	if err != nil {
		t.Fatal(err)
	}
	head, host := topology.Guests[0], topology.Guests[1]
	if head.Memory != GiB || *head.CPU != 1 || len(head.Networks) != 2 || host.Memory != 512*MiB || host.CPU != nil {
		t.Errorf("guests %+v", topology.Guests)
	}
	if got := topology.Address("host1", "san-b") + " " + topology.Address6("head1", "san-a") + " " + topology.Address(HostSide, Management); got != "10.77.2.12 fd77:0:0:1::11 10.77.0.1" {
		t.Errorf("addresses %s", got)
	}
	for text, want := range map[string]string{
		`name = "x"`: "1 to 32 guests",
		"[[guest]]\nname = \"a\"\n[[guest]]\nname = \"a\"":                                   "there twice",
		"[[guest]]\nname = \"lab\"":                                                          "and not lab",
		"[[guest]]\nname = \"a\"\nmemory = \"1MiB\"":                                         "too few",
		"[[guest]]\nname = \"a\"\nmemory = \"lots\"":                                         "write a number with MiB or GiB",
		"[[guest]]\nname = \"a\"\nnetworks = [\"b\"]":                                        "no network",
		"networks = [\"mgmt\"]\n[[guest]]\nname = \"a\"":                                     "there twice",
		"[[guest]]\nname = \"a\"\n[[disk]]\nname = \"d\"\nsize = \"1MiB\"\nguests = [\"b\"]": "no guest",
		"[[guest]]\nname = \"a\"\n[[disk]]\nname = \"d\"\nguests = [\"a\"]":                  "needs a size",
		"[[guest]]\nname = \"a\"\ntitle = \"b\"":                                             "unknown key",
		"name = \"" + strings.Repeat("x", 40) + "\"\n[[guest]]\nname = \"a\"":                "lab name",
	} {
		write(text)
		if _, err := LoadTopology(path); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: error %v, want %q", text, err, want)
		}
	}
}

func TestKernelArguments(t *testing.T) {
	topology := Single()
	topology.Disks = append(topology.Disks, DiskSpec{Name: "both", Size: MiB, Guests: []string{"head1", "host1"}})
	if err := topology.Validate(); err != nil {
		t.Fatal(err)
	}
	args := topology.kernelArguments(layout{"/l"}, Images{Root: "/root.img"}, "head1")
	for _, want := range []string{
		"ubd0=/l/disk/head1.root,/root.img", "ubd1d=/l/disk/data.img,,data", "ubd2cd=/l/disk/both.img,,both", "lab.disks=ubdb:data,ubdc:both",
		"vec1:transport=tap,ifname=g0n1,depth=128,gro=1,mac=02:4c:4e:00:01:0b",
		"lab.net=vec0=mgmt=10.77.0.11/24=fd77:0:0:0::11/64,vec1=san-a=10.77.1.11/24=fd77:0:0:1::11/64,vec2=san-b=10.77.2.11/24=fd77:0:0:2::11/64",
		"highres=off", "nohz=off", "pty.legacy_count=0", "lab.keeper=" + KeeperAddress,
	} {
		if !slices.Contains(args, want) {
			t.Errorf("no %s in %q", want, args)
		}
	}
	for _, a := range args {
		if strings.ContainsAny(a, " \t") {
			t.Errorf("the guest would take %q for several arguments", a)
		}
	}
}

func TestLinkOptions(t *testing.T) {
	for _, test := range []struct {
		in, out bool
		want    string
	}{
		{false, false, "state 3 flood on mcast_flood on bcast_flood on locked off learning on"},
		{true, true, "state 0 flood off mcast_flood off bcast_flood off locked on learning off"},
		{true, false, "state 3 flood off mcast_flood off bcast_flood off locked off learning off"},
		{false, true, "state 3 flood on mcast_flood on bcast_flood on locked on learning off"},
	} {
		if got := strings.Join(linkOptions(test.in, test.out), " "); got != test.want {
			t.Errorf("in %t, out %t: %s", test.in, test.out, got)
		}
	}
}

func TestMissingOptions(t *testing.T) {
	fragment := "# a comment\nCONFIG_A=y\nCONFIG_B=y\n# CONFIG_C is not set\n# CONFIG_D is not set\nCONFIG_E=\"pts\"\n"
	config := "CONFIG_A=y\nCONFIG_D=y\nCONFIG_E=\"pts\"\n"
	if got := missingOptions(fragment, config); !slices.Equal(got, []string{"CONFIG_B=y", "# CONFIG_D is not set"}) {
		t.Errorf("missing %q", got)
	}
}

func TestPackageNames(t *testing.T) {
	names := packageNames(rootPackages)
	if !slices.Contains(names, "open-iscsi") || slices.ContainsFunc(names, func(n string) bool { return strings.ContainsAny(n, "# \n,") }) {
		t.Errorf("packages %q", names)
	}
}

// FuzzMconsoleReply feeds answers of a guest's kernel to the parser.
func FuzzMconsoleReply(f *testing.F) {
	f.Add([]byte{})
	f.Add([]byte("\x00\x00\x00\x00\x00\x00\x00\x00\x03\x00\x00\x00OK\x00"))
	f.Add([]byte("\x01\x00\x00\x00\x01\x00\x00\x00\xff\xff\xff\xffno"))
	f.Fuzz(func(t *testing.T, b []byte) {
		_, _, text, err := parseReply(b)
		if err == nil && len(text) > len(b)-12 {
			t.Errorf("%d bytes of text in %d", len(text), len(b))
		}
	})
}

// Folders of labs that do not run are garbage, those that run or start are not.
func TestInventory(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	make := func(name string, files map[string]string) layout {
		l := layout{filepath.Join(BaseDir(), name)}
		if err := os.MkdirAll(l.dir, 0o755); err != nil {
			t.Fatal(err)
		}
		for file, text := range files {
			if err := os.WriteFile(l.path(file), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		return l
	}
	make("young", nil)
	make("starting", map[string]string{"lab.json": "{}", "starting": "1"})
	make("crashed", map[string]string{"lab.json": "{}", "lock": ""})
	make("never", map[string]string{"lab.json": "{}", "starting": "999999999"})
	running := make("running", map[string]string{"lab.json": "{}"})
	unlock, err := lockFile(t.Context(), running.lock())
	if err != nil {
		t.Fatal(err)
	}
	defer unlock()
	old := make("old", nil)
	if err := os.Chtimes(old.dir, time.Time{}, time.Now().Add(-time.Hour)); err != nil {
		t.Fatal(err)
	}
	if _, err := CollectGarbage(true); err != nil {
		t.Fatal(err)
	}
	dead, err := CollectGarbage(false)
	if err != nil || !slices.Equal(dead, []string{"crashed", "never", "old"}) {
		t.Errorf("garbage %q, error %v", dead, err)
	}
	live, err := List()
	if err != nil || !slices.Equal(live, []string{"running", "starting", "young"}) {
		t.Errorf("labs %q, error %v", live, err)
	}
}

// Images of old recipes are garbage unless they are built or used.
func TestCollectImages(t *testing.T) {
	cache := t.TempDir()
	t.Setenv("LINTEL_LAB_CACHE", cache)
	t.Setenv(KernelVariable, "")
	current, err := rootImage().path(cache)
	if err != nil {
		t.Fatal(err)
	}
	old := func(name string) string { return filepath.Join(cache, name+"-0123456789abcdef") }
	for _, path := range []string{current, old("root"), old("kernel"), old("kernel-given"), old("notes")} {
		for _, suffix := range []string{"", ".lock", ".log"} {
			if err := os.WriteFile(path+suffix, nil, 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	release, err := Images{Kernel: old("kernel"), Root: current}.use()
	if err != nil {
		t.Fatal(err)
	}
	built, err := lockFile(t.Context(), old("kernel-given")+".lock")
	if err != nil {
		t.Fatal(err)
	}
	for _, dryRun := range []bool{true, false} {
		if got, err := CollectImages(dryRun); err != nil || !slices.Equal(got, []string{old("root")}) {
			t.Errorf("dry run %t: garbage %q, error %v", dryRun, got, err)
		}
	}
	release()
	built()
	if got, err := CollectImages(false); err != nil || !slices.Equal(got, []string{old("kernel"), old("kernel-given")}) {
		t.Errorf("garbage %q, error %v", got, err)
	}
	left, err := filepath.Glob(filepath.Join(cache, "*"))
	if err != nil || !slices.Equal(left, []string{old("notes"), old("notes") + ".lock", old("notes") + ".log", current, current + ".lock", current + ".log"}) {
		t.Errorf("left %q, error %v", left, err)
	}
	if _, err := (Images{Kernel: old("kernel"), Root: current}).use(); err == nil {
		t.Error("an image that is gone can be used")
	}
}
