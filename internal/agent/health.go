package agent

import (
	"cmp"
	"fmt"
	"slices"

	lintelv1 "lintel.io/lintel/api/lintel/v1"
	"lintel.io/lintel/internal/block"
)

// alertKind is an entry of the catalogue of alerts.
type alertKind struct {
	code     string // stable, never used for something else
	severity lintelv1.Severity
	text     string // with one verb for the particulars
	hint     string
}

// The catalogue.
var (
	alertPoolDegraded = &alertKind{
		"pool-degraded", lintelv1.Severity_SEVERITY_CRITICAL,
		"the pool does not take changes: %v", "repair the storage below the pool, then restart the array",
	}
	alertPoolProblem = &alertKind{
		"pool-problem", lintelv1.Severity_SEVERITY_WARNING,
		"%v", "stop the array and look at its directory with lintel check",
	}
	alertPoolFull = &alertKind{
		"pool-nearly-full", lintelv1.Severity_SEVERITY_WARNING,
		"%v", "free space or make the file system larger before writes fail",
	}
	alertNoTarget = &alertKind{
		"target-not-answering", lintelv1.Severity_SEVERITY_CRITICAL,
		"it is not known how volumes, portals and sessions do, and nothing can be changed: %v", "start lintel target serve on this data directory, or look at its log",
	}
	alertVolumeOffline = &alertKind{
		"volume-offline", lintelv1.Severity_SEVERITY_CRITICAL,
		"the volume cannot be used: %v", "bring its backing store back; it is tried again by itself",
	}
	alertVolumeLost = &alertKind{
		"volume-writes-lost", lintelv1.Severity_SEVERITY_CRITICAL,
		"%v", "repair the storage below the volume, open it anew with lintel volume reopen NAME, and have the hosts check their file systems",
	}
	alertVolumeBacking = &alertKind{
		"volume-backing-changed", lintelv1.Severity_SEVERITY_CRITICAL,
		"writes are refused: %v", "give the file back its name, or restore it and open it anew with lintel volume reopen NAME",
	}
	alertVolumeHung = &alertKind{
		"volume-not-answering", lintelv1.Severity_SEVERITY_CRITICAL,
		"the volume's commands wait or fail: %v", "look at the disks, the network file system or the paths below the volume, and at the kernel's log; other volumes are not concerned",
	}
	alertVolumeIO = &alertKind{
		"volume-io-errors", lintelv1.Severity_SEVERITY_CRITICAL,
		"the storage below the volume fails reads or writes: %v", "look at the disks below, and at the kernel's log; this is told for a day after the last failure, for five minutes where what was gone came back",
	}
	alertVolumeSpace = &alertKind{
		"volume-no-space", lintelv1.Severity_SEVERITY_CRITICAL,
		"writes fail for want of space: %v", "free space in the file system below the pool, or make it larger; this is told for five minutes after the last failure",
	}
	alertMappingDangling = &alertKind{
		"mapping-without-volume", lintelv1.Severity_SEVERITY_CRITICAL,
		"hosts are told that the LUN is not ready: %v", "bring the volume's pool back and restart the array, or give the volume up with lintel unmap VOLUME HOST, where VOLUME is its id",
	}
	alertPortalFailed = &alertKind{
		"portal-failed", lintelv1.Severity_SEVERITY_CRITICAL,
		"the portal does not listen: %v", "give the address to a network interface, or remove the portal; it is tried again by itself",
	}
	alertNoPortal = &alertKind{
		"no-portal", lintelv1.Severity_SEVERITY_WARNING,
		"%v", "add a portal",
	}
	alertApply = &alertKind{
		"configuration-not-applied", lintelv1.Severity_SEVERITY_CRITICAL,
		"part of the configuration is stored but not in effect: %v", "it is tried again every half a minute; where that does not help, repeat the change or restart the array",
	}
	alertCopyBehind = &alertKind{
		"copy-behind", lintelv1.Severity_SEVERITY_WARNING,
		"the copy of the configuration is not up to date: %v", "repair the storage it is on; the next change brings it up to date",
	}
	alertLeftBehind = &alertKind{
		"deleted-volume-left", lintelv1.Severity_SEVERITY_WARNING,
		"the data of a deleted volume is still there and takes its space: %v", "repair what keeps it from being removed, then restart the array, or its agent, which tries again",
	}
	alertAudit = &alertKind{
		"audit-log-failed", lintelv1.Severity_SEVERITY_WARNING,
		"the audit log cannot be written: %v", "free space in the data directory",
	}
)

