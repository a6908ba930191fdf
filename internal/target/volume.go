package target

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"strings"
	"sync/atomic"
	"time"

	"lintel.io/lintel/internal/array"
	"lintel.io/lintel/internal/ask"
	"lintel.io/lintel/internal/block"
	"lintel.io/lintel/internal/scsi"
	"lintel.io/lintel/internal/scsi/sbc"
	"lintel.io/lintel/internal/unit"
)

// volume is a volume that the data plane presents.
type volume struct {
	spec *array.Volume // what it is to be; guarded by Target.mu
	made *array.Volume // what it was made to be last; guarded by Target.mu
	pool *array.PoolDocument
	lu   *scsi.LogicalUnit
	late *late // nil where the device was there from the start

	asker   ask.Asker[answer]
	lasting atomic.Pointer[block.Fault] // that was told last, of those that storage which hangs still has
	changer ask.Asker[changed]
	fault   block.FaultKind // that was logged last; of the goroutine that runs inspect
}

// missing reports whether the backing store could not be opened so far.
func (v *volume) missing() bool { return v.late != nil && v.late.missing() }

// applyVolumes opens new volumes and changes those that differ. It returns the ids of
// those that came.
func (t *Target) applyVolumes(state *array.State) (came map[string]bool, errs []error) {
	came = map[string]bool{}
	newcomers := t.openNew(state)
	for _, p := range state.Pools {
		for _, spec := range p.Volumes {
			t.mu.Lock()
			v := t.volumes[spec.ID]
			differs := v != nil && v.made != spec
			t.mu.Unlock()
			var err error
			switch {
			case v == nil:
				err = t.addVolume(spec, p, newcomers[spec.ID])
				came[spec.ID] = err == nil
				t.mu.Lock()
				t.failed[spec.ID] = err
				t.mu.Unlock()
			case differs:
				err = t.changeVolume(v, spec)
			}
			if err != nil {
				errs = append(errs, fmt.Errorf("volume %s: %w", spec.Name, err))
			}
		}
	}
	return came, errs
}

// addVolume adds a volume that openNew has begun to open. Where its device does not come in time, it is not ready
// until that comes.
func (t *Target) addVolume(spec *array.Volume, p *array.PoolDocument, n *newcomer) error {
	if n.err != nil {
		return n.err
	}
	o := t.awaitNew(spec, n)
	v := &volume{spec: o.spec, made: o.spec, pool: p}
	device := o.device
	if o.err != nil {
		t.log.Error("volume is not ready: its backing store cannot be opened", "volume", spec.Name, "error", o.err)
		v.late = newLate(spec, o.err)
		device = v.late
	}
	t.mu.Lock()
	group := t.groups[p.ID]
	if group == nil {
		t.nextID++
		group = unit.NewGroup(t.nextID, p.Name)
		t.groups[p.ID] = group
	}
	t.mu.Unlock()
	u, err := unit.New(unit.Config{
		ID:           unit.ID(spec.ID),
		Attributes:   n.attributes,
		Device:       device,
		Group:        group,
		Reservations: n.pool,
		Settings:     n.pool,
	})
	if err != nil {
		return errors.Join(err, device.Close())
	}
	if v.lu, err = t.device.AddUnit(u); err != nil {
		return errors.Join(err, u.Close())
	}
	if err := sbc.ResumeSanitize(v.lu); err != nil {
		// Nobody may see what an unfinished sanitize has left.
		return fmt.Errorf("sanitize state: %w", errors.Join(err, t.closeVolume(v)))
	}
	v.lu.SetThinThreshold(spec.ThinThreshold)
	if q := t.hung[spec.ID]; q != nil {
		delete(t.hung, spec.ID)
		t.awaitOpen(v, q) // before anybody can open it again
	}
	t.mu.Lock()
	t.volumes[spec.ID] = v
	t.mu.Unlock()
	if o.spec != spec { // it was opened for an earlier Apply
		return t.changeVolume(v, spec)
	}
	return nil
}

// A changed is a change that has come to its end.
type changed struct {
	spec *array.Volume
	err  error
}

// changeVolume makes a volume what spec says. Where its storage hangs, the change is made when that answers, and
// until then no other one.
func (t *Target) changeVolume(v *volume, spec *array.Volume) error {
	for {
		q := v.changer.Ask(func() changed { return changed{spec, t.change(v, spec)} })
		c, ok := q.Wait(t.cfg.LongPatience)
		switch {
		case !ok:
			return fmt.Errorf("its storage has not answered since %s: what has changed counts when it has", q.Since.UTC().Format(time.RFC3339))
		case c.spec == spec:
			return c.err
		}
	}
}

func (t *Target) change(v *volume, spec *array.Volume) error {
	attributes, err := t.attributes(spec)
	if err != nil {
		return err
	}
	u := v.lu.Unit()
	if err := u.SetAttributes(attributes); err != nil {
		return err
	}
	t.mu.Lock()
	before := v.spec
	v.spec = spec
	missing := v.missing()
	t.mu.Unlock()
	// A volume that is not there takes its size later.
	if spec.Size != before.Size && !missing {
		if err := u.Resize(spec.Size >> u.BlockShift()); err != nil {
			t.mu.Lock()
			v.spec = before
			t.mu.Unlock()
			return err
		}
	}
	v.lu.SetThinThreshold(spec.ThinThreshold)
	t.mu.Lock()
	v.made = spec
	t.mu.Unlock()
	return nil
}

