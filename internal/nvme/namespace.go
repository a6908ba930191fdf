package nvme

import "lintel.io/lintel/internal/unit"

// namespace is one NSID of a controller.
type namespace struct {
	unit *unit.Unit
	nsid uint32
}

type fusing uint8
