package bench

import (
	"fmt"
	"io"
	"text/tabwriter"
	"time"
)

// WriteTable writes the result for people to read.
func (r Result) WriteTable(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "\tI/Os\tIOPS\tMB/s\tmean\tp50\tp90\tp99\tp99.9\tmax\t")
	row := func(name string, s Stats) {
		l := s.Latency
		fmt.Fprintf(t, "%s\t%d\t%.0f\t%.1f\t%s\t%s\t%s\t%s\t%s\t%s\t\n", name, s.IOs, s.IOPS, s.BytesPerSecond/1e6,
			round(l.Mean), round(l.P50), round(l.P90), round(l.P99), round(l.P999), round(l.Max))
	}
	if r.Read.IOs > 0 {
		row("read", r.Read)
	}
	if r.Write.IOs > 0 {
		row("write", r.Write)
	}
	if r.Read.IOs > 0 && r.Write.IOs > 0 {
		row("both", r.Total)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	line := fmt.Sprintf("measured %s", r.Elapsed.Round(time.Millisecond))
	if r.ServerCPU > 0 {
		line += fmt.Sprintf("; server CPU %s per I/O", round(r.ServerCPU))
	}
	if r.ClientCPU > 0 {
		line += fmt.Sprintf("; client CPU %s per I/O", round(r.ClientCPU))
	}
	if r.Verified > 0 {
		line += fmt.Sprintf("; %d bytes verified", r.Verified)
	}
	if r.Retries > 0 {
		line += fmt.Sprintf("; %d retries", r.Retries)
	}
	_, err := fmt.Fprintln(w, line)
	return err
}

// round keeps three significant digits.
func round(d time.Duration) time.Duration {
	unit := time.Duration(1)
	for d/unit >= 1000 {
		unit *= 10
	}
	return d.Round(unit)
}

// String is one line of live progress.
func (s Snapshot) String() string {
	phase := ""
	if s.Ramp {
		phase = " (ramp)"
	}
	return fmt.Sprintf("%4.0f s%s  %.0f IOPS  %.1f MB/s  p50 %s  p99 %s",
		s.Elapsed.Seconds(), phase, s.IOPS, s.BytesPerSecond/1e6, round(s.P50), round(s.P99))
}
