package agent

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestAuditLogRotates(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.log")
	l, err := openAudit(path, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	long := strings.Repeat("x", 1<<20)
	for i := range (auditKept + 3) * auditMaxSize >> 20 {
		if err := l.add(auditRecord{Method: fmt.Sprint(i), Error: long}); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(path + "*")
	if err != nil || len(files) != auditKept+1 {
		t.Errorf("files %v, %v", files, err)
	}
	for _, f := range files {
		st, err := os.Stat(f)
		if err != nil || st.Size() > auditMaxSize || st.Size() == 0 || st.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", f, st, err)
		}
	}
	if l, err = openAudit(path, time.Now); err != nil {
		t.Fatal(err)
	}
	if l.size == 0 {
		t.Error("the size of an existing file is not counted")
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if err := l.add(auditRecord{}); err == nil || l.Err() == nil {
		t.Error("a failed write is not kept")
	}
}
