package cli

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	lintelv1 "lintel.io/lintel/api/lintel/v1"
)

func (a *app) hostCommand() *cobra.Command {
	return noun("host", "Hosts: machines that use volumes",
		`A host is known by its initiator names: IQNs for iSCSI, NQNs for NVMe, or both. It
may be held to addresses, to CHAP and to DH-HMAC-CHAP. It sees nothing until a
volume is mapped to it, and then the same volumes over both protocols.`,
		`  lintel host create esx1 --iqn iqn.1998-01.com.vmware:esx1
  lintel host create lab --iqn 'iqn.1993-08.org.debian:*' --address 192.0.2.0/24
  lintel host create db --nqn nqn.2014-08.com.example:db
  lintel host list`,
		a.hostCreate(), a.hostList(), a.hostShow(), a.hostSet(), a.hostDelete(), a.hostKey(), a.hostTLSKey(), a.hostConfig())
}

// hostFlags are the flags that host create and host set have in common.
type hostFlags struct {
	at           *attributes
	chap, mutual secret
	key, ctrlKey secret
	tlsKey       secret
}

func (h *hostFlags) add(cmd *cobra.Command) {
	h.at.flag(cmd, "iqn", "initiators", "initiator name (iqn., eui. or naa.); * stands for any characters, ? for one; repeatable")
	h.at.flag(cmd, "nqn", "nqns", "NVMe qualified name of the host; * stands for any characters, ? for one; repeatable")
	h.at.flag(cmd, "address", "addresses", "address or network it may come from, such as 192.0.2.7 or 2001:db8::/32; repeatable, '' for any (default: any)")
	h.at.flag(cmd, "chap-user", "chap_user", "name that the host proves with CHAP")
	h.chap.flags(cmd, "chap-secret", "the host's CHAP secret", "; asked for where neither is given")
	h.at.flag(cmd, "mutual-user", "mutual_user", "name that the array proves to the host (mutual CHAP)")
	h.mutual.flags(cmd, "mutual-secret", "the array's CHAP secret", "; asked for where neither is given")
	h.key.flags(cmd, "dhchap-key", "the host's DH-HMAC-CHAP key (DHHC-1:...)", "")
	h.ctrlKey.flags(cmd, "dhchap-ctrl-key", "the array's DH-HMAC-CHAP key (DHHC-1:...)", "")
	h.tlsKey.flags(cmd, "tls-key", "the host's TLS key (NVMeTLSkey-1:...)", "; such a host has to use TLS")
	h.at.flag(cmd, "comment", "comment", "free text, at most 255 bytes")
}

// secrets reads the secrets that belong to the users that were set, and the keys
// that were given.
func (h *hostFlags) secrets(a *app) error {
	for _, s := range []struct {
		user, field string
		secret      *secret
	}{
		{"chap_user", "chap_secret", &h.chap}, {"mutual_user", "mutual_secret", &h.mutual},
		{"", "dhchap_key", &h.key}, {"", "dhchap_ctrl_key", &h.ctrlKey}, {"", "tls_key", &h.tlsKey},
	} {
		wanted := s.user != "" && h.at.spec.Get(h.at.field(s.user)).String() != ""
		if !wanted && !s.secret.given() {
			continue
		}
		text, err := s.secret.read(a)
		if err != nil {
			return err
		}
		if err := h.at.assign(h.at.field(s.field), text); err != nil {
			return err
		}
	}
	return nil
}

