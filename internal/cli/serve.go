package cli

import (
	"github.com/spf13/cobra"

	"lintel.io/lintel/internal/serve"
)

func (a *app) serveCommand() *cobra.Command {
	var flags serve.Config
	var file string
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Run an array",
		Long: `Runs a whole array in this process, without any privileges: the target that
initiators log in to and the API that manages it. It starts on an empty directory
and keeps everything in it; only one process at a time may serve a directory.

It runs until SIGTERM or SIGINT, then asks initiators to log out, writes back what
is cached, and ends. It is safe against sudden death: what was acknowledged as
stable is there after the next start.

The two parts of it can run as processes of their own: lintel target serve and
lintel agent serve.

A file named with --config holds the same settings as the flags, in TOML:

  data-dir = "/var/lib/lintel"
  portal = ["192.0.2.10:3260", "[2001:db8::10]:3260"]
  nvme-portal = ["192.0.2.10:4420"]
  metrics-listen = "127.0.0.1:9150"

Flags count before the file. Neither iSCSI nor NVMe/TCP is encrypted: portals other
than loopback belong on a storage network.`,
		Example: `  # try it: one volume of 1 GiB that any initiator on this machine may use
  lintel serve --demo

  # an array for a storage network
  lintel serve --data-dir /var/lib/lintel --portal 192.0.2.10 --portal '[2001:db8::10]:3260'
  lintel serve --data-dir /var/lib/lintel --portal 192.0.2.10 --nvme-portal 192.0.2.10

  lintel serve --config /etc/lintel/lintel.toml`,
		Args: takes(""),
	}
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		var config serve.Config
		if err := a.configure(file, &config, &config.Common); err != nil {
			return err
		}
		given(cmd, map[string]func(){
			"portal":      func() { config.Portals = flags.Portals },
			"nvme-portal": func() { config.NVMePortals = flags.NVMePortals },
			"demo":        func() { config.Demo = flags.Demo },
		})
		givenListen(cmd, &config.Listen, flags.Listen)
		givenCommon(cmd, &config.Common, flags.Common)
		if err := config.Validate(); err != nil {
			return usage("%w", err)
		}
		return runRole(func() error { return serve.Run(cmd.Context(), config, a.Out, a.Err) })
	}
	set := cmd.Flags()
	set.SortFlags = false
	fileFlag(cmd, &file)
	set.StringArrayVar(&flags.Portals, "portal", nil, "listen for iSCSI initiators on `ADDRESS[:PORT]`; repeatable; it is added to those that the array has (default: as before, "+serve.DefaultPortal+" for a new array)")
	set.StringArrayVar(&flags.NVMePortals, "nvme-portal", nil, "listen for NVMe/TCP hosts on `ADDRESS[:PORT]`; repeatable; it is added to those that the array has (default: as before; "+serve.DemoNVMePortal+" for a new array with --demo)")
	listenFlags(cmd, &flags.Listen)
	set.BoolVar(&flags.Demo, "demo", false, "make a volume of 1 GiB, demo, that any initiator on this machine may use")
	commonFlags(cmd, &flags.Common)
	return cmd
}
