package cli

import (
	"context"
	"time"

	"github.com/spf13/cobra"

	lintelv1 "lintel.io/lintel/api/lintel/v1"
)

// completer proposes words for one argument.
type completer func(ctx context.Context, c *api) ([]string, error)

// completeTimeout bounds how long a shell waits for an array.
const completeTimeout = time.Second

// completeArgs proposes the names of the array's objects for each argument in
// turn; the last completer serves all further arguments too where repeat is set.
func (a *app) completeArgs(cmd *cobra.Command, repeat bool, each ...completer) {
	cmd.ValidArgsFunction = func(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		n := len(args)
		if n >= len(each) {
			if !repeat {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			n = len(each) - 1
		}
		return a.propose(cmd.Context(), each[n]), cobra.ShellCompDirectiveNoFileComp
	}
}

// completeFlag proposes the names of the array's objects for a flag.
func (a *app) completeFlag(cmd *cobra.Command, flag string, c completer) {
	register(cmd, flag, func(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
		return a.propose(cmd.Context(), c), cobra.ShellCompDirectiveNoFileComp
	})
}

func (a *app) propose(ctx context.Context, c completer) []string {
	if c == nil {
		return nil
	}
	if ctx == nil {
		ctx = context.Background()
	}
	ctx, cancel := context.WithTimeout(ctx, completeTimeout)
	defer cancel()
	client, err := a.connect()
	if err != nil {
		return nil
	}
	names, err := c(ctx, client)
	if err != nil {
		return nil
	}
	return names
}

// mustRegister proposes fixed words for a flag.
func mustRegister(cmd *cobra.Command, flag string, words []string) {
	register(cmd, flag, cobra.FixedCompletions(words, cobra.ShellCompDirectiveNoFileComp))
}

// register fails only for a flag that does not exist, or twice: a mistake in
// the command tree that its tests meet at once.
func register(cmd *cobra.Command, flag string, f cobra.CompletionFunc) {
	if err := cmd.RegisterFlagCompletionFunc(flag, f); err != nil {
		panic(err)
	}
}

// words proposes fixed words.
func words(list ...string) completer {
	return func(context.Context, *api) ([]string, error) { return list, nil }
}

func poolNames(ctx context.Context, c *api) ([]string, error) {
	res, err := call(ctx, c.pools.ListPools, &lintelv1.ListPoolsRequest{})
	return namesOf(res.GetPools(), func(p *lintelv1.Pool) string { return p.GetSpec().GetName() }), err
}

func volumeNames(ctx context.Context, c *api) ([]string, error) {
	res, err := call(ctx, c.volumes.ListVolumes, &lintelv1.ListVolumesRequest{})
	return namesOf(res.GetVolumes(), func(v *lintelv1.Volume) string { return v.GetSpec().GetName() }), err
}

func hostNames(ctx context.Context, c *api) ([]string, error) {
	res, err := call(ctx, c.hosts.ListHosts, &lintelv1.ListHostsRequest{})
	return namesOf(res.GetHosts(), func(h *lintelv1.Host) string { return h.GetSpec().GetName() }), err
}

func groupNames(ctx context.Context, c *api) ([]string, error) {
	res, err := call(ctx, c.hostGroups.ListHostGroups, &lintelv1.ListHostGroupsRequest{})
	return namesOf(res.GetHostGroups(), func(g *lintelv1.HostGroup) string { return g.GetSpec().GetName() }), err
}

func hostAndGroupNames(ctx context.Context, c *api) ([]string, error) {
	hosts, err := hostNames(ctx, c)
	if err != nil {
		return nil, err
	}
	groups, err := groupNames(ctx, c)
	return append(hosts, groups...), err
}

func portalNames(ctx context.Context, c *api) ([]string, error) {
	res, err := call(ctx, c.target.GetTarget, &lintelv1.GetTargetRequest{})
	return namesOf(res.GetTarget().GetPortals(), portalName), err
}

func sessionIDs(ctx context.Context, c *api) ([]string, error) {
	res, err := call(ctx, c.sessions.ListSessions, &lintelv1.ListSessionsRequest{})
	return namesOf(res.GetSessions(), (*lintelv1.Session).GetId), err
}

func namesOf[T any](list []T, name func(T) string) []string {
	names := make([]string, len(list))
	for i, item := range list {
		names[i] = name(item)
	}
	return names
}

// completionCommand prints the completion scripts.
func (a *app) completionCommand() *cobra.Command {
	shells := []string{"bash", "zsh", "fish", "powershell"}
	return &cobra.Command{
		Use:   "completion bash|zsh|fish|powershell",
		Short: "Print a completion script for a shell",
		Long: `Prints a script that makes a shell complete lintel's commands, flags and the
names of the array's volumes, hosts, pools and portals.`,
		Example: `  # bash, for this session
  source <(lintel completion bash)

  # bash, for all sessions of this user
  lintel completion bash > ~/.local/share/bash-completion/completions/lintel

  # zsh, with a directory of $fpath
  lintel completion zsh > ~/.zfunc/_lintel`,
		Args:      takes("SHELL"),
		ValidArgs: shells,
		RunE: func(cmd *cobra.Command, args []string) error {
			root := cmd.Root()
			switch args[0] {
			case "bash":
				return root.GenBashCompletionV2(a.Out, true)
			case "zsh":
				return root.GenZshCompletion(a.Out)
			case "fish":
				return root.GenFishCompletion(a.Out, true)
			case "powershell":
				return root.GenPowerShellCompletionWithDesc(a.Out)
			}
			return usage("there is no completion for %q: the shells are %s", args[0], joinWords(shells))
		},
	}
}
