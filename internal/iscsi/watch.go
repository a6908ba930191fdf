package iscsi

import (
	"time"

	wire "lintel.io/lintel/internal/wire/iscsi"
)

// janitor looks after silent and stuck connections once a second.
func (s *Server) janitor() {
	t := time.NewTicker(time.Second)
	defer t.Stop()
	for {
		select {
		case <-t.C:
		case <-s.stop:
			return
		}
		s.tick.Add(1)
		for _, sess := range s.all() {
			sess.watch()
			for _, c := range sess.connections() {
				c.watch()
			}
		}
	}
}

func seconds(d time.Duration) int64 { return int64((d + time.Second - 1) / time.Second) }

// watch ends a session in which requests wait for too long for those before them: all of them hold memory.
func (s *session) watch() {
	if s.postponed.Load() == 0 {
		return
	}
	last := s.server.tick.Load() - seconds(s.server.cfg.DataTimeout)
	late := false
	s.mu.Lock()
	for _, r := range s.queue {
		late = late || r.since <= last && (r.task != nil || r.run != nil)
	}
	s.mu.Unlock()
	if late {
		s.end(errGap)
	}
}

// watchState is what the janitor saw last time.
type watchState struct {
	batches uint64
	heard   int64 // the tick at which something came
	writes  uint64
	wrote   int64 // the tick at which something went, or there was nothing to send
}

// watch pings a silent peer, and drops one that does not answer, does not read or does not send
// the data it announced.
func (c *conn) watch() {
	cfg := &c.server.cfg
	now := c.server.tick.Load()
	batches := c.batches.Load()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.dead {
		return
	}
	w := &c.watched
	if batches != w.batches || w.heard == 0 {
		w.batches, w.heard = batches, now
		c.ping.open = false
	}
	if c.writes != w.writes || c.out.Empty() && !c.flushing || w.wrote == 0 {
		w.writes, w.wrote = c.writes, now
	}
	switch {
	case now-w.wrote >= seconds(cfg.PingTimeout):
		c.killLocked(errStuck)
		return
	case c.ping.open && now-w.heard >= seconds(cfg.PingInterval)+seconds(cfg.PingTimeout):
		c.killLocked(errPing)
		return
	case !c.ping.open && now-w.heard >= seconds(cfg.PingInterval):
		if c.nexus == nil {
			c.killLocked(errPing) // a discovery session has no pings
			return
		}
		c.sendPingLocked()
	}
	for t := c.gathering; t != nil; t = t.gatherNext {
		if t.turn && !t.waiting && now-t.asked >= seconds(cfg.DataTimeout) {
			c.killLocked(errNoData)
			return
		}
	}
}

// status describes the session.
func (s *session) status() SessionStatus {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := SessionStatus{
		ID: s.id, Initiator: s.key.initiator, Alias: s.alias, Target: s.key.target, Discovery: s.discovery,
		ISID: s.key.isid, TSIH: s.tsih, User: s.user, Since: s.since, Negotiated: s.params, Counters: s.counted,
	}
	depth := uint32(s.server.cfg.QueueDepth)
	st.InFlight = max(int(int32(s.expCmdSN.Load()+depth-1-s.maxCmdSN.Load())), 0)
	for _, c := range s.list() {
		c.mu.Lock()
		st.InFlight += c.immediates
		st.Connections = append(st.Connections, ConnectionStatus{
			CID: c.cid, Remote: c.peer.Remote, Local: c.peer.Local, Since: c.since,
			HeaderDigest: c.params.headerDigest, DataDigest: c.params.dataDigest,
			MaxSendDataSegment: c.params.maxSend, MaxRecvDataSegment: c.params.maxRecv, Counters: c.counters,
		})
		st.Counters.add(c.counters)
		c.mu.Unlock()
	}
	return st
}

// async sends an asynchronous message on the connection (RFC 7143 §11.9).
func (c *conn) async(f *wire.Async, sense []byte) bool {
	var data []byte
	if len(sense) > 0 {
		data = append([]byte{byte(len(sense) >> 8), byte(len(sense))}, sense...)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.dead {
		return false
	}
	f.Numbers = c.numbersLocked(true)
	c.putLocked(f, data)
	c.wakeLocked()
	return true
}

// dismissTime is how long a message about the end of a session may take to go out.
const dismissTime = 2 * time.Second

// dismiss tells the initiator that the session is dropped, and drops it.
func (s *session) dismiss(cause error) {
	s.mu.Lock()
	s.ending = true
	wait, retain := s.params.Time2Wait, s.params.Time2Retain
	conns := s.list()
	s.mu.Unlock()
	for _, c := range conns {
		c.async(&wire.Async{Event: wire.AsyncDropSession, Parameter2: uint16(wait), Parameter3: uint16(retain)}, nil)
		c.mu.Lock()
		c.closeAfterFlush = true
		c.full.Store(true)
		if !c.dead && !c.flushing && !c.busy && c.out.Empty() {
			c.killLocked(cause)
		} else {
			c.wakeLocked()
		}
		c.mu.Unlock()
	}
	time.AfterFunc(dismissTime, func() { s.end(cause) })
}
