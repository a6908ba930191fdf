// Package lab is a virtual SAN on one machine: guests with real Linux kernels,
// networks between them and disks, started in seconds and without
// virtualisation. A guest is a User Mode Linux kernel, an ordinary process.
//
// A lab consists of one keeper, which is `lintel lab keep` in namespaces of its
// own for processes, networks and mounts, and of everything that it started
// there. When the keeper ends, however it ends, the kernel ends all the others, and
// their networks vanish with the namespace. Whoever started the lab holds a pipe to
// the keeper, so that its own end, however it ends, is the keeper's end too.
//
// image.go, kernel.go and rootfs.go make what guests start from; topology.go and
// plan.go say what a lab consists of; keeper.go and its neighbours (network.go,
// guest.go, power.go) run inside; lab.go and machine.go are the outside, the API
// of tests and of the command line. agent.go runs in every guest.
package lab
