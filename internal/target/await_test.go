package target

import (
	"context"
	"errors"
	"testing"

	"lintel.io/lintel/internal/array"
	initiator "lintel.io/lintel/internal/initiator/iscsi"
	nvmehost "lintel.io/lintel/internal/initiator/nvme"
	nvmewire "lintel.io/lintel/internal/wire/nvme"
	wire "lintel.io/lintel/internal/wire/scsi"
)

// Where the pool of a mapped volume is missing, hosts do not hear that the volume is gone.
func TestMissingPoolIsAwaited(t *testing.T) {
	f := newFixture(t)
	f.addVolume(1, 1<<20, 0)
	f.addVolume(2, 2<<20, 5)
	f.withNVMe()
	absent := f.pd.Volumes[1]
	f.pd.Volumes = f.pd.Volumes[:1]
	f.apply()
	s := f.mustLogin(initiator.Options{})
	if got := f.luns(s); len(got) != 2 {
		t.Errorf("LUNs %x", got)
	}
	ctx := context.Background()
	lun := wire.EncodeLUN(5)
	buf := make([]byte, 512)
	c := f.mustConnect(nvmehost.Options{IOQueues: 1}).Queues()[0]
	notReady(t, s.Read(ctx, lun, 0, 512, buf), c.Read(ctx, 6, 0, 512, buf))

	f.pd.Volumes = append([]*array.Volume{}, f.pd.Volumes[0], absent)
	f.apply()
	if err := s.Ready(ctx, lun); err != nil {
		t.Errorf("the volume has come, but: %v", err)
	}
	if err := c.Read(ctx, 6, 0, 512, buf); err != nil {
		t.Errorf("the volume has come, but: %v", err)
	}
}

// notReady checks that a READ and a Read have failed for what is not there yet.
func notReady(t *testing.T, overSCSI, overNVMe error) {
	t.Helper()
	var refused *initiator.StatusError
	if !errors.As(overSCSI, &refused) {
		t.Errorf("READ: %v", overSCSI)
	} else if key, code := initiator.SenseCode(refused.Sense); key != wire.KeyNotReady || code != wire.BecomingReady {
		t.Errorf("READ: %v", overSCSI)
	}
	var status *nvmehost.StatusError
	if !errors.As(overNVMe, &status) || status.Status&^nvmewire.More != nvmewire.NamespaceNotReady {
		t.Errorf("Read: %v", overNVMe)
	}
}
