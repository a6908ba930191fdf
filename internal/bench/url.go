package bench

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"strconv"
	"strings"
)

// DefaultPort is the port of an iSCSI URL that names none.
const DefaultPort = "3260"

// URL names a logical unit of an iSCSI target:
//
//	iscsi://[user[%password]@]host[:port]/iqn/lun[?option=value&...]
//
// The options are target_user and target_password (mutual CHAP),
// header_digest and data_digest (crc32c or none). IPv6 addresses stand in
// brackets.
type URL struct {
	Address                    string // host:port
	Target                     string // target name; empty in a URL for discovery
	LUN                        uint16
	User, Password             string // CHAP of the initiator, empty for none
	MutualUser, MutualPassword string // CHAP of the target, empty for none
	HeaderDigest, DataDigest   bool   // CRC32C asked for
}

// ParseURL takes an iSCSI URL apart. A URL without target and LUN is accepted
// (it names a portal).
func ParseURL(s string) (URL, error) {
	var u URL
	rest, ok := strings.CutPrefix(s, "iscsi://")
	if !ok {
		return u, fmt.Errorf("%q is not an iSCSI URL: want iscsi://host[:port]/iqn/lun", s)
	}
	rest, query, _ := strings.Cut(rest, "?")
	authority, path, _ := strings.Cut(rest, "/")
	if i := strings.LastIndexByte(authority, '@'); i >= 0 {
		u.User, u.Password, _ = strings.Cut(authority[:i], "%")
		authority = authority[i+1:]
	}
	var err error
	if u.Address, err = address(authority); err != nil {
		return u, fmt.Errorf("iSCSI URL %q: %w", s, err)
	}
	if path != "" {
		i := strings.LastIndexByte(path, '/')
		if i <= 0 {
			return u, fmt.Errorf("iSCSI URL %q: want /iqn/lun after the host", s)
		}
		lun, err := strconv.ParseUint(path[i+1:], 10, 14)
		if err != nil {
			return u, fmt.Errorf("iSCSI URL %q: LUN %q is not a number from 0 to 16383", s, path[i+1:])
		}
		u.Target, u.LUN = path[:i], uint16(lun)
	}
	if err := u.options(query); err != nil {
		return u, fmt.Errorf("iSCSI URL %q: %w", s, err)
	}
	return u, nil
}

func address(authority string) (string, error) {
	host, port := authority, DefaultPort
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
	if host == "" {
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
		switch key {
		case "target_user":
			u.MutualUser = value
		case "target_password":
			u.MutualPassword = value
		case "header_digest":
			u.HeaderDigest, err = digest(value)
		case "data_digest":
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
