package serve

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestLockIsExclusive(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new", "array")
	lock, err := LockDir(dir, ManagerRole)
	if err != nil {
		t.Fatal(err)
	}
	_, err = LockDir(dir, ManagerRole)
	var locked *LockedError
	if !errors.As(err, &locked) || locked.PID != os.Getpid() || !strings.Contains(err.Error(), "(lintel serve or lintel agent serve)") {
		t.Fatalf("the second lock: %v, want a *LockedError with pid %d", err, os.Getpid())
	}
	if err := lock.Release(); err != nil {
		t.Fatal(err)
	}
	lock, err = LockDir(dir, ManagerRole)
	if err != nil {
		t.Fatalf("after release: %v", err)
	}
	defer lock.Release()
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("the directory has mode %v (%v): others may look into it", info.Mode(), err)
	}
}

func TestSocketWithLongPath(t *testing.T) {
	dir := filepath.Join(t.TempDir(), strings.Repeat("deep", 30))
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	path := SocketPath(dir)
	defer unix.Umask(unix.Umask(0)) // the mode does not depend on it
	if len(path) <= maxSocketPath {
		t.Fatalf("%d bytes are not long", len(path))
	}
	for range 2 { // the second time over the socket that the first one left
		listener, err := listenUnix(path)
		if err != nil {
			t.Fatal(err)
		}
		conn, err := DialUnix(context.Background(), path)
		if err != nil {
			t.Fatal(err)
		}
		conn.Close()
		listener.Close()
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the socket has mode %v (%v)", info.Mode(), err)
	}
}

func TestSocketOfOthersIsLeftAlone(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "s")
	listener, err := listenUnix(path)
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	if _, err := listenUnix(path); err == nil || !strings.Contains(err.Error(), "another process listens there") {
		t.Errorf("over a socket in use: %v", err)
	}
	conn, err := DialUnix(context.Background(), path)
	if err != nil {
		t.Fatalf("the first one is gone: %v", err)
	}
	conn.Close()
	file := filepath.Join(dir, "precious")
	if err := os.WriteFile(file, []byte("data"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := listenUnix(file); err == nil {
		t.Error("a file was taken for a socket")
	}
	if b, err := os.ReadFile(file); err != nil || string(b) != "data" {
		t.Errorf("the file is %q (%v)", b, err)
	}
}
