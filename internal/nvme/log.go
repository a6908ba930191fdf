package nvme

import (
	"slices"
	"sync"
	"time"

	"lintel.io/lintel/internal/unit"
	wire "lintel.io/lintel/internal/wire/nvme"
)

// logPage is one log page.
type logPage struct {
	discovery, io bool
	read          func(c *Controller, r *Request, retain bool) []byte
}

// logPages is built once: its functions call others that read it.
var logPages = map[uint8]logPage{}

func init() {
	logPages[wire.LogSupportedPages] = logPage{true, true, readSupportedPages}
	logPages[wire.LogError] = logPage{true, true, func(c *Controller, _ *Request, _ bool) []byte { return c.errorLog.read() }}
	logPages[wire.LogSMART] = logPage{false, true, readSMART}
	logPages[wire.LogFirmware] = logPage{false, true, readFirmware}
	logPages[wire.LogChangedNamespaces] = logPage{false, true, readChangedNamespaces}
	logPages[wire.LogCommandEffects] = logPage{false, true, readCommandEffects}
	logPages[wire.LogANA] = logPage{false, true, readANA}
	logPages[wire.LogLBAStatus] = logPage{false, true, readLBAStatusLog}
	logPages[wire.LogReservationNotification] = logPage{false, true, readNotification}
	logPages[wire.LogDiscovery] = logPage{true, false, readDiscovery}
}

func (c *Controller) logPage(id uint8) (logPage, bool) {
	p, ok := logPages[id]
	if c.info.Discovery {
		return p, ok && p.discovery
	}
	return p, ok && p.io
}

// runGetLogPage is Get Log Page (NVMe Base 2.0 §5.16).
func runGetLogPage(c *Controller, r *Request) {
	e := r.SQE
	p, ok := c.logPage(uint8(e.CDW(10)))
	if !ok {
		r.fail(wire.InvalidLogPage)
		return
	}
	size := (uint64(e.CDW(11)&0xFFFF)<<16 | uint64(e.CDW(10)>>16)) + 1
	offset := uint64(e.CDW(12)) | uint64(e.CDW(13))<<32
	switch {
	case size*4 != uint64(r.length):
		r.fail(wire.SGLLengthInvalid)
		return
	case offset%4 != 0, e.CDW(14)>>23&1 != 0: // an index offset is of no page here
		r.fail(wire.InvalidField)
		return
	}
	retain := e.CDW(10)>>15&1 != 0
	data := p.read(c, r, retain)
	if uint8(e.CDW(10)) == wire.LogANA {
		// Hosts read as much as the limits of Identify let the log become.
		offset = min(offset, uint64(len(data)))
	}
	if offset > uint64(len(data)) {
		r.fail(wire.InvalidField)
		return
	}
	r.reply(data, offset)
}

func readSupportedPages(c *Controller, _ *Request, _ bool) []byte {
	b := make([]byte, 1024)
	for id := range logPages {
		if _, ok := c.logPage(id); ok {
			b[4*int(id)] = 1
		}
	}
	return b
}

const (
	errorEntries   = 64
	errorEntrySize = 64
)

// errorLog keeps the last failed commands (NVMe Base 2.0 §5.16.1.2).
type errorLog struct {
	mu      sync.Mutex
	count   uint64
	entries [][errorEntrySize]byte // newest last
}

// logError notes a failed command.
func (c *Controller) logError(r *Request) {
	l := &c.errorLog
	l.mu.Lock()
	defer l.mu.Unlock()
	l.count++
	var b [errorEntrySize]byte
	le.PutUint64(b[0:], l.count)
	le.PutUint16(b[8:], r.queue.id)
	le.PutUint16(b[10:], r.SQE.CID())
	le.PutUint16(b[12:], uint16(r.Status)<<1)
	le.PutUint16(b[14:], 0xFFFF) // the location is not known
	if r.ns != nil {
		le.PutUint64(b[16:], r.lba)
		le.PutUint32(b[24:], r.ns.nsid)
	}
	if len(l.entries) == errorEntries {
		l.entries = slices.Delete(l.entries, 0, 1)
	}
	l.entries = append(l.entries, b)
}

func (l *errorLog) read() []byte {
	l.mu.Lock()
	defer l.mu.Unlock()
	b := make([]byte, 0, errorEntries*errorEntrySize)
	for i := len(l.entries) - 1; i >= 0; i-- {
		b = append(b, l.entries[i][:]...)
	}
	return b[:cap(b)]
}

