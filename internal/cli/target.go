package cli

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	lintelv1 "lintel.io/lintel/api/lintel/v1"
	"lintel.io/lintel/internal/array"
	"lintel.io/lintel/internal/serve"
)

func (a *app) targetCommand() *cobra.Command {
	return noun("target", "The target: what initiators log in to",
		"An array is one iSCSI target and one NVM subsystem. It has portals, and an asymmetric access\n(ALUA, ANA) state for each pool.",
		"  lintel target show\n  lintel target set --alias \"lab array\"\n  lintel target set-state default non-optimized",
		a.targetShow(), a.targetSet(), a.targetSetState(), a.targetServe())
}

func (a *app) targetShow() *cobra.Command {
	return &cobra.Command{
		Use:     "show",
		Short:   "Show the target, its portals and access states",
		Example: "  lintel target show\n  lintel target show -o json | jq -r .spec.iqn",
		Args:    takes(""),
		RunE: a.with(func(ctx context.Context, c *api, _ []string) error {
			res, err := call(ctx, c.target.GetTarget, &lintelv1.GetTargetRequest{})
			if err != nil {
				return err
			}
			return printOne(a, res.GetTarget(), describeTarget)
		}),
	}
}

func describeTarget(t *lintelv1.Target) []detail {
	details := []detail{
		{"iqn", t.GetSpec().GetIqn()},
		{"nqn", t.GetSpec().GetSubsystemNqn()},
		{"serial", t.GetSubsystemSerial()},
		{"model", t.GetSubsystemModel()},
		{"alias", t.GetSpec().GetAlias()},
		{"chap", chapAlgorithms(t.GetSpec().GetChapAlgorithms())},
		{"nvme referrals", strings.Join(t.GetSpec().GetNvmeReferrals(), " ")},
	}
	for _, p := range t.GetPortals() {
		speaks := word(p.GetSpec().GetProtocol())
		if p.GetSpec().GetTls() == lintelv1.TlsMode_TLS_MODE_REQUIRED {
			speaks += " with TLS"
		}
		details = append(details, detail{"portal", fmt.Sprintf("%s %s tag %d in port group %d, %s, %s", portalName(p), speaks, p.GetSpec().GetTag(), p.GetSpec().GetPortGroup(),
			stateText(word(p.GetState()), p.GetReason()), sessionsText(p.Sessions))})
	}
	for _, g := range t.GetPortGroups() {
		for _, access := range g.GetPools() {
			details = append(details, detail{"access", fmt.Sprintf("pool %s through port group %d (%s): %s", access.GetPool(), g.GetId(), g.GetHead(), accessText(access))})
		}
	}
	return details
}

// accessText is the access state in effect, beside the administrator's choice where that is another.
func accessText(access *lintelv1.PoolAccess) string {
	chosen, effective := word(access.GetState()), word(access.GetEffective())
	switch access.GetEffective() {
	case access.GetState():
		return chosen
	case lintelv1.AccessState_ACCESS_STATE_UNSPECIFIED:
		return chosen + " chosen, what is in effect is unknown"
	}
	return effective + ", set by a host; chosen is " + chosen
}

// sessionsText is a number of sessions in words.
func sessionsText(n *uint32) string {
	if n == nil {
		return "sessions unknown"
	}
	return plural(int(*n), "session")
}

func chapAlgorithms(list []lintelv1.ChapAlgorithm) string {
	names := make([]string, len(list))
	for i, algorithm := range list {
		names[i] = word(algorithm)
	}
	return strings.Join(names, " ")
}

func (a *app) targetSet() *cobra.Command {
	spec := &lintelv1.TargetSpec{}
	at := attributesOf(spec)
	var ch change
	cmd := &cobra.Command{
		Use:     "set",
		Short:   "Set attributes of the target",
		Long:    "Sets attributes of the target. A name can be changed only while no initiator is logged in that\nuses it.",
		Example: "  lintel target set --alias \"lab array\"\n  lintel target set --chap-algorithm sha3-256 --chap-algorithm sha256",
		Args:    takes(""),
		RunE: a.with(func(ctx context.Context, c *api, _ []string) error {
			if len(at.set) == 0 {
				return usage("nothing to set: give --iqn, --nqn, --alias, --chap-algorithm or --nvme-referral")
			}
			res, err := call(ctx, c.target.UpdateTarget, &lintelv1.UpdateTargetRequest{Spec: spec, UpdateMask: at.mask(), DryRun: ch.dry})
			if err != nil {
				return err
			}
			return a.report(ch.dry, res, "set %s of the target", joinWords(at.set))
		}),
	}
	at.flag(cmd, "iqn", "iqn", "iSCSI target name")
	at.flag(cmd, "nqn", "subsystem_nqn", "NQN of the NVM subsystem")
	at.flag(cmd, "alias", "alias", "text shown to initiators")
	at.flag(cmd, "chap-algorithm", "chap_algorithms", "digest offered for CHAP, strongest first; repeatable")
	at.flag(cmd, "nvme-referral", "nvme_referrals", "`ADDRESS[:PORT]` of another NVMe discovery service, port 8009 by default; repeatable, '' for none")
	ch.dryFlag(cmd)
	return cmd
}

