package unit

import "time"

// Stats counts what commands have done.
type Stats struct {
	Reads, ReadBytes   uint64
	Writes, WriteBytes uint64
	Others             uint64 // commands that neither read nor write
	Errors             uint64 // commands that did not succeed
	InFlight           int    // commands under way
	// ReadTime and WriteTime are how long the reads and writes took, summed; see Meter.
	ReadTime, WriteTime time.Duration
}

// Add adds the counts of o.
func (s *Stats) Add(o Stats) {
	s.Reads += o.Reads
	s.ReadBytes += o.ReadBytes
	s.Writes += o.Writes
	s.WriteBytes += o.WriteBytes
	s.Others += o.Others
	s.Errors += o.Errors
	s.InFlight += o.InFlight
	s.ReadTime += o.ReadTime
	s.WriteTime += o.WriteTime
}