func (a *app) hostCreate() *cobra.Command {
	spec := &lintelv1.HostSpec{}
	flags := hostFlags{at: attributesOf(spec)}
	var ch change
	cmd := &cobra.Command{
		Use:   "create NAME --iqn IQN... --nqn NQN...",
		Short: "Make a host known",
		Long: `Makes a host known to the array. An initiator belongs to the host that names it
most exactly: an exact name counts before one with * or ?.

With --chap-user the secret (12 bytes or more) is asked for, or read from the first
line of the file that --chap-secret-file names. CHAP is for iSCSI; over NVMe a host
proves itself with the key that --dhchap-key-file gives. One with a key from
--tls-key-file has to use TLS, which proves it too: see lintel portal add --tls.`,
		Example: `  lintel host create esx1 --iqn iqn.1998-01.com.vmware:esx1
  lintel host create db --iqn iqn.1993-08.org.debian:01:db-a --iqn iqn.1993-08.org.debian:01:db-b
  lintel host create any --iqn '*' --address 192.0.2.0/24
  lintel host create web --iqn iqn.1993-08.org.debian:01:w --chap-user w --chap-secret-file ./secret
  lintel host create big --nqn nqn.2014-08.com.example:big --dhchap-key-file ./key`,
		Args: takes("NAME"),
		RunE: a.with(func(ctx context.Context, c *api, args []string) error {
			spec.Name = args[0]
			names := len(spec.GetInitiators()) + len(spec.GetNqns())
			if names == 0 {
				return usage("which initiators does %s have? Add --iqn, such as --iqn iqn.1993-08.org.debian:01:%s, or --nqn", args[0], args[0])
			}
			if err := flags.secrets(a); err != nil {
				return err
			}
			res, err := call(ctx, c.hosts.CreateHost, &lintelv1.CreateHostRequest{Spec: spec, DryRun: ch.dry})
			if err != nil {
				return err
			}
			return a.report(ch.dry, res, "created host %s with %s", args[0], plural(names, "initiator name"))
		}),
	}
	flags.add(cmd)
	ch.dryFlag(cmd)
	return cmd
}

func (a *app) hostList() *cobra.Command {
	var w watch
	cmd := &cobra.Command{
		Use:     "list",
		Aliases: []string{"ls"},
		Short:   "List the hosts",
		Example: "  lintel host list\n  lintel host list -o json",
		Args:    takes(""),
		RunE: a.with(func(ctx context.Context, c *api, _ []string) error {
			return w.run(ctx, a, func() error {
				res, err := call(ctx, c.hosts.ListHosts, &lintelv1.ListHostsRequest{})
				if err != nil {
					return err
				}
				return printList(a, hostColumns, res.GetHosts())
			})
		}),
	}
	w.flags(cmd)
	return cmd
}

var hostColumns = []column[*lintelv1.Host]{
	{head: "NAME", text: func(h *lintelv1.Host) string { return h.GetSpec().GetName() }},
	{head: "CHAP", text: func(h *lintelv1.Host) string { return chapWord(h.GetSpec()) }},
	{head: "DHCHAP", text: dhchapWord},
	{head: "TLS", text: tlsWord},
	{head: "LUNS", right: true, text: func(h *lintelv1.Host) string { return fmt.Sprint(h.GetStatus().GetLuns()) }},
	{head: "SESSIONS", right: true, text: func(h *lintelv1.Host) string { return known(h.GetStatus().Sessions, countText[uint32]) }},
	{head: "GROUPS", text: func(h *lintelv1.Host) string { return joinFew(h.GetStatus().GetGroups(), 3) }},
	{head: "ADDRESSES", text: func(h *lintelv1.Host) string { return joinFew(h.GetSpec().GetAddresses(), 2) }},
	{head: "INITIATORS", text: func(h *lintelv1.Host) string { return joinFew(initiatorNames(h.GetSpec()), 2) }},
}

// initiatorNames are all names that a host is known by.
func initiatorNames(spec *lintelv1.HostSpec) []string {
	return slices.Concat(spec.GetInitiators(), spec.GetNqns())
}

func chapWord(spec *lintelv1.HostSpec) string {
	switch {
	case spec.GetMutualUser() != "":
		return "mutual"
	case spec.GetChapUser() != "":
		return "one-way"
	case len(spec.GetInitiators()) == 0:
		return ""
	}
	return "none"
}

func dhchapWord(h *lintelv1.Host) string {
	switch {
	case h.GetStatus().GetDhchapCtrlKeySet():
		return "mutual"
	case h.GetStatus().GetDhchapKeySet():
		return "one-way"
	case len(h.GetSpec().GetNqns()) == 0:
		return ""
	}
	return "none"
}

func tlsWord(h *lintelv1.Host) string {
	switch {
	case h.GetStatus().GetTlsKeySet():
		return "required"
	case len(h.GetSpec().GetNqns()) == 0:
		return ""
	}
	return "none"
}

