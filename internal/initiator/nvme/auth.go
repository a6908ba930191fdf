package nvme

import (
	"context"
	"fmt"

	"lintel.io/lintel/internal/nvme/dhchap"
	wire "lintel.io/lintel/internal/wire/nvme"
)

// Auth holds the keys of DH-HMAC-CHAP (NVMe Base 2.0 §8.13.5). They are used where the target
// demands authentication, or where there is a ControllerKey.
type Auth struct {
	HostKey dhchap.Secret
	// ControllerKey, where there is one, is what the target has to prove to know.
	ControllerKey dhchap.Secret
	// Hashes and Groups are offered in order of preference, all where empty.
	Hashes []dhchap.Hash
	Groups []dhchap.Group
}

const (
	secureProtocol = 0xE9 // SECP of the authentication messages (NVMe Base 2.0 §6.1)
	protocolFlags  = 0x01 // SPSP0 and SPSP1
	authSize       = 4096 // bytes, more than the longest message
	authRounds     = 8    // messages that an exchange has at most
)

// authenticate proves the host to the target and, where asked for, the target to the host.
func (q *Queue) authenticate(ctx context.Context) error {
	o := &q.ctrl.opts
	if o.Auth == nil {
		return fmt.Errorf("%w: the target demands it and there is no key", ErrAuthentication)
	}
	h := dhchap.NewHost(dhchap.HostConfig{
		HostNQN: o.HostNQN, SubNQN: o.Subsystem, HostKey: o.Auth.HostKey, ControllerKey: o.Auth.ControllerKey,
		Transaction: q.id + 1, Hashes: o.Auth.Hashes, Groups: o.Auth.Groups,
	})
	if err := q.sendAuth(ctx, h.Start()); err != nil {
		return err
	}
	for range authRounds {
		cmd := authCommand(wire.AuthenticationReceive, authSize)
		cmd.In = make([]byte, authSize)
		if err := q.run(ctx, cmd); err != nil {
			return fmt.Errorf("authentication receive: %w", err)
		}
		message, err := h.Receive(cmd.In)
		if message != nil {
			if sendErr := q.sendAuth(ctx, message); sendErr != nil && err == nil {
				err = sendErr
			}
		}
		if err != nil {
			return fmt.Errorf("%w: %w", ErrAuthentication, err)
		}
		if h.Done() {
			return nil
		}
	}
	return protocolError("the authentication does not end")
}

func (q *Queue) sendAuth(ctx context.Context, message []byte) error {
	cmd := authCommand(wire.AuthenticationSend, len(message))
	cmd.Out = message
	if err := q.run(ctx, cmd); err != nil {
		return fmt.Errorf("authentication send: %w", err)
	}
	return nil
}

func authCommand(kind uint8, n int) *Command {
	cmd := &Command{}
	e := cmd.SQE()
	e.SetOpcode(wire.FabricsCommand)
	e.SetFabricsType(kind)
	e[41], e[42], e[43] = protocolFlags, protocolFlags, secureProtocol
	e.SetCDW(11, uint32(n))
	return cmd
}
