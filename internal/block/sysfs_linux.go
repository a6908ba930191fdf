package block

import (
	"fmt"
	"math/bits"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// sysBlock is what sysfs tells of a block device, none of it where it does not
// know the device.
type sysBlock struct {
	dir  string // of the device
	disk string // of the disk to which it belongs: the same but for a partition
}

// openSysBlock finds a block device by its number.
func openSysBlock(sysfs string, dev uint64) sysBlock {
	dir := filepath.Join(sysfs, "dev/block", fmt.Sprintf("%d:%d", unix.Major(dev), unix.Minor(dev)))
	s := sysBlock{dir: dir, disk: dir}
	if _, err := os.Stat(filepath.Join(dir, "queue")); err != nil {
		// A partition lies in the directory of its disk, to which the queue belongs.
		if partition, err := filepath.EvalSymlinks(dir); err == nil {
			s.disk = filepath.Dir(partition)
		}
	}
	return s
}

// attr returns an attribute of the disk, empty where there is none.
func (s sysBlock) attr(path ...string) string { return readAttr(s.disk, path...) }

// number returns a numeric attribute of the disk, 0 where there is none.
func (s sysBlock) number(path ...string) int64 { return parseAttr(s.attr(path...)) }

// identities are what tells one disk, or partition of one, from all others, also when it comes back under
// another number: the best first, none where the disk does not tell.
func (s sysBlock) identities() []string {
	var list []string
	for _, path := range [][]string{
		{"wwid"}, {"device", "wwid"}, {"dm", "uuid"}, {"md", "uuid"}, {"serial"}, {"device", "serial"},
	} {
		if id := s.attr(path...); id != "" {
			id = filepath.Join(path...) + " " + id + " " + readAttr(s.dir, "partition")
			list = append(list, strings.TrimSpace(strings.Map(printable, id)))
		}
	}
	return list
}

// printable keeps an identity the same when it is stored as text, whatever bytes the disk tells.
func printable(r rune) rune {
	if r < ' ' || r > '~' {
		return '?'
	}
	return r
}

// DiskIdentity returns what tells the block device at path from all others, also after a restart, in
// printable ASCII; empty where it does not tell.
func DiskIdentity(path string) (string, error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return "", fmt.Errorf("identity of disk %s: %w", path, err)
	}
	return best(openSysBlock("/sys", st.Rdev).identities()), nil
}

func best(identities []string) string {
	if len(identities) == 0 {
		return ""
	}
	return identities[0]
}

// physical returns the physical block size in bytes, 0 where that is unknown or the
// device does not begin with a physical block.
func (s sysBlock) physical() int { return s.aligned(s.number("queue", "physical_block_size")) }

// aligned returns unit, in bytes, where the device begins at a multiple of it and its
// disk agrees on where its blocks begin; else 0.
func (s sysBlock) aligned(unit int64) int {
	const sector = 512 // of the attribute start, whatever the disk has
	if bits.OnesCount64(uint64(unit)) != 1 || parseAttr(readAttr(s.dir, "alignment_offset")) != 0 ||
		parseAttr(readAttr(s.dir, "start"))*sector%unit != 0 {
		return 0
	}
	return int(unit)
}

func readAttr(dir string, path ...string) string {
	b, err := os.ReadFile(filepath.Join(dir, filepath.Join(path...)))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

func parseAttr(s string) int64 {
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		return 0
	}
	return n
}
