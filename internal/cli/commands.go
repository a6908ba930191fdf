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

func (a *app) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "version",
		Short:   "Print the version of this program",
		Long:    "Prints the version of this program. lintel array show prints that of an array.",
		Example: "  lintel version\n  lintel version -o json",
		Args:    takes(""),
		RunE: func(*cobra.Command, []string) error {
			if a.format == formatTable {
				fmt.Fprintf(a.Out, "lintel %s (%s, %s/%s)\n", serve.Version(), runtime.Version(), runtime.GOOS, runtime.GOARCH)
				return nil
			}
			return a.printValue(object{{"version", serve.Version()}, {"go", runtime.Version()}, {"platform", runtime.GOOS + "/" + runtime.GOARCH}})
		},
	}
}
