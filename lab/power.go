package lab

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"strings"
	"time"
)

// The keeper answers guests on the management network with one line for each line:
//
//	ready NAME     the agent of a guest is up: ok
//	ping           pong
//	list           the names of all guests
//	status NAME    on or off
//	on|off|reset NAME   switches the power: ok, when it is done
//
// That is all that a fence agent needs, and what `lintel lab power` speaks.

// AskKeeper sends one line to a keeper and returns its answer, which is no error.
func AskKeeper(ctx context.Context, address, line string) (string, error) {
	var d net.Dialer
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	conn, err := d.DialContext(ctx, "tcp", address)
	if err != nil {
		return "", fmt.Errorf("the lab's keeper does not answer: %w", err)
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	fmt.Fprintln(conn, line)
	reply, err := bufio.NewReader(conn).ReadString('\n')
	if err != nil {
		return "", fmt.Errorf("the lab's keeper does not answer: %w", err)
	}
	reply = strings.TrimSpace(reply)
	if text, failed := strings.CutPrefix(reply, "error "); failed {
		return "", fmt.Errorf("%s: %s", line, text)
	}
	return reply, nil
}

// answerGuest serves one connection of a guest.
func (k *keeper) answerGuest(conn net.Conn) {
	lines := bufio.NewScanner(conn)
	for lines.Scan() {
		reply, err := k.obey(strings.Fields(lines.Text()))
		if err != nil {
			reply = "error " + strings.ReplaceAll(err.Error(), "\n", " ")
		}
		fmt.Fprintln(conn, reply)
	}
}

func (k *keeper) obey(words []string) (string, error) {
	switch {
	case len(words) == 1 && words[0] == "ping":
		return "pong", nil
	case len(words) == 1 && words[0] == "list":
		var names []string
		for _, g := range k.guests {
			names = append(names, g.spec.Name)
		}
		return strings.Join(names, " "), nil
	case len(words) != 2:
		return "", fmt.Errorf("what is %q", strings.Join(words, " "))
	}
	g := k.guestNamed(words[1])
	if g == nil {
		return "", fmt.Errorf("no guest %q", words[1])
	}
	var err error
	switch words[0] {
	case "ready":
		g.announced()
	case "status":
		if g.status().State == stateOff {
			return "off", nil
		}
		return "on", nil
	case "on":
		err = g.powerOn(context.Background())
	case "off":
		err = g.powerOff()
	case "reset":
		// The one who asks wants to know that the machine is dead, not to wait for
		// its return.
		if err = g.powerOff(); err == nil {
			go func() { _ = g.powerOn(context.Background()) }() // its state tells how it went
		}
	default:
		err = fmt.Errorf("what is %q", words[0])
	}
	return "ok", err
}
