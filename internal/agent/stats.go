package agent

import (
	"bytes"
	"cmp"
	"context"
	"os"
	"runtime"
	"slices"
	"strconv"
	"time"

	"connectrpc.com/connect"
	"golang.org/x/sys/unix"

	lintelv1 "lintel.io/lintel/api/lintel/v1"
	"lintel.io/lintel/api/lintel/v1/lintelv1connect"
	"lintel.io/lintel/internal/block"
)

type statsService struct{ *Agent }

var _ lintelv1connect.StatsServiceHandler = statsService{}

func ioMessage(s IOStats) *lintelv1.IOStats {
	return &lintelv1.IOStats{
		ReadOps: s.ReadOps, WriteOps: s.WriteOps, OtherOps: s.OtherOps, ReadBytes: s.ReadBytes, WriteBytes: s.WriteBytes,
		Errors: s.Errors, ReadNanoseconds: uint64(s.ReadTime), WriteNanoseconds: uint64(s.WriteTime), InFlight: uint32(s.InFlight),
	}
}

func (s statsService) GetStats(ctx context.Context, req *connect.Request[lintelv1.GetStatsRequest]) (*connect.Response[lintelv1.GetStatsResponse], error) {
	state := s.State()
	only := ""
	if name := req.Msg.GetVolume(); name != "" {
		v, _, err := state.Volume(name)
		if err != nil {
			return nil, err
		}
		only = v.ID
	}
	stats, err := s.plane.Stats(ctx)
	if err != nil {
		return nil, err
	}
	resp := &lintelv1.GetStatsResponse{
		Time: timeMessage(s.opts.Now()), Total: ioMessage(stats.Total),
		Sessions: uint32(stats.Sessions), Connections: uint32(stats.Connections), Process: processMessage(stats.Process),
	}
	for _, p := range state.Pools {
		for _, v := range p.Volumes {
			if only == "" || v.ID == only {
				resp.Volumes = append(resp.Volumes, &lintelv1.VolumeStats{Volume: v.Name, Id: v.ID, Io: ioMessage(stats.Volumes[v.ID])})
			}
		}
	}
	slices.SortFunc(resp.Volumes, func(a, b *lintelv1.VolumeStats) int { return cmp.Compare(a.Volume, b.Volume) })
	return connect.NewResponse(resp), nil
}

func processMessage(p ProcessStats) *lintelv1.ProcessStats {
	return &lintelv1.ProcessStats{
		BufferBytes: p.BufferBytes, Goroutines: uint32(p.Goroutines), ResidentBytes: p.ResidentBytes, CpuNanoseconds: uint64(p.CPU),
	}
}

// ThisProcess returns what this process takes from the machine.
func ThisProcess() ProcessStats {
	p := ProcessStats{BufferBytes: uint64(max(block.BuffersInUse(), 0)), Goroutines: runtime.NumGoroutine(), ResidentBytes: residentBytes()}
	var usage unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &usage); err == nil {
		p.CPU = time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
	}
	return p
}

// residentBytes returns the memory of the process in RAM, 0 where the system does not tell.
func residentBytes() uint64 {
	b, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return 0
	}
	fields := bytes.Fields(b)
	if len(fields) < 2 {
		return 0
	}
	pages, err := strconv.ParseUint(string(fields[1]), 10, 64)
	if err != nil {
		return 0
	}
	return pages * uint64(os.Getpagesize())
}
