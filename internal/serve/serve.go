// Package serve runs a whole single-head array in one process: it puts the
// agent, its pools and the target together on one data directory.
package serve

import (
	"context"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"time"

	"connectrpc.com/connect"

	lintelv1 "lintel.io/lintel/api/lintel/v1"
	"lintel.io/lintel/internal/agent"
)

// shutdownTime is how long initiators and management calls may take to end
// when the array is asked to stop.
const shutdownTime = 10 * time.Second

// Run serves the array in the data directory, or makes one there, until ctx is
// done, and then ends it in good order. It prints to out where it listens, and
// logs to logTo. config has been validated.
func Run(ctx context.Context, config Config, out, logTo io.Writer) (err error) {
	r, err := begin(config.Common, logTo, ManagerRole, TargetRole)
	if err != nil {
		return err
	}
	defer r.end(&err)
	manager, err := agent.Open(agent.Options{DataDir: config.DataDir, Version: Version(), Logger: r.log})
	if err != nil {
		return fmt.Errorf("open the array in %s: %w", config.DataDir, err)
	}
	r.undo.add(manager.Close)
	data, err := newDataPlane(config.DataDir, r.log)
	if err != nil {
		return err
	}
	r.undo.add(data.close)
	// What a pool keeps for the data plane may be damaged where its documents are whole: nothing
	// is served then, for the volumes would be missing without a word to their hosts.
	if err := data.openPools(manager.State()); err != nil {
		return fmt.Errorf("open the array in %s: %w", config.DataDir, err)
	}
	if err := manager.Start(ctx, data); err != nil {
		return err
	}

	handler := manager.Handler()
	self := newAPI(handler)
	if manager.State().Document.Next.Portal == 1 {
		config.forNewArray()
	}
	if err := addPortals(ctx, self, config); err != nil {
		return err
	}
	if config.Demo {
		if err := demo(ctx, self); err != nil {
			return err
		}
	}

	at, err := r.manage(config.Listen, manager, handler)
	if err != nil {
		return err
	}
	now := running{version: Version(), dataDir: config.DataDir, endpoints: at, demo: config.Demo}
	if err := now.look(ctx, self); err != nil {
		return err
	}
	now.print(out)
	return r.run(ctx, "serving "+now.iqn)
}

// forNewArray names the portals of an array that never had one, where nobody did.
func (c *Config) forNewArray() {
	if len(c.Portals)+len(c.NVMePortals) > 0 {
		return
	}
	c.Portals = []string{DefaultPortal}
	if c.Demo {
		c.NVMePortals = []string{DemoNVMePortal}
	}
}

// portalFlags are the flags that name portals.
var portalFlags = map[lintelv1.Protocol]string{
	lintelv1.Protocol_PROTOCOL_ISCSI:    "--portal",
	lintelv1.Protocol_PROTOCOL_NVME_TCP: "--nvme-portal",
}

// addPortals makes the portals that the array does not have yet: all of them, or none where one
// cannot be made.
func addPortals(ctx context.Context, a *api, config Config) error {
	got, err := a.target.GetTarget(ctx, connect.NewRequest(&lintelv1.GetTargetRequest{}))
	if err != nil {
		return err
	}
	var missing []*lintelv1.PortalSpec
	for _, list := range []struct {
		portals  []string
		protocol lintelv1.Protocol
	}{{config.Portals, lintelv1.Protocol_PROTOCOL_ISCSI}, {config.NVMePortals, lintelv1.Protocol_PROTOCOL_NVME_TCP}} {
		for _, text := range list.portals {
			portal, err := netip.ParseAddrPort(text)
			if err != nil {
				return err
			}
			spec := &lintelv1.PortalSpec{Address: portal.Addr().String(), Port: uint32(portal.Port()), Protocol: list.protocol}
			if !slices.ContainsFunc(got.Msg.GetTarget().GetPortals(), func(p *lintelv1.Portal) bool { return samePortal(p.GetSpec(), spec) }) {
				missing = append(missing, spec)
			}
		}
	}
	for _, dry := range []bool{true, false} {
		for _, spec := range missing {
			if _, err := a.target.AddPortal(ctx, connect.NewRequest(&lintelv1.AddPortalRequest{Spec: spec, DryRun: dry})); err != nil {
				return fmt.Errorf("%w: stop what listens there, or name another address with %s", err, portalFlags[spec.GetProtocol()])
			}
		}
	}
	return nil
}

func samePortal(p, q *lintelv1.PortalSpec) bool {
	return p.GetAddress() == q.GetAddress() && p.GetPort() == q.GetPort() && p.GetProtocol() == q.GetProtocol()
}

// look fills in what the array says about itself.
func (r *running) look(ctx context.Context, a *api) error {
	info, err := a.system.GetInfo(ctx, connect.NewRequest(&lintelv1.GetInfoRequest{}))
	if err != nil {
		return err
	}
	got, err := a.target.GetTarget(ctx, connect.NewRequest(&lintelv1.GetTargetRequest{}))
	if err != nil {
		return err
	}
	spec := got.Msg.GetTarget().GetSpec()
	r.name, r.iqn, r.nqn = info.Msg.GetArray(), spec.GetIqn(), spec.GetSubsystemNqn()
	for _, p := range got.Msg.GetTarget().GetPortals() {
		list := &r.iscsi
		switch p.GetSpec().GetProtocol() {
		case lintelv1.Protocol_PROTOCOL_NVME_TCP:
			list = &r.nvme
		case lintelv1.Protocol_PROTOCOL_NVME_DISCOVERY:
			list = &r.discovery
		}
		if p.GetState() == lintelv1.PortalState_PORTAL_STATE_LISTENING {
			list.listening = append(list.listening, p.GetListening())
		} else {
			list.broken = append(list.broken, fmt.Sprintf("%s (not listening: %s)", portalAddress(p), p.GetReason()))
		}
	}
	return nil
}