func (a *app) targetSetState() *cobra.Command {
	var ch change
	var group uint32
	enum := lintelv1.AccessState(0).Descriptor()
	states := enumWords(enum)
	cmd := &cobra.Command{
		Use:   "set-state POOL STATE",
		Short: "Set the asymmetric access state (ALUA, ANA) of a pool",
		Long: `Sets the asymmetric access state of a pool's volumes; hosts are told at once. The
states are ` + joinWords(states) + `.
In standby, unavailable and offline hosts cannot read or write. Portals that were added
with --port-group have a state of their own.`,
		Example: "  lintel target set-state default non-optimized\n  lintel target set-state default standby --port-group 2 --yes",
		Args:    takes("POOL STATE"),
		RunE: a.with(func(ctx context.Context, c *api, args []string) error {
			number, ok := enumNumber(enum, args[1])
			if !ok {
				return usage("%q is not an access state: it is one of %s", args[1], joinWords(states))
			}
			state := lintelv1.AccessState(number)
			if state != lintelv1.AccessState_ACCESS_STATE_OPTIMIZED && state != lintelv1.AccessState_ACCESS_STATE_NON_OPTIMIZED {
				if err := a.confirm(ch, "Hosts cannot read or write the volumes of pool %s through these ports while it is %s", args[0], args[1]); err != nil {
					return err
				}
			}
			res, err := call(ctx, c.target.SetAccessState, &lintelv1.SetAccessStateRequest{Pool: args[0], PortGroup: group, State: state, DryRun: ch.dry})
			if err != nil {
				return err
			}
			return a.report(ch.dry, res, "pool %s is now %s", args[0], args[1])
		}),
	}
	cmd.Flags().Uint32Var(&group, "port-group", 0, "target port group `NUMBER` (default: the only one)")
	ch.flags(cmd)
	a.completeArgs(cmd, false, poolNames, words(states...))
	return cmd
}

func (a *app) portalCommand() *cobra.Command {
	return noun("portal", "Portals: addresses that initiators connect to",
		"A portal is an address and port that the array listens on for one protocol.",
		"  lintel portal list\n  lintel portal add 192.0.2.10\n  lintel portal add 192.0.2.10 --protocol nvme-tcp",
		a.portalAdd(), a.portalList(), a.portalRemove())
}

// portalName is a portal as an argument of lintel portal.
func portalName(p *lintelv1.Portal) string {
	return net.JoinHostPort(p.GetSpec().GetAddress(), strconv.Itoa(int(p.GetSpec().GetPort())))
}

// protocols are the protocols of portals, with their TCP ports.
var protocols = map[lintelv1.Protocol]array.Protocol{
	lintelv1.Protocol_PROTOCOL_UNSPECIFIED:    array.ISCSI,
	lintelv1.Protocol_PROTOCOL_ISCSI:          array.ISCSI,
	lintelv1.Protocol_PROTOCOL_NVME_TCP:       array.NVMeTCP,
	lintelv1.Protocol_PROTOCOL_NVME_DISCOVERY: array.NVMeDiscovery,
}

// parsePortal reads a portal's address; the protocol tells the port where none is given.
func parsePortal(text string, p lintelv1.Protocol) (netip.AddrPort, error) {
	portal, err := serve.ParsePortal(text, protocols[p].DefaultPort())
	if err != nil {
		return portal, usage("%w", err)
	}
	return portal, nil
}

