package serve

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	"connectrpc.com/connect"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"google.golang.org/protobuf/reflect/protoreflect"

	lintelv1 "lintel.io/lintel/api/lintel/v1"
)

// scrapeTimeout bounds one reading of the array for Prometheus.
const scrapeTimeout = 5 * time.Second

// collector reads the array through its API at each scrape.
type collector struct {
	api *api
	log *slog.Logger
}

// metric is one family of series; all names are in testdata/metrics.golden.
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

var (
	metricInfo        = gauge("info", "Version and identity of the array.", "version", "array", "array_id", "head")
	metricStart       = gauge("start_time_seconds", "When the array was started, in seconds since 1970.")
	metricScrapeOK    = gauge("up", "1 where the array could be read for this scrape, else 0.")
	metricSessions    = gauge("sessions", "Sessions of initiators.")
	metricConnections = gauge("connections", "TCP connections of initiators.")
	metricAlerts      = gauge("alerts", "Number of alerts by severity.", "severity")
	metricBuffers     = gauge("buffer_bytes", "I/O buffers that are in use.")

	metricOps      = counter("volume_operations_total", "Commands completed.", "volume", "id", "operation")
	metricBytes    = counter("volume_bytes_total", "Data read and written by initiators.", "volume", "id", "operation")
	metricSeconds  = counter("volume_operation_seconds_total", "Time from command to status, summed.", "volume", "id", "operation")
	metricErrors   = counter("volume_errors_total", "Commands that ended with CHECK CONDITION.", "volume", "id")
	metricInFlight = gauge("volume_in_flight", "Commands under way.", "volume", "id")
	metricSize     = gauge("volume_size_bytes", "Capacity of the volume.", "volume", "id", "pool")
	metricUsed     = gauge("volume_used_bytes", "Space that the volume takes from its pool.", "volume", "id", "pool")
	metricVolume   = gauge("volume_state", "1 for the state that the volume is in, 0 for the others.", "volume", "id", "state")

	metricPool        = gauge("pool_state", "1 for the state that the pool is in, 0 for the others.", "pool", "state")
	metricPoolSize    = gauge("pool_size_bytes", "Capacity below the pool.", "pool")
	metricPoolFree    = gauge("pool_free_bytes", "Space left below the pool.", "pool")
	metricProvisioned = gauge("pool_provisioned_bytes", "Sum of the sizes of the volumes in the pool.", "pool")

	metricPortal         = gauge("portal_state", "1 for the state that the portal is in, 0 for the others.", "portal", "state")
	metricPortalSessions = gauge("portal_sessions", "Sessions through the portal.", "portal")

	allMetrics = []metric{
		metricInfo, metricStart, metricScrapeOK, metricSessions, metricConnections, metricAlerts, metricBuffers,
		metricOps, metricBytes, metricSeconds, metricErrors, metricInFlight, metricSize, metricUsed, metricVolume,
		metricPool, metricPoolSize, metricPoolFree, metricProvisioned, metricPortal, metricPortalSessions,
	}
)

// Describe implements prometheus.Collector.
func (c *collector) Describe(out chan<- *prometheus.Desc) {
	for _, m := range allMetrics {
		out <- m.desc
	}
}

// Collect implements prometheus.Collector.
func (c *collector) Collect(out chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), scrapeTimeout)
	defer cancel()
	s := sink{out}
	var failed error
	for _, collect := range []func(context.Context, sink) error{c.info, c.io, c.volumes, c.pools, c.portals} {
		if err := collect(ctx, s); err != nil {
			failed = err
		}
	}
	if failed != nil {
		c.log.Warn("metrics are incomplete", "error", failed)
	}
	s.bool(metricScrapeOK, failed == nil)
}

// sink takes the values of a scrape.
type sink struct{ out chan<- prometheus.Metric }

func (s sink) put(m metric, value float64, labels ...string) {
	s.out <- prometheus.MustNewConstMetric(m.desc, m.kind, value, labels...)
}

func (s sink) bool(m metric, value bool, labels ...string) {
	if value {
		s.put(m, 1, labels...)
	} else {
		s.put(m, 0, labels...)
	}
}

// state puts one series for each value of an enumeration.
func (s sink) state(m metric, now protoreflect.Enum, labels ...string) {
	values := now.Descriptor().Values()
	prefix := strings.TrimSuffix(string(values.ByNumber(0).Name()), "UNSPECIFIED")
	for i := 1; i < values.Len(); i++ {
		word := strings.ToLower(strings.TrimPrefix(string(values.Get(i).Name()), prefix))
		s.bool(m, values.Get(i).Number() == now.Number(), append(labels[:len(labels):len(labels)], word)...)
	}
}

