// Package nvmetest serves an NVM subsystem over NVMe/TCP on loopback, for tests
// and measurements of hosts.
package nvmetest

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"

	"lintel.io/lintel/internal/block"
	"lintel.io/lintel/internal/nvme"
	"lintel.io/lintel/internal/nvmetcp"
	"lintel.io/lintel/internal/unit"
)

// NQN is the name of the subsystem.
const NQN = "nqn.2026-11.io.lintel:nvmetest"

// Server is a running subsystem. Its namespaces are numbered from 1 in the
// order of the devices.
type Server struct {
	Subsystem *nvme.Subsystem
	Transport *nvmetcp.Server
	Units     []*unit.Unit
	Group     *unit.Group

	address netip.AddrPort
	devices []block.Device
	grant   nvme.Grant
	serving sync.WaitGroup
}

// Start serves devices with blocks of 512 bytes to every host that the grant's keys let in.
func Start(grant nvme.Grant, devices ...block.Device) (*Server, error) {
	s := &Server{Group: unit.NewGroup(1, "test"), devices: devices, grant: grant}
	for i, d := range devices {
		id := unit.ID(fmt.Sprintf("test-%d", i+1))
		u, err := unit.New(unit.Config{ID: id, Device: d, Group: s.Group, Attributes: unit.Attributes{
			NAA: unit.GenerateNAA(unit.DefaultPrefix, id, nil), NGUID: unit.GenerateEUI64(unit.DefaultPrefix, id), UUID: unit.GenerateEUI64(unit.DefaultPrefix, "uuid of "+id),
			Serial: string(id), Vendor: "LINTEL", Product: "VIRTUAL-DISK", BlockSize: 512, Thin: true,
		}})
		if err != nil {
			return nil, err
		}
		s.Units = append(s.Units, u)
	}
	var err error
	s.Subsystem, err = nvme.NewSubsystem(nvme.Config{
		NQN: NQN, Serial: "TEST", Model: "VIRTUAL-DISK", Firmware: "1", PortGroup: 1, Access: (*access)(s),
	})
	if err != nil {
		return nil, err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	s.address = netip.MustParseAddrPort(l.Addr().String())
	s.Transport = nvmetcp.NewServer(nvmetcp.Config{
		NewQueue: func(c nvme.QueueConfig) nvmetcp.Queue { return s.Subsystem.NewQueue(c) },
	})
	s.serving.Go(func() { _ = s.Transport.Serve(l, 1) }) // it ends with ErrClosed
	return s, nil
}

// Address returns where the server listens, host:port.
func (s *Server) Address() string { return s.address.String() }

// URL names a namespace as bench.Config.URL does.
func (s *Server) URL(nsid int) string { return fmt.Sprintf("nvme://%s/%s/%d", s.address, NQN, nsid) }

// Close ends all connections and closes the devices.
func (s *Server) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	err := s.Transport.Shutdown(ctx)
	s.serving.Wait()
	for _, d := range s.devices {
		if closeErr := d.Close(); err == nil {
			err = closeErr
		}
	}
	return err
}

// access lets every host in that has the keys, and shows it everything.
type access Server

var _ nvme.Access = (*access)(nil)

func (a *access) Authorize(nvme.ConnectRequest) (nvme.Grant, error) { return a.grant, nil }

func (a *access) Open(*nvme.Controller) (nvme.Namespaces, error) {
	all := nvme.Namespaces{}
	for i, u := range a.Units {
		all[uint32(i+1)] = nvme.Namespace{Unit: u}
	}
	return all, nil
}

func (a *access) Closed(*nvme.Controller) {}

func (a *access) Discovery(nvme.Peer) nvme.Discovery {
	return nvme.Discovery{NQN: NQN, Ports: []nvme.Port{{ID: 1, Address: a.address}}}
}
