package tlspsk

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// Conn is a connection after its handshake. One goroutine may read while others
// write; what one Write or WriteBuffers sends stays together. Close may be called at any time.
//
// The other methods are those of the connection below. Deadlines are its
// deadlines: after one has passed within a record, the connection is of no more use.
type Conn struct {
	net.Conn
	identity string
	isServer bool
	suite    Suite

	answer  atomic.Bool // the peer waits for an update of our key
	done    atomic.Bool // the handshake is over
	limit   uint64      // records with one key, for tests
	updates atomic.Uint64

	rmu     sync.Mutex // above wmu
	in      direction
	raw     []byte // raw[r:w] is received and not yet opened
	r, w    int
	full    bool   // a read filled raw
	plain   []byte // opened and not yet read; within raw
	message []byte // received part of handshake messages
	idle    int    // records in a row that brought nothing
	skip    int    // bytes of early data that may still be thrown away
	rerr    error

	wmu  sync.Mutex
	out  direction
	buf  []byte
	one  [1][]byte
	werr error
}

// Limits.
const (
	firstRaw = 4 << 10                // of the first reads: handshakes are small
	usualRaw = 2 * maxRecord          // of connections with data
	fullRaw  = 8 * maxRecord          // where reads fill the buffer
	fullOut  = 8 * maxRecord          // of records written at a time
	maxIdle  = 32                     // records in a row without data
	maxEarly = 64 << 10               // bytes of early data, which is never taken
	lastWord = 200 * time.Millisecond // to send an alert at the end
)

func newConn(nc net.Conn) *Conn { return &Conn{Conn: nc, limit: updateAfter} }

// Identity returns the name of the key that the peers share.
func (c *Conn) Identity() string { return c.identity }

// Suite returns the cipher suite.
func (c *Conn) Suite() Suite { return c.suite }

// Read reads data: at least what one record has left, and more where it has come
// already. It returns io.EOF after the peer's close_notify,
// io.ErrUnexpectedEOF where the connection ended without.
func (c *Conn) Read(p []byte) (int, error) {
	c.rmu.Lock()
	defer c.rmu.Unlock()
	n := 0
	for n < len(p) {
		if len(c.plain) > 0 {
			k := copy(p[n:], c.plain)
			c.plain = c.plain[k:]
			n += k
			continue
		}
		if n > 0 && (c.rerr != nil || !c.complete()) {
			break
		}
		if c.rerr != nil {
			return 0, c.rerr
		}
		k, err := c.receive(p[n:])
		n += k
		if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) { // after which reading may go on
			c.failRead(err)
		}
		if err != nil && n == 0 {
			return 0, err
		}
	}
	return n, nil
}

// complete reports whether a whole record is in raw.
func (c *Conn) complete() bool {
	have := c.raw[c.r:c.w]
	return len(have) >= headerSize && len(have) >= headerSize+length(have)
}

func length(header []byte) int { return int(header[3])<<8 | int(header[4]) }

// receive takes one record. It returns how many bytes of data it put into p; others
// are in plain.
func (c *Conn) receive(p []byte) (int, error) {
	contentType, content, direct, err := c.record(p)
	if err != nil {
		return 0, err
	}
	if contentType != typeHandshake && len(c.message) > 0 { // RFC 8446 §5.1
		return 0, faultf(alertUnexpectedMessage, "a record of type %d within a handshake message", contentType)
	}
	if contentType == typeData && len(content) > 0 {
		c.idle = 0
		if direct {
			return len(content), nil
		}
		c.plain = content
		return 0, nil
	}
	if c.idle++; c.idle > maxIdle {
		return 0, faultf(alertUnexpectedMessage, "%d records without data in a row", maxIdle)
	}
	switch contentType {
	case typeData:
		return 0, nil
	case typeHandshake:
		return 0, c.afterHandshake(content)
	}
	return 0, faultf(alertUnexpectedMessage, "a record of type %d", contentType)
}

// afterHandshake handles messages that come after the handshake.
func (c *Conn) afterHandshake(content []byte) error {
	c.message = append(c.message, content...)
	for {
		m, err := c.nextMessage()
		if err != nil || m == nil {
			return err
		}
		switch {
		case m[0] == typeKeyUpdate:
			if err := c.keyUpdate(m); err != nil {
				return err
			}
		case m[0] == typeNewSessionTicket && !c.server():
			// Keys are external: there is nothing to resume with.
		default:
			return faultf(alertUnexpectedMessage, "a handshake message of type %d after the handshake", m[0])
		}
	}
}

