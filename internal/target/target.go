// Package target is the data plane of one head, assembled: it takes immutable
// snapshots of the array's configuration and makes of them open devices,
// units, LUN maps and listening portals. It asks nothing of whoever manages it.
package target

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"lintel.io/lintel/internal/array"
	"lintel.io/lintel/internal/ask"
	"lintel.io/lintel/internal/block"
	"lintel.io/lintel/internal/iscsi"
	"lintel.io/lintel/internal/nvme"
	"lintel.io/lintel/internal/nvmetcp"
	"lintel.io/lintel/internal/scsi"
	"lintel.io/lintel/internal/scsi/copy"
	"lintel.io/lintel/internal/scsi/reserve"
	"lintel.io/lintel/internal/scsi/sbc"
	"lintel.io/lintel/internal/unit"
)

// Pool gives the data plane what a pool keeps of its volumes.
type Pool interface {
	// OpenVolume opens the device of a volume. It fails while the backing
	// store is not there; the volume is then not ready until it succeeds. It may hang, and is not called again
	// for that volume before it has returned.
	OpenVolume(v *array.Volume) (block.Device, error)
	// Space returns how much the pool can hold and what is left of it, in bytes.
	Space() (total, free uint64, err error)
	unit.ReservationStore
	unit.SettingStore
}

// Config describes a Target.
type Config struct {
	Logger *slog.Logger
	// Pool returns the opened pool of that id.
	Pool func(id string) (Pool, error)
	// PortGroup is the target port group of this head, 1 to 65535.
	PortGroup uint16
	// Revision is the product revision of volumes that set none, at most 4 ASCII bytes.
	Revision string
	// ISCSI holds the limits of the transport; Access and Logger are set here.
	ISCSI iscsi.Config
	// Retry is how often a volume or portal that could not be opened is tried again, 5 s by default.
	Retry time.Duration
	// Patience is how long the storage of a volume has to answer before that is told to hang, 2 s by default.
	Patience time.Duration
	// LongPatience is how long it may take to be opened, and to be changed, which flushes: Patience five times by default.
	LongPatience time.Duration
}

// Target is the data plane of one head. Its methods may be called concurrently.
type Target struct {
	cfg    Config
	log    *slog.Logger
	device *scsi.Target // these are made by the first Apply, but for the iSCSI server
	server *iscsi.Server

	subsystem  *nvme.Subsystem
	nvmeServer *nvmetcp.Server

	stop chan struct{}
	done sync.WaitGroup

	apply sync.Mutex // serialises Apply, retries and Close; above mu
	// hung are the devices of volumes that could not be added, which are still being opened, by id; guarded by apply.
	hung map[string]*ask.Question[opened]

	mu      sync.Mutex
	state   *array.State // nil before the first Apply
	groups  map[string]*unit.Group
	volumes map[string]*volume
	failed  map[string]error // why a volume could not be added, by id
	portals map[string]*portal
	nexuses map[*nexus]struct{}
	// controllers are those of NVMe hosts that see namespaces.
	controllers map[*nvme.Controller]struct{}
	// discoveryGeneration numbers what NVMe hosts discover.
	discoveryGeneration uint64

	nextID  uint16     // number of the last group
	retired unit.Stats // of volumes that are gone
}

// New returns a Target that presents nothing yet.
func New(cfg Config) (*Target, error) {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.PortGroup == 0 {
		cfg.PortGroup = 1
	}
	if cfg.Retry <= 0 {
		cfg.Retry = 5 * time.Second
	}
	if cfg.Patience <= 0 {
		cfg.Patience = 2 * time.Second
	}
	if cfg.LongPatience <= 0 {
		cfg.LongPatience = 5 * cfg.Patience
	}
	t := &Target{
		cfg:     cfg,
		log:     cfg.Logger,
		stop:    make(chan struct{}),
		groups:  map[string]*unit.Group{},
		volumes: map[string]*volume{},
		failed:  map[string]error{},
		hung:    map[string]*ask.Question[opened]{},
		portals: map[string]*portal{},
		nexuses: map[*nexus]struct{}{},

		controllers: map[*nvme.Controller]struct{}{},
	}
	ic := cfg.ISCSI
	ic.Access, ic.Logger = access{t}, cfg.Logger
	t.server = iscsi.NewServer(ic)
	t.done.Go(func() { t.every(t.retry) })
	t.done.Go(func() { t.every(t.inspect) })
	return t, nil
}

