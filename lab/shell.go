package lab

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"strconv"

	"golang.org/x/sys/unix"
)

// openTerminal returns both sides of a new pseudo terminal.
func openTerminal(rows, columns uint16) (master, slave *os.File, err error) {
	master, err = os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("pseudo terminal: %w", err)
	}
	fd := int(master.Fd())
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0)
	}
	if err == nil {
		slave, err = os.OpenFile("/dev/pts/"+strconv.Itoa(n), os.O_RDWR|unix.O_NOCTTY, 0)
	}
	if err == nil {
		err = unix.IoctlSetWinsize(int(slave.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: rows, Col: columns})
	}
	if err != nil {
		master.Close()
		return nil, nil, fmt.Errorf("pseudo terminal: %w", err)
	}
	return master, slave, nil
}

// shell turns its connection into a login shell's terminal.
func (a *agent) shell(w http.ResponseWriter, r *http.Request) {
	size := func(key string, otherwise uint16) uint16 {
		if n, err := strconv.ParseUint(r.URL.Query().Get(key), 10, 16); err == nil && n > 0 {
			return uint16(n)
		}
		return otherwise
	}
	master, slave, err := openTerminal(size("rows", 24), size("columns", 80))
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	defer master.Close()
	cmd := exec.Command("bash", "-l")
	cmd.Dir = "/"
	cmd.Env = append(os.Environ(), "TERM="+r.URL.Query().Get("term"))
	cmd.Stdin, cmd.Stdout, cmd.Stderr = slave, slave, slave
	cmd.SysProcAttr = &unix.SysProcAttr{Setsid: true, Setctty: true}
	err = cmd.Start()
	slave.Close()
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	conn, rw, err := http.NewResponseController(w).Hijack()
	if err == nil {
		fmt.Fprint(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: shell\r\n\r\n")
		go func() {
			_, _ = io.Copy(master, rw) // ends with the connection
			_ = unix.Kill(-cmd.Process.Pid, unix.SIGHUP)
		}()
		_, _ = io.Copy(conn, master) // ends with the shell
		conn.Close()
	}
	_ = cmd.Wait() // the shell's exit code is nobody's concern
}

// Shell runs a login shell on the machine, with in and out as its terminal of the
// given size, until the shell ends.
func (m *Machine) Shell(ctx context.Context, in io.Reader, out io.Writer, rows, columns int, term string) error {
	conn, err := m.lab.dial(ctx, m.Name)
	if err != nil {
		return err
	}
	defer conn.Close()
	fmt.Fprintf(conn, "POST /shell?rows=%d&columns=%d&term=%s HTTP/1.1\r\nHost: lab\r\nConnection: Upgrade\r\nUpgrade: shell\r\nContent-Length: 0\r\n\r\n", rows, columns, term)
	r := bufio.NewReader(conn)
	resp, err := http.ReadResponse(r, nil)
	if err != nil {
		return fmt.Errorf("shell on %s: %w", m.Name, err)
	}
	if resp.StatusCode != http.StatusSwitchingProtocols {
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 1000))
		resp.Body.Close()
		return fmt.Errorf("shell on %s: %s", m.Name, text)
	}
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	go func() {
		_, _ = io.Copy(conn, in) // the end of the input is no end of the shell
	}()
	_, err = io.Copy(out, r)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return err
}
