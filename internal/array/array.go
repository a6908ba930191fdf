// Package array is what an array is, as plain values: the array's document
// (target, portals, hosts, mappings), the documents of its pools (volumes), and
// the rules that hold between them.
//
// Everything here is pure: a change takes a State and returns another one with
// a Plan. Nothing reads a disk, a clock or a socket. A State and all that it
// points to is immutable; consecutive states share what did not change, so that
// equal pointers mean an unchanged object.
package array

import (
	"net/netip"
	"time"
)

// Format is the version of the documents' format. A binary refuses a document
// whose format is higher than its own.
const Format = 1

// Bounds of an array.
const (
	MaxPools      = 256
	MaxVolumes    = 8192 // in all pools together
	MaxHosts      = 4096
	MaxHostGroups = 1024
	MaxMappings   = 65536
	MaxPortals    = 64
	MaxLUN        = 16383
	MaxNSID       = 1024

	// MaxInitiators is the most initiator names, the most NQNs, and the most
	// addresses of a host.
	MaxInitiators = 64
)

// Object is what every named thing has.
type Object struct {
	ID      string    `json:"id"`               // made by the array, never used twice
	Rev     uint64    `json:"rev"`              // raised by every change of the object
	Created time.Time `json:"created,omitzero"` // UTC
}

// Document is the array's configuration. It is kept in the metadata of the
// system pool and copied to every other pool and to the head.
type Document struct {
	Format     int    `json:"format"`
	Generation uint64 `json:"generation"` // raised by every change of the document
	Object            // of the array itself
	Name       string `json:"name"`

	Settings   Settings     `json:"settings"`
	Target     Target       `json:"target"`
	Portals    []*Portal    `json:"portals,omitempty"`
	Hosts      []*Host      `json:"hosts,omitempty"`
	HostGroups []*HostGroup `json:"host_groups,omitempty"`
	Mappings   []*Mapping   `json:"mappings,omitempty"`

	Next Counters `json:"next"`
}

// Settings are properties of the array as a whole.
type Settings struct {
	// NAAPrefix is the 24-bit prefix of generated NAA 6 identifiers, as 6
	// lower-case hex digits.
	NAAPrefix string `json:"naa_prefix"`
}

// Counters hold the numbers that the next objects get; they only grow.
type Counters struct {
	Host      uint64 `json:"host"`
	HostGroup uint64 `json:"host_group"`
	Mapping   uint64 `json:"mapping"`
	Portal    uint64 `json:"portal"`
	PortalTag uint16 `json:"portal_tag"`
}

// CHAPAlgorithm is a digest that CHAP may use.
type CHAPAlgorithm string

// The CHAP digests.
const (
	MD5      CHAPAlgorithm = "md5"
	SHA1     CHAPAlgorithm = "sha1"
	SHA256   CHAPAlgorithm = "sha256"
	SHA3_256 CHAPAlgorithm = "sha3-256" //nolint:revive // the name that package crypto has for it
)

// CHAPAlgorithms lists all digests, the strongest first.
var CHAPAlgorithms = []CHAPAlgorithm{SHA3_256, SHA256, SHA1, MD5}

// AccessState is an asymmetric access state (SPC-4 §5.15.2).
type AccessState string

// The access states.
const (
	Optimized     AccessState = "optimized"
	NonOptimized  AccessState = "non-optimized"
	Standby       AccessState = "standby"
	Unavailable   AccessState = "unavailable"
	Offline       AccessState = "offline"
	Transitioning AccessState = "transitioning"
)

// Target is what hosts log in to: the iSCSI target and the NVM subsystem.
type Target struct {
	Rev uint64 `json:"rev"`
	IQN string `json:"iqn"`
	// SubsystemNQN is the NQN of the NVM subsystem.
	SubsystemNQN string `json:"subsystem_nqn,omitempty"`
	Alias        string `json:"alias,omitempty"` // at most 255 bytes
	// CHAP lists the digests offered, in order of preference; empty stands for
	// CHAPAlgorithms.
	CHAP []CHAPAlgorithm `json:"chap,omitempty"`
	// Referrals are other NVMe discovery services that hosts are referred to.
	Referrals []netip.AddrPort `json:"nvme_referrals,omitempty"`
	// PortGroups are the target port groups. The first one is the head's own; others
	// are there for as long as a portal is in them.
	PortGroups []PortGroup `json:"port_groups"`
}

// PortGroup is target ports of one head that have their access states together.
type PortGroup struct {
	ID   uint16 `json:"id"` // 1 to 65535
	Head string `json:"head"`
	// States holds the access state by pool id; pools that are missing are
	// optimized.
	States map[string]AccessState `json:"states,omitempty"`
}

