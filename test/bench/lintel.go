package main

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"connectrpc.com/connect"

	lintelv1 "lintel.io/lintel/api/lintel/v1"
	"lintel.io/lintel/api/lintel/v1/lintelv1connect"
	"lintel.io/lintel/internal/serve"
)

// startTime is how long a server may take to come up or go down.
const startTime = 30 * time.Second

// lintel is a running array and its API.
type lintel struct {
	cmd      *exec.Cmd
	log      bytes.Buffer
	address  string // of the iSCSI portal
	nvme     string // of the NVMe/TCP portal
	iqn, nqn string
	volumes  lintelv1connect.VolumeServiceClient
	hosts    lintelv1connect.HostServiceClient
	mappings lintelv1connect.MappingServiceClient
}

// startLintel starts an array on a new directory, with a host that stands for
// every initiator.
func startLintel(ctx context.Context, program, dir string) (*lintel, error) {
	l := &lintel{}
	for _, a := range []*string{&l.address, &l.nvme} {
		var err error
		if *a, err = freeAddress(); err != nil {
			return nil, err
		}
	}
	l.cmd = exec.Command(program, "serve", "--data-dir", dir, "--portal", l.address, "--nvme-portal", l.nvme, "--log-level", "error")
	l.cmd.Stdout, l.cmd.Stderr = &l.log, &l.log
	l.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := l.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start lintel (make build makes it): %w", err)
	}
	if err := awaitListener(ctx, "unix", serve.SocketPath(dir)); err != nil { // it comes after the portals
		_ = l.Close()
		return nil, fmt.Errorf("lintel serve: %w\n%s", err, l.log.Bytes())
	}
	client := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return serve.DialUnix(ctx, serve.SocketPath(dir))
	}}}
	const base = "http://lintel"
	l.volumes = lintelv1connect.NewVolumeServiceClient(client, base)
	l.hosts = lintelv1connect.NewHostServiceClient(client, base)
	l.mappings = lintelv1connect.NewMappingServiceClient(client, base)
	if err := l.prepare(ctx, lintelv1connect.NewTargetServiceClient(client, base)); err != nil {
		_ = l.Close()
		return nil, fmt.Errorf("lintel: %w", err)
	}
	return l, nil
}

func (l *lintel) prepare(ctx context.Context, targets lintelv1connect.TargetServiceClient) error {
	target, err := targets.GetTarget(ctx, connect.NewRequest(&lintelv1.GetTargetRequest{}))
	if err != nil {
		return err
	}
	spec := target.Msg.GetTarget().GetSpec()
	l.iqn, l.nqn = spec.GetIqn(), spec.GetSubsystemNqn()
	_, err = l.hosts.CreateHost(ctx, connect.NewRequest(&lintelv1.CreateHostRequest{
		Spec: &lintelv1.HostSpec{Name: "any", Initiators: []string{"*"}, Nqns: []string{"*"}},
	}))
	return err
}

// create makes a volume of span bytes.
func (l *lintel) create(ctx context.Context, name string, kind lintelv1.VolumeKind) error {
	_, err := l.volumes.CreateVolume(ctx, connect.NewRequest(&lintelv1.CreateVolumeRequest{
		Spec: &lintelv1.VolumeSpec{Name: name, Kind: kind, SizeBytes: span},
	}))
	return err
}

// mapTo gives the volume to every initiator, as a LUN and as the namespace of the next number.
func (l *lintel) mapTo(ctx context.Context, volume string, lun uint32) error {
	_, err := l.mappings.CreateMapping(ctx, connect.NewRequest(&lintelv1.CreateMappingRequest{
		Spec: &lintelv1.MappingSpec{Volume: volume, To: &lintelv1.MappingSpec_Host{Host: "any"}, Lun: &lun},
	}))
	return err
}

func (l *lintel) url(lun int) string { return fmt.Sprintf("iscsi://%s/%s/%d", l.address, l.iqn, lun) }
func (l *lintel) pid() int           { return l.cmd.Process.Pid }

// overNVMe is the same array through its NVMe/TCP portal.
type overNVMe struct{ *lintel }

func (l overNVMe) url(lun int) string { return fmt.Sprintf("nvme://%s/%s/%d", l.nvme, l.nqn, lun+1) }

// Close stops the array.
func (l *lintel) Close() error {
	_ = l.cmd.Process.Signal(syscall.SIGTERM)
	return await(l.cmd)
}

// await waits for a process that was told to end, and kills it in the end.
func await(cmd *exec.Cmd) error {
	kill := time.AfterFunc(startTime, func() { _ = cmd.Process.Kill() })
	defer kill.Stop()
	return cmd.Wait()
}

func freeAddress() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	return l.Addr().String(), nil
}

func awaitListener(ctx context.Context, network, address string) error {
	ctx, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	var d net.Dialer
	for {
		c, err := d.DialContext(ctx, network, address)
		if err == nil {
			return c.Close()
		}
		if ctx.Err() != nil {
			return fmt.Errorf("nobody listens on %s: %w", address, err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// serverDir makes a directory for one server.
func serverDir(dir, name string) (string, error) {
	path := filepath.Join(dir, name)
	return path, os.Mkdir(path, 0o700)
}
