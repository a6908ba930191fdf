package cli

import (
	"context"
	"fmt"
	"slices"

	"github.com/spf13/cobra"

	lintelv1 "lintel.io/lintel/api/lintel/v1"
)

func (a *app) sessionCommand() *cobra.Command {
	return noun("session", "Sessions: initiators that are logged in",
		"A session is an initiator's login over iSCSI, or a host's controller over NVMe, where each\nqueue is a connection.",
		"  lintel session list\n  lintel session list --host esx1 --watch",
		a.sessionList(), a.sessionDrop())
}

func (a *app) sessionList() *cobra.Command {
	var w watch
	var host string
	cmd := &cobra.Command{
		Use:     "list",
		Aliases: []string{"ls"},
		Short:   "List the sessions",
		Example: "  lintel session list\n  lintel session list --host esx1 -o json",
		Args:    takes(""),
		RunE: a.with(func(ctx context.Context, c *api, _ []string) error {
			return w.run(ctx, a, func() error {
				res, err := call(ctx, c.sessions.ListSessions, &lintelv1.ListSessionsRequest{Host: host})
				if err != nil {
					return err
				}
				return printList(a, sessionColumns, res.GetSessions())
			})
		}),
	}
	cmd.Flags().StringVar(&host, "host", "", "only the sessions of `HOST`")
	a.completeFlag(cmd, "host", hostNames)
	w.flags(cmd)
	return cmd
}

var sessionColumns = []column[*lintelv1.Session]{
	{head: "ID", text: (*lintelv1.Session).GetId},
	{head: "HOST", text: (*lintelv1.Session).GetHost},
	{head: "INITIATOR", text: (*lintelv1.Session).GetInitiator},
	{head: "FROM", text: func(s *lintelv1.Session) string {
		return joinFew(namesOf(s.GetConnections(), (*lintelv1.Connection).GetRemote), 1)
	}},
	{head: "PROTOCOL", text: func(s *lintelv1.Session) string { return word(s.GetProtocol()) }},
	{head: "TYPE", text: func(s *lintelv1.Session) string { return word(s.GetType()) }},
	{head: "CNTLID", right: true, text: func(s *lintelv1.Session) string { return onlyNVMe(s, int(s.GetControllerId())) }},
	{head: "QUEUES", right: true, text: func(s *lintelv1.Session) string { return onlyNVMe(s, len(s.GetConnections())) }},
	{head: "LUNS", right: true, text: func(s *lintelv1.Session) string { return fmt.Sprint(s.GetLuns()) }},
	{head: "COMMANDS", right: true, text: func(s *lintelv1.Session) string { return fmt.Sprint(s.GetCommands()) }},
	{head: "READ", right: true, text: func(s *lintelv1.Session) string { return formatSize(s.GetReadBytes()) }},
	{head: "WRITTEN", right: true, text: func(s *lintelv1.Session) string { return formatSize(s.GetWriteBytes()) }},
	{head: "SINCE", text: func(s *lintelv1.Session) string { return timeText(s.GetSince()) }},
}

// onlyNVMe is a number for a table's cell that is empty for iSCSI.
func onlyNVMe(s *lintelv1.Session, n int) string {
	if s.GetProtocol() != lintelv1.Protocol_PROTOCOL_NVME_TCP {
		return ""
	}
	return fmt.Sprint(n)
}

func (a *app) sessionDrop() *cobra.Command {
	var ch change
	cmd := &cobra.Command{
		Use:   "drop ID",
		Short: "Close the connections of a session",
		Long: `Closes the connections of a session at once; its commands are aborted. The
initiator may log in again: to keep it out, delete its host or mappings.`,
		Example: "  lintel session list\n  lintel session drop 7",
		Args:    takes("ID"),
		RunE: a.with(func(ctx context.Context, c *api, args []string) error {
			list, err := call(ctx, c.sessions.ListSessions, &lintelv1.ListSessionsRequest{})
			if err != nil {
				return err
			}
			i := slices.IndexFunc(list.GetSessions(), func(s *lintelv1.Session) bool { return s.GetId() == args[0] })
			if i < 0 {
				return fail(ExitNotFound, "session %s does not exist: lintel session list shows those there are", args[0])
			}
			if err := a.confirm(ch, "This aborts the commands of session %s of %s and closes its connections", args[0], list.GetSessions()[i].GetInitiator()); err != nil {
				return err
			}
			res, err := call(ctx, c.sessions.DropSession, &lintelv1.DropSessionRequest{Id: args[0], DryRun: ch.dry})
			if err != nil {
				return err
			}
			return a.report(ch.dry, res, "dropped session %s", args[0])
		}),
	}
	ch.flags(cmd)
	a.completeArgs(cmd, false, sessionIDs)
	return cmd
}
