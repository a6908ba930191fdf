// Command bench compares Lintel with Debian's tgtd on equal volumes, its NVMe/TCP with its
// iSCSI, and all with the floor: what the sockets alone cost. It prints tables, as Markdown,
// and each figure of the project's goals with PASS or FAIL. `make bench` runs it.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"regexp"
	"strings"
	"syscall"
	"time"
)

type options struct {
	lintel   string
	rounds   int
	time     time.Duration
	ramp     time.Duration
	only     *regexp.Regexp
	check    bool
	markdown string
}

func main() {
	var o options
	var only string
	var floor exchange
	flag.Func("floor-server", "", func(s string) error {
		_, err := fmt.Sscanf(s, "%d:%d", &floor.request, &floor.answer)
		return err
	})
	flag.StringVar(&o.lintel, "lintel", "bin/lintel", "the lintel `program`")
	flag.IntVar(&o.rounds, "rounds", 5, "how often each measurement is made; the table has the medians")
	flag.DurationVar(&o.time, "time", 3*time.Second, "`time` of one measurement")
	flag.DurationVar(&o.ramp, "ramp", 500*time.Millisecond, "`time` under load before each measurement")
	flag.StringVar(&only, "only", "", "only the workloads that match this `expression`")
	flag.BoolVar(&o.check, "check", false, "end with status 1 where a goal is missed")
	flag.StringVar(&o.markdown, "markdown", "", "write the table to this `file` too")
	flag.Usage = usage
	flag.Parse()
	if floor.request > 0 {
		fatal(serveFloor(floor))
	}
	var err error
	if o.only, err = regexp.Compile(only); err != nil {
		fatal(err)
	}
	if o.rounds < 1 || flag.NArg() > 0 {
		flag.Usage()
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	met, err := run(ctx, o)
	stop()
	if err != nil {
		fatal(err)
	}
	if o.check && !met {
		os.Exit(1)
	}
}

func usage() {
	fmt.Fprintln(flag.CommandLine.Output(), "usage: bench [options]\n\nworkloads:")
	for _, w := range append(workloads, nvmeWorkloads...) {
		fmt.Fprintln(flag.CommandLine.Output(), "  "+w.name)
	}
	fmt.Fprintln(flag.CommandLine.Output(), "\noptions:")
	flag.VisitAll(func(f *flag.Flag) {
		if f.Usage != "" {
			name, text := flag.UnquoteUsage(f)
			fmt.Fprintf(flag.CommandLine.Output(), "  -%s %s\n    \t%s (default %q)\n", f.Name, name, text, f.DefValue)
		}
	})
}

func fatal(err error) {
	fmt.Fprintln(os.Stderr, "bench:", err)
	os.Exit(1)
}

// run makes all measurements and prints the report.
func run(ctx context.Context, o options) (met bool, err error) {
	dir, err := os.MkdirTemp("", "lintel-bench-")
	if err != nil {
		return false, err
	}
	defer os.RemoveAll(dir)
	var r report
	if err := r.compareTgt(ctx, o, dir); err != nil {
		return false, err
	}
	if err := r.compareNVMe(ctx, o, dir); err != nil {
		return false, err
	}
	if err := r.scale(ctx, o, dir); err != nil {
		return false, err
	}
	var text strings.Builder
	met = r.write(&text)
	fmt.Print("\n" + text.String())
	if o.markdown != "" {
		err = os.WriteFile(o.markdown, []byte(text.String()), 0o644)
	}
	return met, err
}

// note tells what is being done, on the error output.
func note(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) }

// closeAll closes in reverse order.
func closeAll(closers []io.Closer) {
	for i := len(closers) - 1; i >= 0; i-- {
		_ = closers[i].Close()
	}
}
