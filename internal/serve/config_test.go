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
	c, err := Load(writeFile(t, `
data-dir = "/srv/lintel"
portal = ["127.0.0.1", "[::1]:3261"]
api-listen = "[::1]:8340"
metrics-listen = "0.0.0.0:9150"
demo = true
log-level = "debug"
log-format = "json"
`))
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Validate(); err != nil {
		t.Fatal(err)
	}
	want := Config{
		DataDir: "/srv/lintel", Portals: []string{"127.0.0.1:3260", "[::1]:3261"}, APIListen: "[::1]:8340",
		MetricsListen: "0.0.0.0:9150", Demo: true, LogLevel: "debug", LogFormat: "json",
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
		"[pool]\nname = \"\"": `unknown key "pool"`,
	} {
		_, err := Load(writeFile(t, text))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, want %q", text, err, want)
		}
	}
	if _, err := Load(filepath.Join(t.TempDir(), "none")); err == nil {
		t.Error("a file that does not exist was read")
	}
}

func TestValidateRefuses(t *testing.T) {
	for _, c := range []struct {
		config Config
		want   string
	}{
		{Config{}, "no data directory"},
		{Config{DataDir: "/d", Portals: []string{"storage.example"}}, "not an address"},
		{Config{DataDir: "/d", Portals: []string{"127.0.0.1", "127.0.0.1:3260"}}, "twice"},
		{Config{DataDir: "/d", Demo: true, Portals: []string{"127.0.0.1", "192.0.2.1"}}, "loopback portals only"},
		{Config{DataDir: "/d", Demo: true, Portals: []string{"0.0.0.0"}}, "loopback portals only"},
		{Config{DataDir: "/d", APIListen: "0.0.0.0:8340"}, "no access control"},
		{Config{DataDir: "/d", APIListen: "localhost:8340"}, "no access control"},
		{Config{DataDir: "/d", APIListen: "8340"}, "ADDRESS:PORT"},
		{Config{DataDir: "/d", MetricsListen: "9150"}, "ADDRESS:PORT"},
		{Config{DataDir: "/d", LogLevel: "loud"}, "log-level"},
		{Config{DataDir: "/d", LogFormat: "xml"}, "log-format"},
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