// removeVolumes closes the volumes that the state does not have. No LUN leads
// to them any more.
func (t *Target) removeVolumes(ctx context.Context, state *array.State) []error {
	var gone []*volume
	t.mu.Lock()
	for id, v := range t.volumes {
		if spec, _ := state.VolumeByID(id); spec == nil {
			gone = append(gone, v)
			delete(t.volumes, id)
		}
	}
	maps.DeleteFunc(t.failed, func(id string, err error) bool {
		spec, _ := state.VolumeByID(id)
		return spec == nil || err == nil
	})
	t.mu.Unlock()
	t.discardHung(func(id string) bool {
		spec, _ := state.VolumeByID(id)
		return spec == nil
	})
	return t.closeVolumes(ctx, gone)
}

// closeVolumes ends the commands on volumes and closes their devices, side by side. Where ctx is done before
// storage that hangs has answered, its device is closed when it has; but what answers has time to be closed.
func (t *Target) closeVolumes(ctx context.Context, list []*volume) []error {
	if len(list) == 0 {
		return nil
	}
	closed := make([]chan error, len(list))
	for i, v := range list {
		closed[i] = make(chan error, 1)
		go func() { closed[i] <- t.closeVolume(v) }()
	}
	late := make(chan struct{})
	stop := context.AfterFunc(ctx, func() { time.AfterFunc(t.cfg.Patience, func() { close(late) }) })
	defer stop()
	var errs []error
	for i, v := range list {
		var err error
		select {
		case err = <-closed[i]:
		case <-late:
			select {
			case err = <-closed[i]: // while another one was waited for
			default:
				err = fmt.Errorf("commands are still under way, or its storage does not answer: %w", ctx.Err())
				go func() {
					if err := <-closed[i]; err != nil {
						t.log.Error("closing a volume that is gone failed", "volume", t.specOf(v).Name, "error", err)
					}
				}()
			}
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("volume %s: %w", t.specOf(v).Name, err))
		}
	}
	return errs
}

// closeVolume waits for the commands on a volume to end and closes its device.
func (t *Target) closeVolume(v *volume) error {
	quiet := make(chan struct{}, 2)
	done := func() { quiet <- struct{}{} }
	t.device.RemoveUnit(v.lu, done)
	t.subsystem.RemoveNamespace(v.lu.Unit(), done)
	for range cap(quiet) {
		<-quiet
	}
	return t.release(v)
}

// release closes the device of a volume that no command can reach any more. One that hangs while it is opened is
// closed when it is open: nobody has used it, and nobody has to wait for that.
func (t *Target) release(v *volume) error {
	t.mu.Lock()
	t.retired.Add(v.lu.Stats())
	t.retired.Add(t.subsystem.ForgetUnit(v.lu.Unit()))
	if v.late != nil {
		close(v.late.stopped)
	}
	arrived := !v.missing()
	t.mu.Unlock()
	if v.late != nil {
		opening := v.late.opening.Ask(func() error { return ErrNoVolume })
		if arrived { // whoever has opened it may still use it
			<-opening.Done()
		} else {
			_, _ = opening.Wait(t.cfg.Patience)
		}
	}
	return v.lu.Unit().Close()
}

// checkThreshold tells initiators where a thin volume has come to its threshold.
func (t *Target) checkThreshold(v *volume, a answer) {
	if a.err == nil {
		v.lu.CheckThinThreshold(uint64(a.used))
		return
	}
	t.mu.Lock()
	spec, there := v.spec, t.volumes[v.spec.ID] == v
	t.mu.Unlock()
	if there && spec.Thin && spec.ThinThreshold > 0 {
		t.log.Warn("the used space of a thin volume is unknown", "volume", spec.Name, "error", a.err)
	}
}

// logFault logs once that what lies below a volume fails, and that it does no more.
func (t *Target) logFault(v *volume, f *block.Fault) {
	t.mu.Lock()
	name := v.spec.Name
	t.mu.Unlock()
	switch {
	case f == nil && v.fault != "":
		v.fault = ""
		t.log.Info("the storage of a volume fails no more", "volume", name)
	case f != nil && v.fault != f.Kind:
		v.fault = f.Kind
		t.log.Error("the storage of a volume fails", "volume", name, "fault", f.Kind, "since", f.Since, "error", f.Reason)
	}
}

// attributes translates the document's identity and settings.
func (t *Target) attributes(v *array.Volume) (unit.Attributes, error) {
	naa, err := hex.DecodeString(v.NAA)
	if err != nil {
		return unit.Attributes{}, fmt.Errorf("naa_id: %w", err)
	}
	eui, err := hex.DecodeString(v.EUI64)
	if err != nil {
		return unit.Attributes{}, fmt.Errorf("eui64_id: %w", err)
	}
	nguid, err := hex.DecodeString(v.NGUID())
	if err != nil {
		return unit.Attributes{}, fmt.Errorf("nguid: %w", err)
	}
	uuid, err := hex.DecodeString(strings.ReplaceAll(v.UUID(), "-", ""))
	if err != nil {
		return unit.Attributes{}, fmt.Errorf("uuid: %w", err)
	}
	a := unit.Attributes{
		NAA:              naa,
		EUI64:            eui,
		NGUID:            nguid,
		UUID:             uuid,
		T10ID:            v.T10ID,
		Serial:           v.Serial,
		Vendor:           v.Vendor,
		Product:          v.Product,
		Revision:         v.Revision,
		BlockSize:        v.BlockSize,
		PhysicalExponent: v.PhysicalExponent,
		Rotational:       v.Rotational,
		Thin:             v.Thin,
		ReadOnly:         v.ReadOnly,
		WriteThrough:     v.WriteThrough,
	}
	if a.Revision == "" {
		a.Revision = t.cfg.Revision
	}
	return a, nil
}