// readSMART fills SMART / Health Information (NVMe Base 2.0 §5.16.1.3). The array has no
// temperature of its own to tell, and nothing that wears.
func readSMART(c *Controller, _ *Request, _ bool) []byte {
	const dataUnit = 512 * 1000
	b := make([]byte, 512)
	s := c.Stats()
	b[3], b[4] = 100, 10 // available spare and its threshold, in percent
	le.PutUint64(b[32:], (s.ReadBytes+dataUnit-1)/dataUnit)
	le.PutUint64(b[48:], (s.WriteBytes+dataUnit-1)/dataUnit)
	le.PutUint64(b[64:], s.Reads)
	le.PutUint64(b[80:], s.Writes)
	le.PutUint64(b[128:], uint64(time.Since(c.sub.started)/time.Hour))
	c.errorLog.mu.Lock()
	le.PutUint64(b[176:], c.errorLog.count)
	c.errorLog.mu.Unlock()
	return b
}

// readFirmware fills Firmware Slot Information (NVMe Base 2.0 §5.16.1.4): one slot.
func readFirmware(c *Controller, _ *Request, _ bool) []byte {
	b := make([]byte, 512)
	b[0] = 1
	putText(b[8:16], c.sub.cfg.Firmware)
	return b
}

// readChangedNamespaces fills the Changed Namespace List (NVMe Base 2.0 §5.16.1.5).
func readChangedNamespaces(c *Controller, _ *Request, retain bool) []byte {
	b := make([]byte, 4*maxChanged)
	list, many := c.events.takeChanged(retain)
	if many {
		le.PutUint32(b, wire.AllNamespaces)
		return b
	}
	for i, nsid := range list {
		le.PutUint32(b[4*i:], nsid)
	}
	return b
}

// The bits of the effects log (NVMe Base 2.0 figure 211).
const (
	effectSupported = 1 << 0
	effectContent   = 1 << 1 // logical block content change
)

// readCommandEffects fills Commands Supported and Effects (NVMe Base 2.0 §5.16.1.6). The
// scope of commands is not reported: nobody asks for it, and Linux calls the effects
// of an I/O command unusual that has one.
func readCommandEffects(*Controller, *Request, bool) []byte {
	b := make([]byte, 4096)
	for op := range 256 {
		if adminCommands[op].run != nil {
			b[4*op] = effectSupported
		}
		if a := &ioCommands[op]; a.run != nil {
			b[1024+4*op] = effectSupported
			if a.changes {
				b[1024+4*op] |= effectContent
			}
		}
	}
	return b
}

// readANA fills Asymmetric Namespace Access (NVMe Base 2.0 §5.16.1.13).
func readANA(c *Controller, r *Request, retain bool) []byte {
	if !retain {
		c.events.read(wire.EventANAChanged)
	}
	changes := c.anaChanges.Load()
	groupsOnly := r.SQE.CDW(10)>>8&1 != 0 // RGO
	members := make(map[*unit.Group][]*namespace)
	var groups []*unit.Group
	for _, ns := range c.table.Load().all() {
		g := ns.unit.Group()
		if members[g] == nil {
			groups = append(groups, g)
		}
		members[g] = append(members[g], ns)
	}
	slices.SortFunc(groups, func(a, b *unit.Group) int { return int(a.ID()) - int(b.ID()) })
	b := make([]byte, 16, 16+40*len(groups))
	le.PutUint64(b, changes)
	le.PutUint16(b[8:], uint16(len(groups)))
	for _, g := range groups {
		var d [32]byte
		le.PutUint32(d[0:], uint32(g.ID()))
		if !groupsOnly {
			le.PutUint32(d[4:], uint32(len(members[g])))
		}
		le.PutUint64(d[8:], changes)
		d[16] = members[g][0].anaState()
		b = append(b, d[:]...)
		for _, ns := range members[g] {
			if !groupsOnly {
				b = le.AppendUint32(b, ns.nsid)
			}
		}
	}
	return b
}

// readLBAStatusLog fills LBA Status Information (NVMe NVM 1.0 §4.1.4.5): no range is known to be
// potentially unrecoverable.
func readLBAStatusLog(*Controller, *Request, bool) []byte {
	b := make([]byte, 16)
	le.PutUint32(b, 16)
	return b
}

// readNotification fills Reservation Notification (NVMe Base 2.0 §5.16.1.24).
func readNotification(c *Controller, _ *Request, retain bool) []byte {
	b := make([]byte, 64)
	n, more := c.events.takeNotice(retain)
	le.PutUint64(b, n.number)
	b[8] = n.kind
	b[9] = byte(more)
	le.PutUint32(b[12:], n.nsid)
	return b
}

// notify queues a reservation notification unless the host masks it.
func (ns *namespace) notify(kind uint8) {
	if ns.mask.Load()>>kind&1 == 0 {
		ns.ctrl.events.notify(kind, ns.nsid)
	}
}
