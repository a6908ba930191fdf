package bench

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"strconv"
	"strings"
)

// DefaultPort and DefaultNVMePort are the ports of URLs that name none.
const (
	DefaultPort     = "3260"
	DefaultNVMePort = "4420"
)

// URL names a logical unit of an iSCSI target, or a namespace of an NVMe/TCP subsystem:
//
//	iscsi://[user[%password]@]host[:port]/iqn/lun[?option=value&...]
//	nvme://host[:port]/nqn/nsid[?option=value&...]
//
// The options of both are header_digest and data_digest (crc32c or none). Those of iSCSI
// are target_user and target_password (mutual CHAP), those of NVMe dhchap_secret and
// dhchap_ctrl_secret (DH-HMAC-CHAP keys in their DHHC-1 form), and tls_key (the host's
// key in its NVMeTLSkey-1 form, to use TLS). IPv6 addresses stand in brackets.
type URL struct {
	NVMe                       bool   // an NVMe/TCP URL
	Address                    string // host:port
	Target                     string // target or subsystem name; empty in a URL for discovery
	LUN                        uint16 // iSCSI
	NSID                       uint32 // NVMe
	User, Password             string // CHAP of the initiator, or the host's key; empty for none
	MutualUser, MutualPassword string // CHAP of the target, or the controller's key; empty for none
	TLSKey                     string // of the host; empty to use no TLS
	HeaderDigest, DataDigest   bool   // CRC32C asked for
}

// ParseURL takes a URL apart. One without target and unit is accepted (it names
// a portal).
func ParseURL(s string) (URL, error) {
	var u URL
	rest, ok := strings.CutPrefix(s, "iscsi://")
	kind, port, form := "iSCSI", DefaultPort, "/iqn/lun"
	if !ok {
		if rest, u.NVMe = strings.CutPrefix(s, "nvme://"); !u.NVMe {
			return u, fmt.Errorf("%q is no URL of a unit: want iscsi://host[:port]/iqn/lun or nvme://host[:port]/nqn/nsid", s)
		}
		kind, port, form = "NVMe", DefaultNVMePort, "/nqn/nsid"
	}
	rest, query, _ := strings.Cut(rest, "?")
	authority, path, _ := strings.Cut(rest, "/")
	if i := strings.LastIndexByte(authority, '@'); i >= 0 && !u.NVMe {
		u.User, u.Password, _ = strings.Cut(authority[:i], "%")
		authority = authority[i+1:]
	}
	var err error
	if u.Address, err = address(authority, port); err != nil {
		return u, fmt.Errorf("%s URL %q: %w", kind, s, err)
	}
	if path != "" {
		i := strings.LastIndexByte(path, '/')
		if i <= 0 {
			return u, fmt.Errorf("%s URL %q: want %s after the host", kind, s, form)
		}
		if err := u.unit(path[i+1:]); err != nil {
			return u, fmt.Errorf("%s URL %q: %w", kind, s, err)
		}
		u.Target = path[:i]
	}
	if err := u.options(query); err != nil {
		return u, fmt.Errorf("%s URL %q: %w", kind, s, err)
	}
	return u, nil
}

// unit takes the number of the unit.
func (u *URL) unit(number string) error {
	if u.NVMe {
		n, err := strconv.ParseUint(number, 10, 32)
		if err != nil || n == 0 || n >= 1<<32-1 {
			return fmt.Errorf("namespace %q is not a number from 1 to 4294967294", number)
		}
		u.NSID = uint32(n)
		return nil
	}
	n, err := strconv.ParseUint(number, 10, 14)
	if err != nil {
		return fmt.Errorf("LUN %q is not a number from 0 to 16383", number)
	}
	u.LUN = uint16(n)
	return nil
}

func address(authority, port string) (string, error) {
	host := authority
	switch {
	case strings.HasPrefix(authority, "["):
		inner, after, ok := strings.Cut(authority[1:], "]")
		if !ok {
			return "", errors.New("missing ] after the IPv6 address")
		}
		host = inner
		if after != "" {
			var found bool
			if port, found = strings.CutPrefix(after, ":"); !found {
				return "", errors.New("want a port after ]")
			}
		}
	case strings.Contains(authority, ":"):
		host, port, _ = strings.Cut(authority, ":")
	}
	if host == "" || strings.Contains(host, "@") {
		return "", errors.New("no host")
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return "", fmt.Errorf("port %q is not a number from 1 to 65535", port)
	}
	return net.JoinHostPort(host, port), nil
}

func (u *URL) options(query string) error {
	values, err := url.ParseQuery(query)
	if err != nil {
		return err
	}
	for key := range values {
		value := values.Get(key)
		switch {
		case key == "target_user" && !u.NVMe:
			u.MutualUser = value
		case key == "target_password" && !u.NVMe:
			u.MutualPassword = value
		case key == "dhchap_secret" && u.NVMe:
			u.Password = value
		case key == "dhchap_ctrl_secret" && u.NVMe:
			u.MutualPassword = value
		case key == "tls_key" && u.NVMe:
			u.TLSKey = value
		case key == "header_digest":
			u.HeaderDigest, err = digest(value)
		case key == "data_digest":
			u.DataDigest, err = digest(value)
		default:
			return fmt.Errorf("unknown option %q", key)
		}
		if err != nil {
			return fmt.Errorf("option %s: %w", key, err)
		}
	}
	return nil
}

func digest(value string) (bool, error) {
	switch strings.ToLower(value) {
	case "crc32c":
		return true, nil
	case "none":
		return false, nil
	}
	return false, fmt.Errorf("%q is neither crc32c nor none", value)
}
