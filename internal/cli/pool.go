package cli

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	lintelv1 "lintel.io/lintel/api/lintel/v1"
)

func (a *app) poolCommand() *cobra.Command {
	return noun("pool", "Pools: what volumes are made of",
		"A pool makes volumes. The first one, the system pool, keeps the array's\nconfiguration too and always exists.",
		"  lintel pool list\n  lintel pool create archive --comment \"slow and large\"",
		a.poolList(), a.poolShow(), a.poolCreate(), a.poolDelete())
}

func (a *app) poolList() *cobra.Command {
	var w watch
	cmd := &cobra.Command{
		Use:     "list",
		Aliases: []string{"ls"},
		Short:   "List the pools",
		Example: "  lintel pool list\n  lintel pool list -o json",
		Args:    takes(""),
		RunE: a.with(func(ctx context.Context, c *api, _ []string) error {
			return w.run(ctx, a, func() error {
				res, err := call(ctx, c.pools.ListPools, &lintelv1.ListPoolsRequest{})
				if err != nil {
					return err
				}
				return printList(a, poolColumns, res.GetPools())
			})
		}),
	}
	w.flags(cmd)
	return cmd
}

var poolColumns = []column[*lintelv1.Pool]{
	{head: "NAME", text: func(p *lintelv1.Pool) string { return p.GetSpec().GetName() }},
	{head: "KIND", text: func(p *lintelv1.Pool) string { return word(p.GetSpec().GetKind()) }},
	{head: "STATE", text: func(p *lintelv1.Pool) string { return word(p.GetStatus().GetState()) }, style: func(p *lintelv1.Pool) style {
		return goodIf(p.GetStatus().GetState() == lintelv1.PoolState_POOL_STATE_ONLINE)
	}},
	{head: "SIZE", right: true, text: func(p *lintelv1.Pool) string { return formatSize(p.GetStatus().GetSizeBytes()) }},
	{head: "FREE", right: true, text: func(p *lintelv1.Pool) string { return formatSize(p.GetStatus().GetFreeBytes()) }},
	{head: "PROVISIONED", right: true, text: func(p *lintelv1.Pool) string { return formatSize(p.GetStatus().GetProvisionedBytes()) }},
	{head: "VOLUMES", right: true, text: func(p *lintelv1.Pool) string { return fmt.Sprint(p.GetStatus().GetVolumes()) }},
	{head: "COMMENT", text: func(p *lintelv1.Pool) string { return p.GetSpec().GetComment() }},
}

func (a *app) poolShow() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "show POOL",
		Short:   "Show one pool",
		Example: "  lintel pool show default",
		Args:    takes("POOL"),
		RunE: a.with(func(ctx context.Context, c *api, args []string) error {
			res, err := call(ctx, c.pools.GetPool, &lintelv1.GetPoolRequest{Name: args[0]})
			if err != nil {
				return err
			}
			return printOne(a, res.GetPool(), describePool)
		}),
	}
	a.completeArgs(cmd, false, poolNames)
	return cmd
}

func describePool(p *lintelv1.Pool) []detail {
	spec, status := p.GetSpec(), p.GetStatus()
	return []detail{
		{"name", spec.GetName()},
		{"kind", word(spec.GetKind())},
		{"state", stateText(word(status.GetState()), status.GetReason())},
		{"size", sizeText(status.GetSizeBytes())},
		{"free", sizeText(status.GetFreeBytes())},
		{"provisioned", sizeText(status.GetProvisionedBytes())},
		{"volumes", fmt.Sprint(status.GetVolumes())},
		{"extent", sizeText(status.GetExtentBytes())},
		{"system pool", yesNo(status.GetSystem())},
		{"path", status.GetPath()},
		{"epoch", fmt.Sprint(status.GetEpoch())},
		{"comment", spec.GetComment()},
		{"created", timeText(p.GetCreated())},
		{"id", p.GetId()},
	}
}

func (a *app) poolCreate() *cobra.Command {
	spec := &lintelv1.PoolSpec{}
	at := attributesOf(spec)
	var ch change
	cmd := &cobra.Command{
		Use:     "create NAME",
		Short:   "Make a pool",
		Example: "  lintel pool create archive\n  lintel pool create archive --comment \"slow and large\"",
		Args:    takes("NAME"),
		RunE: a.with(func(ctx context.Context, c *api, args []string) error {
			spec.Name = args[0]
			res, err := call(ctx, c.pools.CreatePool, &lintelv1.CreatePoolRequest{Spec: spec, DryRun: ch.dry})
			if err != nil {
				return err
			}
			return a.report(ch.dry, res, "created pool %s", res.GetPool().GetSpec().GetName())
		}),
	}
	at.flag(cmd, "kind", "kind", "what the pool is made of (default file)")
	at.flag(cmd, "comment", "comment", "free text, at most 255 bytes")
	ch.dryFlag(cmd)
	return cmd
}

func (a *app) poolDelete() *cobra.Command {
	var ch change
	cmd := &cobra.Command{
		Use:     "delete POOL",
		Short:   "Remove an empty pool",
		Example: "  lintel pool delete archive",
		Args:    takes("POOL"),
		RunE: a.with(func(ctx context.Context, c *api, args []string) error {
			pool, err := call(ctx, c.pools.GetPool, &lintelv1.GetPoolRequest{Name: args[0]})
			if err != nil {
				return err
			}
			if err := a.confirm(ch, "This removes pool %s", args[0]); err != nil {
				return err
			}
			res, err := call(ctx, c.pools.DeletePool, &lintelv1.DeletePoolRequest{Name: args[0], Etag: pool.GetPool().GetEtag(), DryRun: ch.dry})
			if err != nil {
				return err
			}
			return a.report(ch.dry, res, "deleted pool %s", args[0])
		}),
	}
	ch.flags(cmd)
	a.completeArgs(cmd, false, poolNames)
	return cmd
}
