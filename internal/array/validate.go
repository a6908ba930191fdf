package array

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
)

// Validate returns an error that names the first rule that the state breaks. Every
// state made by a change of this package is valid.
func (s *State) Validate() error { return s.validate(nil) }

// validate is Validate for a state that follows a valid one, nil for none.
func (s *State) validate(before *State) error {
	volumes := func() error { return s.validateVolumes(before) }
	for _, check := range []func() error{
		s.validateArray, s.validatePools, volumes, s.validateHosts, s.validateGroups, s.validateMappings,
	} {
		if err := check(); err != nil {
			return err
		}
	}
	return nil
}

// set finds what occurs twice.
type set map[string]string

// add returns a KindExists error where key is in the set already; owner is named in
// the message of the next one.
func (s set) add(what, key, owner string) error {
	if other, taken := s[key]; taken && other == owner {
		return Errorf(KindInvalid, "%s %q of %s is given twice", what, key, owner)
	} else if taken {
		return Errorf(KindExists, "%s %q of %s is taken by %s", what, key, owner, other)
	}
	s[key] = owner
	return nil
}

func (s *State) validateArray() error {
	d := s.Document
	if d.Format != Format {
		return Errorf(KindInvalid, "document format %d, want %d", d.Format, Format)
	}
	if d.ID == "" {
		return Errorf(KindInvalid, "array id is missing")
	}
	if err := CheckName("array", d.Name); err != nil {
		return err
	}
	if p, err := NormalizeNAAPrefix(d.Settings.NAAPrefix); err != nil || p != d.Settings.NAAPrefix {
		return Errorf(KindInvalid, "naa_prefix %q: give 6 lower-case hex digits", d.Settings.NAAPrefix)
	}
	if iqn, err := NormalizeISCSIName(d.Target.IQN); err != nil {
		return err
	} else if iqn != d.Target.IQN {
		return Errorf(KindInvalid, "target name %q is not in lower case", d.Target.IQN)
	}
	if err := CheckNQN(d.Target.SubsystemNQN); err != nil {
		return Errorf(KindInvalid, "subsystem_nqn: %w", err)
	}
	if err := checkComment(d.Target.Alias); err != nil {
		return Errorf(KindInvalid, "target alias: %w", err)
	}
	seen := make(map[CHAPAlgorithm]bool)
	if len(d.Target.Referrals) > MaxReferrals {
		return Errorf(KindInvalid, "a target has at most %d referrals", MaxReferrals)
	}
	for i, at := range d.Target.Referrals {
		if !validReferral(at) || slices.Contains(d.Target.Referrals[:i], at) {
			return Errorf(KindInvalid, "nvme_referrals: %s cannot be one, or is there twice", at)
		}
	}
	for _, a := range d.Target.CHAP {
		if !slices.Contains(CHAPAlgorithms, a) || seen[a] {
			return Errorf(KindInvalid, "CHAP algorithm %q is unknown or named twice", a)
		}
		seen[a] = true
	}
	if err := s.validatePortGroups(); err != nil {
		return err
	}
	return s.validatePortals()
}

func (s *State) validatePortGroups() error {
	if len(s.Document.Target.PortGroups) == 0 {
		return Errorf(KindInvalid, "the target has no port group")
	}
	ids := make(set)
	for _, g := range s.Document.Target.PortGroups {
		if g.ID == 0 {
			return Errorf(KindInvalid, "target port group 0 is reserved")
		}
		if err := ids.add("target port group", fmt.Sprint(g.ID), "head "+g.Head); err != nil {
			return err
		}
		for pool, state := range g.States {
			if !state.valid() {
				return Errorf(KindInvalid, "access state %q of pool %s is unknown", state, pool)
			}
		}
	}
	return nil
}

func (a AccessState) valid() bool {
	switch a {
	case Optimized, NonOptimized, Standby, Unavailable, Offline, Transitioning:
		return true
	}
	return false
}

