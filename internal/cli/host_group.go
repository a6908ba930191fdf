package cli

import (
	"context"

	"github.com/spf13/cobra"

	lintelv1 "lintel.io/lintel/api/lintel/v1"
)

func (a *app) hostGroupCommand() *cobra.Command {
	return noun("host-group", "Host groups: hosts that see the same LUNs",
		"A volume that is mapped to a host group is seen by all of its hosts under the same LUN.",
		"  lintel host-group create cluster1 esx1 esx2\n  lintel host-group add cluster1 esx3\n  lintel map db1 cluster1",
		a.hostGroupCreate(), a.hostGroupList(), a.hostGroupShow(), a.hostGroupSet(),
		a.hostGroupMembers("add", "Add hosts to a host group", "added %s to host group %s"),
		a.hostGroupMembers("remove", "Take hosts out of a host group", "removed %s from host group %s"),
		a.hostGroupDelete())
}

func (a *app) hostGroupCreate() *cobra.Command {
	spec := &lintelv1.HostGroupSpec{}
	at := attributesOf(spec)
	var ch change
	cmd := &cobra.Command{
		Use:     "create NAME [HOST...]",
		Short:   "Make a host group",
		Example: "  lintel host-group create cluster1 esx1 esx2",
		Args:    takes("NAME [HOST...]"),
		RunE: a.with(func(ctx context.Context, c *api, args []string) error {
			spec.Name, spec.Hosts = args[0], args[1:]
			res, err := call(ctx, c.hostGroups.CreateHostGroup, &lintelv1.CreateHostGroupRequest{Spec: spec, DryRun: ch.dry})
			if err != nil {
				return err
			}
			return a.report(ch.dry, res, "created host group %s with %s", args[0], plural(len(args)-1, "host"))
		}),
	}
	at.flag(cmd, "comment", "comment", "free text, at most 255 bytes")
	ch.dryFlag(cmd)
	a.completeArgs(cmd, true, nil, hostNames)
	return cmd
}

func (a *app) hostGroupList() *cobra.Command {
	var w watch
	cmd := &cobra.Command{
		Use:     "list",
		Aliases: []string{"ls"},
		Short:   "List the host groups",
		Example: "  lintel host-group list",
		Args:    takes(""),
		RunE: a.with(func(ctx context.Context, c *api, _ []string) error {
			return w.run(ctx, a, func() error {
				res, err := call(ctx, c.hostGroups.ListHostGroups, &lintelv1.ListHostGroupsRequest{})
				if err != nil {
					return err
				}
				return printList(a, hostGroupColumns, res.GetHostGroups())
			})
		}),
	}
	w.flags(cmd)
	return cmd
}

var hostGroupColumns = []column[*lintelv1.HostGroup]{
	{head: "NAME", text: func(g *lintelv1.HostGroup) string { return g.GetSpec().GetName() }},
	{head: "HOSTS", text: func(g *lintelv1.HostGroup) string { return joinFew(g.GetSpec().GetHosts(), 8) }},
	{head: "COMMENT", text: func(g *lintelv1.HostGroup) string { return g.GetSpec().GetComment() }},
}

func (a *app) hostGroupShow() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "show GROUP",
		Short:   "Show one host group",
		Example: "  lintel host-group show cluster1",
		Args:    takes("GROUP"),
		RunE: a.with(func(ctx context.Context, c *api, args []string) error {
			res, err := call(ctx, c.hostGroups.GetHostGroup, &lintelv1.GetHostGroupRequest{Name: args[0]})
			if err != nil {
				return err
			}
			return printOne(a, res.GetHostGroup(), describeHostGroup)
		}),
	}
	a.completeArgs(cmd, false, groupNames)
	return cmd
}

func describeHostGroup(g *lintelv1.HostGroup) []detail {
	details := []detail{{"name", g.GetSpec().GetName()}}
	for _, host := range g.GetSpec().GetHosts() {
		details = append(details, detail{"host", host})
	}
	return append(details,
		detail{"comment", g.GetSpec().GetComment()},
		detail{"created", timeText(g.GetCreated())},
		detail{"id", g.GetId()},
	)
}

