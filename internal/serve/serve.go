// Package serve runs a whole single-head array in one process: it puts the
// agent, its pools and the target together on one data directory.
package serve

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
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
	log := config.logger(logTo)
	lock, err := LockDir(config.DataDir)
	if err != nil {
		return err
	}
	var undo stack
	defer func() { err = errors.Join(err, undo.run()) }()
	undo.add(lock.Release)

	manager, err := agent.Open(agent.Options{DataDir: config.DataDir, Version: Version(), Logger: log})
	if err != nil {
		return fmt.Errorf("open the array in %s: %w", config.DataDir, err)
	}
	undo.add(manager.Close)
	data, err := newDataPlane(config.DataDir, log)
	if err != nil {
		return err
	}
	undo.add(data.close)
	if err := manager.Start(ctx, data); err != nil {
		return err
	}

	handler := manager.Handler()
	self := newAPI(handler)
	if manager.State().Document.Next.Portal == 1 {
		config.forNewArray()
	}
	if err := addPortals(ctx, self, config.Portals, lintelv1.Protocol_PROTOCOL_ISCSI); err != nil {
		return err
	}
	if err := addPortals(ctx, self, config.NVMePortals, lintelv1.Protocol_PROTOCOL_NVME_TCP); err != nil {
		return err
	}
	if config.Demo {
		if err := demo(ctx, self); err != nil {
			return err
		}
	}

	web := newServers(log)
	undo.add(func() error {
		ctx, cancel := context.WithTimeout(context.Background(), shutdownTime)
		defer cancel()
		web.close(ctx)
		return nil
	})
	r := running{version: Version(), dataDir: config.DataDir, demo: config.Demo}
	socket, err := listenUnix(SocketPath(config.DataDir))
	if err != nil {
		return err
	}
	web.serve(socket, handler)
	r.api = append(r.api, "unix:"+SocketPath(config.DataDir))
	if config.APIListen != "" {
		listener, err := net.Listen("tcp", config.APIListen)
		if err != nil {
			return fmt.Errorf("the API cannot listen: %w", err)
		}
		web.serve(listener, handler)
		r.api = append(r.api, "http://"+listener.Addr().String())
	}
	if config.MetricsListen != "" {
		metrics, err := metricsHandler(manager.Collector())
		if err != nil {
			return err
		}
		listener, err := net.Listen("tcp", config.MetricsListen)
		if err != nil {
			return fmt.Errorf("the metrics cannot listen: %w", err)
		}
		web.serve(listener, metrics)
		r.metrics = listener.Addr().String()
	}
	if err := r.look(ctx, self); err != nil {
		return err
	}
	r.print(out)
	if err := notify(config.NotifySocket, "READY=1\nSTATUS=serving "+r.iqn); err != nil {
		log.Warn("the service manager was not told", "error", err)
	}

	select {
	case <-ctx.Done():
		log.Info("stopping", "reason", "signal")
	case err = <-web.failed:
	}
	if err := notify(config.NotifySocket, "STOPPING=1"); err != nil {
		log.Warn("the service manager was not told", "error", err)
	}
	return err
}

// stack runs what was added in reverse order.
type stack []func() error

func (s *stack) add(f func() error) { *s = append(*s, f) }

func (s *stack) run() error {
	var errs []error
	for i := len(*s) - 1; i >= 0; i-- {
		errs = append(errs, (*s)[i]())
	}
	return errors.Join(errs...)
}

func (c *Config) logger(w io.Writer) *slog.Logger {
	level, err := c.level()
	if err != nil {
		level = slog.LevelInfo
	}
	options := &slog.HandlerOptions{Level: level}
	if c.LogFormat == "json" {
		return slog.New(slog.NewJSONHandler(w, options))
	}
	return slog.New(slog.NewTextHandler(w, options))
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

// addPortals makes the portals that the array does not have yet.
func addPortals(ctx context.Context, a *api, portals []string, protocol lintelv1.Protocol) error {
	for _, text := range portals {
		portal, err := netip.ParseAddrPort(text)
		if err != nil {
			return err
		}
		_, err = a.target.AddPortal(ctx, connect.NewRequest(&lintelv1.AddPortalRequest{
			Spec: &lintelv1.PortalSpec{Address: portal.Addr().String(), Port: uint32(portal.Port()), Protocol: protocol},
		}))
		if err := unlessExists(err); err != nil {
			return fmt.Errorf("%w: stop what listens there, or name another address with %s", err, portalFlags[protocol])
		}
	}
	return nil
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
