package cli

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"go.yaml.in/yaml/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	lintelv1 "lintel.io/lintel/api/lintel/v1"
)

func sampleVolume() *lintelv1.Volume {
	return &lintelv1.Volume{
		Id: "v1", Etag: "v1.3", Created: timestamppb.New(time.Date(2026, 11, 22, 8, 0, 0, 5e8, time.UTC)),
		Spec:   &lintelv1.VolumeSpec{Name: "db1", SizeBytes: 64 << 40, Kind: lintelv1.VolumeKind_VOLUME_KIND_FILE, Thin: proto.Bool(false)},
		Status: &lintelv1.VolumeStatus{State: lintelv1.VolumeState_VOLUME_STATE_ONLINE},
	}
}

func TestDocumentIsStable(t *testing.T) {
	got, err := json.Marshal(document(sampleVolume()))
	if err != nil {
		t.Fatal(err)
	}
	const want = `{"id":"v1","etag":"v1.3","created":"2026-11-22T08:00:00.5Z","spec":{"name":"db1","pool":"","size_bytes":70368744177664,` +
		`"kind":"file","path":"","block_size":0,"physical_exponent":null,"naa_id":"","eui64_id":"","t10_dev_id":"","usn":"","vendor":"",` +
		`"product":"","revision":"","rotational":false,"thin":false,"read_only":false,"write_through":false,"thin_threshold_percent":0,"comment":""},` +
		`"status":{"state":"online","reason":"","used_bytes":null,"sessions":null,"mappings":0,"nguid":"","uuid":"","degraded_since":null,"failed_requests":null}}`
	if string(got) != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestYAMLSaysWhatJSONSays(t *testing.T) {
	messages := []proto.Message{
		sampleVolume(), &lintelv1.Pool{}, &lintelv1.Target{Portals: []*lintelv1.Portal{{}, {Listening: "[::1]:3260"}}},
		&lintelv1.Host{Spec: &lintelv1.HostSpec{Initiators: []string{"*", "yes", "0x1"}}}, &lintelv1.GetStatsResponse{Total: &lintelv1.IOStats{ReadOps: 1 << 53}},
	}
	for _, m := range messages {
		asJSON, err := json.Marshal(document(m))
		if err != nil {
			t.Fatal(err)
		}
		asYAML, err := yaml.Marshal(document(m))
		if err != nil {
			t.Fatal(err)
		}
		var fromJSON, fromYAML any
		if err := yaml.Unmarshal(asJSON, &fromJSON); err != nil {
			t.Fatal(err)
		}
		if err := yaml.Unmarshal(asYAML, &fromYAML); err != nil {
			t.Fatal(err)
		}
		if fmt.Sprint(fromJSON) != fmt.Sprint(fromYAML) {
			t.Errorf("%T: yaml\n%s\nis not json\n%s", m, asYAML, asJSON)
		}
	}
}

func TestEnumWords(t *testing.T) {
	for _, c := range []struct {
		got  string
		want string
	}{
		{word(lintelv1.ChapAlgorithm_CHAP_ALGORITHM_SHA3_256), "sha3-256"},
		{word(lintelv1.AccessState_ACCESS_STATE_NON_OPTIMIZED), "non-optimized"},
		{word(lintelv1.VolumeKind(99)), "unknown"},
		{strings.Join(enumWords(lintelv1.VolumeKind(0).Descriptor()), " "), "file null mem disk"},
	} {
		if c.got != c.want {
			t.Errorf("got %q, want %q", c.got, c.want)
		}
	}
	number, ok := enumNumber(lintelv1.AccessState(0).Descriptor(), "non-optimized")
	if !ok || number != lintelv1.AccessState_ACCESS_STATE_NON_OPTIMIZED.Number() {
		t.Errorf("non-optimized is %d %v", number, ok)
	}
	if _, ok := enumNumber(lintelv1.AccessState(0).Descriptor(), "unspecified"); ok {
		t.Error("unspecified is not a state to set")
	}
}

func TestTable(t *testing.T) {
	type row struct {
		name string
		n    int
	}
	columns := []column[row]{
		{head: "NAME", text: func(r row) string { return r.name }, style: func(r row) style { return goodIf(r.n > 0) }},
		{head: "N", right: true, text: func(r row) string { return fmt.Sprint(r.n) }},
		{head: "LAST", text: func(row) string { return "" }},
	}
	rows := []row{{"größe", 5}, {"evil\x1b[2J", 12345}}
	var b bytes.Buffer
	if err := writeTable(&b, false, columns, rows); err != nil {
		t.Fatal(err)
	}
	const want = "NAME          N  LAST\ngröße         5  -\nevil?[2J  12345  -\n"
	if b.String() != want {
		t.Errorf("got\n%q\nwant\n%q", b.String(), want)
	}
	b.Reset()
	if err := writeTable(&b, true, columns, rows[:1]); err != nil {
		t.Fatal(err)
	}
	if want := "\x1b[32mgröße\x1b[0m"; !strings.Contains(b.String(), want) {
		t.Errorf("with colour: %q has no %q", b.String(), want)
	}
}

func TestExitCodes(t *testing.T) {
	for _, c := range []struct {
		err  error
		want int
	}{
		{nil, 0},
		{errors.New("x"), 1},
		{usage("x"), 2},
		{fmt.Errorf("while: %w", fail(ExitConflict, "x")), 5},
		{connect.NewError(connect.CodeInvalidArgument, errors.New("x")), 2},
		{connect.NewError(connect.CodeNotFound, errors.New("x")), 4},
		{connect.NewError(connect.CodeAlreadyExists, errors.New("x")), 5},
		{connect.NewError(connect.CodeFailedPrecondition, errors.New("x")), 5},
		{connect.NewError(connect.CodeAborted, errors.New("x")), 5},
		{connect.NewError(connect.CodePermissionDenied, errors.New("x")), 6},
		{connect.NewError(connect.CodeUnavailable, errors.New("x")), 7},
		{connect.NewError(connect.CodeInternal, errors.New("x")), 1},
	} {
		if got := exitCode(c.err); got != c.want {
			t.Errorf("%v: exit code %d, want %d", c.err, got, c.want)
		}
	}
	err := fmt.Errorf("volume: %w", connect.NewError(connect.CodeNotFound, errors.New("no such thing")))
	if got := message(err); got != "volume: no such thing" {
		t.Errorf("message is %q", got)
	}
}

func TestFormatSize(t *testing.T) {
	for n, want := range map[uint64]string{
		0: "0 B", 1023: "1023 B", 1024: "1 KiB", 1536: "1.5 KiB", 10 << 30: "10 GiB", 10<<30 + 1: "10.0 GiB", 64 << 40: "64 TiB", 1<<64 - 1: "15.9 EiB",
	} {
		if got := formatSize(n); got != want {
			t.Errorf("%d is %q, want %q", n, got, want)
		}
	}
	if got := formatCount(1234567); got != "1,234,567" {
		t.Error(got)
	}
	if got := formatCount(999); got != "999" {
		t.Error(got)
	}
}

func TestRatesSurviveRestart(t *testing.T) {
	before := &lintelv1.GetStatsResponse{Time: timestamppb.New(time.Unix(100, 0)), Total: &lintelv1.IOStats{ReadOps: 1000, ReadNanoseconds: 9000}}
	after := &lintelv1.GetStatsResponse{Time: timestamppb.New(time.Unix(102, 0)), Total: &lintelv1.IOStats{ReadOps: 10, ReadNanoseconds: 9}}
	r := ratesBetween(before, after)[0]
	if got := r.perSecond((*lintelv1.IOStats).GetReadOps); got != 0 {
		t.Errorf("rate over a restart is %v", got)
	}
	after.Total = &lintelv1.IOStats{ReadOps: 3000, ReadNanoseconds: 9000 + 2000*12345}
	r = ratesBetween(before, after)[0]
	if got := r.perSecond((*lintelv1.IOStats).GetReadOps); got != 1000 {
		t.Errorf("rate is %v", got)
	}
	if got := r.latency((*lintelv1.IOStats).GetReadOps, (*lintelv1.IOStats).GetReadNanoseconds); got != "12.3µs" {
		t.Errorf("latency is %q", got)
	}
}
