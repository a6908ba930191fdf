package tlskey

import (
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"strings"

	"lintel.io/lintel/internal/tlspsk"
)

func (h Hash) new() hash.Hash {
	if h == SHA384 {
		return sha512.New384()
	}
	return sha256.New()
}

// suite is the cipher suite of a hash (NVMe/TCP 1.0 §3.6.1.2).
func (h Hash) suite() tlspsk.Suite {
	if h == SHA384 {
		return tlspsk.AES256GCM
	}
	return tlspsk.AES128GCM
}

// Identity is the name of a TLS key (NVMe/TCP 1.0 §3.6.1.3), "NVMe1R01 HOST SUBSYSTEM
// DIGEST".
type Identity struct {
	Version int  // 0 or 1
	Hash    Hash // SHA256 or SHA384
	HostNQN string
	SubNQN  string
	Digest  string // base64; empty in version 0
}

// ErrIdentity says that a text is no identity of a retained key.
var ErrIdentity = errors.New("not the TLS identity of an NVMe host")

// ParseIdentity reads the text of an identity. Those of generated keys, which DH-HMAC-CHAP
// makes, are refused.
func ParseIdentity(text string) (Identity, error) {
	parts := strings.Split(text, " ")
	var id Identity
	switch head := parts[0]; {
	case len(head) != 8 || head[:4] != "NVMe" || head[5] != 'R' || head[6] != '0':
	case head[4] == '0' && len(parts) == 3, head[4] == '1' && len(parts) == 4:
		id = Identity{Version: int(head[4] - '0'), Hash: Hash(head[7] - '0'), HostNQN: parts[1], SubNQN: parts[2]}
		if id.Version == 1 {
			id.Digest = parts[3]
		}
	}
	if id.Hash != SHA256 && id.Hash != SHA384 || id.HostNQN == "" || id.SubNQN == "" || id.Version == 1 && id.Digest == "" {
		return Identity{}, ErrIdentity
	}
	return id, nil
}

// String returns the text that ParseIdentity reads.
func (id Identity) String() string {
	s := fmt.Sprintf("NVMe%dR%02d %s %s", id.Version, id.Hash, id.HostNQN, id.SubNQN)
	if id.Version == 1 {
		s += " " + id.Digest
	}
	return s
}

// context is what the TLS key is bound to.
func (id Identity) context() string {
	if id.Version == 1 {
		return fmt.Sprintf("%02d %s", id.Hash, id.Digest)
	}
	return id.String()
}

// expand is the HKDF of one step, from an input key to one of n bytes. Before
// version 1.15 libnvme left the length bytes out of the label and wrote the size
// the other way round, and Linux hosts have such keys: legacy makes them.
func expand(h Hash, input []byte, label, context string, n int, legacy bool) ([]byte, error) {
	prk, err := hkdf.Extract(h.new, input, nil)
	if err != nil {
		return nil, err
	}
	if !legacy {
		return tlspsk.ExpandLabel(h.new, prk, label, []byte(context), n)
	}
	info := binary.LittleEndian.AppendUint16(nil, uint16(n))
	return hkdf.Expand(h.new, prk, string(info)+"tls13 "+label+context, n)
}

// retained returns the key that belongs to one host (NVMe/TCP 1.0 §3.6.1.1).
func (k Key) retained(hostNQN string, legacy bool) ([]byte, error) {
	if k.Hash == None {
		return k.Secret, nil
	}
	return expand(k.Hash, k.Secret, "HostNQN", hostNQN, len(k.Secret), legacy)
}

// digest is what version 1 of an identity names a retained key by.
func digest(h Hash, retained []byte, hostNQN, subNQN string) string {
	m := hmac.New(h.new, retained)
	m.Write([]byte(hostNQN + " " + subNQN + " NVMe-over-Fabrics"))
	return base64.StdEncoding.EncodeToString(m.Sum(nil))
}

// Keys returns the keys of TLS that a host with the configured key may mean by an
// identity, none where the digest is not of that key.
func (k Key) Keys(id Identity) []tlspsk.Key {
	var keys []tlspsk.Key
	for _, legacy := range []bool{false, true} {
		retained, err := k.retained(id.HostNQN, legacy)
		if err != nil || id.Version == 1 && !hmac.Equal([]byte(id.Digest), []byte(digest(id.Hash, retained, id.HostNQN, id.SubNQN))) {
			continue
		}
		secret, err := expand(id.Hash, retained, "nvme-tls-psk", id.context(), id.Hash.size(), legacy)
		if err == nil { // names may be too long for version 0
			keys = append(keys, tlspsk.Key{Suite: id.Hash.suite(), Secret: secret})
		}
	}
	return keys
}

// Offers returns the keys that a host offers to a subsystem, the best first.
func (k Key) Offers(hostNQN, subNQN string) ([]tlspsk.NamedKey, error) {
	h := SHA256
	if len(k.Secret) == SHA384.size() {
		h = SHA384
	}
	retained, err := k.retained(hostNQN, false)
	if err != nil {
		return nil, fmt.Errorf("TLS key of host %s: %w", hostNQN, err)
	}
	var offers []tlspsk.NamedKey
	for _, id := range []Identity{
		{Version: 1, Hash: h, HostNQN: hostNQN, SubNQN: subNQN, Digest: digest(h, retained, hostNQN, subNQN)},
		{Version: 0, Hash: h, HostNQN: hostNQN, SubNQN: subNQN},
	} {
		secret, err := expand(h, retained, "nvme-tls-psk", id.context(), h.size(), false)
		if err == nil {
			offers = append(offers, tlspsk.NamedKey{Identity: id.String(), Key: tlspsk.Key{Suite: h.suite(), Secret: secret}})
		}
	}
	return offers, nil
}