// State returns the access state of a pool through the group.
func (g *PortGroup) State(poolID string) AccessState {
	if s, ok := g.States[poolID]; ok {
		return s
	}
	return Optimized
}

// Protocol is what a portal speaks.
type Protocol string

// The protocols.
const (
	ISCSI         Protocol = "iscsi"
	NVMeTCP       Protocol = "nvme-tcp"       // NVM subsystem and discovery
	NVMeDiscovery Protocol = "nvme-discovery" // NVMe/TCP for discovery alone
)

// DefaultPort returns the TCP port that is registered for a protocol.
func (p Protocol) DefaultPort() uint16 {
	switch p {
	case NVMeTCP:
		return DefaultNVMePort
	case NVMeDiscovery:
		return DefaultDiscoveryPort
	}
	return DefaultPort
}

// title returns the protocol's name in a sentence.
func (p Protocol) title() string {
	if p == ISCSI {
		return "iSCSI"
	}
	return "NVMe/TCP"
}

// protection returns what keeps a protocol from being read by others than a network of its own.
func (p Protocol) protection() string {
	if p == ISCSI {
		return "or a tunnel"
	}
	return "TLS or a tunnel"
}

func (p Protocol) valid() bool { return p == ISCSI || p == NVMeTCP || p == NVMeDiscovery }

// Portal is an address that the head listens on.
type Portal struct {
	Object
	Protocol Protocol   `json:"protocol,omitempty"`
	Address  netip.Addr `json:"address"`
	Port     uint16     `json:"port"`
	// Tag is the target portal group tag and relative target port id of an iSCSI
	// portal and the port id of an NVMe one, 1 to 65535. iSCSI portals that share it
	// form one target port; no other portals share one.
	Tag uint16 `json:"tag"`
	// Group is the target port group that the portal is in, 1 to 65535. iSCSI portals
	// that share a tag share it too.
	Group uint16 `json:"group,omitempty"`
	// TLS says that connections have to use TLS. NVMe alone.
	TLS bool `json:"tls,omitempty"`
}

// AddrPort returns the address and port to listen on.
func (p *Portal) AddrPort() netip.AddrPort { return netip.AddrPortFrom(p.Address, p.Port) }

// Host is a machine that uses volumes.
type Host struct {
	Object
	Name string `json:"name"`
	// Initiators are lower-case iSCSI names, possibly with * and ?.
	Initiators []string `json:"initiators,omitempty"`
	// NQNs are NVMe qualified names, possibly with * and ?. Case counts.
	NQNs []string `json:"nqns,omitempty"`
	// Addresses are where it may come from; empty allows any.
	Addresses []netip.Prefix `json:"addresses,omitempty"`
	// CHAPUser is what the host proves, empty for no CHAP; then the others are
	// empty too.
	CHAPUser     string `json:"chap_user,omitempty"`
	CHAPSecret   string `json:"chap_secret,omitempty"`
	MutualUser   string `json:"mutual_user,omitempty"` // what the array proves, empty for none
	MutualSecret string `json:"mutual_secret,omitempty"`
	// DHCHAPKey is what the host proves to know over NVMe with DH-HMAC-CHAP, empty for
	// no authentication; DHCHAPCtrlKey what the array proves to know, empty for nothing.
	// Both are DHCHAPKeys in their text form.
	DHCHAPKey     string `json:"dhchap_key,omitempty"`
	DHCHAPCtrlKey string `json:"dhchap_ctrl_key,omitempty"`
	// TLSKey is the host's key of TLS over NVMe in its text form (NVMe/TCP 1.0 §3.6.1.5),
	// empty for none. A host with a key has to use TLS, but for discovery.
	TLSKey  string `json:"tls_key,omitempty"`
	Comment string `json:"comment,omitempty"`
}

// HostGroup is several hosts that see the same volumes.
type HostGroup struct {
	Object
	Name    string   `json:"name"`
	Hosts   []string `json:"hosts,omitempty"` // host ids
	Comment string   `json:"comment,omitempty"`
}

// Mapping gives a volume to a host or host group, as a LUN and as a namespace.
type Mapping struct {
	Object
	Volume   string `json:"volume"`          // volume id
	Host     string `json:"host,omitempty"`  // host id, or
	Group    string `json:"group,omitempty"` // host group id: exactly one of the two
	LUN      uint16 `json:"lun"`             // 0 to MaxLUN
	NSID     uint32 `json:"nsid,omitempty"`  // 1 to MaxNSID; 0: not over NVMe
	ReadOnly bool   `json:"read_only,omitempty"`
}

