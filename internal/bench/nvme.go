package bench

import (
	"context"
	"fmt"

	"lintel.io/lintel/internal/initiator/nvme"
	"lintel.io/lintel/internal/nvme/dhchap"
	"lintel.io/lintel/internal/nvme/tlskey"
	wire "lintel.io/lintel/internal/wire/nvme"
)

// nvmeInitiator drives NVMe/TCP targets. A session is an association, its
// connections are the I/O queues.
type nvmeInitiator struct {
	options      nvme.Options
	address      string
	nsid         uint32
	blockSize    int // of the transfers
	associations []*nvme.Controller
}

func newNVMe(c *Config, u *URL) (*nvmeInitiator, error) {
	i := &nvmeInitiator{
		options: nvme.Options{
			Subsystem: u.Target, HostNQN: c.Initiator, IOQueues: c.SessionConnections, Depth: min(c.QueueDepth+1, nvme.MaxDepth),
			HeaderDigest: u.HeaderDigest, DataDigest: u.DataDigest,
		},
		address: u.Address, nsid: u.NSID, blockSize: c.BlockSize,
	}
	if u.TLSKey != "" {
		key, err := tlskey.Parse(u.TLSKey)
		if err != nil {
			return nil, err
		}
		i.options.TLS = &key
	}
	if u.Password == "" && u.MutualPassword == "" {
		return i, nil
	}
	i.options.Auth = &nvme.Auth{}
	for _, k := range []struct {
		text string
		key  *dhchap.Secret
	}{{u.Password, &i.options.Auth.HostKey}, {u.MutualPassword, &i.options.Auth.ControllerKey}} {
		if k.text == "" {
			continue
		}
		var err error
		if *k.key, err = dhchap.ParseSecret(k.text); err != nil {
			return nil, err
		}
	}
	return i, nil
}

func (i *nvmeInitiator) login(ctx context.Context) ([]connection, error) {
	if len(i.associations) > 0 {
		i.options.HostID = i.associations[0].HostID() // one host has one
	}
	c, err := nvme.Dial(ctx, i.address, i.options)
	if err != nil {
		return nil, err
	}
	i.associations = append(i.associations, c)
	var all []connection
	for _, q := range c.Queues() {
		all = append(all, &nvmeConnection{initiator: i, queue: q})
	}
	return all, nil
}

func (i *nvmeInitiator) capacity(ctx context.Context) (blocks uint64, blockSize int, err error) {
	c := i.associations[0]
	n, err := c.IdentifyNamespace(ctx, i.nsid)
	if err != nil {
		return 0, 0, err
	}
	if n.Blocks == 0 {
		return 0, 0, fmt.Errorf("the subsystem has no namespace %d for this host", i.nsid)
	}
	if limit := c.Identity().MaxTransfer; limit > 0 && i.blockSize > limit {
		return 0, 0, fmt.Errorf("the controller takes at most %d bytes in a command: choose a smaller block size", limit)
	}
	return n.Blocks, n.BlockSize, nil
}

func (i *nvmeInitiator) close(ctx context.Context) {
	for _, c := range i.associations {
		_ = c.Shutdown(ctx) // the association has ended either way
	}
	i.associations = nil
}

type nvmeConnection struct {
	initiator *nvmeInitiator
	queue     *nvme.Queue
}

func (c *nvmeConnection) begin(f func()) error {
	first := &nvme.Command{Done: func(*nvme.Command) { f() }}
	first.SetIO(wire.Verify, c.initiator.nsid, 0, 1, 0) // whether it is known does not matter
	return c.queue.Submit(first)
}

func (c *nvmeConnection) newTransfer(done func()) transfer {
	t := &nvmeTransfer{queue: c.queue, nsid: c.initiator.nsid}
	t.cmd.Done = func(*nvme.Command) { done() }
	return t
}

type nvmeTransfer struct {
	queue *nvme.Queue
	nsid  uint32
	cmd   nvme.Command
}

func (t *nvmeTransfer) submit(write bool, lba, count uint64, buf []byte, size int) error {
	op := wire.Read
	t.cmd.In, t.cmd.Out, t.cmd.Discard = nil, nil, 0
	switch {
	case write:
		op = wire.Write
		t.cmd.Out = buf
	case buf != nil:
		t.cmd.In = buf
	default:
		t.cmd.Discard = size
	}
	t.cmd.SetIO(op, t.nsid, lba, uint32(count), 0)
	return t.again()
}

func (t *nvmeTransfer) again() error   { return t.queue.Submit(&t.cmd) }
func (t *nvmeTransfer) good() bool     { return t.cmd.Good() }
func (t *nvmeTransfer) failure() error { return t.cmd.Failure() }
func (t *nvmeTransfer) received() int  { return t.cmd.Received }

func (t *nvmeTransfer) passing() bool {
	if t.cmd.Err != nil || t.cmd.Status&wire.DoNotRetry != 0 {
		return false
	}
	switch t.cmd.Status.Code() {
	case wire.NamespaceNotReady, wire.PathTransition, wire.TransientTransport:
		return true
	}
	return false
}