func (c *collector) info(ctx context.Context, s sink) error {
	res, err := c.api.system.GetInfo(ctx, connect.NewRequest(&lintelv1.GetInfoRequest{}))
	if err != nil {
		return err
	}
	info := res.Msg
	s.put(metricInfo, 1, info.GetVersion(), info.GetArray(), info.GetArrayId(), info.GetHead())
	s.put(metricStart, float64(info.GetStarted().AsTime().UnixMilli())/1e3)
	health, err := c.api.system.GetHealth(ctx, connect.NewRequest(&lintelv1.GetHealthRequest{}))
	if err != nil {
		return err
	}
	counts := map[lintelv1.Severity]float64{}
	for _, alert := range health.Msg.GetAlerts() {
		counts[alert.GetSeverity()]++
	}
	s.put(metricAlerts, counts[lintelv1.Severity_SEVERITY_INFO], "info")
	s.put(metricAlerts, counts[lintelv1.Severity_SEVERITY_WARNING], "warning")
	s.put(metricAlerts, counts[lintelv1.Severity_SEVERITY_CRITICAL], "critical")
	return nil
}

func (c *collector) io(ctx context.Context, s sink) error {
	res, err := c.api.stats.GetStats(ctx, connect.NewRequest(&lintelv1.GetStatsRequest{}))
	if err != nil {
		return err
	}
	s.put(metricSessions, float64(res.Msg.GetSessions()))
	s.put(metricConnections, float64(res.Msg.GetConnections()))
	s.put(metricBuffers, float64(res.Msg.GetProcess().GetBufferBytes()))
	for _, v := range res.Msg.GetVolumes() {
		name, id, io := v.GetVolume(), v.GetId(), v.GetIo()
		s.put(metricOps, float64(io.GetReadOps()), name, id, "read")
		s.put(metricOps, float64(io.GetWriteOps()), name, id, "write")
		s.put(metricOps, float64(io.GetOtherOps()), name, id, "other")
		s.put(metricBytes, float64(io.GetReadBytes()), name, id, "read")
		s.put(metricBytes, float64(io.GetWriteBytes()), name, id, "write")
		s.put(metricSeconds, float64(io.GetReadNanoseconds())/1e9, name, id, "read")
		s.put(metricSeconds, float64(io.GetWriteNanoseconds())/1e9, name, id, "write")
		s.put(metricErrors, float64(io.GetErrors()), name, id)
		s.put(metricInFlight, float64(io.GetInFlight()), name, id)
	}
	return nil
}

func (c *collector) volumes(ctx context.Context, s sink) error {
	res, err := c.api.volumes.ListVolumes(ctx, connect.NewRequest(&lintelv1.ListVolumesRequest{}))
	if err != nil {
		return err
	}
	for _, v := range res.Msg.GetVolumes() {
		name, id, pool := v.GetSpec().GetName(), v.GetId(), v.GetSpec().GetPool()
		s.put(metricSize, float64(v.GetSpec().GetSizeBytes()), name, id, pool)
		s.put(metricUsed, float64(v.GetStatus().GetUsedBytes()), name, id, pool)
		s.state(metricVolume, v.GetStatus().GetState(), name, id)
	}
	return nil
}

func (c *collector) pools(ctx context.Context, s sink) error {
	res, err := c.api.pools.ListPools(ctx, connect.NewRequest(&lintelv1.ListPoolsRequest{}))
	if err != nil {
		return err
	}
	for _, p := range res.Msg.GetPools() {
		name, status := p.GetSpec().GetName(), p.GetStatus()
		s.state(metricPool, status.GetState(), name)
		s.put(metricPoolSize, float64(status.GetSizeBytes()), name)
		s.put(metricPoolFree, float64(status.GetFreeBytes()), name)
		s.put(metricProvisioned, float64(status.GetProvisionedBytes()), name)
	}
	return nil
}

func (c *collector) portals(ctx context.Context, s sink) error {
	res, err := c.api.target.GetTarget(ctx, connect.NewRequest(&lintelv1.GetTargetRequest{}))
	if err != nil {
		return err
	}
	for _, p := range res.Msg.GetTarget().GetPortals() {
		name := portalAddress(p)
		s.state(metricPortal, p.GetState(), name)
		s.put(metricPortalSessions, float64(p.GetSessions()), name)
	}
	return nil
}

func portalAddress(p *lintelv1.Portal) string {
	return net.JoinHostPort(p.GetSpec().GetAddress(), strconv.Itoa(int(p.GetSpec().GetPort())))
}

// metricsHandler serves the metrics of the array, of Go and of the process.
func metricsHandler(a *api, log *slog.Logger) (http.Handler, error) {
	registry := prometheus.NewRegistry()
	for _, c := range []prometheus.Collector{
		&collector{a, log}, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	} {
		if err := registry.Register(c); err != nil {
			return nil, fmt.Errorf("metrics: %w", err)
		}
	}
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	return mux, nil
}