func (s *State) validatePortals() error {
	d := s.Document
	if len(d.Portals) > MaxPortals {
		return Errorf(KindInvalid, "an array has at most %d portals", MaxPortals)
	}
	ids, addresses := make(set), make(set)
	tags := make(map[uint16]*Portal)
	for _, p := range d.Portals {
		if !p.Protocol.valid() {
			return Errorf(KindInvalid, "portal %s: protocol %q: use %s, %s or %s", p.AddrPort(), p.Protocol, ISCSI, NVMeTCP, NVMeDiscovery)
		}
		if p.TLS && p.Protocol == ISCSI {
			return Errorf(KindInvalid, "portal %s: TLS is for NVMe/TCP: iSCSI has none", p.AddrPort())
		}
		if other := tags[p.Tag]; other != nil && (p.Protocol != ISCSI || other.Protocol != ISCSI) {
			return Errorf(KindExists, "tag %d of portal %s is taken by portal %s: only iSCSI portals may share one", p.Tag, p.AddrPort(), other.AddrPort())
		}
		if other := tags[p.Tag]; other != nil && p.Group != other.Group {
			return Errorf(KindInvalid, "portals %s and %s share tag %d, so they are one port, which is in one target port group", other.AddrPort(), p.AddrPort(), p.Tag)
		}
		tags[p.Tag] = p
		if d.portGroup(p.Group) < 0 {
			return Errorf(KindInvalid, "portal %s: target port group %d does not exist", p.AddrPort(), p.Group)
		}
		if !p.Address.IsValid() || p.Port == 0 || p.Tag == 0 {
			return Errorf(KindInvalid, "portal %s: address, port and tag have to be set", p.AddrPort())
		}
		if err := ids.add("id", p.ID, "portal "+p.AddrPort().String()); err != nil {
			return err
		}
		if err := addresses.add("address", p.AddrPort().String(), "portal "+p.ID); err != nil {
			return err
		}
	}
	return nil
}

func (s *State) validatePools() error {
	if len(s.Pools) > MaxPools {
		return Errorf(KindInvalid, "an array has at most %d pools", MaxPools)
	}
	ids, names := make(set), make(set)
	system := 0
	for _, p := range s.Pools {
		if err := p.Validate(); err != nil {
			return err
		}
		if p.ArrayID != s.Document.ID {
			return Errorf(KindInvalid, "pool %s belongs to array %s, this is %s", p.Name, p.ArrayID, s.Document.ID)
		}
		if p.System {
			system++
		}
		if err := ids.add("id", p.ID, "pool "+p.Name); err != nil {
			return err
		}
		if err := names.add("name", p.Name, "pool "+p.ID); err != nil {
			return err
		}
	}
	if system != 1 {
		return Errorf(KindInvalid, "an array has one system pool, not %d", system)
	}
	return nil
}

// Validate checks what holds for a pool without regard to others, its volumes'
// ids included.
func (p *PoolDocument) Validate() error {
	if p.Format != Format {
		return Errorf(KindInvalid, "pool document format %d, want %d", p.Format, Format)
	}
	if err := CheckName("pool", p.Name); err != nil {
		return err
	}
	if err := checkComment(p.Comment); err != nil {
		return err
	}
	if p.ID == "" || p.Kind != PoolFile {
		return Errorf(KindInvalid, "pool %s: id is missing or kind %q unknown", p.Name, p.Kind)
	}
	if p.Extent < 4096 || p.Extent&(p.Extent-1) != 0 {
		return Errorf(KindInvalid, "pool %s: extent of %d bytes is not a power of two from 4096 up", p.Name, p.Extent)
	}
	for _, v := range p.Volumes {
		if n, ok := p.VolumeNumber(v.ID); !ok || n >= p.NextVolume {
			return Errorf(KindInvalid, "volume %s: id %q was not made by pool %s", v.Name, v.ID, p.Name)
		}
	}
	for _, id := range p.Doomed {
		if n, ok := p.VolumeNumber(id); !ok || n >= p.NextVolume || slices.ContainsFunc(p.Volumes, func(v *Volume) bool { return v.ID == id }) {
			return Errorf(KindInvalid, "pool %s: deleted volume %q is unknown or still there", p.Name, id)
		}
	}
	return nil
}

