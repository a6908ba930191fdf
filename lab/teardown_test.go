package lab_test

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"lintel.io/lintel/lab"
)

// childVariable makes the test binary a process that starts a lab and waits.
const childVariable = "LINTEL_LAB_TEST_CHILD"

// child is the TB of holdLab.
type child struct{ testing.TB }

func (child) Helper()                         {}
func (child) Cleanup(func())                  {}
func (child) Failed() bool                    { return false }
func (child) Logf(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) }
func (child) Skipf(format string, args ...any) {
	fmt.Fprintf(os.Stderr, format+"\n", args...)
	os.Exit(1)
}
func (child) Fatalf(format string, args ...any) {
	fmt.Fprintf(os.Stderr, format+"\n", args...)
	os.Exit(1)
}

// holdLab starts a lab, says so and waits for its end.
func holdLab(name string) {
	topology := pair()
	topology.Name = name
	l := lab.New(child{}, topology)
	fmt.Println(l.Name())
	select {}
}

func TestNothingStays(t *testing.T) {
	if os.Getenv(lab.TestVariable) == "" {
		t.Skipf("starts a lab of guests: set %s=1 (make lab-test)", lab.TestVariable)
	}
	t.Parallel()
	for _, signal := range []syscall.Signal{syscall.SIGINT, syscall.SIGKILL} {
		t.Run("after "+signal.String(), func(t *testing.T) {
			program, err := os.Executable()
			must(t, err)
			cmd := exec.Command(program)
			cmd.Env = append(os.Environ(), childVariable+"=left")
			var stderr bytes.Buffer
			cmd.Stderr = &stderr
			out, err := cmd.StdoutPipe()
			must(t, err)
			must(t, cmd.Start())
			name, err := bufio.NewReader(out).ReadString('\n')
			if err != nil {
				t.Fatalf("%v: %s", err, &stderr)
			}
			name = strings.TrimSpace(name)
			if len(processesOf(name)) < 6 {
				t.Fatalf("lab %s has these processes only: %q", name, processesOf(name))
			}
			must(t, cmd.Process.Signal(signal))
			_ = cmd.Wait() // it ends by the signal
			nothingLeft(t, name)
		})
	}
	t.Run("after the end of the test", func(t *testing.T) {
		var name string
		t.Run("test", func(t *testing.T) { name = lab.New(t, pair()).Name() })
		nothingLeft(t, name)
	})
	t.Run("after the death of the keeper", func(t *testing.T) {
		l := lab.New(t, pair())
		for _, p := range processesOf(l.Name()) {
			if strings.Contains(p, " lab keep ") {
				var pid int
				_, err := fmt.Sscan(p, &pid)
				must(t, err)
				// The one may have taken the other with it.
				if err := syscall.Kill(pid, syscall.SIGKILL); !errors.Is(err, syscall.ESRCH) {
					must(t, err)
				}
			}
		}
		for deadline := time.Now().Add(time.Minute); len(processesOf(l.Name())) > 0; time.Sleep(20 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("processes are left: %q", processesOf(l.Name()))
			}
		}
		_, err := lab.CollectGarbage(false)
		must(t, err)
	})
}

// processesOf returns the processes that have the folder of a lab on their command
// line: its keeper and all guests.
func processesOf(name string) []string {
	return processesWith(filepath.Join(lab.BaseDir(), name))
}

// processesWith returns the processes that have a folder on their command line.
func processesWith(dir string) []string {
	var found []string
	paths, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, p := range paths {
		text, _ := os.ReadFile(p)
		line := string(bytes.ReplaceAll(text, []byte{0}, []byte{' '}))
		if strings.Contains(line, dir+"/") || strings.HasSuffix(strings.TrimSpace(line), dir) {
			found = append(found, filepath.Base(filepath.Dir(p))+" "+line)
		}
	}
	return found
}

// nothingLeft waits until nothing of a lab is left: no process, and so no namespace
// with its interfaces, and no folder.
func nothingLeft(t *testing.T, name string) {
	t.Helper()
	dir := filepath.Join(lab.BaseDir(), name)
	deadline := time.Now().Add(time.Minute)
	for {
		processes := processesOf(name)
		_, err := os.Stat(dir)
		if len(processes) == 0 && os.IsNotExist(err) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("left of lab %s: processes %q, folder: %t", name, processes, err == nil)
		}
		time.Sleep(20 * time.Millisecond)
	}
}
