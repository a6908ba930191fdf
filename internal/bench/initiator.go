package bench

import "context"

// initiator is one side of a run: what logs in to the target of a URL. There is
// one for each protocol.
type initiator interface {
	// login opens one session and returns its connections. The context bounds it.
	login(ctx context.Context) ([]connection, error)
	// capacity returns the number of blocks of the unit and their size in
	// bytes, after the first login.
	capacity(ctx context.Context) (blocks uint64, blockSize int, err error)
	// close ends all sessions, in good order where the target answers soon.
	close(ctx context.Context)
}

// connection is what a worker keeps busy. Its callbacks run one at a time.
type connection interface {
	// begin runs a function as a callback of the connection, soon.
	begin(f func()) error
	// newTransfer returns a transfer whose every end is told by a callback.
	newTransfer(done func()) transfer
}

// transfer is an I/O that is used again and again. The methods but submit and again
// tell how it ended.
type transfer interface {
	// submit starts reading or writing count blocks from lba on. A read with
	// no buffer throws size bytes away.
	submit(write bool, lba, count uint64, buf []byte, size int) error
	// again starts the same once more.
	again() error
	good() bool
	failure() error
	received() int // bytes that a read has brought
	passing() bool // the target did not take it for a reason that passes
}
