package unit

import "time"

const (
	// meterBusy is the mean time between commands below which not all of them are measured.
	meterBusy = 50 * time.Microsecond
	// meterShare is the part of them that is, in the mean: one of so many.
	meterShare = 16
	// hashFactor is 2^64 over the golden ratio: a product's upper bits follow no pattern.
	hashFactor = 0x9E3779B97F4A7C15
)

// A Meter measures how long the commands of one initiator take: every one as long as
// there are fewer than some 20000 a second, else about one of 16, which counts for those
// that it leaves out, so that reading the clock costs next to nothing. The zero value
// is ready for use; the lock of its owner guards it.
type Meter struct {
	since   time.Duration // start of the window of meterShare commands or more
	count   uint8         // commands in it
	skip    uint8         // how many to leave out before the next that is measured
	skipped uint8         // how many were
}

// Stamp is when a command began, where it is measured.
type Stamp struct {
	at     time.Duration
	weight uint8 // how many commands it stands for, 0 where it is not measured
}

// meterEpoch is what the meters count from.
var meterEpoch = time.Now()

// Start returns the stamp of a command that begins.
func (m *Meter) Start() Stamp {
	if m.skipped < m.skip {
		m.skipped++
		return Stamp{}
	}
	s := Stamp{at: time.Since(meterEpoch), weight: m.skipped + 1}
	m.skipped = 0
	if m.count += s.weight; m.count < meterShare && m.skip == 0 {
		return s
	}
	busy := s.at-m.since < meterBusy*time.Duration(m.count)
	m.since, m.count, m.skip = s.at, 0, 0
	if busy {
		// By a number that does not keep step with the host: else it could be only its reads
		// that are measured.
		m.skip = meterShare/2 + uint8(uint64(s.at)*hashFactor>>60)
	}
	return s
}

// Took returns how long the commands took that the stamp stands for, together; 0 where
// it is not measured.
func (s Stamp) Took() time.Duration {
	if s.weight == 0 {
		return 0
	}
	return (time.Since(meterEpoch) - s.at) * time.Duration(s.weight)
}