func (c *Conn) keyUpdate(m []byte) error {
	switch {
	case len(m) != 5:
		return faultf(alertDecodeError, "a KeyUpdate of %d bytes", len(m))
	case m[4] > 1:
		return faultf(alertIllegalParameter, "a KeyUpdate that asks for %d", m[4])
	case len(c.message) > 0:
		return faultf(alertUnexpectedMessage, "a KeyUpdate that does not end its record")
	}
	c.in.update()
	if m[4] == 1 {
		c.answer.Store(true) // with what is written next (RFC 8446 §4.6.3)
	}
	return nil
}

// record reads one record. Data goes to dst where it has the room and direct is
// true; other content is valid until the next call. Alerts are errors.
func (c *Conn) record(dst []byte) (contentType byte, content []byte, direct bool, err error) {
	for {
		if err := c.fill(headerSize); err != nil {
			return 0, nil, false, err
		}
		header := c.raw[c.r:]
		contentType, n := header[0], length(header)
		switch {
		case contentType < typeChangeCipherSpec || contentType > typeData || header[1] != 3:
			return 0, nil, false, &fault{alertUnexpectedMessage, ErrNotTLS}
		case n > maxCiphertext || c.in.aead == nil && n > maxPlain:
			return 0, nil, false, faultf(alertRecordOverflow, "a record of %d bytes", n)
		}
		if err := c.fill(headerSize + n); err != nil {
			return 0, nil, false, err
		}
		record := c.raw[c.r : c.r+headerSize+n]
		c.r += len(record)
		content, direct = record[headerSize:], false
		switch {
		case contentType == typeChangeCipherSpec && !c.done.Load(): // middlebox compatibility (RFC 8446 §D.4)
			if n != 1 || content[0] != 1 || c.in.aead == nil && c.in.seq == 0 && c.server() {
				return 0, nil, false, faultf(alertUnexpectedMessage, "an unexpected ChangeCipherSpec")
			}
			if c.idle++; c.idle > maxIdle {
				return 0, nil, false, faultf(alertUnexpectedMessage, "%d records without data in a row", maxIdle)
			}
			continue
		case c.in.aead == nil:
			if contentType == typeData && len(record) <= c.skip { // early data before a second ClientHello
				c.skip -= len(record)
				continue
			}
			c.in.seq++ // only to know that there was one
		case contentType == typeAlert && !c.done.Load(): // of a client that could not make its keys
		case contentType != typeData:
			return 0, nil, false, faultf(alertUnexpectedMessage, "a record of type %d without protection", contentType)
		case n < tagSize+1:
			return 0, nil, false, faultf(alertBadRecordMAC, "a protected record of %d bytes", n)
		default:
			to := content
			if direct = len(dst) >= n-tagSize; direct {
				to = dst
			}
			contentType, content, err = c.in.open(to, record)
			if err != nil && len(record) <= c.skip {
				c.skip -= len(record)
				c.in.seq--
				continue
			}
			if err != nil {
				return 0, nil, false, err
			}
			c.skip = 0
		}
		if contentType == typeAlert {
			// One that means nothing counts as an empty record.
			return typeData, nil, false, c.alert(content)
		}
		if len(content) == 0 && contentType != typeData {
			return 0, nil, false, faultf(alertUnexpectedMessage, "an empty record of type %d", contentType)
		}
		return contentType, content, direct, nil
	}
}

// alert returns what an alert means; nil where it means nothing.
func (c *Conn) alert(content []byte) error {
	switch {
	case len(content) != 2:
		return faultf(alertDecodeError, "an alert of %d bytes", len(content))
	case Alert(content[1]) == alertCloseNotify:
		return io.EOF
	case Alert(content[1]) == alertUserCanceled && c.done.Load(): // close_notify follows
		return nil
	}
	return Alert(content[1])
}

