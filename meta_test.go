// Package lintel holds the tests that look at the repository as a whole.
package lintel

import (
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"strings"
	"testing"
)

// eachPackage calls f with every folder that holds Go files.
func eachPackage(t *testing.T, f func(dir string, files []string)) {
	t.Helper()
	byDir := map[string][]string{}
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && path != "." && (strings.HasPrefix(d.Name(), ".") || d.Name() == "bin" || d.Name() == "testdata") {
			return filepath.SkipDir
		}
		if strings.HasSuffix(path, ".go") {
			byDir[filepath.Dir(path)] = append(byDir[filepath.Dir(path)], path)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for dir, files := range byDir {
		f(dir, files)
	}
}

func TestEveryPackageHasOneComment(t *testing.T) {
	eachPackage(t, func(dir string, files []string) {
		var with []string
		for _, path := range files {
			f, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.PackageClauseOnly|parser.ParseComments)
			if err != nil {
				t.Fatal(err)
			}
			if strings.HasSuffix(f.Name.Name, "_test") || strings.HasPrefix(dir, "api/") {
				continue
			}
			if f.Doc != nil && !strings.HasPrefix(f.Doc.Text(), "Code generated") {
				with = append(with, path)
			}
		}
		if len(with) != 1 && !strings.HasPrefix(dir, "api") {
			t.Errorf("%s has %d package comments, want one: %v", dir, len(with), with)
		}
	})
}

// layers lists what a room may not import, and why.
var layers = []struct{ room, forbidden, reason string }{
	{"internal/block", "lintel.io/lintel/internal/", "a device knows nothing of what is above it"},
	{"internal/wire", "lintel.io/lintel/", "wire formats are views on bytes"},
	{"internal/tlspsk", "lintel.io/lintel/", "TLS knows nothing of what it protects"},
	{"internal/unit", "lintel.io/lintel/internal/scsi", "the unit serves both command sets and knows neither"},
	{"internal/unit", "lintel.io/lintel/internal/nvme", "the unit serves both command sets and knows neither"},
	{"internal/unit", "lintel.io/lintel/internal/iscsi", "the unit knows no transport"},
	{"internal/unit", "net", "the unit owns no socket"},
	{"internal/scsi", "lintel.io/lintel/internal/iscsi", "the command set knows no transport"},
	{"internal/scsi", "net", "the command set owns no socket"},
	{"internal/nvme", "lintel.io/lintel/internal/nvmetcp", "the controller knows no transport"},
	{"internal/nvme", "lintel.io/lintel/internal/wire/nvmetcp", "the controller knows no transport"},
	{"internal/nvme", "lintel.io/lintel/internal/scsi", "neither command set knows the other"},
	{"internal/nvme", "net", "the controller owns no socket"},
	{"internal/scsi", "lintel.io/lintel/internal/nvme", "neither command set knows the other"},
	{"internal/nvmetcp", "lintel.io/lintel/internal/agent", "the data plane runs without its manager"},
	{"internal/iscsi", "lintel.io/lintel/internal/agent", "the data plane runs without its manager"},
	{"internal/target", "lintel.io/lintel/internal/agent", "the data plane runs without its manager"},
	{"internal/target", "connectrpc.com/connect", "the data plane has no management protocol"},
	{"internal/agent", "lintel.io/lintel/internal/target", "the data plane may be another process"},
	{"internal/control", "lintel.io/lintel/internal/target", "the data plane is behind the agent's interface"},
	{"internal/cli", "lintel.io/lintel/internal/scsi", "the command line is a client of the API"},
	{"internal/cli", "lintel.io/lintel/internal/iscsi", "the command line is a client of the API"},
}

func TestLayers(t *testing.T) {
	eachPackage(t, func(dir string, files []string) {
		for _, path := range files {
			if strings.HasSuffix(path, "_test.go") || strings.HasSuffix(dir, "test") {
				continue
			}
			f, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ImportsOnly)
			if err != nil {
				t.Fatal(err)
			}
			for _, imp := range f.Imports {
				name := strings.Trim(imp.Path.Value, `"`)
				for _, l := range layers {
					inRoom := dir == l.room || strings.HasPrefix(dir, l.room+"/")
					sameRoom := name == "lintel.io/lintel/"+l.room || strings.HasPrefix(name, "lintel.io/lintel/"+l.room+"/")
					hit := name == strings.TrimSuffix(l.forbidden, "/") || (l.forbidden != "net" && strings.HasPrefix(name, l.forbidden))
					if inRoom && hit && !sameRoom {
						t.Errorf("%s imports %s: %s", path, name, l.reason)
					}
				}
			}
		}
	})
}
