package agent

import (
	"golang.org/x/sys/unix"

	"lintel.io/lintel/internal/array"
)

// machineMemory returns the memory of the machine in bytes, 0 where the system does not tell.
func machineMemory() uint64 {
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		return 0
	}
	return info.Totalram * uint64(info.Unit)
}

// fitsMemory fails with KindBusy where a volume of kind mem that a state has, with all others of that
// kind, can hold more than the memory of the machine: hosts that fill it would end the array.
func (a *Agent) fitsMemory(state *array.State, v *array.Volume) error {
	if v.Kind != array.VolumeMem || a.opts.Memory == 0 {
		return nil
	}
	var total uint64
	for _, p := range state.Pools {
		for _, other := range p.Volumes {
			if other.Kind == array.VolumeMem {
				total += other.Size
			}
		}
	}
	if total <= a.opts.Memory {
		return nil
	}
	return array.Errorf(array.KindBusy, "volume %s: volumes of kind mem would have %s together, and the machine has %s of memory: make it smaller, or of kind file", v.Name, array.FormatSize(total), array.FormatSize(a.opts.Memory/array.MiB*array.MiB))
}
