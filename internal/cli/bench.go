package cli

import (
	"context"
	"errors"
	goflag "flag"
	"fmt"
	"net"
	"net/url"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"lintel.io/lintel/internal/bench"
)

func (a *app) benchCommand() *cobra.Command {
	config := bench.DefaultConfig()
	var secrets benchSecrets
	var ch change
	cmd := &cobra.Command{
		Use:   "bench URL",
		Short: "Measure an iSCSI logical unit or an NVMe/TCP namespace, of any target",
		Long: `Logs in to a target, Lintel or another, keeps reads and writes under way and
measures rates and latencies. Reads alone are the default; a share of writes
overwrites what the unit holds, so it has to be confirmed.

With --verify every write carries a pattern with its place and generation, and every
read of it is checked. --server-pid adds the CPU time that a target on the same
machine spends on each I/O.

The URL is iscsi://[USER@]HOST[:PORT]/IQN/LUN or nvme://HOST[:PORT]/NQN/NSID. The
secret of USER is read from --chap-secret-file, or asked for; the DH-HMAC-CHAP key of
an NVMe host, which --initiator names, from --dhchap-key-file, and its key of TLS, which
is used then, from --tls-key-file.`,
		Example: `  lintel bench iscsi://127.0.0.1/iqn.2026-11.io.lintel:demo/0
  lintel bench iscsi://192.0.2.10/iqn.2026-11.io.lintel:lab/3 --connections 2 --duration 30s
  lintel bench iscsi://127.0.0.1/iqn.2026-11.io.lintel:demo/0 --read-percent 0 --verify --yes
  lintel bench iscsi://127.0.0.1/iqn.2026-11.io.lintel:demo/0 --random=false --block-size 1MiB
  lintel bench nvme://127.0.0.1/nqn.2026-11.io.lintel:demo/1 --connections 2`,
		Args: takes("URL"),
		RunE: func(cmd *cobra.Command, args []string) error {
			var err error
			if config.URL, err = secrets.url(a, args[0]); err != nil {
				return err
			}
			if config.ReadPercent < 100 {
				if err := a.confirm(ch, "This overwrites what %s holds", args[0]); err != nil {
					return err
				}
			}
			return a.bench(cmd.Context(), config)
		},
	}
	set := goflag.NewFlagSet("bench", goflag.ContinueOnError)
	config.AddFlags(set)
	cmd.Flags().AddGoFlagSet(set)
	secrets.chap.flags(cmd, "chap-secret", "the CHAP secret of the URL's user", "; asked for where neither is given")
	secrets.key.flags(cmd, "dhchap-key", "the DH-HMAC-CHAP key of an NVMe host", "")
	secrets.tls.flags(cmd, "tls-key", "the TLS key of an NVMe host", "")
	cmd.Flags().BoolVarP(&ch.yes, "yes", "y", false, "do not ask")
	return cmd
}

// benchSecrets are the secrets that a URL is given from elsewhere.
type benchSecrets struct{ chap, key, tls secret }

// url adds the secret to a URL that names a user without one, and the key to that of
// a namespace.
func (s *benchSecrets) url(a *app, text string) (string, error) {
	u, err := bench.ParseURL(text)
	if err != nil {
		return "", usage("%w", err)
	}
	switch {
	case u.Target == "" && u.NVMe:
		return "", usage("%s names no subsystem and namespace: write nvme://HOST/NQN/NSID", text)
	case u.Target == "":
		return "", usage("%s names no target and LUN: write iscsi://HOST/IQN/LUN", text)
	case u.NVMe && s.chap.given():
		return "", usage("CHAP is for iSCSI: over NVMe a host has a DH-HMAC-CHAP key, --dhchap-key-file")
	case !u.NVMe && s.key.given():
		return "", usage("DH-HMAC-CHAP is for NVMe: over iSCSI a user has a CHAP secret, --chap-secret-file")
	case !u.NVMe && s.tls.given():
		return "", usage("TLS is for NVMe: iSCSI has none")
	case u.NVMe:
		return s.options(a, text)
	case u.User == "" && !s.chap.given() || u.Password != "":
		return text, nil
	case u.User == "":
		return "", usage("whose secret is it? Name the user in the URL: iscsi://USER@HOST/IQN/LUN")
	}
	secret, err := s.chap.read(a)
	if err != nil {
		return "", err
	}
	if strings.ContainsAny(secret, "/?@") {
		return "", usage("%s must not contain /, ? or @", s.chap.what)
	}
	return strings.Replace(text, "@", "%"+secret+"@", 1), nil
}

// options adds the keys of an NVMe host to a URL.
func (s *benchSecrets) options(a *app, text string) (string, error) {
	for _, o := range []struct {
		name   string
		secret *secret
	}{{"dhchap_secret", &s.key}, {"tls_key", &s.tls}} {
		if !o.secret.given() {
			continue
		}
		key, err := o.secret.read(a)
		if err != nil {
			return "", err
		}
		separator := "?"
		if strings.Contains(text, "?") {
			separator = "&"
		}
		text += separator + o.name + "=" + url.QueryEscape(key)
	}
	return text, nil
}

