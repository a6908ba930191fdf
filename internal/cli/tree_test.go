package cli

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

// walk calls f for every command that users see.
func walk(t *testing.T, f func(*cobra.Command)) {
	t.Helper()
	var visit func(*cobra.Command)
	visit = func(cmd *cobra.Command) {
		if cmd.Name() == "help" {
			return
		}
		f(cmd)
		for _, sub := range cmd.Commands() {
			visit(sub)
		}
	}
	visit(newRoot(&app{Streams: Streams{Getenv: func(string) string { return "" }}}))
}

func TestEveryCommandTeaches(t *testing.T) {
	walk(t, func(cmd *cobra.Command) {
		path := cmd.CommandPath()
		if cmd.Short == "" || strings.HasSuffix(cmd.Short, ".") {
			t.Errorf("%s: the short help is a phrase without a full stop, not %q", path, cmd.Short)
		}
		if cmd.IsAdditionalHelpTopicCommand() {
			return
		}
		if cmd.Example == "" {
			t.Errorf("%s has no example", path)
		}
		if cmd.Args == nil {
			t.Errorf("%s does not check its arguments", path)
		}
		for line := range strings.Lines(cmd.Long + "\n" + cmd.Example) {
			if len(strings.TrimRight(line, "\n")) > 100 {
				t.Errorf("%s: this line of the help is too long: %s", path, line)
			}
		}
	})
}

// Each example is a command line that exists: its verbs and flags are known.
func TestExamplesParse(t *testing.T) {
	walk(t, func(cmd *cobra.Command) {
		for line := range strings.Lines(cmd.Example) {
			line, _, _ = strings.Cut(strings.TrimSpace(line), " |")
			line, _, _ = strings.Cut(line, " >")
			words := shellWords(line)
			if len(words) == 0 || words[0] != "lintel" {
				continue
			}
			root := newRoot(&app{Streams: Streams{Getenv: func(string) string { return "" }}})
			found, rest, err := root.Find(words[1:])
			if err != nil {
				t.Errorf("%s: example %q: %v", cmd.CommandPath(), line, err)
				continue
			}
			if err := found.ParseFlags(rest); err != nil {
				t.Errorf("%s: example %q: %v", cmd.CommandPath(), line, err)
				continue
			}
			if err := found.ValidateArgs(found.Flags().Args()); err != nil {
				t.Errorf("%s: example %q: %v", cmd.CommandPath(), line, err)
			}
			if found.HasSubCommands() && len(found.Flags().Args()) > 0 {
				t.Errorf("%s: example %q names no command", cmd.CommandPath(), line)
			}
		}
	})
}

// shellWords splits a line at spaces outside of quotes, as far as examples need it.
func shellWords(line string) []string {
	var words []string
	for len(line) > 0 {
		line = strings.TrimLeft(line, " ")
		end := strings.IndexByte(line, ' ')
		if end < 0 {
			end = len(line)
		}
		if q := strings.IndexAny(line[:end], `"'`); q >= 0 {
			if closing := strings.IndexByte(line[q+1:], line[q]); closing >= 0 {
				words = append(words, line[:q]+line[q+1:q+1+closing])
				line = line[q+closing+2:]
				continue
			}
		}
		if line[:end] == "||" || strings.HasPrefix(line, "#") {
			break
		}
		if end > 0 {
			words = append(words, line[:end])
		}
		line = line[end:]
	}
	return words
}

// A change can be tried first, and what destroys can be told not to ask.
func TestChangesHaveDryRun(t *testing.T) {
	walk(t, func(cmd *cobra.Command) {
		switch cmd.Name() {
		case "create", "set", "set-state", "resize", "add", "remove", "delete", "drop", "map", "unmap":
			if cmd.Flags().Lookup("dry-run") == nil {
				t.Errorf("%s has no --dry-run", cmd.CommandPath())
			}
		}
		switch cmd.Name() {
		case "delete", "drop", "unmap", "set-state", "resize":
			if cmd.Flags().Lookup("yes") == nil {
				t.Errorf("%s has no --yes", cmd.CommandPath())
			}
		case "list", "stats":
			if cmd.Flags().Lookup("watch") == nil {
				t.Errorf("%s has no --watch", cmd.CommandPath())
			}
		}
	})
}

func TestManPagesAreFresh(t *testing.T) {
	dir := filepath.Join("..", "..", "docs", "man")
	pages := manPages(newRoot(&app{Streams: Streams{Getenv: func(string) string { return "" }}}))
	for name, want := range pages {
		got, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("docs/man/%s is not what the command tree says: run make generate", name)
		}
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range entries {
		if _, ok := pages[entry.Name()]; !ok {
			t.Errorf("docs/man/%s is the page of no command: run make generate", entry.Name())
		}
	}
}
