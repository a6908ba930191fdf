package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v3"
	"golang.org/x/term"
	"google.golang.org/protobuf/proto"
)

// Streams is what a command reads and writes.
type Streams struct {
	In       io.Reader
	Out, Err io.Writer
	Getenv   func(string) string
}

// System returns the streams of the process.
func System() Streams {
	return Streams{In: os.Stdin, Out: os.Stdout, Err: os.Stderr, Getenv: os.Getenv}
}

// app is what the commands of one call share.
type app struct {
	Streams
	dataDir string
	server  string
	format  format
	// interrupted is closed by the first SIGINT or SIGTERM; nil where nothing interrupts.
	interrupted <-chan struct{}
}

// format is the value of -o.
type format string

const (
	formatTable format = "table"
	formatJSON  format = "json"
	formatYAML  format = "yaml"
)

// String, Set and Type make format a flag.
func (f *format) String() string { return string(*f) }

func (f *format) Set(s string) error {
	switch format(s) {
	case formatTable, formatJSON, formatYAML:
		*f = format(s)
		return nil
	}
	return fmt.Errorf("it must be table, json or yaml")
}

func (f *format) Type() string { return "FORMAT" }

func (a *app) globalFlags(root *cobra.Command) {
	flags := root.PersistentFlags()
	flags.SortFlags = false
	a.format = formatTable
	flags.VarP(&a.format, "output", "o", "how to print: table, json or yaml")
	flags.StringVar(&a.server, "server", "", "the array's API: `ADDRESS` is unix:PATH or http://HOST:PORT (default $LINTEL_SERVER)")
	flags.StringVar(&a.dataDir, "data-dir", "", "find the array by its data directory, `DIR` (default $LINTEL_DATA_DIR)")
	mustRegister(root, "output", []string{"table", "json", "yaml"})
}

// terminal reports whether a stream is one, and its file descriptor.
func terminal(stream any) (fd int, ok bool) {
	f, isFile := stream.(*os.File)
	if !isFile {
		return -1, false
	}
	return int(f.Fd()), term.IsTerminal(int(f.Fd()))
}

// colour reports whether the output may have colours.
func (a *app) colour() bool {
	_, tty := terminal(a.Out)
	return tty && a.Getenv("NO_COLOR") == "" && a.Getenv("TERM") != "dumb"
}

// say prints a sentence about what was done, for people only: json and yaml
// output stays a document.
func (a *app) say(format string, args ...any) {
	if a.format == formatTable {
		fmt.Fprintln(a.Out, printable(fmt.Sprintf(format, args...)))
	}
}

// printValue prints a document as JSON or YAML.
func (a *app) printValue(v any) error {
	if a.format == formatYAML {
		enc := yaml.NewEncoder(a.Out)
		enc.SetIndent(2)
		if err := enc.Encode(v); err != nil {
			return fmt.Errorf("print as yaml: %w", err)
		}
		return enc.Close()
	}
	enc := json.NewEncoder(a.Out)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(v); err != nil {
		return fmt.Errorf("print as json: %w", err)
	}
	return nil
}

// printList prints messages as a table, or as an array of documents.
func printList[T proto.Message](a *app, columns []column[T], rows []T) error {
	if a.format == formatTable {
		return writeTable(a.Out, a.colour(), columns, rows)
	}
	return a.printValue(documents(rows))
}

func documents[T proto.Message](rows []T) []object {
	out := make([]object, len(rows))
	for i, row := range rows {
		out[i] = document(row)
	}
	return out
}

// printOne prints a message as a description, or as one document.
func printOne[T proto.Message](a *app, m T, describe func(T) []detail) error {
	if a.format == formatTable {
		return writeDetails(a.Out, a.colour(), describe(m))
	}
	return a.printValue(document(m))
}

// minWatch keeps --watch from loading the array.
const minWatch = 100 * time.Millisecond

// watch is the --watch and --count flags of a list.
type watch struct {
	every time.Duration
	count int
}

func (w *watch) flags(cmd *cobra.Command) {
	cmd.Flags().DurationVarP(&w.every, "watch", "w", 0, "print again every `INTERVAL` until interrupted")
	cmd.Flags().Lookup("watch").NoOptDefVal = "2s"
	cmd.Flags().IntVar(&w.count, "count", 0, "with --watch: stop after printing `N` times")
}

// run calls once, or again and again with --watch. On a terminal each round
// replaces the one before; elsewhere rounds follow each other, separated by an
// empty line (table), a line "---" (yaml) or as one document after another (json).
func (w *watch) run(ctx context.Context, a *app, once func() error) error {
	if err := w.validate(); err != nil {
		return err
	}
	if w.every == 0 {
		return once()
	}
	_, tty := terminal(a.Out)
	ticker := time.NewTicker(w.every)
	defer ticker.Stop()
	for n := 0; ; {
		switch {
		case tty && a.format == formatTable:
			fmt.Fprint(a.Out, "\x1b[H\x1b[2J")
		case n > 0 && a.format == formatTable:
			fmt.Fprintln(a.Out)
		case n > 0 && a.format == formatYAML:
			fmt.Fprintln(a.Out, "---")
		}
		if err := once(); err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
		if n++; n == w.count {
			return nil
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}

func (w *watch) validate() error {
	if w.every < 0 || w.count < 0 || w.every > 0 && w.every < minWatch {
		return usage("--watch takes %s or longer, and --count no negative number", minWatch)
	}
	if w.count > 0 && w.every == 0 {
		return usage("--count needs --watch")
	}
	return nil
}

// joinWords writes a list for people: "a, b and c".
func joinWords(words []string) string {
	if len(words) < 2 {
		return strings.Join(words, "")
	}
	return strings.Join(words[:len(words)-1], ", ") + " and " + words[len(words)-1]
}
