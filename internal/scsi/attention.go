package scsi

import (
	"slices"

	"lintel.io/lintel/internal/unit"
	wire "lintel.io/lintel/internal/wire/scsi"
)

// maxAttentions bounds the unit attentions that wait on a path. There are fewer
// kinds than this; each waits once.
const maxAttentions = 16

// attentionRank returns the precedence of a unit attention, 0 first (SAM-5
// §5.14.1): power on, reset, nexus loss, then all others in order of arrival.
func attentionRank(code uint16) int {
	switch code {
	case wire.PowerOnReset, wire.PowerOnOccurred:
		return 0
	case wire.BusResetOccurred, wire.DeviceInternalReset:
		return 1
	case wire.BusDeviceResetOccurred:
		return 2
	case wire.NexusLossOccurred:
		return 3
	case wire.CommandsClearedByOther:
		return 4
	}
	return 5
}

// attend queues a unit attention. One that waits already waits once; a reset or
// power on makes those it outranks among its kind unnecessary.
func (p *path) attend(code uint16) {
	rank := attentionRank(code)
	p.mu.Lock()
	defer p.mu.Unlock()
	at := len(p.attentions)
	for i, c := range p.attentions {
		r := attentionRank(c)
		if c == code || r < rank && rank <= 3 {
			return
		}
		if r > rank && i < at {
			at = i
		}
	}
	if rank <= 3 {
		p.attentions = slices.DeleteFunc(p.attentions, func(c uint16) bool {
			r := attentionRank(c)
			return r > rank && r <= 3 || rank <= 2 && code != wire.DeviceInternalReset && c == wire.ModeParametersChanged // a reset has restored them
		})
		at = 0
	}
	if len(p.attentions) < maxAttentions {
		p.attentions = slices.Insert(p.attentions, at, code)
	}
}

// takeAttention removes and returns the unit attention to report next.
func (p *path) takeAttention() (uint16, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.attentions) == 0 {
		return 0, false
	}
	code := p.attentions[0]
	p.attentions = slices.Delete(p.attentions, 0, 1)
	return code, true
}

// dropAttention forgets a unit attention that the initiator has learnt about otherwise.
func (p *path) dropAttention(code uint16) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.attentions = slices.DeleteFunc(p.attentions, func(c uint16) bool { return c == code })
}

// attending reports whether a unit attention waits.
func (p *path) attending() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.attentions) > 0
}

// UnitEvent queues the unit attention of an event.
func (p *path) UnitEvent(e unit.Event) {
	switch e {
	case unit.EventCapacity:
		p.attend(wire.CapacityChanged)
	case unit.EventModeParameters:
		p.attend(wire.ModeParametersChanged)
	case unit.EventInquiry:
		p.attend(wire.InquiryDataChanged)
	case unit.EventReservationsPreempted:
		p.attend(wire.ReservationsPreempted)
	case unit.EventReservationsReleased:
		p.attend(wire.ReservationsReleased)
	case unit.EventRegistrationsPreempted:
		p.attend(wire.RegistrationsPreempted)
	case unit.EventAccessState:
		p.attend(wire.AsymmetricAccessChanged)
	case unit.EventThinThreshold:
		p.attend(wire.ThinProvisioningSoftThreshold)
	case unit.EventReset:
		p.attend(wire.BusDeviceResetOccurred)
	case unit.EventInternalReset:
		p.attend(wire.DeviceInternalReset)
	}
}
