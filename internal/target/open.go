package target

import (
	"errors"
	"fmt"

	"lintel.io/lintel/internal/array"
	"lintel.io/lintel/internal/ask"
	"lintel.io/lintel/internal/block"
	"lintel.io/lintel/internal/unit"
)

// opensAtOnce is how many new volumes are opened side by side. Storage that hangs is counted no longer than a
// look at it may take.
const opensAtOnce = 64

// An opened is what came of opening the device of a volume as spec says.
type opened struct {
	spec   *array.Volume
	device block.Device
	err    error
}

// A newcomer is a volume that is about to be added.
type newcomer struct {
	pool       Pool
	attributes unit.Attributes
	opening    *ask.Question[opened]
	err        error // why it cannot be added; the others are then not valid
}

// openNew begins to open the volumes that the state has and the data plane has not, by id.
func (t *Target) openNew(state *array.State) map[string]*newcomer {
	list := map[string]*newcomer{}
	slots := make(chan struct{}, opensAtOnce)
	for _, p := range state.Pools {
		for _, spec := range p.Volumes {
			t.mu.Lock()
			known := t.volumes[spec.ID] != nil
			t.mu.Unlock()
			if known {
				continue
			}
			n := t.newcomer(spec, p)
			list[spec.ID] = n
			if n.err != nil {
				continue
			}
			if n.opening = t.hung[spec.ID]; n.opening != nil {
				continue
			}
			slots <- struct{}{}
			var asker ask.Asker[opened]
			n.opening = asker.Ask(func() opened {
				device, err := n.pool.OpenVolume(spec)
				return opened{spec, device, err}
			})
			go func() {
				n.opening.Wait(t.cfg.Patience)
				<-slots
			}()
		}
	}
	return list
}

func (t *Target) newcomer(spec *array.Volume, p *array.PoolDocument) *newcomer {
	pool, err := t.cfg.Pool(p.ID)
	if err != nil {
		return &newcomer{err: fmt.Errorf("pool %s: %w", p.Name, err)}
	}
	attributes, err := t.attributes(spec)
	return &newcomer{pool: pool, attributes: attributes, err: err}
}

// awaitNew returns the device of a volume that is added, or an error where it does not come in time. One that
// hangs is in Target.hung until somebody awaits it.
func (t *Target) awaitNew(spec *array.Volume, n *newcomer) opened {
	o, ok := n.opening.Wait(t.cfg.LongPatience)
	if ok {
		delete(t.hung, spec.ID)
		return o
	}
	t.hung[spec.ID] = n.opening
	return opened{spec: spec, err: errors.New(hungSince(n.opening.Since).Reason)}
}

// discardHung closes the devices that nobody wants any more, as soon as they are open.
func (t *Target) discardHung(unwanted func(id string) bool) {
	for id, q := range t.hung {
		if unwanted(id) {
			delete(t.hung, id)
			go func() { t.discard(q.Answer()) }()
		}
	}
}

// discard closes a device that has been opened for nobody.
func (t *Target) discard(o opened) {
	if o.err != nil {
		return
	}
	if err := o.device.Close(); err != nil {
		t.log.Error("closing a volume that is gone failed", "volume", o.spec.Name, "error", err)
	}
}
