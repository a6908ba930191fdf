//go:build !linux

package history

import "time"

var start = time.Now()

// Monotonic returns the nanoseconds since the process was started: here, each
// process needs a Clock of its own.
func Monotonic() int64 { return int64(time.Since(start)) }
