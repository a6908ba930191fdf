package reserve

import (
	"errors"
	"slices"
	"strings"

	"lintel.io/lintel/internal/unit"
	wire "lintel.io/lintel/internal/wire/scsi"
)

// parameters are the CDB and parameter list of a PERSISTENT RESERVE OUT.
type parameters struct {
	action     byte
	typ        unit.ReservationType // zero where the scope is not that of a logical unit
	key        uint64
	serviceKey uint64
	persist    bool   // APTPL
	allPorts   bool   // ALL_TG_PT
	others     []port // SPEC_I_PT, or the destination of REGISTER AND MOVE
	unregister bool   // UNREG
	toPort     uint16 // relative target port of the destination
}

// port is an initiator port in a TransportID, or, where device, all ports of an
// initiator device.
type port struct {
	name   string
	device bool
}

// Offsets of fields in the CDB and the parameter lists, for field pointers.
const (
	cdbAction     = 1
	cdbType       = 2
	listKey       = 8
	listFlags     = 20
	listOthers    = 28
	moveFlags     = 17
	moveRelative  = 18
	moveTransport = 24

	specifyBit = 3 // SPEC_I_PT
	persistBit = 0 // APTPL
)

// parse reads a PERSISTENT RESERVE OUT (SPC-4 §6.16).
func parse(cdb, data []byte) (parameters, error) {
	p := parameters{action: cdb[1] & 0x1F, typ: unit.ReservationType(cdb[2] & 0x0F)}
	switch p.action {
	case reserve, preempt, preemptAndAbort:
		if cdb[2]>>4 != 0 {
			return p, &fieldError{false, cdbType, 7}
		}
	case release:
		if cdb[2]>>4 != 0 {
			p.typ = 0 // matches no reservation
		}
	}
	if len(data) < 24 || uint32(len(data)) != parameterLength(cdb) {
		return p, errLength
	}
	p.key, p.serviceKey = wire.Uint64(data), wire.Uint64(data[8:])
	if p.action == registerAndMove {
		return p, p.parseMove(data)
	}
	flags := data[listFlags]
	p.allPorts, p.persist = flags&4 != 0, flags&1 != 0
	if p.action != register && p.action != registerAndIgnore {
		p.allPorts, p.persist = false, false // not valid there: ignored
	}
	if flags&(1<<specifyBit) == 0 {
		if len(data) != 24 {
			return p, errLength
		}
		return p, nil
	}
	if p.action != register {
		return p, &fieldError{true, listFlags, specifyBit}
	}
	return p, p.parseOthers(data)
}

func (p *parameters) parseOthers(data []byte) error {
	if len(data) < listOthers || uint64(wire.Uint32(data[24:])) != uint64(len(data)-listOthers) {
		return errLength
	}
	for at := listOthers; at < len(data); {
		o, n, err := parsePort(data[at:])
		if err != nil || len(p.others) == unit.MaxRegistrations {
			return &fieldError{true, at, -1}
		}
		p.others = append(p.others, o)
		at += n
	}
	return nil
}

func (p *parameters) parseMove(data []byte) error {
	p.unregister, p.persist = data[moveFlags]&2 != 0, data[moveFlags]&1 != 0
	p.toPort = wire.Uint16(data[moveRelative:])
	if uint64(wire.Uint32(data[20:])) != uint64(len(data)-moveTransport) {
		return errLength
	}
	to, n, err := parsePort(data[moveTransport:])
	if err != nil || n != len(data)-moveTransport {
		return &fieldError{true, moveTransport, -1}
	}
	p.others = []port{to}
	return nil
}

// parsePort reads an iSCSI TransportID (SPC-4 §7.6.4.6). Names, and the session id at the
// end of a port name, are brought to the form of unit.Initiator: lower case.
func parsePort(b []byte) (port, int, error) {
	name, isPort, n, err := wire.ParseISCSITransportID(b)
	if err != nil {
		return port{}, 0, err
	}
	return port{strings.ToLower(name), !isPort}, n, nil
}