func (a *app) hostGroupSet() *cobra.Command {
	spec := &lintelv1.HostGroupSpec{}
	at := attributesOf(spec)
	var ch change
	cmd := &cobra.Command{
		Use:     "set GROUP",
		Short:   "Set attributes of a host group",
		Example: "  lintel host-group set cluster1 --name cluster2\n  lintel host-group set cluster1 --comment \"production\"",
		Args:    takes("GROUP"),
		RunE: a.with(func(ctx context.Context, c *api, args []string) error {
			if len(at.set) == 0 {
				return usage("nothing to set: give --name or --comment")
			}
			res, err := call(ctx, c.hostGroups.UpdateHostGroup, &lintelv1.UpdateHostGroupRequest{Name: args[0], Spec: spec, UpdateMask: at.mask(), DryRun: ch.dry})
			if err != nil {
				return err
			}
			return a.report(ch.dry, res, "set %s of host group %s", joinWords(at.set), args[0])
		}),
	}
	at.flag(cmd, "name", "name", "new name")
	at.flag(cmd, "comment", "comment", "free text, at most 255 bytes")
	ch.dryFlag(cmd)
	a.completeArgs(cmd, false, groupNames)
	return cmd
}

// hostGroupMembers is host-group add and host-group remove.
func (a *app) hostGroupMembers(verb, short, done string) *cobra.Command {
	var ch change
	cmd := &cobra.Command{
		Use:     verb + " GROUP HOST...",
		Short:   short,
		Example: "  lintel host-group " + verb + " cluster1 esx3",
		Args:    takes("GROUP HOST..."),
		RunE: a.with(func(ctx context.Context, c *api, args []string) error {
			got, err := call(ctx, c.hostGroups.GetHostGroup, &lintelv1.GetHostGroupRequest{Name: args[0]})
			if err != nil {
				return err
			}
			group := got.GetHostGroup()
			add, remove := args[1:], []string(nil)
			if verb == "remove" {
				add, remove = remove, add
			}
			hosts, err := edit(group.GetSpec().GetHosts(), add, remove, "host group "+args[0])
			if err != nil {
				return err
			}
			spec := &lintelv1.HostGroupSpec{Hosts: hosts}
			at := attributesOf(spec)
			at.set = []string{"hosts"}
			res, err := call(ctx, c.hostGroups.UpdateHostGroup, &lintelv1.UpdateHostGroupRequest{
				Name: args[0], Etag: group.GetEtag(), Spec: spec, UpdateMask: at.mask(), DryRun: ch.dry,
			})
			if err != nil {
				return err
			}
			return a.report(ch.dry, res, done, joinWords(args[1:]), args[0])
		}),
	}
	ch.dryFlag(cmd)
	a.completeArgs(cmd, true, groupNames, hostNames)
	return cmd
}

func (a *app) hostGroupDelete() *cobra.Command {
	var ch change
	var force bool
	cmd := &cobra.Command{
		Use:   "delete GROUP",
		Short: "Forget a host group, not its hosts",
		Long: `Forgets a host group; its hosts stay. One that has mappings is refused, unless
--force removes those too.`,
		Example: "  lintel host-group delete cluster1",
		Args:    takes("GROUP"),
		RunE: a.with(func(ctx context.Context, c *api, args []string) error {
			got, err := call(ctx, c.hostGroups.GetHostGroup, &lintelv1.GetHostGroupRequest{Name: args[0]})
			if err != nil {
				return err
			}
			group := got.GetHostGroup()
			if err := a.confirm(ch, "This forgets host group %s with %s", args[0], plural(len(group.GetSpec().GetHosts()), "host")); err != nil {
				return err
			}
			res, err := call(ctx, c.hostGroups.DeleteHostGroup, &lintelv1.DeleteHostGroupRequest{Name: args[0], Etag: group.GetEtag(), Force: force, DryRun: ch.dry})
			if err != nil {
				return err
			}
			return a.report(ch.dry, res, "deleted host group %s", args[0])
		}),
	}
	cmd.Flags().BoolVar(&force, "force", false, "remove its mappings too")
	ch.flags(cmd)
	a.completeArgs(cmd, false, groupNames)
	return cmd
}
