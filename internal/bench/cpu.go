package bench

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"time"
)

// clockTick is the unit of the times in /proc/PID/stat: USER_HZ, 100 on every
// Linux architecture that Go supports.
const clockTick = time.Second / 100

// ProcessCPU returns the CPU time, user and system, that all threads of a
// process have used since it started, to 10 ms. It needs Linux's /proc.
func ProcessCPU(pid int) (time.Duration, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, fmt.Errorf("CPU time of process %d: %w", pid, err)
	}
	// The command name may hold anything; the fields are counted from its closing parenthesis.
	i := bytes.LastIndexByte(stat, ')')
	fields := bytes.Fields(stat[i+1:])
	const utime, stime = 11, 12
	if i < 0 || len(fields) <= stime {
		return 0, fmt.Errorf("CPU time of process %d: /proc/%d/stat has an unknown form", pid, pid)
	}
	var ticks uint64
	for _, f := range [][]byte{fields[utime], fields[stime]} {
		n, err := strconv.ParseUint(string(f), 10, 64)
		if err != nil {
			return 0, fmt.Errorf("CPU time of process %d: %w", pid, err)
		}
		ticks += n
	}
	return time.Duration(ticks) * clockTick, nil
}
