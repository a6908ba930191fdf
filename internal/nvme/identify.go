package nvme

import (
	"slices"

	"lintel.io/lintel/internal/unit"
	wire "lintel.io/lintel/internal/wire/nvme"
)

const identifySize = 4096

// runIdentify is Identify (NVMe Base 2.0 §5.17).
func runIdentify(c *Controller, r *Request) {
	if r.length != identifySize {
		r.fail(wire.SGLLengthInvalid)
		return
	}
	var b [identifySize]byte
	if s := c.identify(r.SQE, b[:]); s != 0 {
		r.finish(s)
		return
	}
	r.reply(b[:], 0)
}

// identify fills what a CNS value asks for.
func (c *Controller) identify(e wire.SQE, b []byte) wire.Status {
	cns, csi := uint8(e.CDW(10)), uint8(e.CDW(11)>>24)
	if cns == wire.CNSController {
		c.identifyController(b)
		return 0
	}
	if c.info.Discovery {
		return wire.InvalidField.DNR()
	}
	switch cns {
	case wire.CNSCommandSetNamespace, wire.CNSCommandSetController, wire.CNSCommandSetActive, wire.CNSCommandSetAllocated:
		if csi != 0 { // the NVM command set is the only one
			return wire.InvalidField.DNR()
		}
	}
	switch cns {
	case wire.CNSNamespace, wire.CNSAllocatedNamespace:
		return c.withNamespace(e.NSID(), true, b, identifyNamespace)
	case wire.CNSIndependentNamespace:
		return c.withNamespace(e.NSID(), true, b, identifyIndependent)
	case wire.CNSCommandSetNamespace:
		return c.withNamespace(e.NSID(), true, b, func(*namespace, []byte) {})
	case wire.CNSDescriptors:
		return c.withNamespace(e.NSID(), false, b, identifyDescriptors)
	case wire.CNSActiveNamespaces, wire.CNSCommandSetActive, wire.CNSAllocatedNamespaces, wire.CNSCommandSetAllocated:
		return c.identifyList(e.NSID(), b)
	case wire.CNSCommandSetController: // no limits beyond MDTS (NVMe NVM 1.0 figure 97)
	case wire.CNSNamespaceControllers:
		return c.identifyControllers(b, uint16(e.CDW(10)>>16), e.NSID())
	case wire.CNSControllers:
		return c.identifyControllers(b, uint16(e.CDW(10)>>16), 0)
	case wire.CNSCommandSets:
		id := uint16(e.CDW(10) >> 16)
		if id != dynamic && id != c.info.ID {
			return wire.InvalidField.DNR()
		}
		b[0] = 1 // combination 0: the NVM command set
	default:
		return wire.InvalidField.DNR()
	}
	return 0
}

// withNamespace fills the data of a namespace: zeros for one that is not active,
// where inactive may be asked for.
func (c *Controller) withNamespace(nsid uint32, inactive bool, b []byte, fill func(*namespace, []byte)) wire.Status {
	if nsid == 0 || nsid > maxNSID {
		return wire.InvalidNamespace.DNR()
	}
	ns := c.table.Load().get(nsid)
	switch {
	case ns != nil:
		fill(ns, b)
	case !inactive || c.table.Load().awaits(nsid):
		return c.noNamespace(nsid)
	}
	return 0
}

// Values of Identify Controller (NVMe Base 2.0 figure 275).
const (
	transferExponent   = 8 // MDTS: 256 pages of 4 KiB
	multiController    = 1<<0 | 1<<1 | 1<<3
	hostID128          = 1 << 0
	trafficKeepAlive   = 1 << 6
	kindIO             = 1
	kindDiscovery      = 2
	retryDelay         = 20     // CRDT1, in units of 100 ms
	canGetLBAStatus    = 1 << 9 // OACS
	abortLimit         = 3      // ACL, counts from zero
	logEffects         = 1<<1 | 1<<2
	anaTransitionTime  = 30   // ANATT, in seconds
	anaCapabilities    = 0x5F // all five states; group ids do not change
	anaGroupMax        = 0xFFFF
	anaGroups          = 256
	queueEntry         = 0x66 // SQES: 64 bytes
	completionEntry    = 0x44 // CQES: 16 bytes
	onCompare          = 1 << 0
	onUncorrectable    = 1 << 1
	onDatasetMgmt      = 1 << 2
	onWriteZeroes      = 1 << 3
	onSelect           = 1 << 4
	onReservations     = 1 << 5
	onVerify           = 1 << 7
	onCopy             = 1 << 8
	fusesCompareWrite  = 1 << 0
	volatileWriteCache = 1<<0 | 2<<1 // Flush takes one namespace at a time
	sglSupport         = 1<<0 | 1<<20 | 1<<21
	copyFormat0        = 1 << 0
)

