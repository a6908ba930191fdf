package agent

import (
	"context"

	"github.com/prometheus/client_golang/prometheus"

	lintelv1 "lintel.io/lintel/api/lintel/v1"
	"lintel.io/lintel/internal/array"
)

// metric describes one metric of the array.
type metric struct {
	desc *prometheus.Desc
	kind prometheus.ValueType
}

func counter(name, help string, labels ...string) metric {
	return metric{prometheus.NewDesc("lintel_"+name, help, labels, nil), prometheus.CounterValue}
}

func gauge(name, help string, labels ...string) metric {
	return metric{prometheus.NewDesc("lintel_"+name, help, labels, nil), prometheus.GaugeValue}
}

// The metrics. Their names are part of the interface: a test holds them.
var (
	metricInfo = gauge("info", "Always 1; the labels tell version and array.", "version", "array")

	metricVolumeSize    = gauge("volume_size_bytes", "Capacity of the volume.", "volume", "pool")
	metricVolumeUsed    = gauge("volume_used_bytes", "Space the volume takes from its backing store.", "volume", "pool")
	metricVolumeState   = gauge("volume_state", "1 for the state that the volume is in.", "volume", "pool", "state")
	metricVolumeFailed  = counter("volume_failed_requests_total", "Reads, writes and flushes that the backing store has failed since the volume was opened.", "volume", "pool")
	metricVolumeReads   = counter("volume_reads_total", "Commands that read data.", "volume", "pool")
	metricVolumeWrites  = counter("volume_writes_total", "Commands that wrote data.", "volume", "pool")
	metricVolumeOthers  = counter("volume_other_commands_total", "Commands that neither read nor wrote data.", "volume", "pool")
	metricVolumeRead    = counter("volume_read_bytes_total", "Bytes read.", "volume", "pool")
	metricVolumeWritten = counter("volume_written_bytes_total", "Bytes written.", "volume", "pool")
	metricVolumeErrors  = counter("volume_errors_total", "Commands that ended with CHECK CONDITION.", "volume", "pool")
	metricReadTime      = counter("volume_read_seconds_total", "Time from the arrival of a command to its status, summed over reads.", "volume", "pool")
	metricWriteTime     = counter("volume_write_seconds_total", "Time from the arrival of a command with its data to its status, summed over writes.", "volume", "pool")
	metricInFlight      = gauge("volume_commands_in_flight", "Commands under way.", "volume", "pool")

	metricPoolSize        = gauge("pool_size_bytes", "Capacity of what lies below the pool.", "pool")
	metricPoolFree        = gauge("pool_free_bytes", "What is left of it.", "pool")
	metricPoolProvisioned = gauge("pool_provisioned_bytes", "Sum of the sizes of the volumes that take space from the pool.", "pool")
	metricPoolVolumes     = gauge("pool_volumes", "Number of volumes.", "pool")
	metricPoolState       = gauge("pool_state", "1 for the state that the pool is in.", "pool", "state")

	metricTargetUp     = gauge("target_up", "1 where the data plane answers its manager.")
	metricSessions     = gauge("sessions", "Sessions of initiators: iSCSI sessions and NVMe controllers.", "protocol", "type")
	metricConnections  = gauge("connections", "TCP connections of initiators.")
	metricHostSessions = gauge("host_sessions", "Sessions of the host.", "host")
	metricPortalState  = gauge("portal_listening", "1 where the portal takes connections.", "portal", "protocol")
	metricAlerts       = gauge("alerts", "Alerts that stand now.", "severity")
	metricBuffers      = gauge("buffer_bytes", "I/O buffers in use.")
)

var allMetrics = []metric{
	metricInfo,
	metricVolumeSize, metricVolumeUsed, metricVolumeState, metricVolumeFailed, metricVolumeReads, metricVolumeWrites, metricVolumeOthers,
	metricVolumeRead, metricVolumeWritten, metricVolumeErrors, metricReadTime, metricWriteTime, metricInFlight,
	metricPoolSize, metricPoolFree, metricPoolProvisioned, metricPoolVolumes, metricPoolState, metricTargetUp,
	metricSessions, metricConnections, metricHostSessions, metricPortalState, metricAlerts, metricBuffers,
}

// collector gives the array's metrics to Prometheus.
type collector struct{ *Agent }

// Collector returns the array's metrics. It is used after Start.
func (a *Agent) Collector() prometheus.Collector { return collector{a} }

// Describe lists the metrics.
func (c collector) Describe(to chan<- *prometheus.Desc) {
	for _, m := range allMetrics {
		to <- m.desc
	}
}

