package cli

import (
	"errors"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"lintel.io/lintel/internal/array"
	"lintel.io/lintel/internal/serve"
)

func (a *app) targetServe() *cobra.Command {
	var flags serve.TargetConfig
	var file string
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Run the target alone: one of the two processes of lintel serve",
		Long: `Runs what initiators log in to, and nothing else: it serves the volumes of the array
in the data directory as its configuration says there. It needs no agent for that,
also after a restart. What changes the configuration is lintel agent serve, on the
same directory: it may end, crash or be upgraded without any effect on I/O.

It runs until SIGTERM or SIGINT, as lintel serve does. Settings can be in a TOML file,
named with --config; flags count before it:

  data-dir = "/var/lib/lintel"
  log-format = "json"`,
		Example: "  lintel target serve --data-dir /var/lib/lintel\n  lintel target serve --config /etc/lintel/target.toml",
		Args:    takes(""),
	}
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		var config serve.TargetConfig
		if err := a.configure(file, &config, &config.Common); err != nil {
			return err
		}
		given(cmd, map[string]func(){"control": func() { config.Control = flags.Control }})
		givenCommon(cmd, &config.Common, flags.Common)
		if err := config.Validate(); err != nil {
			return usage("%w", err)
		}
		return runRole(func() error { return serve.RunTarget(cmd.Context(), config, a.Out, a.Err) })
	}
	cmd.Flags().SortFlags = false
	fileFlag(cmd, &file)
	cmd.Flags().StringVar(&flags.Control, "control", "", "take the agent's calls on the unix `SOCKET` (default: target.sock in the data directory)")
	commonFlags(cmd, &flags.Common)
	return cmd
}

func (a *app) agentCommand() *cobra.Command {
	return noun("agent", "The agent: what manages the array of a target",
		"The agent is the management of an array: its API, its metrics, and the only writer of its\nconfiguration. lintel serve has one inside.",
		"  lintel agent serve --data-dir /var/lib/lintel",
		a.agentServe())
}

func (a *app) agentServe() *cobra.Command {
	var flags serve.AgentConfig
	var file string
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Run the agent alone: one of the two processes of lintel serve",
		Long: `Runs the management of the array in the data directory: the API that all other
commands use, and the metrics. It makes the array where there is none yet. The volumes
are served by lintel target serve, on the same directory: that goes on whatever
happens to the agent. While the target does not answer, nothing can be changed.

It runs until SIGTERM or SIGINT. Settings can be in a TOML file, named with --config;
flags count before it:

  data-dir = "/var/lib/lintel"
  metrics-listen = "127.0.0.1:9150"`,
		Example: "  lintel agent serve --data-dir /var/lib/lintel\n  lintel agent serve --config /etc/lintel/agent.toml\n  lintel portal add 192.0.2.10",
		Args:    takes(""),
	}
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		var config serve.AgentConfig
		if err := a.configure(file, &config, &config.Common); err != nil {
			return err
		}
		given(cmd, map[string]func(){"target": func() { config.Target = flags.Target }})
		givenListen(cmd, &config.Listen, flags.Listen)
		givenCommon(cmd, &config.Common, flags.Common)
		if err := config.Validate(); err != nil {
			return usage("%w", err)
		}
		return runRole(func() error { return serve.RunAgent(cmd.Context(), config, a.Out, a.Err) })
	}
	cmd.Flags().SortFlags = false
	fileFlag(cmd, &file)
	cmd.Flags().StringVar(&flags.Target, "target", "", "the target answers on the unix `SOCKET` (default: target.sock in the data directory)")
	listenFlags(cmd, &flags.Listen)
	commonFlags(cmd, &flags.Common)
	return cmd
}

func fileFlag(cmd *cobra.Command, file *string) {
	cmd.Flags().StringVar(file, "config", "", "read settings from a TOML `FILE`")
}

func listenFlags(cmd *cobra.Command, l *serve.Listen) {
	cmd.Flags().StringVar(&l.APIListen, "api-listen", "", "serve the API on a loopback TCP `ADDRESS:PORT` too, to every user of this machine")
	cmd.Flags().StringVar(&l.MetricsListen, "metrics-listen", "", "serve Prometheus metrics on `ADDRESS:PORT`")
}

func commonFlags(cmd *cobra.Command, c *serve.Common) {
	cmd.Flags().StringVar(&c.LogLevel, "log-level", "", "log from this `LEVEL` on: debug, info, warn or error (default info)")
	cmd.Flags().StringVar(&c.LogFormat, "log-format", "", "`FORM` of the log: text or json (default text)")
	mustRegister(cmd, "log-level", []string{"debug", "info", "warn", "error"})
	mustRegister(cmd, "log-format", []string{"text", "json"})
}

// configure fills a role's configuration from its file, if there is one, from what all
// commands can be told and from the environment.
func (a *app) configure(file string, config any, common *serve.Common) error {
	if file != "" {
		if err := serve.Load(file, config); err != nil {
			return usage("%w", err)
		}
	}
	if a.dataDir != "" || common.DataDir == "" {
		common.DataDir = a.dataDirectory()
	}
	common.NotifySocket = a.Getenv("NOTIFY_SOCKET")
	return nil
}

// given takes the flags over that the command was given.
func given(cmd *cobra.Command, take map[string]func()) {
	for name, f := range take {
		if cmd.Flags().Changed(name) {
			f()
		}
	}
}

func givenListen(cmd *cobra.Command, l *serve.Listen, flags serve.Listen) {
	given(cmd, map[string]func(){
		"api-listen":     func() { l.APIListen = flags.APIListen },
		"metrics-listen": func() { l.MetricsListen = flags.MetricsListen },
	})
}

func givenCommon(cmd *cobra.Command, c *serve.Common, flags serve.Common) {
	given(cmd, map[string]func(){
		"log-level":  func() { c.LogLevel = flags.LogLevel },
		"log-format": func() { c.LogFormat = flags.LogFormat },
	})
}

// runRole runs a role and gives its end an exit code.
func runRole(run func() error) error {
	// The end of the terminal that started it is no reason to stop.
	signal.Ignore(syscall.SIGHUP)
	err := run()
	if _, ok := errors.AsType[*serve.LockedError](err); ok {
		return &codeError{ExitConflict, err}
	}
	if array.KindOf(err) == array.KindInvalid {
		return &codeError{ExitError, err} // it is the directory that is invalid, not the command
	}
	return err
}
