package cli

import (
	"context"
	"fmt"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	lintelv1 "lintel.io/lintel/api/lintel/v1"
)

// recipient is whom a volume is mapped to.
type recipient struct {
	name  string
	group bool
	nvme  bool // a host with NQNs
}

func (r recipient) String() string {
	if r.group {
		return "host group " + r.name
	}
	return "host " + r.name
}

// recipient finds out whether a name is that of a host or of a host group. The volume is the
// word before it, for the message to those who swapped the two.
func (c *api) recipient(ctx context.Context, volume, name string) (recipient, error) {
	host, err := call(ctx, c.hosts.GetHost, &lintelv1.GetHostRequest{Name: name})
	if connect.CodeOf(err) != connect.CodeNotFound {
		return recipient{name: name, nvme: len(host.GetHost().GetSpec().GetNqns()) > 0}, err
	}
	_, err = call(ctx, c.hostGroups.GetHostGroup, &lintelv1.GetHostGroupRequest{Name: name})
	if connect.CodeOf(err) == connect.CodeNotFound {
		if _, err := call(ctx, c.volumes.GetVolume, &lintelv1.GetVolumeRequest{Name: name}); err == nil {
			return recipient{}, fail(ExitNotFound, "there is no host or host group %q, but a volume: the volume comes first, then the host, as in %s %s", name, name, volume)
		}
		return recipient{}, fail(ExitNotFound, "there is no host or host group %q: lintel host list and lintel host-group list show those there are, lintel host create makes one", name)
	}
	return recipient{name: name, group: true}, err
}

func (a *app) mapCommand() *cobra.Command {
	var ch change
	var lun, nsid uint32
	var readOnly bool
	cmd := &cobra.Command{
		Use:   "map VOLUME HOST|GROUP",
		Short: "Show a volume to a host or host group",
		Long: `Maps a volume to a host or host group: its initiators see it as a LUN over iSCSI and
as a namespace over NVMe, at once and without a new login. Without --lun it gets the
lowest number that is free; without --nsid the namespace id is that number plus one,
or the highest that is free where that one is taken.`,
		Example: "  lintel map db1 esx1\n  lintel map db1 cluster1 --lun 7\n  lintel map iso esx1 --read-only",
		Args:    takes("VOLUME HOST|GROUP"),
	}
	cmd.RunE = a.with(func(ctx context.Context, c *api, args []string) error {
		to, err := c.recipient(ctx, args[0], args[1])
		if err != nil {
			return err
		}
		spec := &lintelv1.MappingSpec{Volume: args[0], ReadOnly: readOnly, To: &lintelv1.MappingSpec_Host{Host: to.name}}
		if to.group {
			spec.To = &lintelv1.MappingSpec_HostGroup{HostGroup: to.name}
		}
		if cmd.Flags().Changed("lun") {
			spec.Lun = &lun
		}
		if cmd.Flags().Changed("nsid") {
			spec.Nsid = &nsid
		}
		res, err := call(ctx, c.mappings.CreateMapping, &lintelv1.CreateMappingRequest{Spec: spec, DryRun: ch.dry})
		if err != nil {
			return err
		}
		made := res.GetMapping().GetSpec()
		number := fmt.Sprintf("LUN %d", made.GetLun())
		if made.Nsid != nil && (to.nvme || spec.Nsid != nil) {
			number += fmt.Sprintf(" and NSID %d", made.GetNsid())
		}
		return a.report(ch.dry, res, "mapped volume %s to %s as %s%s", args[0], to, number, onlyYes(readOnly, ", read-only"))
	})
	cmd.Flags().Uint32Var(&lun, "lun", 0, "logical unit `NUMBER`, 0 to 16383 (default: the lowest free one)")
	cmd.Flags().Uint32Var(&nsid, "nsid", 0, "namespace id `NUMBER` over NVMe, 1 to 1024 (default: the LUN plus one)")
	cmd.Flags().BoolVar(&readOnly, "read-only", false, "the host may not write, whatever the volume allows")
	ch.dryFlag(cmd)
	a.completeArgs(cmd, false, volumeNames, hostAndGroupNames)
	return cmd
}

func (a *app) unmapCommand() *cobra.Command {
	var ch change
	cmd := &cobra.Command{
		Use:   "unmap VOLUME HOST|GROUP",
		Short: "Hide a volume from a host or host group",
		Long: `Ends a mapping. Commands of the host that are under way on the volume end; its data stays.
A volume whose pool is missing is named by its id, as lintel mapping list shows it.`,
		Example: "  lintel unmap db1 esx1\n  lintel unmap db1 cluster1 --yes",
		Args:    takes("VOLUME HOST|GROUP"),
		RunE: a.with(func(ctx context.Context, c *api, args []string) error {
			to, err := c.recipient(ctx, args[0], args[1])
			if err != nil {
				return err
			}
			got, err := call(ctx, c.volumes.GetVolume, &lintelv1.GetVolumeRequest{Name: args[0]})
			if err != nil && connect.CodeOf(err) != connect.CodeNotFound { // the id of one whose pool is missing
				return err
			}
			if n := got.GetVolume().GetStatus().GetSessions(); n > 0 {
				if err := a.confirm(ch, "This takes volume %s, which %s in use, from %s", args[0], hasHave(int(n), "session"), to); err != nil {
					return err
				}
			}
			req := &lintelv1.DeleteMappingRequest{Volume: args[0], DryRun: ch.dry, To: &lintelv1.DeleteMappingRequest_Host{Host: to.name}}
			if to.group {
				req.To = &lintelv1.DeleteMappingRequest_HostGroup{HostGroup: to.name}
			}
			res, err := call(ctx, c.mappings.DeleteMapping, req)
			if err != nil {
				return err
			}
			return a.report(ch.dry, res, "unmapped volume %s from %s", args[0], to)
		}),
	}
	ch.flags(cmd)
	a.completeArgs(cmd, false, volumeNames, hostAndGroupNames)
	return cmd
}