// fill reads until need bytes are there. It is called with nothing in plain.
func (c *Conn) fill(need int) error {
	if c.r == c.w {
		c.r, c.w = 0, 0
	}
	for c.w-c.r < need {
		size := max(len(c.raw), firstRaw)
		switch {
		case c.full && size >= usualRaw:
			size = fullRaw
		case c.full || need > size:
			size = usualRaw
		}
		if size > len(c.raw) {
			raw := make([]byte, size)
			c.w = copy(raw, c.raw[c.r:c.w])
			c.r, c.raw, c.full = 0, raw, false
		} else if c.r > 0 && len(c.raw)-c.r < max(need, len(c.raw)/2) {
			c.w = copy(c.raw, c.raw[c.r:c.w])
			c.r = 0
		}
		n, err := c.Conn.Read(c.raw[c.w:])
		if c.w += n; c.w == len(c.raw) {
			c.full = true
		}
		if n > 0 {
			continue
		}
		if errors.Is(err, io.EOF) && (c.w > c.r || c.in.aead != nil || c.in.seq > 0) {
			return io.ErrUnexpectedEOF
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// failRead remembers why nothing more can be read, and tells the peer where the
// fault is its own.
func (c *Conn) failRead(err error) {
	c.rerr = err
	if f := (*fault)(nil); errors.As(err, &f) {
		c.sendAlert(f.alert)
	}
}

// Write sends p, in as few records as it fits.
func (c *Conn) Write(p []byte) (int, error) {
	c.wmu.Lock()
	defer c.wmu.Unlock()
	c.one[0] = p
	err := c.writeLocked(c.one[:])
	c.one[0] = nil
	if err != nil {
		return 0, err
	}
	return len(p), nil
}

// WriteBuffers sends all of vec, in as few records as it fits, and leaves vec as it is.
// After an error it is not known what was sent, and nothing more can be.
func (c *Conn) WriteBuffers(vec net.Buffers) error {
	c.wmu.Lock()
	defer c.wmu.Unlock()
	return c.writeLocked(vec)
}

func (c *Conn) writeLocked(vec [][]byte) error {
	left := 0
	for _, p := range vec {
		left += len(p)
	}
	if c.werr != nil || left == 0 {
		return c.werr
	}
	if c.answer.Swap(false) {
		c.updateLocked()
	}
	c.growLocked(min(left+(left/maxPlain+1)*overhead, fullOut))
	var p []byte
	for left > 0 {
		if cap(c.buf)-len(c.buf) < min(left, maxPlain)+overhead || c.out.seq >= c.limit {
			if err := c.flushLocked(); err != nil {
				return err
			}
		}
		if c.out.seq >= c.limit {
			c.updateLocked()
			continue
		}
		at := len(c.buf)
		buf := c.buf[:at+headerSize]
		for end := len(buf) + min(left, maxPlain); len(buf) < end; {
			for len(p) == 0 {
				p, vec = vec[0], vec[1:]
			}
			n := min(len(p), end-len(buf))
			buf = append(buf, p[:n]...)
			p = p[n:]
			left -= n
		}
		c.buf = c.out.seal(buf, at, typeData)
	}
	return c.flushLocked()
}

// growLocked makes room for n bytes of records.
func (c *Conn) growLocked(n int) {
	if n += len(c.buf); n > cap(c.buf) {
		c.buf = append(make([]byte, 0, n+n/4), c.buf...)
	}
}

// appendLocked adds a record that is not data, of up to 16 KiB.
func (c *Conn) appendLocked(contentType byte, content []byte) {
	c.growLocked(len(content) + overhead)
	at := len(c.buf)
	c.buf = c.out.seal(append(c.buf[:at+headerSize], content...), at, contentType)
}

// updateLocked goes on to the next key after telling the peer so.
func (c *Conn) updateLocked() {
	c.appendLocked(typeHandshake, []byte{typeKeyUpdate, 0, 0, 1, 0})
	c.out.update()
	c.updates.Add(1)
}

func (c *Conn) flushLocked() error {
	if c.werr != nil {
		return c.werr
	}
	if len(c.buf) == 0 {
		return nil
	}
	_, err := c.Conn.Write(c.buf)
	c.buf = c.buf[:0]
	c.werr = err // a record may be half sent
	return err
}

// ErrClosed is what writes return after this side has ended the data it sends.
var ErrClosed = errors.New("TLS: nothing may be sent after close_notify or an alert")

// sendAlert ends what this side sends, unless somebody is sending.
func (c *Conn) sendAlert(a Alert) {
	if !c.wmu.TryLock() {
		return
	}
	defer c.wmu.Unlock()
	if c.werr != nil {
		return
	}
	if c.done.Load() {
		_ = c.Conn.SetWriteDeadline(time.Now().Add(lastWord))
	}
	level := byte(2)
	if a == alertCloseNotify {
		level = 1
	}
	c.appendLocked(typeAlert, []byte{level, byte(a)})
	_ = c.flushLocked() // the peer may be gone already
	if c.werr == nil {
		c.werr = ErrClosed
	}
}

// CloseWrite sends close_notify, and no data after it.
func (c *Conn) CloseWrite() error {
	c.sendAlert(alertCloseNotify)
	if h, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return h.CloseWrite()
	}
	return nil
}

// Close closes the connection, with close_notify before where nobody is writing.
func (c *Conn) Close() error {
	c.sendAlert(alertCloseNotify)
	return c.Conn.Close()
}
