package agent_test

import (
	"fmt"
	"testing"

	lintelv1 "lintel.io/lintel/api/lintel/v1"
)

// BenchmarkCreateVolume makes volumes one after the other through the API, every one on stable
// storage before the next. Run it with -benchtime 1000x.
func BenchmarkCreateVolume(b *testing.B) {
	r := newRig(b)
	b.ResetTimer()
	for i := range b.N {
		call(r, r.volumes.CreateVolume, &lintelv1.CreateVolumeRequest{Spec: &lintelv1.VolumeSpec{Name: fmt.Sprintf("vol-%d", i), SizeBytes: 1 << 30}})
	}
}
