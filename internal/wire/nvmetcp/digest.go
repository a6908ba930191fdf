package nvmetcp

import (
	"encoding/binary"
	"hash/crc32"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Digest returns the CRC32C of p (NVMe/TCP 1.0 §3.3.1.1).
func Digest(p []byte) uint32 { return crc32.Update(0, castagnoli, p) }

// ContinueDigest returns the digest of what digest stands for followed by p.
func ContinueDigest(digest uint32, p []byte) uint32 {
	return crc32.Update(digest, castagnoli, p)
}

// PutDigest writes a digest in the byte order of the wire.
func PutDigest(b []byte, digest uint32) { binary.LittleEndian.PutUint32(b, digest) }

// GetDigest reads a digest from the wire.
func GetDigest(b []byte) uint32 { return binary.LittleEndian.Uint32(b) }