func (a *app) hostShow() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "show HOST",
		Short:   "Show one host",
		Example: "  lintel host show esx1",
		Args:    takes("HOST"),
		RunE: a.with(func(ctx context.Context, c *api, args []string) error {
			res, err := call(ctx, c.hosts.GetHost, &lintelv1.GetHostRequest{Name: args[0]})
			if err != nil {
				return err
			}
			return printOne(a, res.GetHost(), describeHost)
		}),
	}
	a.completeArgs(cmd, false, hostNames)
	return cmd
}

func describeHost(h *lintelv1.Host) []detail {
	spec, status := h.GetSpec(), h.GetStatus()
	details := []detail{{"name", spec.GetName()}}
	for _, name := range spec.GetInitiators() {
		details = append(details, detail{"initiator", name})
	}
	for _, name := range spec.GetNqns() {
		details = append(details, detail{"nqn", name})
	}
	for _, address := range spec.GetAddresses() {
		details = append(details, detail{"address", address})
	}
	return append(details,
		detail{"chap", chapWord(spec)},
		detail{"chap user", spec.GetChapUser()},
		detail{"mutual user", spec.GetMutualUser()},
		detail{"dhchap", dhchapWord(h)},
		detail{"tls", tlsWord(h)},
		detail{"groups", strings.Join(status.GetGroups(), " ")},
		detail{"luns", fmt.Sprint(status.GetLuns())},
		detail{"sessions", orUnknown(known(status.Sessions, countText[uint32]))},
		detail{"comment", spec.GetComment()},
		detail{"created", timeText(h.GetCreated())},
		detail{"id", h.GetId()},
	)
}

func (a *app) hostSet() *cobra.Command {
	spec := &lintelv1.HostSpec{}
	flags := hostFlags{at: attributesOf(spec)}
	var ch change
	iqns := listEdit{flag: "iqn", field: "initiators", get: (*lintelv1.HostSpec).GetInitiators, set: func(names []string) { spec.Initiators = names }}
	nqns := listEdit{flag: "nqn", field: "nqns", get: (*lintelv1.HostSpec).GetNqns, set: func(names []string) { spec.Nqns = names }}
	var noCHAP, noDHCHAP, noTLS bool
	cmd := &cobra.Command{
		Use:   "set HOST",
		Short: "Set attributes of a host",
		Long: `Sets attributes of a host. --iqn, --nqn and --address replace all that there were;
--add-iqn, --remove-iqn, --add-nqn and --remove-nqn change single ones. New secrets
and keys, and names and addresses that are gone, end the connections concerned.`,
		Example: `  lintel host set esx1 --add-iqn iqn.1998-01.com.vmware:esx1-new
  lintel host set esx1 --chap-user esx1 --chap-secret-file ./secret
  lintel host set esx1 --no-chap
  lintel host set esx1 --add-nqn nqn.2014-08.com.vmware:esx1
  lintel host set esx1 --name esx2`,
		Args: takes("HOST"),
		RunE: a.with(func(ctx context.Context, c *api, args []string) error {
			req := &lintelv1.UpdateHostRequest{Name: args[0], Spec: spec, DryRun: ch.dry}
			if noCHAP {
				if spec.GetChapUser() != "" || spec.GetMutualUser() != "" || flags.chap.given() || flags.mutual.given() {
					return usage("--no-chap does not go with CHAP users and secrets")
				}
				flags.at.set = append(flags.at.set, "chap_user")
			}
			if noDHCHAP {
				if flags.key.given() || flags.ctrlKey.given() {
					return usage("--no-dhchap does not go with DH-HMAC-CHAP keys")
				}
				flags.at.set = append(flags.at.set, "dhchap_key")
			}
			if noTLS {
				if flags.tlsKey.given() {
					return usage("--no-tls does not go with a TLS key")
				}
				flags.at.set = append(flags.at.set, "tls_key")
			}
			if err := flags.secrets(a); err != nil {
				return err
			}
			for _, list := range []*listEdit{&iqns, &nqns} {
				if err := list.apply(ctx, c, req, flags.at); err != nil {
					return err
				}
			}
			if len(flags.at.set) == 0 {
				return usage("nothing to set (see lintel host set --help)")
			}
			req.UpdateMask = flags.at.mask()
			res, err := call(ctx, c.hosts.UpdateHost, req)
			if err != nil {
				return err
			}
			return a.report(ch.dry, res, "set %s of host %s", joinWords(flags.at.set), args[0])
		}),
	}
	flags.at.flag(cmd, "name", "name", "new name")
	flags.add(cmd)
	iqns.flags(cmd, "initiator `NAME`")
	nqns.flags(cmd, "`NQN`")
	cmd.Flags().BoolVar(&noCHAP, "no-chap", false, "let the host in without CHAP")
	cmd.Flags().BoolVar(&noDHCHAP, "no-dhchap", false, "let the host in without DH-HMAC-CHAP")
	cmd.Flags().BoolVar(&noTLS, "no-tls", false, "forget the host's TLS key, so that it does not use TLS")
	ch.dryFlag(cmd)
	a.completeArgs(cmd, false, hostNames)
	return cmd
}

