package serve

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"

	"lintel.io/lintel/internal/agent"
)

// process is what the roles have in common while they run.
type process struct {
	Common
	log  *slog.Logger
	web  *servers
	undo stack
}

// begin takes the locks of a command.
func begin(config Common, logTo io.Writer, locks ...Role) (*process, error) {
	log := config.logger(logTo)
	r := &process{Common: config, log: log, web: newServers(log)}
	for _, name := range locks {
		lock, err := LockDir(config.DataDir, name)
		if err != nil {
			return nil, errors.Join(err, r.undo.run())
		}
		r.undo.add(lock.Release)
	}
	return r, nil
}

// end releases what the process has taken, and adds what fails to err.
func (r *process) end(err *error) { *err = errors.Join(*err, r.undo.run()) }

// listen starts answering on a unix socket.
func (r *process) listen(path string, handler http.Handler) error {
	socket, err := listenUnix(path)
	if err != nil {
		return err
	}
	r.web.serve(socket, handler)
	return nil
}

// stopListening adds the end of what listen has begun to what end does.
func (r *process) stopListening() {
	r.undo.add(func() error {
		ctx, cancel := context.WithTimeout(context.Background(), shutdownTime)
		defer cancel()
		r.web.close(ctx)
		return nil
	})
}

// manage serves the API of an array and returns where.
func (r *process) manage(listen Listen, manager *agent.Agent, handler http.Handler) (at endpoints, err error) {
	r.stopListening()
	if err := r.listen(SocketPath(r.DataDir), handler); err != nil {
		return at, err
	}
	at.api = append(at.api, "unix:"+SocketPath(r.DataDir))
	if listen.APIListen != "" {
		listener, err := net.Listen("tcp", listen.APIListen)
		if err != nil {
			return at, fmt.Errorf("the API cannot listen: %w", err)
		}
		r.web.serve(listener, handler)
		at.api = append(at.api, "http://"+listener.Addr().String())
	}
	if listen.MetricsListen != "" {
		metrics, err := metricsHandler(manager.Collector())
		if err != nil {
			return at, err
		}
		listener, err := net.Listen("tcp", listen.MetricsListen)
		if err != nil {
			return at, fmt.Errorf("the metrics cannot listen: %w", err)
		}
		r.web.serve(listener, metrics)
		at.metrics = listener.Addr().String()
	}
	return at, nil
}

// run tells the service manager that the process is ready and returns when it is to stop.
func (r *process) run(ctx context.Context, status string) (err error) {
	r.notify("READY=1\nSTATUS=" + status)
	select {
	case <-ctx.Done():
		r.log.Info("stopping", "reason", "signal")
	case err = <-r.web.failed:
	}
	r.notify("STOPPING=1")
	return err
}

func (r *process) notify(state string) {
	if err := notify(r.NotifySocket, state); err != nil {
		r.log.Warn("the service manager was not told", "error", err)
	}
}

// stack runs what was added in reverse order.
type stack []func() error

func (s *stack) add(f func() error) { *s = append(*s, f) }

func (s *stack) run() error {
	var errs []error
	for i := len(*s) - 1; i >= 0; i-- {
		errs = append(errs, (*s)[i]())
	}
	return errors.Join(errs...)
}

func (c *Common) logger(w io.Writer) *slog.Logger {
	level, err := c.level()
	if err != nil {
		level = slog.LevelInfo
	}
	options := &slog.HandlerOptions{Level: level}
	if c.LogFormat == "json" {
		return slog.New(slog.NewJSONHandler(w, options))
	}
	return slog.New(slog.NewTextHandler(w, options))
}
