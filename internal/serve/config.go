package serve

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/netip"
	"path/filepath"
	"reflect"
	"slices"
	"strings"

	"github.com/BurntSushi/toml"

	"lintel.io/lintel/internal/array"
)

// DefaultPortal is where an array listens for initiators when nobody says
// otherwise, and DemoNVMePortal where a demonstration does for NVMe/TCP too: this
// machine only.
const (
	DefaultPortal  = "127.0.0.1:3260"
	DemoNVMePortal = "127.0.0.1:4420"
)

// Common is what every role can be told. The TOML file has the same keys as the
// command line has flags.
type Common struct {
	// DataDir is the directory that keeps everything of the array.
	DataDir string `toml:"data-dir"`
	// LogLevel is debug, info, warn or error.
	LogLevel string `toml:"log-level"`
	// LogFormat is text or json.
	LogFormat string `toml:"log-format"`
	// NotifySocket is where the service manager wants to be told how the role does
	// (sd_notify(3)), empty where none does. It comes from the environment.
	NotifySocket string `toml:"-"`
}

// Listen is where a manager answers.
type Listen struct {
	// APIListen is a loopback TCP address for the API beside the unix socket,
	// empty for none.
	APIListen string `toml:"api-listen"`
	// MetricsListen is the TCP address of the Prometheus metrics, empty for none.
	MetricsListen string `toml:"metrics-listen"`
}

// Config is what lintel serve can be told.
type Config struct {
	Common
	Listen
	// Portals are the addresses to listen on for iSCSI, ADDRESS:PORT with
	// IPv6 addresses in brackets. Empty stands for what the array listened on
	// before, and DefaultPortal for a new one.
	Portals []string `toml:"portal"`
	// NVMePortals are the addresses to listen on for NVMe/TCP, in the same form.
	// Empty stands for what the array listened on before.
	NVMePortals []string `toml:"nvme-portal"`
	// Demo makes the volume "demo" and lets any initiator on this machine use it. A new
	// array without any portal named listens on DemoNVMePortal too.
	Demo bool `toml:"demo"`
}

// TargetConfig is what lintel target serve can be told.
type TargetConfig struct {
	Common
	// Control is the unix socket for the agent; empty stands for ControlPath.
	Control string `toml:"control"`
}

// AgentConfig is what lintel agent serve can be told.
type AgentConfig struct {
	Common
	Listen
	// Target is the control socket of the target; empty stands for ControlPath.
	Target string `toml:"target"`
}

// Load reads the configuration of a role, a pointer to its struct, from a TOML file. It
// refuses keys that it does not know, so that a misspelt one is not silently without effect.
func Load(path string, into any) error {
	meta, err := toml.DecodeFile(path, into)
	if err != nil {
		if detail, ok := errors.AsType[toml.ParseError](err); ok {
			return fmt.Errorf("%s line %d: %s", path, detail.Position.Line, detail.Message)
		}
		if _, ok := errors.AsType[*fs.PathError](err); ok {
			return fmt.Errorf("read configuration: %w", err)
		}
		return fmt.Errorf("%s: %s: portals are a list in brackets, demo is true or false, all else is text in quotes", path, strings.TrimPrefix(err.Error(), "toml: "))
	}
	if unknown := meta.Undecoded(); len(unknown) > 0 {
		return fmt.Errorf("%s: unknown key %q: the keys are %s", path, unknown[0], strings.Join(keys(reflect.TypeOf(into).Elem()), ", "))
	}
	return nil
}

// keys returns the keys of a configuration.
func keys(t reflect.Type) []string {
	var list []string
	for i := range t.NumField() {
		switch f := t.Field(i); {
		case f.Anonymous:
			list = append(list, keys(f.Type)...)
		case f.Tag.Get("toml") != "-":
			list = append(list, f.Tag.Get("toml"))
		}
	}
	return list
}

// Validate checks the configuration and brings it into its normal form:
// defaults filled in, addresses as the system writes them.
func (c *Config) Validate() error {
	if err := c.Common.validate(); err != nil {
		return err
	}
	if err := c.validatePortals(); err != nil {
		return err
	}
	return c.Listen.validate()
}

// Validate checks the configuration and fills the defaults in.
func (c *TargetConfig) Validate() error {
	err := c.Common.validate()
	c.Control = orDefault(c.Control, ControlPath(c.DataDir))
	return err
}

// Validate checks the configuration and fills the defaults in.
func (c *AgentConfig) Validate() error {
	if err := c.Common.validate(); err != nil {
		return err
	}
	c.Target = orDefault(c.Target, ControlPath(c.DataDir))
	return c.Listen.validate()
}

