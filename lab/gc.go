package lab

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
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
// keeper, whatever happens. A dry run only returns the names.
func CollectGarbage(dryRun bool) ([]string, error) {
	_, dead, err := inventory()
	if err != nil || dryRun {
		return dead, err
	}
	for _, name := range dead {
		if err := os.RemoveAll(filepath.Join(BaseDir(), name)); err != nil {
			return nil, fmt.Errorf("remove what is left of lab %s: %w", name, err)
		}
	}
	return dead, nil
}

// cachedImage is the name of an image in the cache.
var cachedImage = regexp.MustCompile(`^(kernel|kernel-given|root)-[0-9a-f]{16}$`)

// CollectImages removes the images whose recipe is not that of this program and which
// no lab uses, and returns their paths. A kernel named by KernelVariable counts as
// wanted, so do the lab's own even then. A dry run only returns the paths.
func CollectImages(dryRun bool) ([]string, error) {
	cache, err := CacheDir()
	if err != nil {
		return nil, err
	}
	wanted := []image{kernelImage(), rootImage()}
	if given := os.Getenv(KernelVariable); given != "" {
		wanted = append(wanted, givenKernel(given))
	}
	keep := map[string]bool{}
	for _, i := range wanted {
		path, err := i.path(cache)
		if err != nil {
			return nil, err
		}
		keep[path] = true
	}
	entries, err := os.ReadDir(cache)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("cache folder: %w", err)
	}
	var removed []string
	for _, e := range entries {
		// A build that failed leaves no image, but a lock and a log.
		name, _ := strings.CutSuffix(e.Name(), ".lock")
		path := filepath.Join(cache, name)
		if keep[path] || !cachedImage.MatchString(name) {
			continue
		}
		keep[path] = true
		err := removeImage(path, dryRun)
		if errors.Is(err, errLocked) {
			continue
		}
		if err != nil {
			return removed, fmt.Errorf("remove %s: %w", path, err)
		}
		removed = append(removed, path)
	}
	return removed, nil
}

// removeImage removes an image and what belongs to it, or fails with errLocked where it
// is being built or used.
func removeImage(path string, dryRun bool) error {
	unlock, err := tryLock(path+".lock", os.O_CREATE|os.O_RDWR, unix.LOCK_EX)
	if err != nil {
		return err
	}
	defer unlock()
	release, err := tryLock(path, os.O_RDONLY, unix.LOCK_EX)
	if err == nil {
		defer release()
	} else if !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if dryRun {
		return nil
	}
	return errors.Join(os.RemoveAll(path+".build"), os.RemoveAll(path), os.RemoveAll(path+".log"), os.Remove(path+".lock"))
}

// use keeps the images from being removed until they are released.
func (i Images) use() (release func(), err error) {
	kernel, err := tryLock(i.Kernel, os.O_RDONLY, unix.LOCK_SH)
	if err != nil {
		return nil, fmt.Errorf("lab: kernel: %w", err)
	}
	root, err := tryLock(i.Root, os.O_RDONLY, unix.LOCK_SH)
	if err != nil {
		kernel()
		return nil, fmt.Errorf("lab: root file system: %w", err)
	}
	return func() { kernel(); root() }, nil
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
