// Package reserve gives the SCSI commands for reservations: RESERVE and RELEASE
// of SPC-2, PERSISTENT RESERVE IN and OUT of SPC-4. They translate between the
// wire and the reservation table of package unit.
package reserve

import (
	"errors"

	"lintel.io/lintel/internal/scsi"
	"lintel.io/lintel/internal/unit"
	wire "lintel.io/lintel/internal/wire/scsi"
)

// The service actions of PERSISTENT RESERVE IN (SPC-4 §6.15.1).
const (
	readKeys           = 0x00
	readReservation    = 0x01
	reportCapabilities = 0x02
	readFullStatus     = 0x03
)

// The service actions of PERSISTENT RESERVE OUT (SPC-4 §6.16.2).
const (
	register          = 0x00
	reserve           = 0x01
	release           = 0x02
	clearAll          = 0x03
	preempt           = 0x04
	preemptAndAbort   = 0x05
	registerAndIgnore = 0x06
	registerAndMove   = 0x07
)

// standbyStates are the asymmetric access states in which persistent
// reservations are managed (SPC-4 §5.15.2.4.4).
const standbyStates = 1<<unit.Optimized | 1<<unit.NonOptimized | 1<<unit.Standby

// Commands returns the command descriptions of this family.
func Commands() []scsi.Command {
	list := []scsi.Command{
		whole("RESERVE(6)", wire.OpReserve6, 6, (*unit.Reservations).ReserveUnit),
		whole("RELEASE(6)", wire.OpRelease6, 6, (*unit.Reservations).ReleaseUnit),
		whole("RESERVE(10)", wire.OpReserve10, 10, (*unit.Reservations).ReserveUnit),
		whole("RELEASE(10)", wire.OpRelease10, 10, (*unit.Reservations).ReleaseUnit),
	}
	for action, name := range map[int]string{
		readKeys:           "READ KEYS",
		readReservation:    "READ RESERVATION",
		reportCapabilities: "REPORT CAPABILITIES",
		readFullStatus:     "READ FULL STATUS",
	} {
		list = append(list, scsi.Command{
			Name:          "PERSISTENT RESERVE IN, " + name,
			Op:            wire.OpPersistentIn,
			ServiceAction: action,
			Usage:         []byte{wire.OpPersistentIn, 0x1F, 0, 0, 0, 0, 0, 0xFF, 0xFF, 0},
			AllowStates:   standbyStates,
			Run:           runIn,
		})
	}
	for action, name := range map[int]string{
		register:          "REGISTER",
		reserve:           "RESERVE",
		release:           "RELEASE",
		clearAll:          "CLEAR",
		preempt:           "PREEMPT",
		preemptAndAbort:   "PREEMPT AND ABORT",
		registerAndIgnore: "REGISTER AND IGNORE EXISTING KEY",
		registerAndMove:   "REGISTER AND MOVE",
	} {
		list = append(list, scsi.Command{
			Name:          "PERSISTENT RESERVE OUT, " + name,
			Op:            wire.OpPersistentOut,
			ServiceAction: action,
			Usage:         []byte{wire.OpPersistentOut, 0x1F, 0xFF, 0, 0, 0xFF, 0xFF, 0xFF, 0xFF, 0},
			AllowReserved: true, // the reservation table decides
			AllowStates:   standbyStates,
			DataOut:       outLength,
			Run:           runOut,
		})
	}
	return list
}

// whole describes RESERVE or RELEASE of the whole unit. Third-party reservations
// and extents are not supported; their bits are not in the usage data.
func whole(name string, op byte, length int, do func(*unit.Reservations, unit.Initiator) error) scsi.Command {
	return scsi.Command{
		Name:          name,
		Op:            op,
		ServiceAction: -1,
		Usage:         append([]byte{op}, make([]byte, length-1)...),
		AllowReserved: true, // the reservation table decides
		Run: func(t *scsi.Task) {
			finish(t, do(&t.LU.Unit().Reservations, t.Nexus.Initiator()))
		},
	}
}

// allocation returns the ALLOCATION LENGTH of PERSISTENT RESERVE IN.
func allocation(cdb []byte) int { return int(wire.Uint16(cdb[7:])) }

func runIn(t *scsi.Task) {
	t.Reply(dataIn(&t.LU.Unit().Reservations, t.CDB[1]&0x1F), allocation(t.CDB))
}

// maxParameters is the longest parameter list that is taken: MaxRegistrations
// TransportIDs of the longest kind fit.
const maxParameters = 128 << 10

func parameterLength(cdb []byte) uint32 { return wire.Uint32(cdb[5:]) }

func outLength(t *scsi.Task) int {
	if n := parameterLength(t.CDB); n <= maxParameters {
		return int(n)
	}
	return 0
}

func runOut(t *scsi.Task) {
	p, err := parse(t.CDB, t.DataOut)
	if err != nil {
		finish(t, err)
		return
	}
	u := t.LU.Unit()
	s := service{
		table:       &u.Reservations,
		from:        t.Nexus.Initiator(),
		transportID: t.Nexus.TransportID(),
		ports:       relativePorts(t.Nexus.Target().Ports()),
		known:       u.Initiators,
	}
	run := func() {
		if err := s.do(p, func() { finish(t, nil) }); err != nil {
			finish(t, err)
		}
	}
	if u.Reservations.CanPersist() && (p.persist || u.Reservations.Table().Persist) {
		go run() // saving the table waits for stable storage
		return
	}
	run()
}

func relativePorts(ports []scsi.PortConfig) []uint16 {
	list := make([]uint16, len(ports))
	for i, p := range ports {
		list[i] = p.Relative
	}
	return list
}

// fieldError is an invalid field in the CDB or the parameter list.
type fieldError struct {
	inData      bool
	offset, bit int
}

func (*fieldError) Error() string { return "invalid field" }

// errLength says that the parameter list is too short or too long.
var errLength = errors.New("parameter list length error")

// finish ends a task with what an error stands for.
func finish(t *scsi.Task, err error) {
	var field *fieldError
	sense := scsi.Sense{Key: wire.KeyIllegalRequest}
	switch {
	case err == nil:
		t.Finish(scsi.StatusGood)
		return
	case errors.Is(err, unit.ErrConflict):
		t.Finish(scsi.StatusReservationConflict)
		return
	case errors.As(err, &field):
		t.FailField(field.inData, field.offset, field.bit)
		return
	case errors.Is(err, errLength):
		sense.Code = wire.ParameterListLengthError
	case errors.Is(err, unit.ErrInvalidRelease):
		sense.Code = wire.InvalidReleaseOfReservation
	case errors.Is(err, unit.ErrTooManyRegistrations):
		sense.Code = wire.InsufficientRegistrations
	default: // the table could not be saved
		sense.Key, sense.Code = wire.KeyHardwareError, wire.InternalTargetFailure
	}
	t.Fail(sense)
}
