package lab

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"
)

// action is a change that the keeper is asked for.
type action struct {
	Guest     string    `json:"guest,omitempty"`
	Network   string    `json:"network,omitempty"`
	Direction Direction `json:"direction,omitempty"`
	Disk      string    `json:"disk,omitempty"`
	Size      Size      `json:"size,omitempty"`
	Command   string    `json:"command,omitempty"`
}

// handler is the keeper's control API, on a unix socket in the lab's folder.
func (k *keeper) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /status", func(w http.ResponseWriter, r *http.Request) {
		k.mu.Lock()
		status := k.status
		k.mu.Unlock()
		for _, g := range k.guests {
			status.Guests = append(status.Guests, g.status())
		}
		answer(w, status)
	})
	mux.HandleFunc("POST /down", func(w http.ResponseWriter, r *http.Request) {
		answer(w, "ok")
		_ = http.NewResponseController(w).Flush() // this process is about to end
		k.stop()
	})
	mux.HandleFunc("POST /detach", func(w http.ResponseWriter, r *http.Request) {
		k.mu.Lock()
		k.detached = true
		k.mu.Unlock()
		answer(w, "ok")
	})
	for path, act := range map[string]func(*guest, *http.Request, action) (string, error){
		"on":     func(g *guest, r *http.Request, _ action) (string, error) { return "", g.powerOn(r.Context()) },
		"off":    func(g *guest, _ *http.Request, _ action) (string, error) { return "", g.powerOff() },
		"reset":  func(g *guest, r *http.Request, _ action) (string, error) { return "", g.reset(r.Context()) },
		"freeze": func(g *guest, _ *http.Request, _ action) (string, error) { return "", g.freeze(true) },
		"thaw":   func(g *guest, _ *http.Request, _ action) (string, error) { return "", g.freeze(false) },
		"link": func(g *guest, r *http.Request, a action) (string, error) {
			return "", g.setLink(r.Context(), a.Network, a.Direction)
		},
		"add-disk":    func(g *guest, _ *http.Request, a action) (string, error) { return g.addDisk(a.Disk, a.Size) },
		"remove-disk": func(g *guest, _ *http.Request, a action) (string, error) { return "", g.removeDisk(a.Disk) },
		"console":     func(g *guest, _ *http.Request, a action) (string, error) { return g.console(a.Command) },
	} {
		mux.HandleFunc("POST /"+path, func(w http.ResponseWriter, r *http.Request) {
			var a action
			if err := json.NewDecoder(r.Body).Decode(&a); err != nil {
				http.Error(w, err.Error(), http.StatusBadRequest)
				return
			}
			g := k.guestNamed(a.Guest)
			if g == nil {
				http.Error(w, fmt.Sprintf("no guest %q", a.Guest), http.StatusNotFound)
				return
			}
			reply, err := act(g, r, a)
			if err != nil {
				http.Error(w, err.Error(), http.StatusUnprocessableEntity)
				return
			}
			answer(w, reply)
		})
	}
	return mux
}

// connect serves a connection of the dial socket: its first line names a machine,
// and after the answer "ok" it is a connection to the agent there.
func (k *keeper) connect(conn net.Conn) {
	name, err := readLine(conn)
	if err != nil {
		return
	}
	t := &k.order.Topology
	if name != HostSide && t.guestIndex(name) < 0 {
		fmt.Fprintf(conn, "no guest %q\n", name)
		return
	}
	to, err := net.DialTimeout("tcp", fmt.Sprintf("%s:%d", t.Address(name, Management), agentPort), 10*time.Second)
	if err != nil {
		fmt.Fprintln(conn, strings.ReplaceAll(err.Error(), "\n", " "))
		return
	}
	defer to.Close()
	fmt.Fprintln(conn, "ok")
	done := make(chan struct{})
	go func() {
		_, _ = io.Copy(to, conn) // ends with either side
		to.Close()
		close(done)
	}()
	_, _ = io.Copy(conn, to) // ends with either side
	conn.Close()
	<-done
}

// readLine reads a short line and not a byte more.
func readLine(r io.Reader) (string, error) {
	var line []byte
	for len(line) < 1000 {
		var b [1]byte
		if _, err := io.ReadFull(r, b[:]); err != nil {
			return "", err
		}
		if b[0] == '\n' {
			return string(line), nil
		}
		line = append(line, b[0])
	}
	return "", fmt.Errorf("line is too long")
}
