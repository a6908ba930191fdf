// Package nvme is the NVMe controller: the NVM subsystem of an array with its
// discovery service, dynamic controllers, Fabrics, admin and NVM commands,
// reservations, asymmetric namespace access, and in-band authentication.
//
// A command goes one way: transport -> Queue.Execute -> command -> unit and block
// device, and back by Owner.RequestDone.
//
// # Namespaces
//
// A namespace is a unit.Unit under a number (NSID) that is the same on all
// controllers of one host; another host may see the unit under another number. Its EUI64 is
// the EUI-64 based designator that SCSI hosts find in page 83h, where that has 8 bytes;
// its NGUID and UUID are attributes of the unit.
//
// # Reservations
//
// Reservations are those of the unit's one table, which SCSI shares. A host
// registers by its 128-bit host identifier, as "nvme:" and 32 hexadecimal digits,
// whatever controllers it has; a SCSI initiator registers as a pair of initiator
// port and target port. Both kinds hold, conflict with and preempt each other:
//
//	NVMe RTYPE                             SPC-4 TYPE
//	1 Write Exclusive                      1h Write Exclusive
//	2 Exclusive Access                     3h Exclusive Access
//	3 Write Exclusive, Registrants Only    5h Write Exclusive, Registrants Only
//	4 Exclusive Access, Registrants Only   6h Exclusive Access, Registrants Only
//	5 Write Exclusive, All Registrants     7h Write Exclusive, All Registrants
//	6 Exclusive Access, All Registrants    8h Exclusive Access, All Registrants
//
//	unit event                NVMe notification            SCSI unit attention
//	registrations preempted   1 Registration Preempted     2A/05
//	reservations released     2 Reservation Released       2A/04
//	reservations preempted    3 Reservation Preempted      2A/03
//
// CPTPL and the Reservation Persistence feature are APTPL. A Reservation Report
// lists SCSI registrants with controller FFFFh and a host identifier made of
// their names. A SCSI-2 RESERVE keeps all NVMe hosts out.
//
// # Asymmetric access
//
// The access states of a unit.Group through this head's port group are ANA states:
//
//	optimized                 optimized
//	non-optimized             non-optimized
//	standby, unavailable      inaccessible
//	offline                   persistent loss
//	transitioning             change
package nvme

import "encoding/binary"

var le = binary.LittleEndian
