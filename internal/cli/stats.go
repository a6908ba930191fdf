package cli

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	lintelv1 "lintel.io/lintel/api/lintel/v1"
)

func (a *app) statsCommand() *cobra.Command {
	var w watch
	req := &lintelv1.GetStatsRequest{}
	cmd := &cobra.Command{
		Use:   "stats",
		Short: "Show the I/O counters of the volumes",
		Long: `Shows what was read and written since the array started. With --watch the table
shows rates: I/Os and bytes a second, and mean latencies, since the round before.
With -o json or yaml every round prints the counters themselves.

ERRORS are commands that ended with another status than good. A few are normal:
initiators ask for what a target may not have, and are told of changes that way. What
the storage below a volume fails is in lintel health and lintel volume show.`,
		Example: "  lintel stats\n  lintel stats --watch\n  lintel stats --watch=5s --volume db1\n  lintel stats -o json | jq .total.read_ops",
		Args:    takes(""),
		RunE: a.with(func(ctx context.Context, c *api, _ []string) error {
			get := func() (*lintelv1.GetStatsResponse, error) { return call(ctx, c.stats.GetStats, req) }
			if a.format != formatTable || w.every == 0 {
				return w.run(ctx, a, func() error {
					res, err := get()
					if err != nil {
						return err
					}
					if a.format != formatTable {
						return a.printValue(document(res))
					}
					return writeTable(a.Out, a.colour(), counterColumns, withTotal(res))
				})
			}
			return w.rates(ctx, a, get)
		}),
	}
	cmd.Flags().StringVar(&req.Volume, "volume", "", "only this `VOLUME`")
	a.completeFlag(cmd, "volume", volumeNames)
	w.flags(cmd)
	return cmd
}

// withTotal returns the rows of the table: the volumes and their sum.
func withTotal(res *lintelv1.GetStatsResponse) []*lintelv1.VolumeStats {
	rows := res.GetVolumes()
	return append(rows[:len(rows):len(rows)], &lintelv1.VolumeStats{Volume: "(total)", Io: res.GetTotal()})
}

var counterColumns = []column[*lintelv1.VolumeStats]{
	{head: "VOLUME", text: (*lintelv1.VolumeStats).GetVolume},
	{head: "READS", right: true, text: func(v *lintelv1.VolumeStats) string { return fmt.Sprint(v.GetIo().GetReadOps()) }},
	{head: "READ", right: true, text: func(v *lintelv1.VolumeStats) string { return formatSize(v.GetIo().GetReadBytes()) }},
	{head: "WRITES", right: true, text: func(v *lintelv1.VolumeStats) string { return fmt.Sprint(v.GetIo().GetWriteOps()) }},
	{head: "WRITTEN", right: true, text: func(v *lintelv1.VolumeStats) string { return formatSize(v.GetIo().GetWriteBytes()) }},
	{head: "OTHER", right: true, text: func(v *lintelv1.VolumeStats) string { return fmt.Sprint(v.GetIo().GetOtherOps()) }},
	{head: "ERRORS", right: true, text: func(v *lintelv1.VolumeStats) string { return fmt.Sprint(v.GetIo().GetErrors()) }},
	{head: "ACTIVE", right: true, text: func(v *lintelv1.VolumeStats) string { return fmt.Sprint(v.GetIo().GetInFlight()) }},
}

// rate is what a volume did between two moments.
type rate struct {
	volume        string
	before, after *lintelv1.IOStats
	seconds       float64
}

func (r rate) perSecond(count func(*lintelv1.IOStats) uint64) float64 {
	if count(r.after) < count(r.before) || r.seconds <= 0 {
		return 0 // the counters began again: the array was restarted
	}
	return float64(count(r.after)-count(r.before)) / r.seconds
}

// latency is the mean time of an I/O; empty where none was measured.
func (r rate) latency(ops, nanoseconds func(*lintelv1.IOStats) uint64) string {
	n, spent := r.perSecond(ops), r.perSecond(nanoseconds)
	if n == 0 || spent == 0 {
		return ""
	}
	return microseconds(time.Duration(spent / n))
}

var rateColumns = []column[rate]{
	{head: "VOLUME", text: func(r rate) string { return r.volume }},
	{head: "READ/S", right: true, text: func(r rate) string { return fmt.Sprintf("%.0f", r.perSecond((*lintelv1.IOStats).GetReadOps)) }},
	{head: "READ MB/S", right: true, text: func(r rate) string { return megabytes(r.perSecond((*lintelv1.IOStats).GetReadBytes)) }},
	{head: "LATENCY", right: true, text: func(r rate) string {
		return r.latency((*lintelv1.IOStats).GetReadOps, (*lintelv1.IOStats).GetReadNanoseconds)
	}},
	{head: "WRITE/S", right: true, text: func(r rate) string { return fmt.Sprintf("%.0f", r.perSecond((*lintelv1.IOStats).GetWriteOps)) }},
	{head: "WRITE MB/S", right: true, text: func(r rate) string { return megabytes(r.perSecond((*lintelv1.IOStats).GetWriteBytes)) }},
	{head: "LATENCY", right: true, text: func(r rate) string {
		return r.latency((*lintelv1.IOStats).GetWriteOps, (*lintelv1.IOStats).GetWriteNanoseconds)
	}},
	{head: "ERRORS", right: true, text: func(r rate) string { return fmt.Sprint(r.after.GetErrors()) }, style: func(r rate) style {
		if r.after.GetErrors() > r.before.GetErrors() {
			return red
		}
		return plain
	}},
	{head: "ACTIVE", right: true, text: func(r rate) string { return fmt.Sprint(r.after.GetInFlight()) }},
}

func megabytes(bytesPerSecond float64) string { return fmt.Sprintf("%.1f", bytesPerSecond/1e6) }

// rates prints a table of rates each round. The first one needs two readings,
// so it appears after one interval.
func (w *watch) rates(ctx context.Context, a *app, get func() (*lintelv1.GetStatsResponse, error)) error {
	if err := w.validate(); err != nil {
		return err
	}
	before, err := get()
	if err != nil {
		return err
	}
	select {
	case <-ctx.Done():
		return nil
	case <-time.After(w.every):
	}
	return w.run(ctx, a, func() error {
		after, err := get()
		if err != nil {
			return err
		}
		defer func() { before = after }()
		return writeTable(a.Out, a.colour(), rateColumns, ratesBetween(before, after))
	})
}

func ratesBetween(before, after *lintelv1.GetStatsResponse) []rate {
	seconds := after.GetTime().AsTime().Sub(before.GetTime().AsTime()).Seconds()
	earlier := map[string]*lintelv1.IOStats{}
	for _, v := range before.GetVolumes() {
		earlier[v.GetId()] = v.GetIo()
	}
	rows := make([]rate, 0, len(after.GetVolumes())+1)
	for _, v := range after.GetVolumes() {
		rows = append(rows, rate{v.GetVolume(), earlier[v.GetId()], v.GetIo(), seconds})
	}
	return append(rows, rate{"(total)", before.GetTotal(), after.GetTotal(), seconds})
}