// service carries out PERSISTENT RESERVE OUT for one I_T nexus.
type service struct {
	table       *unit.Reservations
	from        unit.Initiator
	transportID []byte
	ports       []uint16                // every target port
	known       func() []unit.Initiator // the initiator ports logged in to the unit
}

// do changes the table. Without an error done is called once, now or later.
func (s *service) do(p parameters, done func()) error {
	var err error
	switch p.action {
	case register, registerAndIgnore:
		err = s.register(p)
	case reserve:
		err = s.table.Reserve(s.from, p.key, p.typ)
	case release:
		err = s.table.Release(s.from, p.key, p.typ)
	case clearAll:
		err = s.table.Clear(s.from, p.key)
	case preempt, preemptAndAbort:
		err = s.table.Preempt(unit.Preempt{
			From:   s.from,
			Key:    p.key,
			Target: p.serviceKey,
			Type:   p.typ,
			Abort:  p.action == preemptAndAbort,
		}, done)
		return translate(err, listKey, -1, listFlags)
	case registerAndMove:
		return s.move(p, done)
	}
	if err != nil {
		return translate(err, listFlags, specifyBit, listFlags)
	}
	done()
	return nil
}

// translate points to the field that an error of the table is about: offset and
// bit for a parameter that it refuses, flags for the byte with APTPL.
func translate(err error, offset, bit, flags int) error {
	switch {
	case errors.Is(err, unit.ErrReservationParameter):
		return &fieldError{true, offset, bit}
	case errors.Is(err, unit.ErrNotPersistent):
		return &fieldError{true, flags, persistBit}
	case errors.Is(err, unit.ErrReservationType):
		return &fieldError{false, cdbType, 3}
	case errors.Is(err, unit.ErrNoReservation):
		return &fieldError{false, cdbAction, 4}
	}
	return err
}

func (s *service) register(p parameters) error {
	q := unit.Register{
		From:        s.from,
		TransportID: s.transportID,
		Key:         p.key,
		NewKey:      p.serviceKey,
		IgnoreKey:   p.action == registerAndIgnore,
		Persist:     p.persist,
	}
	if p.allPorts {
		q.Ports = s.ports
	}
	for _, o := range p.others {
		names := s.resolve(o)
		if len(names) == 0 {
			return &fieldError{true, listOthers, -1}
		}
		for _, name := range names {
			q.Others = append(q.Others, unit.Registrant{Name: name, TransportID: wire.ISCSITransportID(name)})
		}
	}
	return s.table.Register(q)
}

func (s *service) move(p parameters, done func()) error {
	names := s.resolve(p.others[0])
	if len(names) != 1 {
		return &fieldError{true, moveTransport, -1}
	}
	if !slices.Contains(s.ports, p.toPort) {
		return &fieldError{true, moveRelative, -1}
	}
	to := unit.Initiator{Name: names[0], Port: p.toPort}
	err := s.table.Move(unit.Move{
		From:        s.from,
		Key:         p.key,
		NewKey:      p.serviceKey,
		To:          to,
		TransportID: wire.ISCSITransportID(to.Name),
		Unregister:  p.unregister,
		Persist:     p.persist,
	})
	if err != nil {
		offset := moveTransport
		if p.serviceKey == 0 {
			offset = listKey
		}
		return translate(err, offset, -1, moveFlags)
	}
	done()
	return nil
}

// resolve returns the initiator ports that a TransportID stands for. A device
// stands for those of its ports that are logged in: the others are not known.
func (s *service) resolve(o port) []string {
	if !o.device {
		return []string{o.name}
	}
	var names []string
	for _, i := range s.known() {
		if strings.HasPrefix(i.Name, o.name+",i,") && !slices.Contains(names, i.Name) {
			names = append(names, i.Name)
		}
	}
	slices.Sort(names)
	return names
}
