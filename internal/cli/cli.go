// Package cli is the lintel command line: one command tree, noun then verb,
// most of it a client of the array's API.
//
// What all commands share is here and in its neighbours: app.go (streams,
// flags and printing), client.go (finding the array), exit.go (exit codes),
// document.go and table.go (output), confirm.go (questions), complete.go
// (shell completion), man.go (manual pages). Each noun has a file of its own.
package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// Main runs one lintel command and returns its exit code. The first SIGINT or
// SIGTERM cancels the command, the second one kills the process.
func Main(ctx context.Context, args []string, std Streams) int {
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop)

	root := newRoot(&app{Streams: std, interrupted: ctx.Done()})
	root.SetArgs(args)
	root.SetIn(std.In)
	root.SetOut(std.Out)
	root.SetErr(std.Err)
	err := root.ExecuteContext(ctx)
	if err != nil && !errors.Is(err, errSilent) {
		fmt.Fprintln(std.Err, "lintel:", printable(message(err)))
	}
	return exitCode(err)
}

// errSilent is the failure of a command that has said everything already.
var errSilent = errors.New("failed")

func newRoot(a *app) *cobra.Command {
	root := &cobra.Command{
		Use:   "lintel",
		Short: "A SAN array: block volumes for hosts over iSCSI and NVMe/TCP",
		Long: `Lintel is a SAN array in one program. "lintel serve" runs an array; the other
commands manage one that runs, through its API.

An array has pools, which make volumes. A host is an initiator machine. A mapping
shows a volume to a host as a LUN and namespace; without one there is no access.`,
		Example: `  # run an array with one volume that any initiator on this machine may use
  lintel serve --demo

  # the usual first steps on an array that runs
  lintel volume create db1 --size 10GiB
  lintel host create esx1 --iqn iqn.1998-01.com.vmware:esx1
  lintel map db1 esx1`,
		SilenceErrors:     true,
		SilenceUsage:      true,
		DisableAutoGenTag: true,
		CompletionOptions: cobra.CompletionOptions{DisableDefaultCmd: true},
		Version:           versionText(),
	}
	root.SetVersionTemplate("{{.Version}}\n")
	root.SetHelpCommand(helpCommand())
	root.SetHelpCommandGroupID(groupRun)
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		if words := cmd.Flags().Args(); len(words) > 0 && cmd.HasAvailableSubCommands() {
			return noCommand(cmd, words[0]) // the flag belongs to what the misspelt word should be
		}
		return usage("%w (see %s --help)", err, cmd.CommandPath())
	})
	root.AddGroup(
		&cobra.Group{ID: groupManage, Title: "Manage an array:"},
		&cobra.Group{ID: groupRun, Title: "Run and examine:"},
	)
	root.SetGlobalNormalizationFunc(flagName)
	a.globalFlags(root)
	for _, cmd := range a.manageCommands() {
		cmd.GroupID = groupManage
		root.AddCommand(cmd)
	}
	for _, cmd := range a.runCommands() {
		cmd.GroupID = groupRun
		root.AddCommand(cmd)
	}
	root.AddCommand(a.docsCommand())
	root.AddCommand(helpTopics()...)
	asNoun(root)
	return root
}

// flagName lets an attribute's name stand for its flag: --read_only is --read-only.
func flagName(_ *pflag.FlagSet, name string) pflag.NormalizedName {
	return pflag.NormalizedName(strings.ReplaceAll(name, "_", "-"))
}

const (
	groupManage = "manage"
	groupRun    = "run"
)

// noun makes the command that groups the verbs of a noun.
func noun(use, short, long, example string, verbs ...*cobra.Command) *cobra.Command {
	cmd := &cobra.Command{Use: use, Short: short, Long: long, Example: example}
	cmd.AddCommand(verbs...)
	asNoun(cmd)
	return cmd
}

// asNoun lets a command without a verb print its help, and with a wrong one
// fail and name the ones there are.
func asNoun(cmd *cobra.Command) {
	cmd.SuggestionsMinimumDistance = 2
	cmd.Args = cobra.ArbitraryArgs
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			return cmd.Help()
		}
		return noCommand(cmd, args[0])
	}
}

// noCommand is the error about a word that is none of a command's verbs.
func noCommand(cmd *cobra.Command, word string) error {
	if near := cmd.SuggestionsFor(word); len(near) > 0 {
		return usage("%s has no command %q: did you mean %s?", cmd.CommandPath(), word, strings.Join(near, " or "))
	}
	var names []string
	for _, sub := range cmd.Commands() {
		if sub.IsAvailableCommand() {
			names = append(names, sub.Name())
		}
	}
	return usage("%s has no command %q: there are %s", cmd.CommandPath(), word, strings.Join(names, ", "))
}

// takes checks the number of arguments against their names: "VOLUME HOST|GROUP".
// A last name that ends in "..." takes one or more, one in brackets may be left out.
func takes(names string) cobra.PositionalArgs {
	want := strings.Fields(names)
	least, most := len(want), len(want)
	for i, name := range want {
		if strings.HasPrefix(name, "[") {
			least = i
			break
		}
	}
	if len(want) > 0 && strings.HasSuffix(strings.TrimSuffix(want[len(want)-1], "]"), "...") {
		most = -1
	}
	return func(cmd *cobra.Command, args []string) error {
		switch {
		case len(args) < least:
			return usage("%s needs %s (see %s --help)", cmd.CommandPath(), strings.Join(want[len(args):least], " and "), cmd.CommandPath())
		case most == 0 && len(args) > 0 && cmd.Flags().Changed("watch"):
			return usage("%s takes no arguments, but got %q: write --watch=%[2]s", cmd.CommandPath(), args[0])
		case most == 0 && len(args) > 0:
			return usage("%s takes no arguments, but got %q", cmd.CommandPath(), args[0])
		case most >= 0 && len(args) > most:
			return usage("%s takes %s only: what is %q?", cmd.CommandPath(), names, args[most])
		}
		return nil
	}
}
