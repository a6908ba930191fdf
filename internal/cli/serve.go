package cli

import (
	"errors"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"lintel.io/lintel/internal/array"
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
		config, err := a.serveConfig(cmd, file, flags)
		if err != nil {
			return usage("%w", err)
		}
		// The end of the terminal that started it is no reason to stop.
		signal.Ignore(syscall.SIGHUP)
		err = serve.Run(cmd.Context(), config, a.Out, a.Err)
		if _, ok := errors.AsType[*serve.LockedError](err); ok {
			return &codeError{ExitConflict, err}
		}
		if array.KindOf(err) == array.KindInvalid {
			return &codeError{ExitError, err} // it is the directory that is invalid, not the command
		}
		return err
	}
	set := cmd.Flags()
	set.SortFlags = false
	set.StringVar(&file, "config", "", "read settings from a TOML `FILE`")
	set.StringArrayVar(&flags.Portals, "portal", nil, "listen for iSCSI initiators on `ADDRESS[:PORT]`; repeatable (default: as before, "+serve.DefaultPortal+" for a new array)")
	set.StringArrayVar(&flags.NVMePortals, "nvme-portal", nil, "listen for NVMe/TCP hosts on `ADDRESS[:PORT]`; repeatable (default: as before; "+serve.DemoNVMePortal+" for a new array with --demo)")
	set.StringVar(&flags.APIListen, "api-listen", "", "serve the API on a loopback TCP `ADDRESS:PORT` too, to every user of this machine")
	set.StringVar(&flags.MetricsListen, "metrics-listen", "", "serve Prometheus metrics on `ADDRESS:PORT`")
	set.BoolVar(&flags.Demo, "demo", false, "make a volume of 1 GiB, demo, that any initiator on this machine may use")
	set.StringVar(&flags.LogLevel, "log-level", "", "log from this `LEVEL` on: debug, info, warn or error (default info)")
	set.StringVar(&flags.LogFormat, "log-format", "", "`FORM` of the log: text or json (default text)")
	mustRegister(cmd, "log-level", []string{"debug", "info", "warn", "error"})
	mustRegister(cmd, "log-format", []string{"text", "json"})
	return cmd
}

// serveConfig puts flags, file and defaults together, in that order of
// precedence.
func (a *app) serveConfig(cmd *cobra.Command, file string, flags serve.Config) (serve.Config, error) {
	var config serve.Config
	if file != "" {
		var err error
		if config, err = serve.Load(file); err != nil {
			return config, err
		}
	}
	if a.dataDir != "" || config.DataDir == "" {
		config.DataDir = a.dataDirectory()
	}
	config.NotifySocket = a.Getenv("NOTIFY_SOCKET")
	for name, take := range map[string]func(){
		"portal":         func() { config.Portals = flags.Portals },
		"nvme-portal":    func() { config.NVMePortals = flags.NVMePortals },
		"api-listen":     func() { config.APIListen = flags.APIListen },
		"metrics-listen": func() { config.MetricsListen = flags.MetricsListen },
		"demo":           func() { config.Demo = flags.Demo },
		"log-level":      func() { config.LogLevel = flags.LogLevel },
		"log-format":     func() { config.LogFormat = flags.LogFormat },
	} {
		if cmd.Flags().Changed(name) {
			take()
		}
	}
	return config, config.Validate()
}