// PoolKind is what a pool is made of.
type PoolKind string

// PoolFile is a pool of files in a directory.
const PoolFile PoolKind = "file"

// PoolDocument is the configuration of one pool, kept in its metadata.
type PoolDocument struct {
	Format     int      `json:"format"`
	Generation uint64   `json:"generation"` // raised by every change of the document
	Object              // ID is unique among all arrays: "p" and 12 hex digits
	Name       string   `json:"name"`
	Kind       PoolKind `json:"kind"`
	// ArrayID is the array that the pool belongs to.
	ArrayID string `json:"array_id"`
	// System is true for the pool whose copy of the array's document counts.
	System bool `json:"system,omitempty"`
	// Epoch is raised at each takeover by another head.
	Epoch   uint64 `json:"epoch"`
	Extent  uint64 `json:"extent"` // volume sizes are multiples of it, in bytes
	Comment string `json:"comment,omitempty"`

	Volumes []*Volume `json:"volumes,omitempty"`
	// Doomed are the ids of deleted volumes whose backing may still exist.
	Doomed []string `json:"doomed,omitempty"`
	// NextVolume is the number of the next volume; it only grows.
	NextVolume uint64 `json:"next_volume"`
}

// VolumeKind is where the bytes of a volume are kept.
type VolumeKind string

// The kinds of volumes.
const (
	VolumeFile VolumeKind = "file"
	VolumeNull VolumeKind = "null"
	VolumeMem  VolumeKind = "mem"
	VolumeDisk VolumeKind = "disk"
)

// Volume is a block device with a permanent identity.
type Volume struct {
	Object
	Name string     `json:"name"`
	Kind VolumeKind `json:"kind"`
	Path string     `json:"path,omitempty"` // of the device, for VolumeDisk
	// Disk tells the disk at Path from all others (block.DiskIdentity), empty where it does not tell.
	Disk string `json:"disk,omitempty"`
	Size uint64 `json:"size"` // bytes; for VolumeDisk what the device had when it was added
	// Truncate says that the backing may be longer than Size because the
	// volume was made smaller; what lies beyond is to be cut off.
	Truncate bool `json:"truncate,omitempty"`

	BlockSize        uint32 `json:"block_size"`        // 512 or 4096
	PhysicalExponent uint8  `json:"physical_exponent"` // log2 of logical blocks per physical block, 0 to 8

	NAA      string `json:"naa"`             // 16 or 32 lower-case hex digits
	EUI64    string `json:"eui64,omitempty"` // 16, 24 or 32 lower-case hex digits
	T10ID    string `json:"t10_id"`          // vendor specific part of the T10 designator
	Serial   string `json:"serial"`
	Vendor   string `json:"vendor"`
	Product  string `json:"product"`
	Revision string `json:"revision,omitempty"` // empty stands for the program's own

	Rotational   bool `json:"rotational,omitempty"`
	Thin         bool `json:"thin,omitempty"`
	ReadOnly     bool `json:"read_only,omitempty"`
	WriteThrough bool `json:"write_through,omitempty"`
	// ThinThreshold is the used part, in percent, at which initiators are
	// warned; 0 for never.
	ThinThreshold uint8  `json:"thin_threshold,omitempty"`
	Comment       string `json:"comment,omitempty"`
}

// Default values.
const (
	DefaultVendor  = "LINTEL"
	DefaultProduct = "VIRTUAL-DISK"

	DefaultPort          = 3260
	DefaultNVMePort      = 4420
	DefaultDiscoveryPort = 8009

	// DefaultIQNBase is what generated target names start with.
	DefaultIQNBase = "iqn.2026-11.io.lintel"
	// DefaultNQNBase is what generated subsystem names start with.
	DefaultNQNBase = "nqn.2026-11.io.lintel"
	// DefaultNAAPrefix is the locally administered prefix 02-4C-4E.
	DefaultNAAPrefix = "024c4e"
)

// Plan says, in order, what a change does.
type Plan struct {
	Steps    []string // one sentence each
	Warnings []string // what the administrator should know before it happens, or of how it went
}

// State is the whole configuration at one moment. It is immutable.
type State struct {
	Document *Document
	Pools    []*PoolDocument // ordered by name

	volumes map[string]volumeRef // by volume id
	hosts   map[string]*Host     // by host id
	groups  map[string]*HostGroup
	names   map[string]string // volume name to volume id
}

type volumeRef struct {
	volume *Volume
	pool   *PoolDocument
}
