package serve

import (
	"strconv"

	"lintel.io/lintel/internal/agent"
	"lintel.io/lintel/internal/array"
	"lintel.io/lintel/internal/scsi"
	"lintel.io/lintel/internal/target"
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
	return list
}

func (d dataPlane) DropSession(id string) bool {
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

func ioStats(s scsi.Stats) agent.IOStats {
	return agent.IOStats{
		ReadOps: s.Reads, ReadBytes: s.ReadBytes,
		WriteOps: s.Writes, WriteBytes: s.WriteBytes,
		OtherOps: s.Others, Errors: s.Errors,
	}
}
