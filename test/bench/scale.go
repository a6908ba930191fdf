package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	lintelv1 "lintel.io/lintel/api/lintel/v1"
	"lintel.io/lintel/internal/initiator/iscsi"
)

// The goals of size: what an array that does nothing takes, and how long it
// takes to make it large.
const (
	idleVolumes  = 200
	idleSessions = 64
	idleLimit    = 100 << 20 // bytes resident

	manyVolumes      = 1000
	manyVolumesLimit = 10 * time.Second

	manyLogins      = 1000
	manyLoginsLimit = 5 * time.Second
	loginsAtOnce    = 16
)

// scale measures sizes and times of management; they have no counterpart in tgt.
func (r *report) scale(ctx context.Context, o options, dir string) error {
	if !o.only.MatchString("scale") {
		return nil
	}
	path, err := serverDir(dir, "scale")
	if err != nil {
		return err
	}
	l, err := startLintel(ctx, o.lintel, path)
	if err != nil {
		return err
	}
	defer closeAll([]io.Closer{l})
	if err := r.idle(ctx, l); err != nil {
		return fmt.Errorf("idle array: %w", err)
	}
	start := time.Now()
	for i := range manyVolumes {
		if err := l.create(ctx, fmt.Sprintf("many-%d", i), lintelv1.VolumeKind_VOLUME_KIND_FILE); err != nil {
			return fmt.Errorf("creating volumes: %w", err)
		}
	}
	r.add(fmt.Sprintf("%d volumes created through the API", manyVolumes), seconds(time.Since(start)), "< "+seconds(manyVolumesLimit), time.Since(start) < manyVolumesLimit)
	start = time.Now()
	if err := logins(ctx, l); err != nil {
		return fmt.Errorf("logins: %w", err)
	}
	r.add(fmt.Sprintf("%d logins, %d at a time", manyLogins, loginsAtOnce), seconds(time.Since(start)), "< "+seconds(manyLoginsLimit), time.Since(start) < manyLoginsLimit)
	return nil
}

func seconds(d time.Duration) string { return fmt.Sprintf("%.2f s", d.Seconds()) }

// idle measures the memory of an array with many volumes and sessions and no I/O.
func (r *report) idle(ctx context.Context, l *lintel) error {
	for i := range idleVolumes {
		name := fmt.Sprintf("idle-%d", i)
		if err := l.create(ctx, name, lintelv1.VolumeKind_VOLUME_KIND_FILE); err != nil {
			return err
		}
		if err := l.mapTo(ctx, name, uint32(i)); err != nil {
			return err
		}
	}
	var sessions []*iscsi.Session
	defer func() {
		for _, s := range sessions {
			_ = s.Logout(ctx)
		}
	}()
	for range idleSessions {
		s, err := iscsi.Dial(ctx, l.address, iscsi.Options{Target: l.iqn})
		if err != nil {
			return err
		}
		sessions = append(sessions, s)
		if _, err := s.LUNs(ctx); err != nil {
			return err
		}
	}
	rss, err := resident(l.pid())
	if err != nil {
		return err
	}
	r.add(fmt.Sprintf("resident with %d volumes and %d idle sessions", idleVolumes, idleSessions), mebibytes(rss), "< "+mebibytes(idleLimit), rss < idleLimit)
	return nil
}

func mebibytes(n int64) string { return fmt.Sprintf("%.0f MiB", float64(n)/(1<<20)) }

// resident returns the resident memory of a process in bytes.
func resident(pid int) (int64, error) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	_, rest, _ := bytes.Cut(status, []byte("VmRSS:"))
	line, _, _ := bytes.Cut(rest, []byte("kB"))
	n, err := strconv.ParseInt(strings.TrimSpace(string(line)), 10, 64)
	return n << 10, err
}

// logins logs in and out again, several at a time.
func logins(ctx context.Context, l *lintel) error {
	var group sync.WaitGroup
	errs := make(chan error, loginsAtOnce)
	op := iscsi.DefaultOperational()
	op.MaxRecvDataSegmentLength = 8 << 10
	for i := range loginsAtOnce {
		group.Go(func() {
			for range manyLogins*(i+1)/loginsAtOnce - manyLogins*i/loginsAtOnce {
				s, err := iscsi.Dial(ctx, l.address, iscsi.Options{Target: l.iqn, Operational: &op})
				if err == nil {
					err = s.Logout(ctx)
				}
				if err != nil {
					errs <- err
					return
				}
			}
		})
	}
	group.Wait()
	select {
	case err := <-errs:
		return err
	default:
		return nil
	}
}