// volumeFaults are the alerts of what can be wrong below a volume.
var volumeFaults = map[block.FaultKind]*alertKind{
	block.FaultLost: alertVolumeLost, block.FaultBacking: alertVolumeBacking, block.FaultHung: alertVolumeHung, block.FaultIO: alertVolumeIO, block.FaultSpace: alertVolumeSpace,
}

// nearlyFull is the free part of a pool, in percent, below which it is an alert.
const nearlyFull = 10

func (k *alertKind) alert(subject string, particulars any) *lintelv1.Alert {
	return &lintelv1.Alert{Code: k.code, Severity: k.severity, Subject: subject, Text: fmt.Sprintf(k.text, particulars), Hint: k.hint}
}

// alerts returns what is wrong now, the worst first.
func (a *Agent) alerts(status view) []*lintelv1.Alert {
	state := a.State()
	var found []*lintelv1.Alert
	add := func(k *alertKind, subject string, particulars any) {
		found = append(found, k.alert(subject, particulars))
	}
	if status.err != nil {
		add(alertNoTarget, "target", status.err)
	}
	for _, p := range state.Pools {
		subject := "pool/" + p.Name
		if store, err := a.Pool(p.ID); err == nil {
			if err := store.Err(); err != nil {
				add(alertPoolDegraded, subject, err)
			}
			for _, problem := range store.Problems() {
				if !problem.Mended {
					add(alertPoolProblem, subject, problem)
				}
			}
			if total, free, err := store.Space(); err != nil {
				add(alertPoolDegraded, subject, err)
			} else if free < total/100*nearlyFull {
				add(alertPoolFull, subject, fmt.Sprintf("%d%% of the file system is free", free*100/max(total, 1)))
			}
		}
		if reason := status.pool(p.ID).Reason; reason != "" {
			add(alertPoolDegraded, subject, reason)
		}
		for _, problem := range status.pool(p.ID).Problems {
			add(alertPoolProblem, subject, problem)
		}
		for _, v := range p.Volumes {
			if status.err == nil {
				found = append(found, volumeAlerts("volume/"+v.Name, status.volume(v.ID))...)
			}
		}
	}
	for _, m := range state.Document.Mappings {
		if v, _ := state.VolumeByID(m.Volume); v == nil {
			add(alertMappingDangling, "mapping/"+m.ID, fmt.Sprintf("LUN %d leads to volume %s, which is in no pool", m.LUN, m.Volume))
		}
	}
	for _, p := range state.Document.Portals {
		if s := status.portal(p.ID); !s.Listening.IsValid() && status.err == nil {
			add(alertPortalFailed, "portal/"+p.AddrPort().String(), s.Reason)
		}
	}
	if len(state.Document.Portals) == 0 {
		add(alertNoPortal, "target", "no initiator can log in: the target has no portal")
	}
	if err := a.audit.Err(); err != nil {
		add(alertAudit, "array", err)
	}
	a.mu.Lock()
	if a.applyErr != nil {
		add(alertApply, "array", a.applyErr)
	}
	for id, err := range a.leftErrs {
		add(alertLeftBehind, "volume/"+id, err)
	}
	for place, err := range a.copyErrs {
		add(alertCopyBehind, place, err)
	}
	a.mu.Unlock()
	slices.SortFunc(found, func(x, y *lintelv1.Alert) int {
		return cmp.Or(cmp.Compare(y.Severity, x.Severity), cmp.Compare(x.Code, y.Code), cmp.Compare(x.Subject, y.Subject), cmp.Compare(x.Text, y.Text))
	})
	return found
}

// volumeAlerts returns what is wrong with a volume. That its storage hangs says all about why it cannot be used.
func volumeAlerts(subject string, s VolumeStatus) []*lintelv1.Alert {
	var found []*lintelv1.Alert
	if !s.Online && !s.hangs() {
		found = append(found, alertVolumeOffline.alert(subject, s.Reason))
	}
	for _, fault := range []*block.Fault{s.Health.Fault, s.Before} {
		if fault == nil {
			continue
		}
		alert := cmp.Or(volumeFaults[fault.Kind], alertVolumeIO).alert(subject, fault.Reason)
		alert.Since = timeMessage(fault.Since)
		found = append(found, alert)
	}
	return found
}
