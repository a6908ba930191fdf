package cli

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// docsCommand generates documentation; it is for those who build lintel.
func (a *app) docsCommand() *cobra.Command {
	man := &cobra.Command{
		Use:     "man DIR",
		Short:   "Write the manual pages into a directory",
		Long:    "Writes one manual page for each command into a directory, and removes the pages of\ncommands that are gone.",
		Example: "  lintel docs man docs/man",
		Args:    takes("DIR"),
		RunE: func(cmd *cobra.Command, args []string) error {
			pages := manPages(cmd.Root())
			if err := os.MkdirAll(args[0], 0o755); err != nil {
				return fmt.Errorf("write manual pages: %w", err)
			}
			old, err := filepath.Glob(filepath.Join(args[0], "lintel*.[17]"))
			if err != nil {
				return fmt.Errorf("write manual pages: %w", err)
			}
			for _, path := range old {
				if _, current := pages[filepath.Base(path)]; !current {
					if err := os.Remove(path); err != nil {
						return fmt.Errorf("remove an old manual page: %w", err)
					}
				}
			}
			for name, page := range pages {
				if err := os.WriteFile(filepath.Join(args[0], name), page, 0o644); err != nil {
					return fmt.Errorf("write manual pages: %w", err)
				}
			}
			a.say("wrote %s", plural(len(pages), "manual page"))
			return nil
		},
	}
	docs := noun("docs", "Generate documentation", "", "  lintel docs man docs/man", man)
	docs.Hidden = true
	return docs
}

// manPages makes the manual pages of a command tree, by file name: section 1
// for commands, 7 for help topics.
func manPages(root *cobra.Command) map[string][]byte {
	pages := map[string][]byte{}
	var walk func(*cobra.Command)
	walk = func(cmd *cobra.Command) {
		if cmd.Hidden || cmd.Name() == "help" {
			return
		}
		pages[pageName(cmd)+"."+section(cmd)] = manPage(cmd)
		for _, sub := range cmd.Commands() {
			walk(sub)
		}
	}
	walk(root)
	return pages
}

func pageName(cmd *cobra.Command) string { return strings.ReplaceAll(cmd.CommandPath(), " ", "-") }

func section(cmd *cobra.Command) string {
	if cmd.IsAdditionalHelpTopicCommand() {
		return "7"
	}
	return "1"
}

func manPage(cmd *cobra.Command) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, ".TH %q %q \"\" \"lintel\" \"Lintel manual\"\n", strings.ToUpper(pageName(cmd)), section(cmd))
	b.WriteString(".nh\n.ad l\n.SH NAME\n")
	fmt.Fprintf(&b, "%s \\- %s\n", roff(pageName(cmd)), roff(cmd.Short))
	if section(cmd) == "1" {
		b.WriteString(".SH SYNOPSIS\n")
		fmt.Fprintf(&b, ".B %s\n", roff(cmd.CommandPath()))
		words := strings.TrimPrefix(strings.TrimPrefix(cmd.Use, cmd.Name()), " ")
		if cmd.HasAvailableSubCommands() {
			words = "COMMAND"
		}
		fmt.Fprintf(&b, "%s\n", roff(strings.TrimSpace(words+" [FLAGS]")))
	}
	if text := cmd.Long; text != "" {
		b.WriteString(".SH DESCRIPTION\n")
		roffText(&b, text)
	}
	if cmd.HasAvailableSubCommands() {
		b.WriteString(".SH COMMANDS\n")
		for _, sub := range cmd.Commands() {
			if sub.IsAvailableCommand() && sub.Name() != "help" {
				fmt.Fprintf(&b, ".TP\n.BR %s (1)\n%s\n", roff(pageName(sub)), roff(sub.Short))
			}
		}
	}
	if section(cmd) == "1" {
		manFlags(&b, "OPTIONS", cmd.NonInheritedFlags())
		manFlags(&b, "GLOBAL OPTIONS", cmd.InheritedFlags())
	}
	if cmd.Example != "" {
		b.WriteString(".SH EXAMPLES\n.nf\n")
		b.WriteString(roff(cmd.Example))
		b.WriteString("\n.fi\n")
	}
	b.WriteString(".SH SEE ALSO\n")
	b.WriteString(strings.Join(seeAlso(cmd), ",\n") + "\n")
	return b.Bytes()
}

func seeAlso(cmd *cobra.Command) []string {
	var refs []string
	if cmd.HasParent() {
		refs = append(refs, fmt.Sprintf(".BR %s (%s)", roff(pageName(cmd.Parent())), section(cmd.Parent())))
	}
	for _, topic := range cmd.Root().Commands() {
		if topic != cmd && topic.IsAdditionalHelpTopicCommand() {
			refs = append(refs, fmt.Sprintf(".BR %s (7)", roff(pageName(topic))))
		}
	}
	return refs
}

func manFlags(b *bytes.Buffer, title string, flags *pflag.FlagSet) {
	if !flags.HasAvailableFlags() {
		return
	}
	fmt.Fprintf(b, ".SH %s\n", title)
	flags.VisitAll(func(f *pflag.Flag) {
		if f.Hidden {
			return
		}
		name, help := pflag.UnquoteUsage(f)
		short := ""
		if f.Shorthand != "" {
			short = "-" + f.Shorthand + ", "
		}
		value := ""
		switch {
		case f.NoOptDefVal != "" && f.Value.Type() != "bool":
			value = "[=" + name + "]"
		case name != "" && f.NoOptDefVal == "":
			value = " " + name
		}
		fmt.Fprintf(b, ".TP\n\\fB%s--%s\\fP%s\n%s\n", roff(short), roff(f.Name), roff(value), roff(help))
	})
}

// roffText writes paragraphs; indented lines keep their form.
func roffText(b *bytes.Buffer, text string) {
	for _, paragraph := range strings.Split(text, "\n\n") {
		if strings.HasPrefix(paragraph, "  ") {
			fmt.Fprintf(b, ".PP\n.nf\n%s\n.fi\n", roff(paragraph))
			continue
		}
		fmt.Fprintf(b, ".PP\n%s\n", roff(paragraph))
	}
}

// roff escapes text for troff.
func roff(text string) string {
	text = strings.NewReplacer(`\`, `\e`, `-`, `\-`).Replace(text)
	lines := strings.Split(text, "\n")
	for i, line := range lines {
		if strings.HasPrefix(line, ".") || strings.HasPrefix(line, "'") {
			lines[i] = `\&` + line
		}
	}
	return strings.Join(lines, "\n")
}