func (s *State) validateVolumes(before *State) error {
	if len(s.volumes) > MaxVolumes {
		return Errorf(KindInvalid, "an array has at most %d volumes", MaxVolumes)
	}
	n := len(s.volumes)
	ids, names, naas, euis, nguids, t10s, serials, paths := make(set, n), make(set, n), make(set, n), make(set, n), make(set, n), make(set, n), make(set, n), make(set)
	for _, p := range s.Pools {
		for _, v := range p.Volumes {
			if before == nil || before.volumes[v.ID].volume != v {
				if err := v.validate(p); err != nil {
					return err
				}
			}
			owner := "volume " + v.Name
			for _, c := range []struct {
				in        set
				what, key string
			}{
				{names, "name", v.Name}, {ids, "id", v.ID}, {naas, "naa_id (first 8 bytes)", naaKey(v.NAA)},
				{euis, "eui64_id", v.EUI64}, {nguids, "nguid", v.NGUID()}, {t10s, "t10_dev_id", v.T10ID}, {serials, "usn", v.Serial}, {paths, "path", v.Path},
			} {
				if c.key == "" {
					continue
				}
				if err := c.in.add(c.what, c.key, owner); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

func (v *Volume) validate(p *PoolDocument) error {
	if err := CheckName("volume", v.Name); err != nil {
		return err
	}
	fail := func(format string, args ...any) error {
		return Errorf(KindInvalid, "volume %s: %w", v.Name, fmt.Errorf(format, args...))
	}
	switch v.Kind {
	case VolumeFile, VolumeNull, VolumeMem:
		if v.Path != "" || v.Disk != "" {
			return fail("path is for kind disk only")
		}
		if v.Size%p.Extent != 0 {
			return fail("size %d is not a multiple of the extent, %d", v.Size, p.Extent)
		}
	case VolumeDisk:
		if !filepath.IsAbs(v.Path) || filepath.Clean(v.Path) != v.Path || len(v.Path) > 4095 {
			return fail("path %q: give the absolute path of a block device", v.Path)
		}
	default:
		return fail("kind %q: use file, null, mem or disk", v.Kind)
	}
	if v.Size < MinVolumeSize || v.Size > MaxVolumeSize {
		return fail("size %s: use %s to %s", FormatSize(v.Size), FormatSize(MinVolumeSize), FormatSize(MaxVolumeSize))
	}
	if v.BlockSize != 512 && v.BlockSize != 4096 {
		return fail("block size %d: use 512 or 4096", v.BlockSize)
	}
	if v.Size%uint64(v.BlockSize) != 0 {
		return fail("size %d is not a multiple of the block size", v.Size)
	}
	if v.PhysicalExponent > 8 {
		return fail("physical_exponent %d: use 0 to 8", v.PhysicalExponent)
	}
	if v.ThinThreshold > 99 {
		return fail("thin_threshold_percent %d: use 1 to 99, or 0 for never", v.ThinThreshold)
	}
	if naa, err := NormalizeNAA(v.NAA); err != nil || naa != v.NAA {
		return fail("naa_id %q is not 16 or 32 lower-case hex digits", v.NAA)
	}
	if v.EUI64 != "" {
		if eui, err := NormalizeEUI64(v.EUI64); err != nil || eui != v.EUI64 {
			return fail("eui64_id %q is not 16, 24 or 32 lower-case hex digits", v.EUI64)
		}
	}
	for _, f := range []struct {
		name, value string
		limit       int
		required    bool
	}{
		{"t10_dev_id", v.T10ID, maxT10ID, true}, {"usn", v.Serial, maxSerial, true}, {"vendor", v.Vendor, maxVendor, true},
		{"product", v.Product, maxProduct, true}, {"revision", v.Revision, maxRevision, false},
	} {
		if err := checkText(f.name, f.value, f.limit); err != nil {
			return fail("%w", err)
		}
		if f.required && f.value == "" {
			return fail("%s is empty", f.name)
		}
	}
	if err := checkComment(v.Comment); err != nil {
		return fail("%w", err)
	}
	return nil
}

func (s *State) validateHosts() error {
	if len(s.Document.Hosts) > MaxHosts {
		return Errorf(KindInvalid, "an array has at most %d hosts", MaxHosts)
	}
	ids, names, initiators, nqns := make(set), make(set), make(set), make(set)
	for _, h := range s.Document.Hosts {
		if err := h.validate(); err != nil {
			return err
		}
		if err := ids.add("id", h.ID, "host "+h.Name); err != nil {
			return err
		}
		if err := names.add("name", h.Name, "host "+h.ID); err != nil {
			return err
		}
		if err := h.addNames(initiators, "initiator", h.Initiators); err != nil {
			return err
		}
		if err := h.addNames(nqns, "NQN", h.NQNs); err != nil {
			return err
		}
	}
	return nil
}

// addNames puts a host's names of one kind into a set, each with every address that
// it counts for.
func (h *Host) addNames(in set, what string, patterns []string) error {
	for _, pattern := range patterns {
		keys := []string{pattern}
		if len(h.Addresses) > 0 {
			keys = keys[:0]
			for _, a := range h.Addresses {
				keys = append(keys, pattern+" from "+a.String())
			}
		}
		for _, key := range keys {
			if err := in.add(what, key, "host "+h.Name); err != nil {
				return err
			}
		}
	}
	return nil
}

func (h *Host) validate() error {
	if err := CheckName("host", h.Name); err != nil {
		return err
	}
	fail := func(format string, args ...any) error {
		return Errorf(KindInvalid, "host %s: %w", h.Name, fmt.Errorf(format, args...))
	}
	if len(h.Initiators) > MaxInitiators || len(h.NQNs) > MaxInitiators || len(h.Addresses) > MaxInitiators {
		return fail("at most %d initiators, %d NQNs and %d addresses are allowed", MaxInitiators, MaxInitiators, MaxInitiators)
	}
	for _, i := range h.Initiators {
		if n, err := NormalizePattern(i); err != nil {
			return fail("%w", err)
		} else if n != i {
			return fail("initiator %q is not in lower case", i)
		}
	}
	for _, n := range h.NQNs {
		if err := CheckNQNPattern(n); err != nil {
			return fail("%w", err)
		}
	}
	for _, a := range h.Addresses {
		if !a.IsValid() || a.Masked() != a {
			return fail("address %s is not a network: its host bits are set", a)
		}
	}
	if err := checkComment(h.Comment); err != nil {
		return fail("%w", err)
	}
	if err := h.validateCHAP(fail); err != nil {
		return err
	}
	if err := h.validateDHCHAP(fail); err != nil {
		return err
	}
	return h.validateTLS(fail)
}

// Bounds of CHAP names and secrets in bytes. RFC 7143 §9.2.1 asks for secrets of
// at least 96 bits.
const (
	minSecret   = 12
	maxSecret   = 255
	maxCHAPUser = 255
)

func (h *Host) validateCHAP(fail func(string, ...any) error) error {
	if h.CHAPUser == "" {
		if h.CHAPSecret != "" || h.MutualUser != "" || h.MutualSecret != "" {
			return fail("chap_secret, mutual_user and mutual_secret need chap_user")
		}
		return nil
	}
	for _, c := range []struct{ which, user, secret string }{
		{"chap", h.CHAPUser, h.CHAPSecret}, {"mutual", h.MutualUser, h.MutualSecret},
	} {
		if c.user == "" {
			if c.secret != "" {
				return fail("%s_secret needs %s_user", c.which, c.which)
			}
			continue
		}
		if len(c.user) > maxCHAPUser || strings.ContainsFunc(c.user, func(r rune) bool { return r <= 0x20 || r == 0x7f || r == ',' || r == '\uFFFD' }) {
			return fail("%s_user: use 1 to %d bytes without spaces and commas", c.which, maxCHAPUser)
		}
		if len(c.secret) < minSecret || len(c.secret) > maxSecret || strings.ContainsFunc(c.secret, func(r rune) bool { return r < 0x20 || r == '\uFFFD' }) {
			return fail("%s_secret: use %d to %d bytes", c.which, minSecret, maxSecret)
		}
	}
	if h.MutualUser != "" && h.MutualSecret == h.CHAPSecret {
		return fail("mutual_secret has to differ from chap_secret")
	}
	return nil
}

func (s *State) validateGroups() error {
	if len(s.Document.HostGroups) > MaxHostGroups {
		return Errorf(KindInvalid, "an array has at most %d host groups", MaxHostGroups)
	}
	ids, names := make(set), make(set)
	for _, h := range s.Document.Hosts {
		names[h.Name] = "a host"
	}
	for _, g := range s.Document.HostGroups {
		if err := CheckName("host group", g.Name); err != nil {
			return err
		}
		if err := checkComment(g.Comment); err != nil {
			return Errorf(KindInvalid, "host group %s: %w", g.Name, err)
		}
		if err := ids.add("id", g.ID, "host group "+g.Name); err != nil {
			return err
		}
		if err := names.add("name", g.Name, "host group "+g.ID); err != nil {
			return err
		}
		members := make(map[string]bool, len(g.Hosts))
		for _, id := range g.Hosts {
			if s.hosts[id] == nil || members[id] {
				return Errorf(KindInvalid, "host group %s: host %s does not exist or is named twice", g.Name, id)
			}
			members[id] = true
		}
	}
	return nil
}

func (s *State) validateMappings() error {
	d := s.Document
	if len(d.Mappings) > MaxMappings {
		return Errorf(KindInvalid, "an array has at most %d mappings", MaxMappings)
	}
	type key struct {
		host   string
		volume string // or
		lun    uint16 // plus one, or
		nsid   uint32
	}
	ids := make(set)
	taken := make(map[key]*Mapping, 2*len(d.Mappings))
	direct := make(map[key]bool, len(d.Mappings))
	for _, m := range d.Mappings {
		if m.LUN > MaxLUN {
			return Errorf(KindInvalid, "LUN %d: use 0 to %d", m.LUN, MaxLUN)
		}
		if m.NSID > MaxNSID {
			return Errorf(KindInvalid, "NSID %d: use 1 to %d", m.NSID, MaxNSID)
		}
		if (m.Host == "") == (m.Group == "") || m.Host != "" && s.hosts[m.Host] == nil || m.Group != "" && s.groups[m.Group] == nil {
			return Errorf(KindInvalid, "mapping %s leads to a host or host group that does not exist", m.ID)
		}
		if err := ids.add("id", m.ID, "a mapping of volume "+s.volumeName(m.Volume)); err != nil {
			return err
		}
		to := key{host: m.Host + m.Group, volume: m.Volume}
		if direct[to] {
			return Errorf(KindExists, "volume %s is mapped to %s already", s.volumeName(m.Volume), s.toName(m))
		}
		direct[to] = true
		for _, host := range s.hostsOf(m) {
			if other := taken[key{host: host, volume: m.Volume}]; other != nil {
				return Errorf(KindExists, "host %s sees volume %s already, as LUN %d through %s", s.hosts[host].Name, s.volumeName(m.Volume), other.LUN, s.toName(other))
			}
			if other := taken[key{host: host, lun: m.LUN + 1}]; other != nil {
				return Errorf(KindExists, "LUN %d of host %s is taken by volume %s through %s", m.LUN, s.hosts[host].Name, s.volumeName(other.Volume), s.toName(other))
			}
			taken[key{host: host, volume: m.Volume}] = m
			taken[key{host: host, lun: m.LUN + 1}] = m
			if m.NSID == 0 {
				continue
			}
			if other := taken[key{host: host, nsid: m.NSID}]; other != nil {
				return Errorf(KindExists, "NSID %d of host %s is taken by volume %s through %s", m.NSID, s.hosts[host].Name, s.volumeName(other.Volume), s.toName(other))
			}
			taken[key{host: host, nsid: m.NSID}] = m
		}
	}
	return nil
}

// volumeName returns the name of a volume, its id where it is not there: its
// pool may be missing.
func (s *State) volumeName(id string) string {
	if v, _ := s.VolumeByID(id); v != nil {
		return v.Name
	}
	return id
}

// toName says what a mapping leads to.
func (s *State) toName(m *Mapping) string {
	if m.Host != "" {
		return "host " + s.hosts[m.Host].Name
	}
	return "host group " + s.groups[m.Group].Name
}