func (a *app) portalAdd() *cobra.Command {
	var ch change
	spec := &lintelv1.PortalSpec{}
	at := attributesOf(spec)
	cmd := &cobra.Command{
		Use:   "add ADDRESS[:PORT]",
		Short: "Listen on one more address",
		Long: `Listens on one more address, now and after a restart. The port is 3260 for iSCSI,
4420 for NVMe/TCP and 8009 for NVMe discovery unless it is given. With --tls required
an NVMe portal takes only hosts that use TLS with their key, see lintel host tls-key.
Without it, and with iSCSI, nothing is encrypted: use a network of its own, or IPsec,
for anything but this machine.`,
		Example: `  lintel portal add 192.0.2.10
  lintel portal add 192.0.2.10:3261 --tag 1
  lintel portal add [2001:db8::10]:3260
  lintel portal add 198.51.100.10 --port-group 2
  lintel portal add 192.0.2.10 --protocol nvme-tcp
  lintel portal add 192.0.2.10:4421 --protocol nvme-tcp --tls required`,
		Args: takes("ADDRESS[:PORT]"),
		RunE: a.with(func(ctx context.Context, c *api, args []string) error {
			portal, err := parsePortal(args[0], spec.GetProtocol())
			if err != nil {
				return err
			}
			spec.Address, spec.Port = portal.Addr().String(), uint32(portal.Port())
			res, err := call(ctx, c.target.AddPortal, &lintelv1.AddPortalRequest{DryRun: ch.dry, Spec: spec})
			if err != nil {
				return err
			}
			return a.report(ch.dry, res, "added portal %s with tag %d", portalName(res.GetPortal()), res.GetPortal().GetSpec().GetTag())
		}),
	}
	at.flag(cmd, "protocol", "protocol", "what the portal speaks (default: iscsi)")
	at.flag(cmd, "port-group", "port_group", "target port group, 1 to 65535, for an access state of its own (default: that of the tag, or the head's own); a new number makes one")
	at.flag(cmd, "tag", "tag", "target portal group tag, or port id, 1 to 65535; iSCSI portals that share one can serve one session together (default: a new one)")
	at.flag(cmd, "tls", "tls", "whether an NVMe portal takes TLS and nothing else, or none (default: off)")
	ch.dryFlag(cmd)
	return cmd
}

func (a *app) portalList() *cobra.Command {
	var w watch
	cmd := &cobra.Command{
		Use:     "list",
		Aliases: []string{"ls"},
		Short:   "List the portals",
		Example: "  lintel portal list",
		Args:    takes(""),
		RunE: a.with(func(ctx context.Context, c *api, _ []string) error {
			return w.run(ctx, a, func() error {
				res, err := call(ctx, c.target.GetTarget, &lintelv1.GetTargetRequest{})
				if err != nil {
					return err
				}
				return printList(a, portalColumns, res.GetTarget().GetPortals())
			})
		}),
	}
	w.flags(cmd)
	return cmd
}

var portalColumns = []column[*lintelv1.Portal]{
	{head: "PORTAL", text: portalName},
	{head: "PROTOCOL", text: func(p *lintelv1.Portal) string { return word(p.GetSpec().GetProtocol()) }},
	{head: "TLS", text: func(p *lintelv1.Portal) string { return word(p.GetSpec().GetTls()) }},
	{head: "TAG", right: true, text: func(p *lintelv1.Portal) string { return fmt.Sprint(p.GetSpec().GetTag()) }},
	{head: "GROUP", right: true, text: func(p *lintelv1.Portal) string { return fmt.Sprint(p.GetSpec().GetPortGroup()) }},
	{head: "STATE", text: func(p *lintelv1.Portal) string { return word(p.GetState()) }, style: func(p *lintelv1.Portal) style {
		return goodIf(p.GetState() == lintelv1.PortalState_PORTAL_STATE_LISTENING)
	}},
	{head: "SESSIONS", right: true, text: func(p *lintelv1.Portal) string { return known(p.Sessions, countText[uint32]) }},
	{head: "REASON", text: (*lintelv1.Portal).GetReason},
}

func (a *app) portalRemove() *cobra.Command {
	var ch change
	spec := &lintelv1.PortalSpec{}
	at := attributesOf(spec)
	cmd := &cobra.Command{
		Use:     "remove ADDRESS[:PORT]",
		Short:   "Stop listening on an address",
		Long:    "Stops listening on an address, now and after a restart. Sessions through it are logged out.",
		Example: "  lintel portal remove 192.0.2.10\n  lintel portal remove 192.0.2.10:4420",
		Args:    takes("ADDRESS[:PORT]"),
		RunE: a.with(func(ctx context.Context, c *api, args []string) error {
			portal, err := parsePortal(args[0], spec.GetProtocol())
			if err != nil {
				return err
			}
			got, err := call(ctx, c.target.GetTarget, &lintelv1.GetTargetRequest{})
			if err != nil {
				return err
			}
			etag := ""
			for _, p := range got.GetTarget().GetPortals() {
				if portalName(p) != portal.String() {
					continue
				}
				etag = p.GetEtag()
				if n := int(p.GetSessions()); n > 0 {
					if err := a.confirm(ch, "This logs out %s through portal %s", plural(n, "session"), portal); err != nil {
						return err
					}
				}
			}
			res, err := call(ctx, c.target.RemovePortal, &lintelv1.RemovePortalRequest{
				Address: portal.Addr().String(), Port: uint32(portal.Port()), Etag: etag, DryRun: ch.dry,
			})
			if err != nil {
				return err
			}
			return a.report(ch.dry, res, "removed portal %s", portal)
		}),
	}
	at.flag(cmd, "protocol", "protocol", "what the portal speaks, which tells its port where none is given (default: iscsi)")
	ch.flags(cmd)
	a.completeArgs(cmd, false, portalNames)
	return cmd
}
