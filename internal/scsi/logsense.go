package scsi

import (
	"slices"

	wire "lintel.io/lintel/internal/wire/scsi"
)

// The log pages (SPC-4 §7.3, SBC-3 §6.4).
const (
	logSupported    byte = 0x00
	logProvisioning byte = 0x0C
	logTemperature  byte = 0x0D
	logExceptions   byte = 0x2F
)

// temperatureUnknown stands for a temperature that is not measured (SPC-4 §7.3.21).
const temperatureUnknown = 0xFF

// logParameter is one parameter of a log page, of the binary list format.
type logParameter struct {
	code  uint16
	value []byte
}

// logSense runs LOG SENSE (SPC-4 §6.7).
func logSense(t *Task) {
	page, subpage := t.CDB[2]&0x3F, t.CDB[3]
	if page == logSupported {
		t.supportedLogPages(subpage)
		return
	}
	if subpage != 0 && subpage != allSubpages {
		t.FailField(false, 3, -1)
		return
	}
	if t.CDB[2]>>6 != 1 { // only cumulative values exist
		t.FailField(false, 2, 7)
		return
	}
	switch page {
	case logTemperature:
		t.logReply(page, []logParameter{
			{0x0000, []byte{0, temperatureUnknown}},
			{0x0001, []byte{0, temperatureUnknown}},
		})
	case logExceptions:
		t.logReply(page, []logParameter{{0x0000, []byte{0, 0, temperatureUnknown, 0}}})
	case logProvisioning:
		if t.LU.unit.Attributes().Thin {
			go t.provisioningLog()
			return
		}
		fallthrough
	default:
		t.FailField(false, 2, 5)
	}
}

// supportedLogPages is the list of log pages, with subpages where asked for.
func (t *Task) supportedLogPages(subpage byte) {
	pages := []byte{logSupported, logTemperature, logExceptions}
	if t.LU.unit.Attributes().Thin {
		pages = append(pages, logProvisioning)
		slices.Sort(pages)
	}
	var body []byte
	switch subpage {
	case 0:
		body = pages
	case allSubpages:
		body = []byte{0, 0, 0, allSubpages}
		for _, p := range pages[1:] {
			body = append(body, p, 0)
		}
	default:
		t.FailField(false, 3, -1)
		return
	}
	t.logPage(logSupported, subpage, body)
}

// provisioningLog is the Logical Block Provisioning page (SBC-3 §6.4.5). It asks
// the device, which may take a while.
func (t *Task) provisioningLog() {
	used, err := t.LU.unit.Device().Used()
	if err != nil {
		t.FailIO(err)
		return
	}
	list := []logParameter{{0x0002, resourceCount(uint64(used), 1)}}
	if f := t.Nexus.target.cfg.Available; f != nil {
		if free, ok := f(t.LU); ok {
			list = slices.Insert(list, 0, logParameter{0x0001, resourceCount(free, 2)})
		}
	}
	t.logReply(logProvisioning, list)
}

// resourceCount returns a parameter value of the page: a count of threshold
// sets, and whether they are dedicated to the unit (1) or not (2).
func resourceCount(bytes uint64, scope byte) []byte {
	b := make([]byte, 8)
	wire.PutUint32(b, thresholdSets(bytes))
	b[4] = scope
	return b
}

// logReply ends the task with a page of the parameters from the parameter
// pointer on.
func (t *Task) logReply(page byte, list []logParameter) {
	pointer := wire.Uint16(t.CDB[5:])
	if pointer > list[len(list)-1].code {
		t.FailField(false, 5, -1)
		return
	}
	var body []byte
	for _, p := range list {
		if p.code >= pointer {
			body = append(body, byte(p.code>>8), byte(p.code), 0x03, byte(len(p.value)))
			body = append(body, p.value...)
		}
	}
	t.logPage(page, 0, body)
}

func (t *Task) logPage(page, subpage byte, body []byte) {
	b := make([]byte, 4, 4+len(body))
	b[0] = 0x80 | page // DS: the page is not saved
	if subpage != 0 {
		b[0] |= 0x40
		b[1] = subpage
	}
	wire.PutUint16(b[2:], uint16(len(body)))
	t.Reply(append(b, body...), int(wire.Uint16(t.CDB[7:])))
}
