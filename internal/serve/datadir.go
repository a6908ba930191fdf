package serve

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// SocketPath returns the unix socket of the array that serves a data directory.
func SocketPath(dataDir string) string { return filepath.Join(dataDir, "lintel.sock") }

// ControlPath returns the unix socket of a target that runs by itself on a data directory.
func ControlPath(dataDir string) string { return filepath.Join(dataDir, "target.sock") }

// DefaultDataDir returns the data directory for a user: LINTEL_DATA_DIR, or
// /var/lib/lintel for root, or lintel in the user's XDG data directory.
func DefaultDataDir(getenv func(string) string, uid int) string {
	if dir := getenv("LINTEL_DATA_DIR"); dir != "" {
		return dir
	}
	if uid == 0 {
		return "/var/lib/lintel"
	}
	if dir := getenv("XDG_DATA_HOME"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "lintel")
	}
	return filepath.Join(getenv("HOME"), ".local", "share", "lintel")
}

// A LockedError says that another process has the role in the data directory.
type LockedError struct {
	Dir  string
	Role Role
	PID  int // 0 where it is not known
}

func (e *LockedError) Error() string {
	who := "another process"
	if e.PID != 0 {
		who = fmt.Sprintf("process %d", e.PID)
	}
	return fmt.Sprintf("%s is in use by %s (lintel serve or %s): stop that one first, or serve another --data-dir", e.Dir, who, roleCommands[e.Role])
}

// Lock is the exclusive right to a role in a data directory. The kernel gives it back
// when the process ends, however it ends.
type Lock struct{ file *os.File }

// Role is what only one process may be in a data directory: the name of its lock file.
type Role string

// The roles. lintel serve has both.
const (
	ManagerRole Role = "lock"        // writes the configuration
	TargetRole  Role = "target.lock" // serves initiators
)

// roleCommands are the commands that have one role only.
var roleCommands = map[Role]string{ManagerRole: "lintel agent serve", TargetRole: "lintel target serve"}

// LockDir takes a role in dir, which it makes where it does not exist. It
// returns a *LockedError where another process has the role.
func LockDir(dir string, role Role) (*Lock, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the data directory: %w", err)
	}
	file, err := os.OpenFile(filepath.Join(dir, string(role)), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock the data directory: %w", err)
	}
	if err := unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		defer file.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, &LockedError{Dir: dir, Role: role, PID: readPID(file)}
		}
		return nil, fmt.Errorf("lock %s: %w", file.Name(), err)
	}
	if err := writePID(file); err != nil {
		file.Close()
		return nil, fmt.Errorf("lock %s: %w", file.Name(), err)
	}
	return &Lock{file}, nil
}

func writePID(file *os.File) error {
	if err := file.Truncate(0); err != nil {
		return err
	}
	_, err := file.WriteAt(strconv.AppendInt(nil, int64(os.Getpid()), 10), 0)
	return err
}

func readPID(file *os.File) int {
	text, err := io.ReadAll(io.LimitReader(io.NewSectionReader(file, 0, 32), 32))
	if err != nil {
		return 0
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		return 0
	}
	return pid
}

// Release gives the data directory back.
func (l *Lock) Release() error { return l.file.Close() }

// listenUnix listens on a unix socket that only this user may use. What is
// left of an earlier socket is removed, where nobody answers there any more.
func listenUnix(path string) (net.Listener, error) {
	short, release, err := shortPath(path)
	if err != nil {
		return nil, err
	}
	defer release()
	if err := removeSocket(path, short); err != nil {
		return nil, fmt.Errorf("listen on unix:%s: %w", path, err)
	}
	// The file gets the mode that the socket has when it is bound: at no time may others connect.
	config := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var failed error
		err := c.Control(func(fd uintptr) { failed = unix.Fchmod(int(fd), 0o600) })
		return errors.Join(err, failed)
	}}
	listener, err := config.Listen(context.Background(), "unix", short)
	if err != nil {
		return nil, fmt.Errorf("listen on unix:%s: %w", path, err)
	}
	listener.(*net.UnixListener).SetUnlinkOnClose(false)
	return listener, nil
}

// removeSocket removes a socket that nobody listens on; short is a short name of it.
func removeSocket(path, short string) error {
	switch info, err := os.Lstat(path); {
	case errors.Is(err, os.ErrNotExist):
		return nil
	case err != nil:
		return err
	case info.Mode().Type() != os.ModeSocket:
		return errors.New("a file that is not a socket is in the way")
	}
	if conn, err := net.Dial("unix", short); err == nil {
		conn.Close()
		return errors.New("another process listens there")
	}
	return os.Remove(path)
}

// DialUnix connects to the unix socket at path, however long the path is.
func DialUnix(ctx context.Context, path string) (net.Conn, error) {
	short, release, err := shortPath(path)
	if err != nil {
		return nil, &net.OpError{Op: "dial", Net: "unix", Err: err}
	}
	defer release()
	var d net.Dialer
	return d.DialContext(ctx, "unix", short)
}

// maxSocketPath is what fits into a sockaddr_un, with its terminating zero.
const maxSocketPath = 107

// shortPath returns a name of at most maxSocketPath bytes for a socket: where
// path is longer, one that goes through an open descriptor of its directory.
func shortPath(path string) (short string, release func(), err error) {
	if len(path) <= maxSocketPath {
		return path, func() {}, nil
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return "", nil, fmt.Errorf("open the socket's directory: %w", err)
	}
	return fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), filepath.Base(path)), func() { dir.Close() }, nil
}
