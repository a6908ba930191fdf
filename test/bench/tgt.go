package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
)

// tgt is a running tgtd with one target.
type tgt struct {
	cmd     *exec.Cmd
	address string
	control int
}

const tgtIQN = "iqn.2026-11.io.lintel:tgt"

var errNoTgt = errors.New("tgtd is not installed (apt-get install tgt)")

// startTgt starts tgtd with the null unit as LUN 1 and the file unit as LUN 2.
func startTgt(ctx context.Context, dir string, fileSize int64) (*tgt, error) {
	if _, err := exec.LookPath("tgtd"); err != nil {
		return nil, errNoTgt
	}
	address, err := freeAddress()
	if err != nil {
		return nil, err
	}
	t := &tgt{address: address, control: 1 + os.Getpid()%32000}
	t.cmd = exec.Command("tgtd", "-f", "--iscsi", "portal="+address, "-C", strconv.Itoa(t.control))
	t.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := t.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start tgtd: %w", err)
	}
	file := filepath.Join(dir, "unit")
	err = awaitListener(ctx, "tcp", address)
	if err == nil {
		err = os.WriteFile(file, nil, 0o600)
	}
	if err == nil {
		err = os.Truncate(file, fileSize)
	}
	for _, args := range [][]string{
		{"--op", "new", "--mode", "target", "--tid", "1", "-T", tgtIQN},
		{"--op", "new", "--mode", "logicalunit", "--tid", "1", "--lun", "1", "--bstype", "null", "-b", "null"},
		{"--op", "new", "--mode", "logicalunit", "--tid", "1", "--lun", "2", "-b", file},
		{"--op", "bind", "--mode", "target", "--tid", "1", "-I", "ALL"},
	} {
		if err == nil {
			err = t.admin(ctx, args...)
		}
	}
	if err != nil {
		_ = t.Close()
		return nil, fmt.Errorf("tgtd: %w", err)
	}
	return t, nil
}

func (t *tgt) admin(ctx context.Context, args ...string) error {
	args = append([]string{"-C", strconv.Itoa(t.control), "--lld", "iscsi"}, args...)
	if out, err := exec.CommandContext(ctx, "tgtadm", args...).CombinedOutput(); err != nil {
		return fmt.Errorf("tgtadm %v: %w: %s", args, err, out)
	}
	return nil
}

func (t *tgt) url(lun int) string { return fmt.Sprintf("iscsi://%s/%s/%d", t.address, tgtIQN, lun) }
func (t *tgt) pid() int           { return t.cmd.Process.Pid }

// Close kills the daemon, which does not end on SIGTERM, and takes away what it leaves behind.
func (t *tgt) Close() error {
	_ = t.cmd.Process.Kill()
	err := t.cmd.Wait()
	for _, suffix := range []string{"", ".lock"} {
		_ = os.Remove(fmt.Sprintf("/var/run/tgtd/socket.%d%s", t.control, suffix))
	}
	return err
}
