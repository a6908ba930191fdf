package lab

import (
	"context"
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Images are the files that guests start from. Neither may change by a byte
// while a lab uses it.
type Images struct {
	// Kernel is a User Mode Linux kernel: an ordinary program.
	Kernel string `json:"kernel"`
	// Root is the file system that every guest has a copy-on-write layer over.
	Root string `json:"root"`
}

// KernelVariable is the environment variable that names a kernel to use instead of
// the lab's own; its file may be compressed with xz (.xz).
const KernelVariable = "LINTEL_LAB_KERNEL"

// Progress is told what is being done; calls do not overlap.
type Progress func(step string)

// CacheDir returns the folder that keeps the images: LINTEL_LAB_CACHE, or
// lintel/lab in the user's cache folder.
func CacheDir() (string, error) {
	if dir := os.Getenv("LINTEL_LAB_CACHE"); dir != "" {
		return filepath.Abs(dir)
	}
	dir, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("cache folder: %w (set LINTEL_LAB_CACHE)", err)
	}
	return filepath.Join(dir, "lintel", "lab"), nil
}

// image is one cached file: where it comes from and how it is made.
type image struct {
	name   string
	inputs func() (string, error) // what the content depends on
	make   func(ctx context.Context, out, work string, log io.Writer) error
}

// BuildImages returns the images and builds those that are missing: a kernel takes
// six to ten minutes on two processors, a root file system one. Another process that builds the same
// image is waited for.
func BuildImages(ctx context.Context, progress Progress) (Images, error) {
	var out Images
	cache, err := CacheDir()
	if err != nil {
		return out, err
	}
	kernel := kernelImage()
	if given := os.Getenv(KernelVariable); given != "" {
		kernel = givenKernel(given)
	}
	if out.Kernel, err = kernel.build(ctx, cache, progress); err != nil {
		return out, err
	}
	out.Root, err = rootImage().build(ctx, cache, progress)
	return out, err
}

// path is where the cache has the image; its name tells one set of inputs from another.
func (i image) path(cache string) (string, error) {
	inputs, err := i.inputs()
	if err != nil {
		return "", fmt.Errorf("%s: %w", i.name, err)
	}
	sum := sha256.Sum256([]byte(inputs))
	return filepath.Join(cache, i.name+"-"+hex.EncodeToString(sum[:8])), nil
}

func (i image) build(ctx context.Context, cache string, progress Progress) (_ string, err error) {
	path, err := i.path(cache)
	if err != nil {
		return "", err
	}
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return "", fmt.Errorf("cache folder: %w", err)
	}
	waiting := time.AfterFunc(time.Second, func() { progress("another process builds the " + i.name + ": waiting for it") })
	unlock, err := lockFile(ctx, path+".lock")
	waiting.Stop()
	if err != nil {
		return "", err
	}
	defer unlock()
	if _, err := os.Stat(path); err == nil {
		return path, nil // another process built it meanwhile
	}
	log, err := os.Create(path + ".log")
	if err != nil {
		return "", fmt.Errorf("build log: %w", err)
	}
	defer log.Close()
	// Under the lock it can only be left from a build that was killed.
	work := path + ".build"
	if err := errors.Join(os.RemoveAll(work), os.Mkdir(work, 0o755)); err != nil {
		return "", fmt.Errorf("folder to build in: %w", err)
	}
	defer os.RemoveAll(work)
	start := time.Now()
	progress(fmt.Sprintf("building the %s (log: %s)", i.name, log.Name()))
	out := filepath.Join(work, "out")
	if err := i.make(ctx, out, work, io.MultiWriter(log, &stepWriter{progress: progress})); err != nil {
		return "", fmt.Errorf("build the %s: %w (see %s)", i.name, err, log.Name())
	}
	if err := os.Rename(out, path); err != nil {
		return "", fmt.Errorf("keep the %s: %w", i.name, err)
	}
	progress(fmt.Sprintf("the %s is ready after %s", i.name, time.Since(start).Round(time.Second)))
	return path, nil
}

// stepPrefix marks the lines of a build's log that are its progress.
const stepPrefix = "== "

// stepWriter passes the lines of a log that are steps to a Progress.
type stepWriter struct {
	progress Progress
	line     strings.Builder
}

func (w *stepWriter) Write(p []byte) (int, error) {
	for _, c := range p {
		if c != '\n' {
			w.line.WriteByte(c)
			continue
		}
		if step, ok := strings.CutPrefix(w.line.String(), stepPrefix); ok {
			w.progress(step)
		}
		w.line.Reset()
	}
	return len(p), nil
}

// errLocked says that somebody else has a lock.
var errLocked = errors.New("it is locked")

// lockFile waits for an exclusive lock on a file, which is made.
func lockFile(ctx context.Context, path string) (unlock func(), err error) {
	for {
		unlock, err := tryLock(path, os.O_CREATE|os.O_RDWR, unix.LOCK_EX)
		if !errors.Is(err, errLocked) {
			return unlock, err
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("lock %s: %w", path, ctx.Err())
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// tryLock locks a file, as flock(2) says, or fails with errLocked.
func tryLock(path string, flags, how int) (unlock func(), err error) {
	f, err := os.OpenFile(path, flags, 0o644)
	if err != nil {
		return nil, fmt.Errorf("lock: %w", err)
	}
	err = unix.Flock(int(f.Fd()), how|unix.LOCK_NB)
	if err == nil {
		// Whoever had the lock before may have removed the file.
		var locked, there os.FileInfo
		if locked, err = f.Stat(); err == nil {
			if there, err = os.Stat(path); errors.Is(err, os.ErrNotExist) || err == nil && !os.SameFile(locked, there) {
				err = unix.EWOULDBLOCK
			}
		}
	}
	if err == nil {
		return func() { f.Close() }, nil
	}
	f.Close()
	if errors.Is(err, unix.EWOULDBLOCK) || errors.Is(err, unix.EINTR) {
		return nil, errLocked
	}
	return nil, fmt.Errorf("lock %s: %w", path, err)
}

// buildStep runs a program of a build in a folder, at low priority and in C locale.
func buildStep(ctx context.Context, log io.Writer, dir string, argv ...string) error {
	cmd := exec.CommandContext(ctx, "nice", append([]string{"-n", "10"}, argv...)...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "LC_ALL=C", "DEBIAN_FRONTEND=noninteractive")
	cmd.Stdout, cmd.Stderr = log, log
	ownGroup(cmd)
	fmt.Fprintf(log, "+ %s\n", strings.Join(argv, " "))
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return fmt.Errorf("%s: %w", argv[0], err)
	}
	return nil
}

// ownGroup puts a command in a process group of its own, which ends as a whole
// when the command's context does.
func ownGroup(cmd *exec.Cmd) {
	// Should this process die first, the command is asked to end itself and its children.
	cmd.SysProcAttr = &unix.SysProcAttr{Setpgid: true, Pdeathsig: unix.SIGTERM}
	cmd.WaitDelay = 5 * time.Second
	cmd.Cancel = func() error { return unix.Kill(-cmd.Process.Pid, unix.SIGKILL) }
}

// needPrograms checks that programs are installed.
func needPrograms(debianPackages string, names ...string) error {
	for _, name := range names {
		if _, err := exec.LookPath(name); err != nil {
			return fmt.Errorf("%s is missing: install Debian's packages %s (test/lab-deps.sh does)", name, debianPackages)
		}
	}
	return nil
}
