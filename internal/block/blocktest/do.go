// Package blocktest holds what tests need of block devices: the conformance suite
// and the benchmarks that every implementation runs, a device with faults to
// order, and helpers that wait for requests.
package blocktest

import (
	"testing"

	"lintel.io/lintel/internal/block"
)

type waiter chan struct{}

func (w waiter) RequestDone(*block.Request) { w <- struct{}{} }

// Do submits a request, waits for it, and returns its error. It overwrites r.Done.
func Do(dev block.Device, r *block.Request) error {
	w := make(waiter, 1)
	r.Done = w
	dev.Submit(r)
	<-w
	return r.Err
}

// Read returns n bytes from off and ends the test on an error.
func Read(t testing.TB, dev block.Device, off int64, n int) []byte {
	t.Helper()
	p := alignedBytes(n)
	if err := Do(dev, &block.Request{Op: block.Read, Off: off, Data: p}); err != nil {
		t.Fatalf("read %d bytes at %d: %v", n, off, err)
	}
	return p
}

// Write stores p at off and ends the test on an error.
func Write(t testing.TB, dev block.Device, off int64, p []byte) {
	t.Helper()
	if err := Do(dev, &block.Request{Op: block.Write, Off: off, Data: p}); err != nil {
		t.Fatalf("write %d bytes at %d: %v", len(p), off, err)
	}
}

// Flush makes completed writes stable and ends the test on an error.
func Flush(t testing.TB, dev block.Device) {
	t.Helper()
	if err := Do(dev, &block.Request{Op: block.Flush}); err != nil {
		t.Fatalf("flush: %v", err)
	}
}

// alignedBytes returns memory as O_DIRECT wants it; the pool's buffer is left to
// the garbage collector.
func alignedBytes(n int) []byte { return append(block.Get(n).Bytes(n)[:0:n], make([]byte, n)...) }
