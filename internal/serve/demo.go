package serve

import (
	"context"
	"fmt"

	"connectrpc.com/connect"

	lintelv1 "lintel.io/lintel/api/lintel/v1"
)

// What --demo makes.
const (
	demoVolume = "demo"
	demoHost   = "this-machine"
	demoSize   = 1 << 30
)

// demo makes a volume and maps it to whoever connects from this machine. What
// exists already is left as it is.
func demo(ctx context.Context, a *api) error {
	_, err := a.volumes.CreateVolume(ctx, connect.NewRequest(&lintelv1.CreateVolumeRequest{
		Spec: &lintelv1.VolumeSpec{Name: demoVolume, SizeBytes: demoSize, Comment: "made by lintel serve --demo"},
	}))
	if err := unlessExists(err); err != nil {
		return fmt.Errorf("make the demo volume: %w", err)
	}
	_, err = a.hosts.CreateHost(ctx, connect.NewRequest(&lintelv1.CreateHostRequest{
		Spec: &lintelv1.HostSpec{
			Name: demoHost, Initiators: []string{"*"}, Nqns: []string{"*"}, Addresses: []string{"127.0.0.0/8", "::1"},
			Comment: "made by lintel serve --demo",
		},
	}))
	if err := unlessExists(err); err != nil {
		return fmt.Errorf("make the demo host: %w", err)
	}
	_, err = a.mappings.CreateMapping(ctx, connect.NewRequest(&lintelv1.CreateMappingRequest{
		Spec: &lintelv1.MappingSpec{Volume: demoVolume, To: &lintelv1.MappingSpec_Host{Host: demoHost}},
	}))
	if err := unlessExists(err); err != nil {
		return fmt.Errorf("map the demo volume: %w", err)
	}
	return nil
}

func unlessExists(err error) error {
	if connect.CodeOf(err) == connect.CodeAlreadyExists {
		return nil
	}
	return err
}
