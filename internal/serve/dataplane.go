package serve

import (
	"strconv"
	"strings"

	"lintel.io/lintel/internal/agent"
	"lintel.io/lintel/internal/array"
	"lintel.io/lintel/internal/target"
	"lintel.io/lintel/internal/unit"
)

// dataPlane shows the data plane of this process to the agent, in the agent's
// words. The two know nothing of each other, so that they can also be
// separate processes.
type dataPlane struct{ *target.Target }

var _ agent.DataPlane = dataPlane{}

func (d dataPlane) Volume(id string) agent.VolumeStatus {
	return agent.VolumeStatus(d.Target.Volume(id))
}

func (d dataPlane) Portal(id string) agent.PortalStatus {
	return agent.PortalStatus(d.Target.Portal(id))
}

func (d dataPlane) Sessions() []agent.Session {
	sessions := d.Target.Sessions()
	list := make([]agent.Session, len(sessions))
	for i, s := range sessions {
		a := agent.Session{
			ID:            strconv.FormatUint(s.ID, 10),
			Protocol:      array.ISCSI,
			Discovery:     s.Discovery,
			Initiator:     s.Initiator,
			HostID:        s.HostID,
			ISID:          s.ISID,
			TSIH:          s.TSIH,
			PortalTag:     s.Group,
			Since:         s.Since,
			LUNs:          s.LUNs,
			CHAPUser:      s.User,
			Authenticated: s.User != "",
			Commands:      s.Counters.Commands,
			ReadBytes:     s.Counters.BytesRead,
			WriteBytes:    s.Counters.BytesWritten,
			InFlight:      s.InFlight,
		}
		for _, c := range s.Connections {
			a.Connections = append(a.Connections, agent.Connection{
				CID: c.CID, Remote: c.Remote, Local: c.Local, HeaderDigest: c.HeaderDigest, DataDigest: c.DataDigest,
			})
		}
		list[i] = a
	}
	for _, c := range d.Controllers() {
		a := agent.Session{
			ID:             nvmeSession + strconv.FormatUint(uint64(c.ID), 10),
			Protocol:       array.NVMeTCP,
			Discovery:      c.Discovery,
			Initiator:      c.HostNQN,
			HostID:         c.OwnerID,
			PortalTag:      c.Port,
			Since:          c.Created,
			LUNs:           c.Namespaces,
			Authenticated:  c.Authenticated,
			Commands:       c.Stats.Reads + c.Stats.Writes + c.Stats.Others,
			ReadBytes:      c.Stats.ReadBytes,
			WriteBytes:     c.Stats.WriteBytes,
			InFlight:       c.Stats.InFlight,
			ControllerID:   c.ID,
			HostIdentifier: c.HostID,
		}
		for _, q := range c.Queues {
			a.Connections = append(a.Connections, agent.Connection{
				QueueID: q.ID, QueueDepth: uint16(q.Depth), Remote: q.Remote, Local: q.Local,
				HeaderDigest: q.HeaderDigest, DataDigest: q.DataDigest,
			})
		}
		list = append(list, a)
	}
	return list
}

// nvmeSession begins the session ids of NVMe controllers, so that they are apart
// from those of iSCSI sessions.
const nvmeSession = "nvme-"

func (d dataPlane) DropSession(id string) bool {
	if controller, ok := strings.CutPrefix(id, nvmeSession); ok {
		n, err := strconv.ParseUint(controller, 10, 16)
		return err == nil && d.DropController(uint16(n))
	}
	n, err := strconv.ParseUint(id, 10, 64)
	return err == nil && d.Target.DropSession(n)
}

func (d dataPlane) Stats() agent.Stats {
	s := d.Target.Stats()
	stats := agent.Stats{
		Volumes:     make(map[string]agent.IOStats, len(s.Volumes)),
		Total:       ioStats(s.Total),
		Sessions:    s.Sessions,
		Connections: s.Connections,
	}
	for id, v := range s.Volumes {
		stats.Volumes[id] = ioStats(v)
	}
	return stats
}

func ioStats(s unit.Stats) agent.IOStats {
	return agent.IOStats{
		ReadOps: s.Reads, ReadBytes: s.ReadBytes,
		WriteOps: s.Writes, WriteBytes: s.WriteBytes,
		OtherOps: s.Others, Errors: s.Errors, InFlight: s.InFlight,
	}
}