// ErrClosed is returned by Apply after Close.
var ErrClosed = errors.New("the data plane is closed")

// Apply makes the data plane what the state says and returns when it is:
// volumes that the state no longer has are closed, sessions see their new LUNs,
// portals listen. What can not be brought about now (a backing store that is
// missing, an address that is not there) is reported by Status and tried
// again; Apply fails only where a change is refused, and has then still
// applied the rest.
func (t *Target) Apply(ctx context.Context, state *array.State) error {
	t.apply.Lock()
	defer t.apply.Unlock()
	select {
	case <-t.stop:
		return ErrClosed
	default:
	}
	if t.device == nil {
		device, err := t.newDevice(state.Document)
		if err != nil {
			return err
		}
		if err := t.newSubsystem(state.Document); err != nil {
			return err
		}
		t.device = device
	}
	t.mu.Lock()
	previous := t.state
	t.mu.Unlock()

	came, errs := t.applyVolumes(state)
	if err := t.applyPorts(previous, state); err != nil {
		errs = append(errs, err)
	}
	t.device.SetName(state.Document.Target.IQN)
	t.mu.Lock()
	t.state = state
	if discoveryDiffers(previous, state) {
		t.discoveryGeneration++
	}
	t.mu.Unlock()
	if err := t.subsystem.Rename(state.Document.Target.SubsystemNQN); err != nil {
		errs = append(errs, err)
	}
	t.applyAccess(state)
	if t.viewsDiffer(previous, state, came) {
		t.applySessions(state)
		t.applyControllers(previous, state)
	}
	errs = append(errs, t.removeVolumes(ctx, state)...)
	t.applyListeners(state)
	return errors.Join(errs...)
}

func (t *Target) newDevice(doc *array.Document) (*scsi.Target, error) {
	mover := copy.New(copy.Config{})
	device, err := scsi.NewTarget(scsi.TargetConfig{
		Name:      doc.Target.IQN,
		Families:  [][]scsi.Command{sbc.Commands(), reserve.Commands(), mover.Commands()},
		Pages:     map[byte]func(*scsi.LogicalUnit) []byte{thirdPartyCopyPage: copy.Page},
		Available: t.available,
		OnReset:   t.reset,
	})
	if err != nil {
		return nil, fmt.Errorf("SCSI target %s: %w", doc.Target.IQN, err)
	}
	return device, nil
}

// available returns what a volume can still take from its pool.
func (t *Target) available(lu *scsi.LogicalUnit) (uint64, bool) {
	t.mu.Lock()
	v := t.volumes[string(lu.Unit().ID())]
	isFile := v != nil && v.spec.Kind == array.VolumeFile
	t.mu.Unlock()
	if !isFile {
		return 0, false
	}
	pool, err := t.cfg.Pool(v.pool.ID)
	if err != nil {
		return 0, false
	}
	_, free, err := pool.Space()
	return free, err == nil
}

// reset ends the session of an initiator that asked for a cold reset (RFC 7143
// §11.5.1): its units have been reset already.
func (t *Target) reset(n *scsi.Nexus, f scsi.Function) {
	if f != scsi.TargetColdReset {
		return
	}
	t.mu.Lock()
	var id uint64
	for known := range t.nexuses {
		if known.Nexus == n {
			id = known.info.ID
		}
	}
	t.mu.Unlock()
	if id != 0 {
		t.server.Drop(id)
	}
}

