// Package nvme is the NVMe controller: the NVM subsystem of an array with its
// discovery service, dynamic controllers, Fabrics, admin and NVM commands,
// reservations, asymmetric namespace access, and in-band authentication.
//
// A command goes one way: transport -> Queue.Execute -> command -> unit and block
// device, and back by Owner.RequestDone.
package nvme

import "encoding/binary"

var le = binary.LittleEndian