func (c *Common) validate() error {
	if c.DataDir == "" {
		return errors.New("no data directory: name one with --data-dir")
	}
	abs, err := filepath.Abs(c.DataDir)
	if err != nil {
		return fmt.Errorf("data directory: %w", err)
	}
	c.DataDir = abs
	c.LogLevel = orDefault(c.LogLevel, "info")
	c.LogFormat = orDefault(c.LogFormat, "text")
	if _, err := c.level(); err != nil {
		return err
	}
	if c.LogFormat != "text" && c.LogFormat != "json" {
		return fmt.Errorf("log-format %q: it must be text or json", c.LogFormat)
	}
	return nil
}

func (c *Listen) validate() error {
	if c.APIListen != "" {
		if err := loopback(c.APIListen); err != nil {
			return fmt.Errorf("api-listen %s: %w", c.APIListen, err)
		}
	}
	if c.MetricsListen != "" {
		if _, _, err := net.SplitHostPort(c.MetricsListen); err != nil {
			return fmt.Errorf("metrics-listen %s is not an ADDRESS:PORT", c.MetricsListen)
		}
	}
	return nil
}

// validatePortals checks the portals of both protocols and writes them as the system
// does.
func (c *Config) validatePortals() error {
	c.Portals, c.NVMePortals = slices.Clone(c.Portals), slices.Clone(c.NVMePortals)
	var seen []netip.AddrPort
	for _, list := range []struct {
		portals []string
		port    uint16
	}{{c.Portals, array.DefaultPort}, {c.NVMePortals, array.DefaultNVMePort}} {
		for i, text := range list.portals {
			portal, err := ParsePortal(text, list.port)
			if err != nil {
				return err
			}
			for _, other := range seen {
				if portal == other {
					return fmt.Errorf("portal %s is given twice", portal)
				}
				if within(portal, other) || within(other, portal) {
					return fmt.Errorf("portals %s and %s cannot both be listened on, as one stands for the other too: leave one out", other, portal)
				}
			}
			if c.Demo && !portal.Addr().IsLoopback() {
				return fmt.Errorf("--demo lets any initiator in, so it works on loopback portals only, and %s is not one: leave out --demo or the portal", portal)
			}
			seen = append(seen, portal)
			list.portals[i] = portal.String()
		}
	}
	return nil
}

// within reports whether who listens at all addresses does at p too: 0.0.0.0 is all of IPv4, [::] all
// of IPv6 and IPv4.
func within(p, all netip.AddrPort) bool {
	return p.Port() == all.Port() && all.Addr().IsUnspecified() && (all.Addr().Is6() || p.Addr().Is4())
}

func orDefault(s, fallback string) string {
	if s == "" {
		return fallback
	}
	return s
}

func (c *Common) level() (slog.Level, error) {
	switch c.LogLevel {
	case "debug":
		return slog.LevelDebug, nil
	case "info":
		return slog.LevelInfo, nil
	case "warn":
		return slog.LevelWarn, nil
	case "error":
		return slog.LevelError, nil
	}
	return 0, fmt.Errorf("log-level %q: it must be debug, info, warn or error", c.LogLevel)
}

// ParsePortal reads ADDRESS, ADDRESS:PORT or [IPV6]:PORT; port counts where none is
// given. Names are refused: discovery answers with addresses.
func ParsePortal(s string, port uint16) (netip.AddrPort, error) {
	if portal, err := netip.ParseAddrPort(s); err == nil {
		return netip.AddrPortFrom(portal.Addr().Unmap(), portal.Port()), nil
	}
	bare := s
	if strings.HasPrefix(s, "[") && strings.HasSuffix(s, "]") {
		bare = s[1 : len(s)-1]
	}
	addr, err := netip.ParseAddr(bare)
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("portal %q is not an address: write 192.0.2.10, 192.0.2.10:%d or [2001:db8::10]:%d", s, port, port)
	}
	return netip.AddrPortFrom(addr.Unmap(), port), nil
}

// loopback refuses addresses that other machines reach: the API on TCP knows
// no users.
func loopback(listen string) error {
	host, _, err := net.SplitHostPort(listen)
	if err != nil {
		return errors.New("it is not an ADDRESS:PORT")
	}
	addr, err := netip.ParseAddr(host)
	if err != nil || !addr.IsLoopback() {
		return errors.New("the API has no access control on TCP, so it listens on 127.0.0.1 or [::1] only")
	}
	return nil
}
