package scsi_test

import (
	"sync"
	"testing"

	"lintel.io/lintel/internal/scsi"
	"lintel.io/lintel/internal/scsi/scsitest"
)

// TestConcurrency runs commands of all attributes against task management,
// changes of the LUN map and the loss of nexuses: every command comes back once,
// and every function gets its response.
func TestConcurrency(t *testing.T) {
	b, parked := parking(t, 2)
	stop := make(chan struct{})
	var device, hosts, managers sync.WaitGroup
	for range 2 {
		device.Go(func() {
			for task := range parked {
				task.Finish(scsi.StatusGood)
			}
		})
	}
	host := func(id string, port uint16) {
		attrs := []scsi.TaskAttribute{scsi.AttrSimple, scsi.AttrSimple, scsi.AttrOrdered, scsi.AttrHeadOfQueue}
		n := b.NewNexus(id, port, b.LUNs())
		for i := range 600 {
			if i%200 == 199 {
				n.Close()
				n = b.NewNexus(id, port, b.LUNs())
			}
			var list []*scsitest.Pending
			for j, attr := range attrs {
				cdb := parkCDB
				if j&1 != 0 {
					cdb = testUnitReady
				}
				list = append(list, n.Start(uint16(i%2), attr, cdb, nil))
			}
			for _, p := range list {
				p.Wait()
			}
		}
		n.Close()
	}
	for i, id := range []string{"a", "b", "c"} {
		hosts.Go(func() { host(id, uint16(1+i%2)) })
	}
	managers.Go(func() {
		n := b.NewNexus("m", 1, b.LUNs())
		functions := []scsi.Function{scsi.AbortTaskSet, scsi.ClearTaskSet, scsi.LogicalUnitReset, scsi.TargetWarmReset, scsi.ITNexusReset, scsi.QueryTaskSet}
		for i := 0; ; i++ {
			select {
			case <-stop:
				n.Close()
				return
			default:
			}
			n.Manage(functions[i%len(functions)], uint16(i%2), 0)
			if i%2 == 0 {
				n.SetLUNs(scsi.LUNMap{0: {LU: b.LUs[0]}})
			} else {
				n.SetLUNs(b.LUNs())
			}
		}
	})
	hosts.Wait()
	close(stop)
	managers.Wait()
	close(parked)
	device.Wait()
	for i, u := range b.Units {
		if u.Attached() != 0 {
			t.Errorf("unit %d has %d watchers", i, u.Attached())
		}
	}
}
