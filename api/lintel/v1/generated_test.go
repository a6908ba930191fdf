package lintelv1_test

import (
	"crypto/sha256"
	"encoding/hex"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestGeneratedCodeIsFresh fails when a .proto file or generated file was
// changed without api/generate.sh.
func TestGeneratedCodeIsFresh(t *testing.T) {
	const root = "../.."
	sums, err := os.ReadFile(filepath.Join(root, "generated.sha256"))
	if err != nil {
		t.Fatal(err)
	}
	known := make(map[string]bool)
	for line := range strings.Lines(string(sums)) {
		sum, name, ok := strings.Cut(strings.TrimSpace(line), "  ")
		if !ok {
			t.Fatalf("generated.sha256: bad line %q", line)
		}
		known[filepath.Clean(name)] = true
		data, err := os.ReadFile(filepath.Join(root, name))
		if err != nil {
			t.Errorf("%v: run api/generate.sh", err)
			continue
		}
		got := sha256.Sum256(data)
		if hex.EncodeToString(got[:]) != sum {
			t.Errorf("api/%s has changed: run api/generate.sh", name)
		}
	}
	for _, pattern := range []string{"*.proto", "*.pb.go", "lintelv1connect/*.go"} {
		files, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range files {
			if !known[filepath.Join("lintel/v1", name)] {
				t.Errorf("api/lintel/v1/%s is new: run api/generate.sh", name)
			}
		}
	}
}