// hasHave writes "1 session has" or "2 sessions have".
func hasHave(n int, noun string) string {
	if n == 1 {
		return plural(n, noun) + " has"
	}
	return plural(n, noun) + " have"
}

func (a *app) mappingCommand() *cobra.Command {
	return noun("mapping", "Mappings: which host sees which volume",
		"A mapping shows a volume to a host or host group, as a LUN over iSCSI and as a namespace\nover NVMe. Without one there is no access.\nlintel map makes mappings and lintel unmap ends them.",
		"  lintel mapping list\n  lintel mapping list --host esx1\n  lintel mapping set db1 esx1 --read-only",
		a.mappingList(), a.mappingSet())
}

func (a *app) mappingList() *cobra.Command {
	var w watch
	req := &lintelv1.ListMappingsRequest{}
	cmd := &cobra.Command{
		Use:     "list",
		Aliases: []string{"ls"},
		Short:   "List the mappings",
		Example: "  lintel mapping list\n  lintel mapping list --volume db1\n  lintel mapping list --host esx1 -o json",
		Args:    takes(""),
		RunE: a.with(func(ctx context.Context, c *api, _ []string) error {
			return w.run(ctx, a, func() error {
				res, err := call(ctx, c.mappings.ListMappings, req)
				if err != nil {
					return err
				}
				return printList(a, mappingColumns, res.GetMappings())
			})
		}),
	}
	cmd.Flags().StringVar(&req.Volume, "volume", "", "only the mappings of `VOLUME`")
	cmd.Flags().StringVar(&req.Host, "host", "", "only what `HOST` sees, through its groups too")
	cmd.Flags().StringVar(&req.HostGroup, "host-group", "", "only the mappings of `GROUP`")
	a.completeFlag(cmd, "volume", volumeNames)
	a.completeFlag(cmd, "host", hostNames)
	a.completeFlag(cmd, "host-group", groupNames)
	w.flags(cmd)
	return cmd
}

var mappingColumns = []column[*lintelv1.Mapping]{
	{head: "TO", text: func(m *lintelv1.Mapping) string { return m.GetSpec().GetHost() + m.GetSpec().GetHostGroup() }},
	{head: "TYPE", text: func(m *lintelv1.Mapping) string {
		if m.GetSpec().GetHostGroup() != "" {
			return "host-group"
		}
		return "host"
	}},
	{head: "LUN", right: true, text: func(m *lintelv1.Mapping) string { return fmt.Sprint(m.GetSpec().GetLun()) }},
	{head: "NSID", right: true, text: func(m *lintelv1.Mapping) string {
		if m.GetSpec().Nsid == nil {
			return ""
		}
		return fmt.Sprint(m.GetSpec().GetNsid())
	}},
	{head: "VOLUME", text: func(m *lintelv1.Mapping) string { return m.GetSpec().GetVolume() }},
	{head: "ACCESS", text: func(m *lintelv1.Mapping) string { return accessWord(m.GetSpec().GetReadOnly()) }},
}

func (a *app) mappingSet() *cobra.Command {
	var ch change
	var readOnly bool
	cmd := &cobra.Command{
		Use:     "set VOLUME HOST|GROUP",
		Short:   "Set whether a mapping is read-only",
		Example: "  lintel mapping set db1 esx1 --read-only\n  lintel mapping set db1 esx1 --read-only=false",
		Args:    takes("VOLUME HOST|GROUP"),
	}
	cmd.RunE = a.with(func(ctx context.Context, c *api, args []string) error {
		if !cmd.Flags().Changed("read-only") {
			return usage("nothing to set: give --read-only or --read-only=false")
		}
		to, err := c.recipient(ctx, args[0], args[1])
		if err != nil {
			return err
		}
		req := &lintelv1.UpdateMappingRequest{Volume: args[0], ReadOnly: readOnly, DryRun: ch.dry, To: &lintelv1.UpdateMappingRequest_Host{Host: to.name}}
		if to.group {
			req.To = &lintelv1.UpdateMappingRequest_HostGroup{HostGroup: to.name}
		}
		res, err := call(ctx, c.mappings.UpdateMapping, req)
		if err != nil {
			return err
		}
		access := "read and write"
		if readOnly {
			access = "only read"
		}
		return a.report(ch.dry, res, "%s may now %s volume %s", to, access, args[0])
	})
	cmd.Flags().BoolVar(&readOnly, "read-only", false, "the host may not write, whatever the volume allows")
	ch.dryFlag(cmd)
	a.completeArgs(cmd, false, volumeNames, hostAndGroupNames)
	return cmd
}
