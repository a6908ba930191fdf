package tlspsk

import (
	"crypto/cipher"
	"encoding/binary"
	"math"
)

// Content types of records (RFC 8446 §5.1).
const (
	typeChangeCipherSpec = 20
	typeAlert            = 21
	typeHandshake        = 22
	typeData             = 23
)

// Sizes in bytes (RFC 8446 §5.1, §5.2).
const (
	headerSize    = 5
	tagSize       = 16
	maxPlain      = 1 << 14
	maxCiphertext = maxPlain + 256
	maxRecord     = headerSize + maxCiphertext
	overhead      = headerSize + 1 + tagSize // of a record that we send
)

// updateAfter is how many records are protected with one key. RFC 8446 §5.5 allows
// 2^24.5 of full size for AES-GCM.
const updateAfter = 1 << 24

// direction is the protection of what goes one way. Without a cipher it lets
// everything through.
type direction struct {
	suite  Suite
	secret []byte
	aead   cipher.AEAD
	mask   []byte
	seq    uint64
	nonce  [12]byte
}

// rekey begins to use a traffic secret.
func (d *direction) rekey(s Suite, secret []byte) {
	d.suite, d.secret, d.seq = s, secret, 0
	d.aead, d.mask = s.protection(secret)
}

// update goes on to the next generation of the secret (RFC 8446 §7.2).
func (d *direction) update() {
	d.rekey(d.suite, d.suite.derive(d.secret, "traffic upd", nil))
}

// step readies the nonce of the next record (RFC 8446 §5.3). It returns false when
// the numbers are used up.
func (d *direction) step() bool {
	if d.seq == math.MaxUint64 {
		return false
	}
	copy(d.nonce[:], d.mask)
	at := d.nonce[4:]
	binary.BigEndian.PutUint64(at, binary.BigEndian.Uint64(at)^d.seq)
	d.seq++
	return true
}

// seal completes the record at the end of out: out[at:] is room for the header and
// then the content, which is not empty. It returns out with the whole record.
func (d *direction) seal(out []byte, at int, contentType byte) []byte {
	if d.aead == nil {
		putHeader(out[at:], contentType, len(out)-at-headerSize)
		return out
	}
	out = append(out, contentType)
	putHeader(out[at:], typeData, len(out)-at-headerSize+tagSize)
	d.step() // keys are updated long before it fails
	body := out[at+headerSize:]
	return out[:at+headerSize+len(d.aead.Seal(body[:0], d.nonce[:], body, out[at:at+headerSize]))]
}

func putHeader(p []byte, contentType byte, n int) {
	p[0], p[1], p[2] = contentType, 3, 3
	binary.BigEndian.PutUint16(p[3:], uint16(n))
}

// open removes the protection of a record into dst, which has room for what is left, or
// overlaps the record's content exactly. It returns the content and its type.
func (d *direction) open(dst, record []byte) (byte, []byte, error) {
	if !d.step() {
		return 0, nil, faultf(alertInternalError, "the peer sent more records than one key is for")
	}
	plain, err := d.aead.Open(dst[:0], d.nonce[:], record[headerSize:], record[:headerSize])
	if err != nil {
		return 0, nil, faultf(alertBadRecordMAC, "a record was changed on its way, or belongs to another key")
	}
	n := len(plain)
	for n > 0 && plain[n-1] == 0 { // padding
		n--
	}
	switch {
	case n == 0:
		return 0, nil, faultf(alertUnexpectedMessage, "a record without a content type")
	case n-1 > maxPlain:
		return 0, nil, faultf(alertRecordOverflow, "a record of %d bytes", n-1)
	}
	return plain[n-1], plain[:n-1], nil
}
