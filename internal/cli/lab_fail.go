package cli

import (
	"context"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"lintel.io/lintel/lab"
)

func (a *app) labFailCommand() *cobra.Command {
	var which labFlag
	var kill, freeze, reset bool
	var cut, disturb []string
	cmd := &cobra.Command{
		Use:   "fail GUEST",
		Short: "Let a guest or its links fail",
		Long: `Makes a guest fail as machines do. --kill takes its power away; --reset gives it
back at once; --freeze stops it in the middle of what it does. --cut loses all frames of
its link to a network, or those that it receives (NETWORK:in) or sends (NETWORK:out).
--disturb changes what it sends, as tc-netem(8) describes it.`,
		Example: `  lintel lab fail head1 --kill
  lintel lab fail host1 --cut san-a
  lintel lab fail host1 --cut san-b:in --disturb 'san-a=delay 20ms loss 1%'`,
		Args: takes("GUEST"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if !kill && !freeze && !reset && len(cut)+len(disturb) == 0 {
				return usage("how shall it fail? Say --kill, --reset, --freeze, --cut or --disturb")
			}
			l, m, err := which.machine(args[0])
			if err != nil {
				return err
			}
			ctx := cmd.Context()
			if err := failLinks(ctx, m, cut, disturb); err != nil {
				return err
			}
			for act, wanted := range map[*bool]func(context.Context) error{&kill: m.PowerOff, &reset: m.Reset, &freeze: m.Freeze} {
				if *act {
					if err := wanted(ctx); err != nil {
						return err
					}
				}
			}
			return a.printLab(ctx, l)
		},
	}
	which.flag(cmd)
	set := cmd.Flags()
	set.SortFlags = false
	set.BoolVar(&kill, "kill", false, "take its power away")
	set.BoolVar(&reset, "reset", false, "take its power away and give it back")
	set.BoolVar(&freeze, "freeze", false, "stop it until lintel lab heal")
	set.StringArrayVar(&cut, "cut", nil, "cut its link to `NETWORK[:in|out]`; repeatable")
	set.StringArrayVar(&disturb, "disturb", nil, "disturb what it sends: `NETWORK=NETEM`; repeatable")
	cmd.MarkFlagsMutuallyExclusive("kill", "reset", "freeze")
	return cmd
}

// failLinks cuts and disturbs links; disturbing needs the guest's help, so it comes
// before the guest itself fails.
func failLinks(ctx context.Context, m *lab.Machine, cut, disturb []string) error {
	for _, text := range disturb {
		network, netem, ok := strings.Cut(text, "=")
		if !ok || netem == "" {
			return usage("--disturb %s: write NETWORK=NETEM, for instance san-a=delay 20ms", text)
		}
		if err := m.Disturb(ctx, network, netem); err != nil {
			return err
		}
	}
	for _, text := range cut {
		network, direction, ok := strings.Cut(text, ":")
		if !ok {
			direction = string(lab.Both)
		}
		if err := m.Cut(ctx, network, lab.Direction(direction)); err != nil {
			return usage("--cut %s: %w", text, err)
		}
	}
	return nil
}

func (a *app) labHealCommand() *cobra.Command {
	var which labFlag
	cmd := &cobra.Command{
		Use:     "heal GUEST",
		Short:   "End all failures of a guest",
		Long:    "Switches a guest on, lets it go on where it was frozen, and heals and calms all its links.",
		Example: "  lintel lab heal head1",
		Args:    takes("GUEST"),
		RunE: func(cmd *cobra.Command, args []string) error {
			l, m, err := which.machine(args[0])
			if err != nil {
				return err
			}
			if err := l.Heal(cmd.Context(), m.Name); err != nil {
				return err
			}
			return a.printLab(cmd.Context(), l)
		},
	}
	which.flag(cmd)
	return cmd
}

// The commands below are for the lab itself.

func (a *app) labKeepCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "keep DIR",
		Short:   "Run a lab (the lab's own command)",
		Example: "  lintel lab keep /tmp/lintel-lab-0/single",
		Hidden:  true,
		Args:    takes("DIR"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return lab.Keep(cmd.Context(), args[0], os.Stdin)
		},
	}
}

func (a *app) labAgentCommand() *cobra.Command {
	var listen, keeper, name string
	cmd := &cobra.Command{
		Use:     "agent",
		Short:   "Serve commands on a guest (the lab's own command)",
		Example: "  lintel lab agent --listen 10.77.0.11:7000 --keeper 10.77.0.1:7001 --name head1",
		Hidden:  true,
		Args:    takes(""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return lab.ServeAgent(cmd.Context(), listen, keeper, name)
		},
	}
	cmd.Flags().StringVar(&listen, "listen", "", "serve on `ADDRESS:PORT`")
	cmd.Flags().StringVar(&keeper, "keeper", "", "tell the keeper at `ADDRESS:PORT`")
	cmd.Flags().StringVar(&name, "name", "", "the guest's `NAME`")
	return cmd
}

func (a *app) labPowerCommand() *cobra.Command {
	var keeper string
	cmd := &cobra.Command{
		Use:     "power on|off|reset|status|list|ping [GUEST]",
		Short:   "Switch a guest's power, from a guest (for fence agents)",
		Example: "  lintel lab power off head1",
		Hidden:  true,
		Args:    takes("on|off|reset|status|list|ping [GUEST]"),
		RunE: func(cmd *cobra.Command, args []string) error {
			reply, err := lab.AskKeeper(cmd.Context(), keeper, strings.Join(args, " "))
			if err == nil {
				a.say("%s", reply)
			}
			return err
		},
	}
	cmd.Flags().StringVar(&keeper, "keeper", lab.KeeperAddress, "the lab's keeper at `ADDRESS:PORT`")
	return cmd
}