// listEdit is the flags that change single names of a host's list.
type listEdit struct {
	flag, field string
	get         func(*lintelv1.HostSpec) []string
	set         func([]string)
	add, remove []string
}

func (l *listEdit) flags(cmd *cobra.Command, what string) {
	cmd.Flags().StringArrayVar(&l.add, "add-"+l.flag, nil, "one more "+what+"; repeatable")
	cmd.Flags().StringArrayVar(&l.remove, "remove-"+l.flag, nil, what+" to forget; repeatable")
}

// apply puts the changed list into a request.
func (l *listEdit) apply(ctx context.Context, c *api, req *lintelv1.UpdateHostRequest, at *attributes) error {
	if len(l.add)+len(l.remove) == 0 {
		return nil
	}
	if len(l.get(req.GetSpec())) > 0 {
		return usage("--%[1]s replaces all names, so it does not go with --add-%[1]s or --remove-%[1]s", l.flag)
	}
	got, err := call(ctx, c.hosts.GetHost, &lintelv1.GetHostRequest{Name: req.GetName()})
	if err != nil {
		return err
	}
	names, err := edit(l.get(got.GetHost().GetSpec()), l.add, l.remove, "host "+req.GetName())
	if err != nil {
		return err
	}
	l.set(names)
	req.Etag = got.GetHost().GetEtag()
	at.set = append(at.set, l.field)
	return nil
}

// edit adds words to a list and removes some. What is to be removed has to be
// there; what is there already is not added twice.
func edit(list, add, remove []string, whose string) ([]string, error) {
	list = slices.Clone(list)
	for _, name := range remove {
		i := slices.Index(list, name)
		if i < 0 {
			return nil, fail(ExitNotFound, "%s has no %s", whose, name)
		}
		list = slices.Delete(list, i, i+1)
	}
	for _, name := range add {
		if !slices.Contains(list, name) {
			list = append(list, name)
		}
	}
	return list, nil
}

func (a *app) hostDelete() *cobra.Command {
	var ch change
	var force bool
	cmd := &cobra.Command{
		Use:   "delete HOST",
		Short: "Forget a host",
		Long: `Forgets a host. One that has mappings or is in a group is refused, unless --force
removes those too.`,
		Example: "  lintel host delete esx1\n  lintel host delete esx1 --force --yes",
		Args:    takes("HOST"),
		RunE: a.with(func(ctx context.Context, c *api, args []string) error {
			got, err := call(ctx, c.hosts.GetHost, &lintelv1.GetHostRequest{Name: args[0]})
			if err != nil {
				return err
			}
			status := got.GetHost().GetStatus()
			if err := a.confirm(ch, "This forgets host %s, which sees %s in %s", args[0], plural(int(status.GetLuns()), "LUN"), sessionsText(status.Sessions)); err != nil {
				return err
			}
			res, err := call(ctx, c.hosts.DeleteHost, &lintelv1.DeleteHostRequest{Name: args[0], Etag: got.GetHost().GetEtag(), Force: force, DryRun: ch.dry})
			if err != nil {
				return err
			}
			return a.report(ch.dry, res, "deleted host %s", args[0])
		}),
	}
	cmd.Flags().BoolVar(&force, "force", false, "remove its mappings and memberships too")
	ch.flags(cmd)
	a.completeArgs(cmd, false, hostNames)
	return cmd
}
