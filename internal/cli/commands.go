package cli

import (
	"fmt"
	"runtime"

	"github.com/spf13/cobra"

	"lintel.io/lintel/internal/serve"
)

// manageCommands are the clients of the API.
func (a *app) manageCommands() []*cobra.Command {
	return []*cobra.Command{
		a.volumeCommand(), a.hostCommand(), a.hostGroupCommand(), a.mapCommand(), a.unmapCommand(), a.mappingCommand(),
		a.targetCommand(), a.portalCommand(), a.sessionCommand(), a.poolCommand(), a.statsCommand(), a.healthCommand(), a.arrayCommand(),
	}
}

// runCommands are the ones that need no array that runs.
func (a *app) runCommands() []*cobra.Command {
	return []*cobra.Command{
		a.serveCommand(), a.agentCommand(), a.checkCommand(), a.benchCommand(), a.labCommand(), a.completionCommand(), a.versionCommand(),
	}
}

// versionText is the version of this program and what it was built with.
func versionText() string {
	return fmt.Sprintf("lintel %s (%s, %s/%s)", serve.Version(), runtime.Version(), runtime.GOOS, runtime.GOARCH)
}

// helpCommand is lintel help COMMAND, which fails where there is no such command.
func helpCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "help [COMMAND...]",
		Short:   "Help about any command",
		Long:    "Shows what a command does, or a page of help that is not a command's.",
		Example: "  lintel help volume create\n  lintel help exit-codes",
		ValidArgsFunction: func(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
			var names []string
			if about, rest, err := cmd.Root().Find(args); err == nil && len(rest) == 0 {
				for _, sub := range about.Commands() {
					if sub.IsAvailableCommand() || sub.IsAdditionalHelpTopicCommand() {
						names = append(names, sub.Name())
					}
				}
			}
			return names, cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			about, rest, err := cmd.Root().Find(args)
			if err != nil {
				return usage("%w", err)
			}
			if len(rest) > 0 {
				return noCommand(about, rest[0])
			}
			about.InitDefaultHelpFlag()
			return about.Help()
		},
	}
}

func (a *app) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "version",
		Short:   "Print the version of this program",
		Long:    "Prints the version of this program. lintel array show prints that of an array.",
		Example: "  lintel version\n  lintel version -o json",
		Args:    takes(""),
		RunE: func(*cobra.Command, []string) error {
			if a.format == formatTable {
				_, err := fmt.Fprintln(a.Out, versionText())
				return err
			}
			return a.printValue(object{{"version", serve.Version()}, {"go", runtime.Version()}, {"platform", runtime.GOOS + "/" + runtime.GOARCH}})
		},
	}
}
