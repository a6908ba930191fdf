package cli

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	lintelv1 "lintel.io/lintel/api/lintel/v1"
)

func (a *app) arrayCommand() *cobra.Command {
	return noun("array", "The array as a whole", "",
		"  lintel array show\n  lintel array set --name lab",
		a.arrayShow(), a.arraySet())
}

func (a *app) arrayShow() *cobra.Command {
	return &cobra.Command{
		Use:     "show",
		Short:   "Show the array's name, version and settings",
		Long:    "Shows the array. With -o json or yaml it prints the array's identity and version (GetInfo).",
		Example: "  lintel array show\n  lintel array show -o json | jq -r .version",
		Args:    takes(""),
		RunE: a.with(func(ctx context.Context, c *api, _ []string) error {
			info, err := call(ctx, c.system.GetInfo, &lintelv1.GetInfoRequest{})
			if err != nil {
				return err
			}
			array, err := call(ctx, c.system.GetArray, &lintelv1.GetArrayRequest{})
			if err != nil {
				return err
			}
			return printOne(a, info, func(info *lintelv1.GetInfoResponse) []detail {
				return []detail{
					{"name", info.GetArray()},
					{"head", info.GetHead()},
					{"version", info.GetVersion()},
					{"data dir", info.GetDataDir()},
					{"process", fmt.Sprint(info.GetPid())},
					{"started", timeText(info.GetStarted())},
					{"naa prefix", array.GetArray().GetSpec().GetNaaPrefix()},
					{"id", info.GetArrayId()},
				}
			})
		}),
	}
}

func (a *app) arraySet() *cobra.Command {
	spec := &lintelv1.ArraySpec{}
	at := attributesOf(spec)
	var ch change
	cmd := &cobra.Command{
		Use:     "set",
		Short:   "Set attributes of the array",
		Example: "  lintel array set --name lab\n  lintel array set --naa-prefix 0123ab",
		Args:    takes(""),
		RunE: a.with(func(ctx context.Context, c *api, _ []string) error {
			if len(at.set) == 0 {
				return usage("nothing to set: give --name or --naa-prefix")
			}
			res, err := call(ctx, c.system.UpdateArray, &lintelv1.UpdateArrayRequest{Spec: spec, UpdateMask: at.mask(), DryRun: ch.dry})
			if err != nil {
				return err
			}
			return a.report(ch.dry, res, "set %s of the array", joinWords(at.set))
		}),
	}
	at.flag(cmd, "name", "name", "name of the array")
	at.flag(cmd, "naa-prefix", "naa_prefix", "24-bit prefix of the NAA identifiers of volumes made from now on, 6 hex digits")
	ch.dryFlag(cmd)
	return cmd
}

func (a *app) healthCommand() *cobra.Command {
	var w watch
	cmd := &cobra.Command{
		Use:   "health",
		Short: "Show what is wrong with the array",
		Long: `Shows what is wrong with the array now, the worst first, and what to do. It exits
with 0 where nothing needs attention and with 8 where there is a warning or worse.`,
		Example: "  lintel health\n  lintel health -o json || echo \"look at the array\"",
		Args:    takes(""),
		RunE: a.with(func(ctx context.Context, c *api, _ []string) error {
			degraded := false
			err := w.run(ctx, a, func() error {
				res, err := call(ctx, c.system.GetHealth, &lintelv1.GetHealthRequest{})
				if err != nil {
					return err
				}
				degraded = false
				for _, alert := range res.GetAlerts() {
					degraded = degraded || alert.GetSeverity() >= lintelv1.Severity_SEVERITY_WARNING
				}
				if len(res.GetAlerts()) == 0 && a.format == formatTable {
					a.say("healthy")
					return nil
				}
				return printList(a, alertColumns, res.GetAlerts())
			})
			if err == nil && degraded {
				return &codeError{ExitDegraded, errSilent}
			}
			return err
		}),
	}
	w.flags(cmd)
	return cmd
}

var alertColumns = []column[*lintelv1.Alert]{
	{head: "SEVERITY", text: func(al *lintelv1.Alert) string { return word(al.GetSeverity()) }, style: func(al *lintelv1.Alert) style {
		switch al.GetSeverity() {
		case lintelv1.Severity_SEVERITY_CRITICAL:
			return red
		case lintelv1.Severity_SEVERITY_WARNING:
			return yellow
		}
		return plain
	}},
	{head: "CODE", text: (*lintelv1.Alert).GetCode},
	{head: "SUBJECT", text: (*lintelv1.Alert).GetSubject},
	{head: "SINCE", text: func(al *lintelv1.Alert) string { return timeText(al.GetSince()) }},
	{head: "WHAT", text: (*lintelv1.Alert).GetText},
	{head: "DO", text: (*lintelv1.Alert).GetHint},
}
