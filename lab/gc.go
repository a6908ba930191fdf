package lab

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

func idMapping(id int) []syscall.SysProcIDMap {
	return []syscall.SysProcIDMap{{ContainerID: 0, HostID: id, Size: 1}}
}

// List returns the names of the labs of this user that run.
func List() ([]string, error) {
	live, _, err := inventory()
	return live, err
}

// CollectGarbage removes what is left of labs that run no more, and returns their
// names. That is only their folders: processes and networks of a lab end with its
// keeper, whatever happens.
func CollectGarbage() ([]string, error) {
	_, dead, err := inventory()
	if err != nil {
		return nil, err
	}
	for _, name := range dead {
		if err := os.RemoveAll(filepath.Join(BaseDir(), name)); err != nil {
			return nil, fmt.Errorf("remove what is left of lab %s: %w", name, err)
		}
	}
	return dead, nil
}

// inventory tells labs that live from those that do not.
func inventory() (live, dead []string, err error) {
	entries, err := os.ReadDir(BaseDir())
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, nil, fmt.Errorf("folder of the labs: %w", err)
	}
	for _, e := range entries {
		l := layout{filepath.Join(BaseDir(), e.Name())}
		if l.alive() {
			live = append(live, e.Name())
		} else {
			dead = append(dead, e.Name())
		}
	}
	return live, dead, nil
}

// alive reports whether a lab's keeper holds its lock, or its starter, which has not
// come so far, still runs.
func (l layout) alive() bool {
	f, err := os.Open(l.lock())
	if err == nil {
		defer f.Close()
		if errors.Is(unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB), unix.EWOULDBLOCK) {
			return true
		}
	}
	return l.starting()
}

// starting reports whether the process that makes a lab's folder is still about it. A
// keeper that has the lock removes what says so.
func (l layout) starting() bool {
	text, err := os.ReadFile(l.startMark())
	switch {
	case err == nil && len(text) > 0:
		pid, err := strconv.Atoi(string(text))
		return err == nil && unix.Kill(pid, 0) == nil
	case err == nil:
		return true
	}
	_, err = os.Stat(l.topology())
	return errors.Is(err, os.ErrNotExist) && l.age() < time.Minute
}

// age is how long ago the lab's folder was changed.
func (l layout) age() time.Duration {
	info, err := os.Stat(l.dir)
	if err != nil {
		return time.Hour
	}
	return time.Since(info.ModTime())
}
