package history

import "golang.org/x/sys/unix"

// Monotonic returns the time of CLOCK_MONOTONIC in nanoseconds, which all processes
// of a machine share from its start on.
func Monotonic() int64 {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		panic(err) // no Linux is without this clock
	}
	return ts.Nano()
}
