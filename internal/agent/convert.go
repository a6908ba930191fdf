package agent

import (
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/fieldmaskpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	lintelv1 "lintel.io/lintel/api/lintel/v1"
	"lintel.io/lintel/internal/array"
)

func planMessage(p array.Plan) *lintelv1.Plan {
	return &lintelv1.Plan{Steps: p.Steps, Warnings: p.Warnings}
}

func timeMessage(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t)
}

// Pairs of the API's and the array's words; the zero value of the API's is not among
// them.
var (
	volumeKinds = map[lintelv1.VolumeKind]array.VolumeKind{
		lintelv1.VolumeKind_VOLUME_KIND_FILE: array.VolumeFile,
		lintelv1.VolumeKind_VOLUME_KIND_NULL: array.VolumeNull,
		lintelv1.VolumeKind_VOLUME_KIND_MEM:  array.VolumeMem,
		lintelv1.VolumeKind_VOLUME_KIND_DISK: array.VolumeDisk,
	}
	poolKinds = map[lintelv1.PoolKind]array.PoolKind{
		lintelv1.PoolKind_POOL_KIND_FILE: array.PoolFile,
	}
	protocols = map[lintelv1.Protocol]array.Protocol{
		lintelv1.Protocol_PROTOCOL_ISCSI:          array.ISCSI,
		lintelv1.Protocol_PROTOCOL_NVME_TCP:       array.NVMeTCP,
		lintelv1.Protocol_PROTOCOL_NVME_DISCOVERY: array.NVMeDiscovery,
	}
	chapAlgorithms = map[lintelv1.ChapAlgorithm]array.CHAPAlgorithm{
		lintelv1.ChapAlgorithm_CHAP_ALGORITHM_MD5:      array.MD5,
		lintelv1.ChapAlgorithm_CHAP_ALGORITHM_SHA1:     array.SHA1,
		lintelv1.ChapAlgorithm_CHAP_ALGORITHM_SHA256:   array.SHA256,
		lintelv1.ChapAlgorithm_CHAP_ALGORITHM_SHA3_256: array.SHA3_256,
	}
	accessStates = map[lintelv1.AccessState]array.AccessState{
		lintelv1.AccessState_ACCESS_STATE_OPTIMIZED:     array.Optimized,
		lintelv1.AccessState_ACCESS_STATE_NON_OPTIMIZED: array.NonOptimized,
		lintelv1.AccessState_ACCESS_STATE_STANDBY:       array.Standby,
		lintelv1.AccessState_ACCESS_STATE_UNAVAILABLE:   array.Unavailable,
		lintelv1.AccessState_ACCESS_STATE_OFFLINE:       array.Offline,
		lintelv1.AccessState_ACCESS_STATE_TRANSITIONING: array.Transitioning,
	}
)

// messageOf returns the API's word for one of the array's.
func messageOf[M, A comparable](words map[M]A, word A) (message M) {
	for m, a := range words {
		if a == word {
			return m
		}
	}
	return message
}

// wordOf returns the array's word for one of the API's; fallback stands for the
// unspecified one. It fails with KindInvalid.
func wordOf[M interface {
	~int32
	String() string
}, A ~string](words map[M]A, field string, message M, fallback A) (A, error) {
	if message == 0 && fallback != "" {
		return fallback, nil
	}
	if a, ok := words[message]; ok {
		return a, nil
	}
	return "", array.Errorf(array.KindInvalid, "%s: %s is not a value that can be set", field, message.String())
}

// edits maps the paths of an update mask to what they do. It fails with KindInvalid where
// the mask is empty or has other paths than known ones; why tells of those that
// exist but cannot be set.
func edits(mask *fieldmaskpb.FieldMask, known map[string]func(), why string) error {
	paths := mask.GetPaths()
	if len(paths) == 0 {
		return array.Errorf(array.KindInvalid, "update_mask is empty: name the fields to set")
	}
	for _, path := range paths {
		if known[path] == nil {
			names := make([]string, 0, len(known))
			for name := range known {
				names = append(names, name)
			}
			slices.Sort(names)
			return array.Errorf(array.KindInvalid, "update_mask: %q cannot be set; %sfields that can: %s", path, why, strings.Join(names, ", "))
		}
	}
	for _, path := range paths {
		known[path]()
	}
	return nil
}

// narrow returns a number of a message in a smaller type, or a KindInvalid error.
func narrow[T uint8 | uint16](field string, n uint32) (T, error) {
	if t := T(n); uint32(t) == n {
		return t, nil
	}
	return 0, array.Errorf(array.KindInvalid, "%s %d: use at most %d", field, n, ^T(0))
}