// maxFusedBlocks is the size of the largest fused Compare and Write, in blocks (ACWU).
const maxFusedBlocks = 256

func (c *Controller) identifyController(b []byte) {
	cfg := &c.sub.cfg
	putText(b[4:24], cfg.Serial)
	putText(b[24:64], cfg.Model)
	putText(b[64:72], cfg.Firmware)
	le.PutUint16(b[78:], c.info.ID)
	le.PutUint32(b[80:], wire.Version20)
	le.PutUint32(b[92:], c.optionalEvents())
	le.PutUint32(b[96:], hostID128|trafficKeepAlive)
	b[77] = transferExponent
	b[259] = maxAsyncEvents - 1
	b[261] = 1 << 2
	b[262] = errorEntries - 1
	le.PutUint16(b[320:], uint16(keepAliveUnit.Milliseconds()/100))
	le.PutUint16(b[514:], MaxQueueDepth)
	le.PutUint32(b[536:], sglSupport)
	if c.info.Discovery {
		b[111] = kindDiscovery
		copy(b[768:1024], cfg.DiscoveryNQN)
		if c.info.SubNQN != wire.DiscoveryNQN {
			copy(b[768:1024], c.info.SubNQN)
		}
		return
	}
	b[76] = multiController
	b[111] = kindIO
	le.PutUint16(b[128:], retryDelay)
	le.PutUint16(b[256:], canGetLBAStatus)
	b[258] = abortLimit
	b[261] = logEffects
	b[342] = anaTransitionTime
	b[343] = anaCapabilities
	le.PutUint32(b[344:], anaGroupMax)
	le.PutUint32(b[348:], anaGroups)
	b[512], b[513] = queueEntry, completionEntry
	le.PutUint32(b[516:], maxNSID)
	le.PutUint16(b[520:], onCompare|onUncorrectable|onDatasetMgmt|onWriteZeroes|onSelect|onReservations|onVerify|onCopy)
	le.PutUint16(b[522:], fusesCompareWrite)
	b[525] = volatileWriteCache
	// AWUN and AWUPF are zero, which stands for one block: the least that can be said.
	le.PutUint16(b[532:], maxFusedBlocks-1)
	le.PutUint16(b[534:], copyFormat0)
	le.PutUint32(b[540:], maxNSID)
	copy(b[768:1024], c.info.SubNQN)
	le.PutUint32(b[1792:], uint32(wire.SQESize+c.inCapsule())/16)
	le.PutUint32(b[1796:], wire.CQESize/16)
	b[1803] = 1 // MSDBD
}

// inCapsule returns how much data a command capsule of an I/O queue may hold.
func (c *Controller) inCapsule() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	if q := c.queues[0]; q != nil {
		return q.cfg.InCapsule
	}
	return 0
}

// putText fills a field of ASCII text with spaces behind it.
func putText(b []byte, s string) {
	n := copy(b, s)
	for i := n; i < len(b); i++ {
		b[i] = ' '
	}
}

// Values of Identify Namespace (NVMe NVM 1.0 figure 97).
const (
	thinProvisioned   = 1 << 0
	identityNotReused = 1 << 3
	optimalSizes      = 1 << 4
	sharedNamespace   = 1 << 0
	allReservations   = 0xFE // RESCAP: all six types, IEKEY as in revision 1.3
	persistsPower     = 1 << 0
	readsZeros        = 1<<0 | 1<<3 // DLFEAT: deallocated blocks are zeros, Write Zeroes deallocates
	writeProtected    = 1 << 0      // NSATTR
	namespaceReady    = 1 << 0      // NSTAT
	maxCopyRanges     = 128
	maxCopyRangeBytes = 16 << 20
	maxCopyBytes      = 64 << 20
)

func reservationCapabilities(u *unit.Unit) byte {
	if u.Reservations.CanPersist() {
		return allReservations | persistsPower
	}
	return allReservations
}