// applyPorts tells the SCSI target its ports: one for each portal tag.
func (t *Target) applyPorts(previous, state *array.State) error {
	if previous != nil && previous.Document == state.Document {
		return nil
	}
	var ports []scsi.PortConfig
	seen := map[uint16]bool{}
	for _, p := range state.Document.Portals {
		if p.Protocol == array.ISCSI && !seen[p.Tag] {
			seen[p.Tag] = true
			ports = append(ports, scsi.PortConfig{
				Name:     fmt.Sprintf("%s,t,0x%04x", state.Document.Target.IQN, p.Tag),
				Relative: p.Tag,
				Group:    p.Group,
				Protocol: protocolISCSI,
			})
		}
	}
	if err := t.device.SetPorts(ports); err != nil {
		return fmt.Errorf("target ports: %w", err)
	}
	return nil
}

// thirdPartyCopyPage is the page code of SPC-4 §7.8.17.
const thirdPartyCopyPage = 0x8f

// protocolISCSI is the protocol identifier of SPC-4 §7.6.1.
const protocolISCSI = 5

// applyAccess sets the asymmetric access states.
func (t *Target) applyAccess(state *array.State) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, p := range state.Pools {
		g := t.groups[p.ID]
		if g == nil {
			continue
		}
		for i := range state.Document.Target.PortGroups {
			tpg := &state.Document.Target.PortGroups[i]
			g.SetState(tpg.ID, accessStates[tpg.State(p.ID)])
		}
	}
}

var accessStates = map[array.AccessState]unit.AccessState{
	array.Optimized:     unit.Optimized,
	array.NonOptimized:  unit.NonOptimized,
	array.Standby:       unit.Standby,
	array.Unavailable:   unit.Unavailable,
	array.Offline:       unit.Offline,
	array.Transitioning: unit.Transitioning,
}

// every calls what it is given at the interval of retries until the Target closes.
func (t *Target) every(do func()) {
	tick := time.NewTicker(t.cfg.Retry)
	defer tick.Stop()
	for {
		select {
		case <-t.stop:
			return
		case <-tick.C:
			do()
		}
	}
}

// retry opens what could not be opened so far.
func (t *Target) retry() {
	t.apply.Lock()
	defer t.apply.Unlock()
	select {
	case <-t.stop: // while this waited for its turn
		return
	default:
	}
	t.mu.Lock()
	state := t.state
	var waiting []*volume
	for _, v := range t.volumes {
		if v.missing() {
			waiting = append(waiting, v)
		}
	}
	t.mu.Unlock()
	for _, v := range waiting {
		t.startOpen(v)
	}
	if state != nil {
		t.applyListeners(state)
	}
}

// inspect looks how thin volumes fill and what storage fails. Storage that hangs keeps
// nothing waiting.
func (t *Target) inspect() {
	t.mu.Lock()
	var open []*volume
	for _, v := range t.volumes {
		if !v.missing() {
			open = append(open, v)
		}
	}
	t.mu.Unlock()
	questions := make([]*ask.Question[answer], len(open))
	for i, v := range open {
		questions[i] = v.ask()
	}
	for i, v := range open {
		a := t.await(questions[i])
		t.logFault(v, a.health.Fault)
		if !hangs(a.health.Fault) {
			t.checkThreshold(v, a)
		}
	}
}

// Close asks the initiators to log out, waits for them and for their commands
// until ctx is done, and closes every volume.
func (t *Target) Close(ctx context.Context) error {
	t.apply.Lock()
	defer t.apply.Unlock()
	select {
	case <-t.stop:
		return nil
	default:
	}
	close(t.stop)
	errs := []error{t.server.Shutdown(ctx)}
	if t.nvmeServer != nil {
		errs = append(errs, t.nvmeServer.Shutdown(ctx))
	}
	t.mu.Lock()
	volumes := make([]*volume, 0, len(t.volumes))
	for _, v := range t.volumes {
		volumes = append(volumes, v)
	}
	t.volumes = map[string]*volume{}
	t.portals = map[string]*portal{}
	t.mu.Unlock()
	t.discardHung(func(string) bool { return true })
	return errors.Join(append(errs, t.closeVolumes(ctx, volumes)...)...)
}

// Wait returns after the goroutines of a closed Target have ended.
func (t *Target) Wait() { t.done.Wait() }
