package nvmetcp

import (
	"errors"
	"io"
	"net"

	wire "lintel.io/lintel/internal/wire/nvmetcp"
)

// initialize answers the Initialize Connection Request of a new connection
// (NVMe/TCP 1.0 §3.1, §3.6.2.2, §3.6.2.3). A *fault has been told to the host.
func (c *conn) initialize(nc net.Conn) error {
	cfg := &c.server.cfg
	p, err := readICReq(nc)
	if err != nil {
		if f := (*fault)(nil); errors.As(err, &f) {
			farewell(nc, func(nc net.Conn) error { _, err := nc.Write(f.message()); return err }, cfg.TermTimeout)
		}
		return err
	}
	header, data := p.Digests()
	header, data = header && !cfg.RefuseDigests, data && !cfg.RefuseDigests
	c.recv = wire.Receiver{HeaderDigest: header, DataDigest: data, Align: wire.AlignBytes(cfg.Align)}
	c.send = wire.Sender{HeaderDigest: header, DataDigest: data, Align: wire.AlignBytes(p.Align())}
	c.r2ts = int(min(p.MaxR2T(), uint64(cfg.MaxR2T)))
	resp := make(wire.PDU, wire.ICSize)
	(&wire.ICResp{
		Version: wire.FormatVersion, Align: cfg.Align, HeaderDigest: header, DataDigest: data, MaxH2CData: uint32(cfg.MaxH2CData),
	}).Put(resp)
	_, err = nc.Write(resp)
	return err
}

// readICReq reads the first PDU of a connection, which has to be an ICReq.
func readICReq(nc net.Conn) (wire.PDU, error) {
	p := make(wire.PDU, wire.ICSize)
	if _, err := io.ReadFull(nc, p[:wire.CommonSize]); err != nil {
		return nil, err
	}
	head := p[:wire.CommonSize]
	switch t := p.Type(); {
	case t != wire.TypeICReq && t&1 == 0 && t.HeaderSize() != 0:
		return nil, newFault(wire.Fault{Status: wire.StatusSequence}, head)
	case t != wire.TypeICReq:
		return nil, newFault(wire.Invalid(wire.OffType), head)
	case p.HeaderLength() != wire.ICSize:
		return nil, newFault(wire.Invalid(wire.OffHLEN), head)
	case p.Length() != wire.ICSize:
		return nil, newFault(wire.Invalid(wire.OffPLEN), head)
	}
	if _, err := io.ReadFull(nc, p[wire.CommonSize:]); err != nil {
		return nil, err
	}
	switch {
	case p.Version() != wire.FormatVersion:
		return nil, newFault(wire.Fault{Status: wire.StatusUnsupported, Info: wire.OffPFV}, p)
	case p[wire.OffPDA] > wire.MaxAlign:
		return nil, newFault(wire.Invalid(wire.OffPDA), p)
	}
	return p, nil
}
