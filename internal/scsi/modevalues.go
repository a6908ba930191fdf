package scsi

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
)

// modeValues are the mode parameters that an initiator can change.
type modeValues struct {
	DescriptorSense bool `json:"d_sense"`
	WriteProtect    bool `json:"swp"`
	TaskAborted     bool `json:"tas"`
	WriteThrough    bool `json:"write_through"`
}

// savedModes is what MODE SELECT with SP=1 keeps with the unit.
type savedModes struct {
	Version int        `json:"version"`
	Values  modeValues `json:"values"`
	// Base is what the administrator had set for the write cache at that time. The
	// saved value holds for as long as the administrator does not change his mind.
	Base bool `json:"write_through_base"`
}

const (
	modesVersion = 1
	modesKey     = "mode"
)

// modes guards the changes of a unit's mode parameters. The values themselves
// are where commands look for them: in LogicalUnit.flags, and WriteThrough in the
// unit's attributes, which the administrator sets too.
type modes struct {
	mu    sync.Mutex // may be held over stable storage; above all others
	saved atomic.Pointer[savedModes]
	// admin is the administrator's WriteThrough while an initiator's choice
	// overrides it; nil while none does.
	admin atomic.Pointer[bool]
}

// modeCurrent returns the current values.
func (lu *LogicalUnit) modeCurrent() modeValues {
	f := lu.flags.Load()
	return modeValues{
		DescriptorSense: f&flagDescriptorSense != 0,
		WriteProtect:    f&flagWriteProtect != 0,
		TaskAborted:     f&flagTaskAborted != 0,
		WriteThrough:    lu.WriteThrough(),
	}
}

// modeDefaults returns the default values: the administrator's.
func (lu *LogicalUnit) modeDefaults() modeValues {
	return modeValues{WriteThrough: lu.adminWriteThrough()}
}

// modeSaved returns the values that are current after a reset or restart: the
// saved ones, the defaults where nothing was saved.
func (lu *LogicalUnit) modeSaved() modeValues {
	v := lu.modeDefaults()
	if s := lu.modes.saved.Load(); s != nil {
		admin := v.WriteThrough
		v = s.Values
		if s.Base != admin {
			v.WriteThrough = admin
		}
	}
	return v
}

// adminWriteThrough returns what the administrator wants of the write cache.
func (lu *LogicalUnit) adminWriteThrough() bool {
	if admin := lu.modes.admin.Load(); admin != nil {
		return *admin
	}
	return lu.WriteThrough()
}

// changeModes makes the values of pages current and, where save, keeps all values for
// restarts. It returns those before and after. It may wait for stable storage.
func (lu *LogicalUnit) changeModes(pages modeChange, save bool) (old, v modeValues, err error) {
	lu.modes.mu.Lock()
	defer lu.modes.mu.Unlock()
	old = lu.modeCurrent() // which another command may just have changed
	v = pages.apply(old)
	if save {
		s := &savedModes{Version: modesVersion, Values: v, Base: lu.adminWriteThrough()}
		blob, err := json.Marshal(s)
		if err != nil {
			return old, v, err
		}
		if err := lu.unit.SaveSetting(modesKey, blob); err != nil {
			return old, v, err
		}
		lu.modes.saved.Store(s)
	}
	return old, v, lu.applyModesLocked(v)
}

func (lu *LogicalUnit) applyModesLocked(v modeValues) error {
	lu.setFlag(flagDescriptorSense, v.DescriptorSense)
	lu.setFlag(flagWriteProtect, v.WriteProtect)
	lu.setFlag(flagTaskAborted, v.TaskAborted)
	if lu.WriteThrough() == v.WriteThrough {
		return nil
	}
	base := lu.adminWriteThrough()
	a := lu.unit.Attributes().Clone()
	a.WriteThrough = v.WriteThrough
	if err := lu.unit.SetAttributes(a); err != nil {
		return err
	}
	if v.WriteThrough == base {
		lu.modes.admin.Store(nil)
	} else {
		lu.modes.admin.Store(&base)
	}
	return nil
}

// loadModes makes the saved values current when a unit is added.
func (lu *LogicalUnit) loadModes() error {
	lu.modes.mu.Lock()
	defer lu.modes.mu.Unlock()
	blob, err := lu.unit.LoadSetting(modesKey)
	if err != nil || blob == nil {
		return err
	}
	s := &savedModes{}
	d := json.NewDecoder(bytes.NewReader(blob))
	d.DisallowUnknownFields()
	if err := d.Decode(s); err != nil {
		return err
	}
	if _, err := d.Token(); err != io.EOF {
		return fmt.Errorf("trailing bytes")
	}
	if s.Version != modesVersion {
		return fmt.Errorf("version %d is not known; run a newer lintel", s.Version)
	}
	lu.modes.saved.Store(s)
	return lu.applyModesLocked(lu.modeSaved())
}

// restoreModes makes the saved values current after a reset (SPC-4 §7.5.1).
func (lu *LogicalUnit) restoreModes() {
	lu.modes.mu.Lock()
	defer lu.modes.mu.Unlock()
	// The only possible error is one in attributes that the unit has already.
	_ = lu.applyModesLocked(lu.modeSaved())
}
