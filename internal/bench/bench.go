// Package bench is a load generator for iSCSI logical units and NVMe/TCP
// namespaces: it keeps a number of reads and writes under way on one or more
// connections and measures rates, latencies and, where it can see the server's
// process, CPU time per I/O.
//
// It works against any target and allocates nothing per I/O.
package bench

import (
	"errors"
	"fmt"
	"time"
)

// Config describes a run. The zero values of the optional fields stand for the
// defaults named with them.
type Config struct {
	// URL names the unit: iscsi://[user[%password]@]host[:port]/iqn/lun or
	// nvme://host[:port]/nqn/nsid (see URL).
	URL string
	// Initiator is the initiator name or host NQN; a generated one where empty.
	Initiator string
	// QueueDepth is the number of commands under way on each connection, 1 to 4096; 32 where 0.
	QueueDepth int
	// Connections is the number of TCP connections, 1 to 256; 1 where 0.
	Connections int
	// SessionConnections is the number of connections in one session, or of I/O
	// queues in one NVMe association, 1 where 0. It divides Connections.
	SessionConnections int
	// BlockSize is the size of each I/O in bytes, a multiple of the unit's
	// logical block size up to 16 MiB; 4096 where 0.
	BlockSize int
	// ReadPercent is the share of reads, 0 to 100.
	ReadPercent int
	// Random spreads the I/Os at random; otherwise each connection walks
	// through a part of its own, from its beginning again at the end.
	Random bool
	// Verify makes every write carry a checksummed pattern with its offset and
	// generation, and checks it in every read. Writes destroy what the volume holds
	// in any case.
	Verify bool
	// Offset is the first byte used and Span how many bytes are, 0 for all up to the end.
	// Both are multiples of BlockSize.
	Offset, Span int64
	// Duration is how long is measured, 10 s where 0 and Count is 0.
	Duration time.Duration
	// Count ends the run after so many I/Os instead, 0 for no such limit.
	Count int64
	// Ramp is how long the load runs before it is measured.
	Ramp time.Duration
	// Seed makes the sequence of offsets and the pattern repeatable; random where 0.
	Seed uint64
	// ServerPID is a process on this machine whose CPU time is measured, 0 for none.
	ServerPID int
	// LoginTimeout bounds each login, 10 s where 0.
	LoginTimeout time.Duration
}

// The limits of a Config.
const (
	MaxQueueDepth  = 4096
	MaxConnections = 256
	MaxBlockSize   = 16 << 20
	// maxVerifyBlocks bounds the table of generations (4 bytes a block).
	maxVerifyBlocks = 64 << 20
)

// withDefaults fills in the defaults and checks everything that needs no target.
func (c Config) withDefaults() (Config, error) {
	setDefault(&c.QueueDepth, 32)
	setDefault(&c.Connections, 1)
	setDefault(&c.SessionConnections, 1)
	setDefault(&c.BlockSize, 4096)
	setDefault(&c.LoginTimeout, 10*time.Second)
	if c.Count == 0 {
		setDefault(&c.Duration, 10*time.Second)
	}
	switch {
	case c.QueueDepth < 1 || c.QueueDepth > MaxQueueDepth:
		return c, fmt.Errorf("queue depth %d is not within 1 to %d", c.QueueDepth, MaxQueueDepth)
	case c.Connections < 1 || c.Connections > MaxConnections:
		return c, fmt.Errorf("%d connections are not within 1 to %d", c.Connections, MaxConnections)
	case c.SessionConnections < 1 || c.Connections%c.SessionConnections != 0:
		return c, fmt.Errorf("%d connections cannot be divided into sessions of %d", c.Connections, c.SessionConnections)
	case c.BlockSize < SectorSize || c.BlockSize > MaxBlockSize || c.BlockSize%SectorSize != 0:
		return c, fmt.Errorf("block size %d is not a multiple of %d up to %d", c.BlockSize, SectorSize, MaxBlockSize)
	case c.ReadPercent < 0 || c.ReadPercent > 100:
		return c, fmt.Errorf("read share %d is not within 0 to 100 percent", c.ReadPercent)
	case c.Offset < 0 || c.Span < 0 || c.Offset%int64(c.BlockSize) != 0 || c.Span%int64(c.BlockSize) != 0:
		return c, errors.New("offset and span must be multiples of the block size")
	case c.Duration < 0 || c.Ramp < 0 || c.Count < 0 || c.LoginTimeout < 0:
		return c, errors.New("duration, count, ramp time and login timeout must not be negative")
	}
	return c, nil
}

func setDefault[T comparable](p *T, value T) {
	var zero T
	if *p == zero {
		*p = value
	}
}

// Snapshot is how a run goes, once a second.
type Snapshot struct {
	Elapsed time.Duration // since the load started
	Ramp    bool          // the ramp time is not over
	IOs     uint64        // completed so far in the measured time
	// The last second: I/Os and bytes a second, and latencies.
	IOPS, BytesPerSecond float64
	P50, P99             time.Duration
}

// Stats is what was measured for one direction, or for both together.
type Stats struct {
	IOs            uint64  `json:"ios"`
	Bytes          uint64  `json:"bytes"`
	IOPS           float64 `json:"iops"`
	BytesPerSecond float64 `json:"bytes_per_second"`
	Latency        Latency `json:"latency_ns"`
}

// Latency is the distribution of the time from handing a command over until it
// completed, in nanoseconds when written as JSON.
type Latency struct {
	Min  time.Duration `json:"min"`
	Mean time.Duration `json:"mean"`
	P50  time.Duration `json:"p50"`
	P90  time.Duration `json:"p90"`
	P99  time.Duration `json:"p99"`
	P999 time.Duration `json:"p999"`
	Max  time.Duration `json:"max"`
}

// Result is what a run measured.
type Result struct {
	Elapsed time.Duration `json:"elapsed_ns"` // measured time
	Total   Stats         `json:"total"`
	Read    Stats         `json:"read"`
	Write   Stats         `json:"write"`
	// Retries counts commands sent again after BUSY, TASK SET FULL or a unit
	// attention, or an NVMe status that passes.
	Retries uint64 `json:"retries"`
	// Verified counts the bytes of reads that were compared with what this run had written.
	Verified uint64 `json:"verified_bytes"`
	// ServerCPU and ClientCPU are CPU times per I/O, user and system; 0 where unknown.
	ServerCPU time.Duration `json:"server_cpu_per_io_ns"`
	ClientCPU time.Duration `json:"client_cpu_per_io_ns"`
}

func (s *Stats) set(h *Histogram, blockSize int, elapsed time.Duration) {
	s.IOs = h.Count()
	s.Bytes = s.IOs * uint64(blockSize)
	if elapsed > 0 {
		s.IOPS = float64(s.IOs) / elapsed.Seconds()
		s.BytesPerSecond = float64(s.Bytes) / elapsed.Seconds()
	}
	s.Latency = Latency{
		Min: h.Min(), Mean: h.Mean(), P50: h.Quantile(.5), P90: h.Quantile(.9),
		P99: h.Quantile(.99), P999: h.Quantile(.999), Max: h.Max(),
	}
}
