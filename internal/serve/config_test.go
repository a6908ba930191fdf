package serve

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func writeFile(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "lintel.toml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestLoadAndValidate(t *testing.T) {
	var c Config
	err := Load(writeFile(t, `
data-dir = "/srv/lintel"
portal = ["127.0.0.1", "[::1]:3261"]
api-listen = "[::1]:8340"
metrics-listen = "0.0.0.0:9150"
demo = true
log-level = "debug"
log-format = "json"
`), &c)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Validate(); err != nil {
		t.Fatal(err)
	}
	want := Config{
		Common: Common{DataDir: "/srv/lintel", LogLevel: "debug", LogFormat: "json"}, Portals: []string{"127.0.0.1:3260", "[::1]:3261"},
		Listen: Listen{APIListen: "[::1]:8340", MetricsListen: "0.0.0.0:9150"}, Demo: true,
	}
	if diff := cmp.Diff(want, c); diff != "" {
		t.Error(diff)
	}
}

func TestLoadRefuses(t *testing.T) {
	for text, want := range map[string]string{
		"portals = []":        `unknown key "portals"`,
		"demo = \"yes\"":      "demo",
		"portal = [\n\"x":     "line 2",
		"portal = \"x\"":      "portals are a list in brackets",
		"[pool]\nname = \"\"": `unknown key "pool"`,
	} {
		err := Load(writeFile(t, text), new(Config))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, want %q", text, err, want)
		}
	}
	if err := Load(filepath.Join(t.TempDir(), "none"), new(Config)); err == nil {
		t.Error("a file that does not exist was read")
	}
}

// Each role knows its own keys, and names them.
func TestRolesHaveTheirOwnKeys(t *testing.T) {
	for key, into := range map[string]any{"portal": new(AgentConfig), "metrics-listen": new(TargetConfig), "control": new(Config)} {
		err := Load(writeFile(t, key+` = ""`), into)
		if err == nil || !strings.Contains(err.Error(), "the keys are data-dir, log-level, log-format, ") {
			t.Errorf("%T has %s: %v", into, key, err)
		}
	}
	target, manager := TargetConfig{Common: Common{DataDir: "/d"}}, AgentConfig{Common: Common{DataDir: "/d"}}
	if err := Load(writeFile(t, `control = "/run/x"`), &target); err != nil || target.Validate() != nil || target.Control != "/run/x" {
		t.Errorf("%+v, %v", target, err)
	}
	if err := manager.Validate(); err != nil || manager.Target != "/d/target.sock" {
		t.Errorf("%+v, %v", manager, err)
	}
}

func TestValidateRefuses(t *testing.T) {
	for _, c := range []struct {
		config Config
		want   string
	}{
		{Config{}, "no data directory"},
		{Config{Common: Common{DataDir: "/d"}, Portals: []string{"storage.example"}}, "not an address"},
		{Config{Common: Common{DataDir: "/d"}, Portals: []string{"127.0.0.1", "127.0.0.1:3260"}}, "twice"},
		{Config{Common: Common{DataDir: "/d"}, Portals: []string{"127.0.0.1"}, NVMePortals: []string{"0.0.0.0:3260"}}, "cannot both"},
		{Config{Common: Common{DataDir: "/d"}, Portals: []string{"[::]", "192.0.2.1"}}, "cannot both"},
		{Config{Common: Common{DataDir: "/d"}, Demo: true, Portals: []string{"127.0.0.1", "192.0.2.1"}}, "loopback portals only"},
		{Config{Common: Common{DataDir: "/d"}, Demo: true, Portals: []string{"0.0.0.0"}}, "loopback portals only"},
		{Config{Common: Common{DataDir: "/d"}, Listen: Listen{APIListen: "0.0.0.0:8340"}}, "no access control"},
		{Config{Common: Common{DataDir: "/d"}, Listen: Listen{APIListen: "localhost:8340"}}, "no access control"},
		{Config{Common: Common{DataDir: "/d"}, Listen: Listen{APIListen: "8340"}}, "ADDRESS:PORT"},
		{Config{Common: Common{DataDir: "/d"}, Listen: Listen{MetricsListen: "9150"}}, "ADDRESS:PORT"},
		{Config{Common: Common{DataDir: "/d", LogLevel: "loud"}}, "log-level"},
		{Config{Common: Common{DataDir: "/d", LogFormat: "xml"}}, "log-format"},
	} {
		err := c.config.Validate()
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: got %v, want %q", c.config, err, c.want)
		}
	}
}

func TestParsePortal(t *testing.T) {
	for text, want := range map[string]string{
		"192.0.2.1": "192.0.2.1:3260", "192.0.2.1:1": "192.0.2.1:1", "::": "[::]:3260", "[2001:db8::1]": "[2001:db8::1]:3260",
		"[2001:db8::1]:860": "[2001:db8::1]:860", "::ffff:192.0.2.1": "192.0.2.1:3260", "[fe80::1%eth0]:3260": "[fe80::1%eth0]:3260",
		"": "", "[::1": "", "192.0.2.1:": "", "192.0.2.1:99999": "", "host:3260": "", ":3260": "",
	} {
		got, err := ParsePortal(text, 3260)
		if (err == nil) != (want != "") || err == nil && got.String() != want {
			t.Errorf("%q is %v (%v), want %q", text, got, err, want)
		}
	}
}

func TestDefaultDataDir(t *testing.T) {
	for _, c := range []struct {
		env  map[string]string
		uid  int
		want string
	}{
		{map[string]string{"LINTEL_DATA_DIR": "/x", "HOME": "/h"}, 0, "/x"},
		{map[string]string{"HOME": "/root"}, 0, "/var/lib/lintel"},
		{map[string]string{"HOME": "/h", "XDG_DATA_HOME": "/h/d"}, 1000, "/h/d/lintel"},
		{map[string]string{"HOME": "/h", "XDG_DATA_HOME": "relative"}, 1000, "/h/.local/share/lintel"},
	} {
		if got := DefaultDataDir(func(k string) string { return c.env[k] }, c.uid); got != c.want {
			t.Errorf("%v: %s, want %s", c.env, got, c.want)
		}
	}
}

func TestPortalsOfANewArray(t *testing.T) {
	for _, c := range []struct{ config, want Config }{
		{Config{}, Config{Portals: []string{DefaultPortal}}},
		{Config{Demo: true}, Config{Demo: true, Portals: []string{DefaultPortal}, NVMePortals: []string{DemoNVMePortal}}},
		{Config{Demo: true, Portals: []string{"[::1]:1"}}, Config{Demo: true, Portals: []string{"[::1]:1"}}},
		{Config{NVMePortals: []string{"[::1]:1"}}, Config{NVMePortals: []string{"[::1]:1"}}},
	} {
		c.config.forNewArray()
		if diff := cmp.Diff(c.want, c.config); diff != "" {
			t.Error(diff)
		}
	}
}