// Collect measures them.
func (c collector) Collect(to chan<- prometheus.Metric) {
	send := func(m metric, value float64, labels ...string) {
		to <- prometheus.MustNewConstMetric(m.desc, m.kind, value, labels...)
	}
	state := c.State()
	send(metricInfo, 1, c.opts.Version, state.Document.Name)
	ctx, cancel := context.WithTimeout(context.Background(), readyTimeout)
	defer cancel()
	status := c.look(ctx, AllVolumes)
	send(metricTargetUp, truth(status.err == nil))
	for _, p := range state.Pools {
		c.collectPool(send, p, status.pool(p.ID))
		for _, v := range p.Volumes {
			collectVolume(send, p, v, status.volume(v.ID))
		}
	}
	if stats, err := c.plane.Stats(ctx); err == nil {
		collectStats(send, state, stats)
	}
	if sessions, err := c.plane.Sessions(ctx); err == nil {
		collectSessions(send, state, sessions)
	}
	for _, p := range state.Document.Portals {
		send(metricPortalState, truth(status.portal(p.ID).Listening.IsValid()), p.AddrPort().String(), string(p.Protocol))
	}
	alerts := make(map[lintelv1.Severity]int)
	for _, a := range c.alerts(status) {
		alerts[a.Severity]++
	}
	send(metricAlerts, float64(alerts[lintelv1.Severity_SEVERITY_INFO]), "info")
	send(metricAlerts, float64(alerts[lintelv1.Severity_SEVERITY_WARNING]), "warning")
	send(metricAlerts, float64(alerts[lintelv1.Severity_SEVERITY_CRITICAL]), "critical")
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

func (c collector) collectPool(send func(metric, float64, ...string), p *array.PoolDocument, data PoolStatus) {
	m := c.poolMessage(p, data).Status
	send(metricPoolSize, float64(m.SizeBytes), p.Name)
	send(metricPoolFree, float64(m.FreeBytes), p.Name)
	send(metricPoolProvisioned, float64(m.ProvisionedBytes), p.Name)
	send(metricPoolVolumes, float64(m.Volumes), p.Name)
	for _, s := range []struct {
		state lintelv1.PoolState
		name  string
	}{{lintelv1.PoolState_POOL_STATE_ONLINE, "online"}, {lintelv1.PoolState_POOL_STATE_DEGRADED, "degraded"}, {lintelv1.PoolState_POOL_STATE_OFFLINE, "offline"}} {
		send(metricPoolState, truth(m.State == s.state), p.Name, s.name)
	}
}

func collectVolume(send func(metric, float64, ...string), p *array.PoolDocument, v *array.Volume, status VolumeStatus) {
	send(metricVolumeSize, float64(v.Size), v.Name, p.Name)
	if status.answers() {
		send(metricVolumeUsed, float64(status.UsedBytes), v.Name, p.Name)
		send(metricVolumeFailed, float64(status.Health.Failed), v.Name, p.Name)
	}
	for _, s := range []struct {
		state lintelv1.VolumeState
		name  string
	}{{lintelv1.VolumeState_VOLUME_STATE_ONLINE, "online"}, {lintelv1.VolumeState_VOLUME_STATE_DEGRADED, "degraded"}, {lintelv1.VolumeState_VOLUME_STATE_OFFLINE, "offline"}} {
		send(metricVolumeState, truth(volumeState(status) == s.state), v.Name, p.Name, s.name)
	}
}

// collectStats sends the counters; while nobody tells them, there are none.
func collectStats(send func(metric, float64, ...string), state *array.State, stats *Stats) {
	send(metricBuffers, float64(stats.Process.BufferBytes))
	send(metricConnections, float64(stats.Connections))
	for _, p := range state.Pools {
		for _, v := range p.Volumes {
			collectIO(send, p, v, stats.Volumes[v.ID])
		}
	}
}

func collectIO(send func(metric, float64, ...string), p *array.PoolDocument, v *array.Volume, io IOStats) {
	send(metricVolumeReads, float64(io.ReadOps), v.Name, p.Name)
	send(metricVolumeWrites, float64(io.WriteOps), v.Name, p.Name)
	send(metricVolumeOthers, float64(io.OtherOps), v.Name, p.Name)
	send(metricVolumeRead, float64(io.ReadBytes), v.Name, p.Name)
	send(metricVolumeWritten, float64(io.WriteBytes), v.Name, p.Name)
	send(metricVolumeErrors, float64(io.Errors), v.Name, p.Name)
	send(metricReadTime, io.ReadTime.Seconds(), v.Name, p.Name)
	send(metricWriteTime, io.WriteTime.Seconds(), v.Name, p.Name)
	send(metricInFlight, float64(io.InFlight), v.Name, p.Name)
}

func collectSessions(send func(metric, float64, ...string), state *array.State, sessions []Session) {
	type kind struct {
		protocol  array.Protocol
		discovery bool
	}
	byKind := make(map[kind]int)
	byHost := make(map[string]int)
	for _, s := range sessions {
		byKind[kind{s.Protocol, s.Discovery}]++
		byHost[s.HostID]++
	}
	for _, p := range []array.Protocol{array.ISCSI, array.NVMeTCP} {
		send(metricSessions, float64(byKind[kind{p, false}]), string(p), "normal")
		send(metricSessions, float64(byKind[kind{p, true}]), string(p), "discovery")
	}
	for _, h := range state.Document.Hosts {
		send(metricHostSessions, float64(byHost[h.ID]), h.Name)
	}
}