func identifyNamespace(ns *namespace, b []byte) {
	u := ns.unit
	a, info := u.Attributes(), u.Device().Info()
	blocks, shift := u.Blocks(), u.BlockShift()
	le.PutUint64(b[0:], blocks)
	le.PutUint64(b[8:], blocks)
	if s := ns.access(); s <= unit.NonOptimized || s == unit.Transitioning { // NUSE is zero in the others
		le.PutUint64(b[16:], usedBlocks(u))
	}
	b[24] = identityNotReused | optimalSizes
	if a.Thin {
		b[24] |= thinProvisioned
	}
	b[30] = sharedNamespace
	b[31] = reservationCapabilities(u)
	b[33] = readsZeros
	le.PutUint64(b[48:], blocks<<shift) // NVMCAP; its upper half stays zero
	physical := uint16(1)<<a.PhysicalExponent - 1
	le.PutUint16(b[64:], physical)
	le.PutUint16(b[66:], physical)
	if granularity := info.DiscardGranularity >> shift; granularity > 0 {
		n := uint16(min(granularity, 1<<16) - 1)
		le.PutUint16(b[68:], n)
		le.PutUint16(b[70:], n)
	}
	le.PutUint16(b[74:], uint16(maxCopyRange(u)))
	le.PutUint32(b[76:], uint32(maxCopyBytes>>shift))
	b[80] = maxCopyRanges - 1
	le.PutUint32(b[92:], uint32(u.Group().ID()))
	if ns.isReadOnly() {
		b[99] = writeProtected
	}
	copy(b[104:120], a.NGUID)
	copy(b[120:128], eui64(a))
	b[130] = shift // LBADS of format 0, the only one
}

func maxCopyRange(u *unit.Unit) uint64 { return min(uint64(maxCopyRangeBytes)>>u.BlockShift(), 0xFFFF) }

// usedBlocks is NUSE.
func usedBlocks(u *unit.Unit) uint64 {
	blocks := u.Blocks()
	if !u.Attributes().Thin || !u.Device().Info().Sparse {
		return blocks
	}
	used, err := u.Device().Used()
	if err != nil || used < 0 {
		return blocks
	}
	return min(blocks, uint64(used+int64(u.BlockSize())-1)>>u.BlockShift())
}

func identifyIndependent(ns *namespace, b []byte) {
	b[1] = sharedNamespace
	b[2] = reservationCapabilities(ns.unit)
	le.PutUint32(b[4:], uint32(ns.unit.Group().ID()))
	if ns.isReadOnly() {
		b[8] = writeProtected
	}
	b[14] = namespaceReady
}

// eui64 returns the EUI-64 of a unit, nil where its designator has another length: the
// part that is an EUI-64 may be that of other units too.
func eui64(a *unit.Attributes) []byte {
	if len(a.EUI64) == 8 {
		return a.EUI64
	}
	return nil
}

// identifyDescriptors fills the Namespace Identification Descriptor list (NVMe Base
// 2.0 figure 277).
func identifyDescriptors(ns *namespace, b []byte) {
	const kindEUI64, kindNGUID, kindUUID, kindCommandSet = 1, 2, 3, 4
	put := func(kind byte, id []byte) {
		if len(id) == 0 {
			return
		}
		b[0], b[1] = kind, byte(len(id))
		copy(b[4:], id)
		b = b[4+len(id):]
	}
	a := ns.unit.Attributes()
	put(kindEUI64, eui64(a))
	put(kindNGUID, a.NGUID)
	put(kindUUID, a.UUID)
	put(kindCommandSet, []byte{0})
}

// identifyList fills a list of the namespaces above an NSID.
func (c *Controller) identifyList(above uint32, b []byte) wire.Status {
	if above >= 0xFFFFFFFE {
		return wire.InvalidNamespace.DNR()
	}
	for _, id := range c.table.Load().ids {
		if id <= above {
			continue
		}
		if len(b) == 0 {
			break
		}
		le.PutUint32(b, id)
		b = b[4:]
	}
	return 0
}

// identifyControllers fills the list of the controllers from an id on that see the
// unit of a namespace; all controllers of this host for NSID 0.
func (c *Controller) identifyControllers(b []byte, from uint16, nsid uint32) wire.Status {
	var u *unit.Unit
	if nsid != 0 {
		ns := c.table.Load().get(nsid)
		if ns == nil {
			return c.noNamespace(nsid)
		}
		u = ns.unit
	}
	const limit = identifySize/2 - 1
	n := 0
	for _, o := range c.sub.Controllers() {
		if o.info.ID < from || o.info.Discovery || n == limit {
			continue
		}
		if u != nil && !slices.ContainsFunc(o.table.Load().all(), func(ns *namespace) bool { return ns.unit == u }) {
			continue
		}
		n++
		le.PutUint16(b[2*n:], o.info.ID)
	}
	le.PutUint16(b, uint16(n))
	return 0
}
