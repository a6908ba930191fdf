package agent

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"
)

// Bounds of the audit log on disk.
const (
	auditMaxSize = 8 << 20 // bytes of a file before the next is started
	auditKept    = 4       // former files, audit.log.1 being the newest
)

// auditRecord is one line of the audit log: what somebody has asked the array to change,
// and what became of it.
type auditRecord struct {
	Time    time.Time       `json:"time"`
	Method  string          `json:"method"`
	Peer    string          `json:"peer"`
	DryRun  bool            `json:"dry_run,omitempty"`
	Request json.RawMessage `json:"request"` // without secrets
	Code    string          `json:"code"`    // "ok" or the API's error code
	Error   string          `json:"error,omitempty"`
	Plan    []string        `json:"plan,omitempty"`
}

// auditLog is an append-only file that is rotated by size.
type auditLog struct {
	path string
	now  func() time.Time

	mu   sync.Mutex
	file *os.File
	size int64
	err  error // of the last write
}

func openAudit(path string, now func() time.Time) (*auditLog, error) {
	l := &auditLog{path: path, now: now}
	if err := l.open(); err != nil {
		return nil, err
	}
	return l, nil
}

func (l *auditLog) open() error {
	f, err := os.OpenFile(l.path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return fmt.Errorf("opening the audit log: %w", err)
	}
	st, err := f.Stat()
	if err != nil {
		return errors.Join(fmt.Errorf("opening the audit log: %w", err), f.Close())
	}
	l.file, l.size = f, st.Size()
	return nil
}

// add appends a record.
func (l *auditLog) add(r auditRecord) error {
	r.Time = l.now().UTC()
	line, err := json.Marshal(r)
	if err != nil {
		return err
	}
	line = append(line, '\n')
	l.mu.Lock()
	defer l.mu.Unlock()
	l.err = l.writeLocked(line)
	return l.err
}

func (l *auditLog) writeLocked(line []byte) error {
	if l.size > 0 && l.size+int64(len(line)) > auditMaxSize {
		if err := l.rotateLocked(); err != nil {
			return err
		}
	}
	n, err := l.file.Write(line)
	l.size += int64(n)
	return err
}

func (l *auditLog) rotateLocked() error {
	for i := auditKept - 1; i >= 0; i-- {
		from := l.path
		if i > 0 {
			from = fmt.Sprintf("%s.%d", l.path, i)
		}
		if err := os.Rename(from, fmt.Sprintf("%s.%d", l.path, i+1)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("rotating the audit log: %w", err)
		}
	}
	return errors.Join(l.file.Close(), l.open())
}

// Err returns why the last record could not be written, nil where it was.
func (l *auditLog) Err() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.err
}

// Close closes the file.
func (l *auditLog) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.file.Close()
}