func (a *app) bench(ctx context.Context, config bench.Config) error {
	_, tty := terminal(a.Err)
	progress := func(s bench.Snapshot) {
		phase := ""
		if s.Ramp {
			phase = ", ramp"
		}
		line := fmt.Sprintf("%4.0f s  %9.0f IOPS  %8.1f MB/s  p50 %-9s p99 %-9s%s", s.Elapsed.Seconds(), s.IOPS, s.BytesPerSecond/1e6, measured(s.P50), measured(s.P99), phase)
		if tty {
			fmt.Fprintf(a.Err, "\r\x1b[K%s", line)
		} else {
			fmt.Fprintln(a.Err, line)
		}
	}
	result, err := bench.Run(ctx, config, progress)
	if tty {
		fmt.Fprint(a.Err, "\r\x1b[K")
	}
	interrupted := errors.Is(err, context.Canceled) && result.Total.IOs > 0
	if op, ok := errors.AsType[*net.OpError](err); ok && op.Op == "dial" && result.Total.IOs == 0 {
		return fail(ExitUnreachable, "bench: %w", err)
	}
	if err != nil && !interrupted {
		return fmt.Errorf("bench: %w", err)
	}
	if a.format != formatTable {
		return a.printValue(benchObject(&result))
	}
	rows := []benchRow{{"read", &result.Read}, {"write", &result.Write}, {"total", &result.Total}}
	if result.Write.IOs == 0 {
		rows = rows[:1]
	} else if result.Read.IOs == 0 {
		rows = rows[1:2]
	}
	if err := writeTable(a.Out, a.colour(), benchColumns, rows); err != nil {
		return err
	}
	for _, cpu := range []struct {
		whose string
		time  time.Duration
	}{{"server", result.ServerCPU}, {"client", result.ClientCPU}} {
		if cpu.time > 0 {
			a.say("%s CPU per I/O: %s", cpu.whose, microseconds(cpu.time))
		}
	}
	if result.Verified > 0 {
		a.say("verified: %s", sizeText(result.Verified))
	}
	if result.Retries > 0 {
		a.say("retries: %d", result.Retries)
	}
	return nil
}

type benchRow struct {
	name  string
	stats *bench.Stats
}

var benchColumns = []column[benchRow]{
	{head: "I/O", text: func(r benchRow) string { return r.name }},
	{head: "COUNT", right: true, text: func(r benchRow) string { return fmt.Sprint(r.stats.IOs) }},
	{head: "IOPS", right: true, text: func(r benchRow) string { return fmt.Sprintf("%.0f", r.stats.IOPS) }},
	{head: "MB/S", right: true, text: func(r benchRow) string { return megabytes(r.stats.BytesPerSecond) }},
	{head: "MEAN", right: true, text: func(r benchRow) string { return microseconds(r.stats.Latency.Mean) }},
	{head: "P50", right: true, text: func(r benchRow) string { return microseconds(r.stats.Latency.P50) }},
	{head: "P99", right: true, text: func(r benchRow) string { return microseconds(r.stats.Latency.P99) }},
	{head: "P99.9", right: true, text: func(r benchRow) string { return microseconds(r.stats.Latency.P999) }},
	{head: "MAX", right: true, text: func(r benchRow) string { return microseconds(r.stats.Latency.Max) }},
}

// benchObject is the result as a document: the keys are those of the API's
// counters, with times in nanoseconds.
func benchObject(r *bench.Result) object {
	stats := func(s *bench.Stats) object {
		l := &s.Latency
		return object{
			{"ios", s.IOs}, {"bytes", s.Bytes}, {"iops", s.IOPS}, {"bytes_per_second", s.BytesPerSecond},
			{"latency_nanoseconds", object{
				{"min", l.Min.Nanoseconds()}, {"mean", l.Mean.Nanoseconds()}, {"p50", l.P50.Nanoseconds()}, {"p90", l.P90.Nanoseconds()},
				{"p99", l.P99.Nanoseconds()}, {"p999", l.P999.Nanoseconds()}, {"max", l.Max.Nanoseconds()},
			}},
		}
	}
	return object{
		{"elapsed_nanoseconds", r.Elapsed.Nanoseconds()}, {"total", stats(&r.Total)}, {"read", stats(&r.Read)}, {"write", stats(&r.Write)},
		{"retries", r.Retries}, {"verified_bytes", r.Verified},
		{"server_cpu_nanoseconds_per_io", r.ServerCPU.Nanoseconds()}, {"client_cpu_nanoseconds_per_io", r.ClientCPU.Nanoseconds()},
	}
}

// measured is a latency that may not be known yet: the first interval has not ended.
func measured(d time.Duration) string {
	if d == 0 {
		return "-"
	}
	return microseconds(d)
}

// microseconds writes a duration in the unit that latencies are compared in.
func microseconds(d time.Duration) string {
	return fmt.Sprintf("%.1fµs", float64(d.Nanoseconds())/1e3)
}
