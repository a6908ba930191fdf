// Command table prints the conformance table of docs/: which test checks which
// command or feature against which clause. It is made from the comments of the
// tests themselves, whose first sentence has the form
//
//	// TestName checks FEATURE (STANDARD §CLAUSE, STANDARD §CLAUSE).
package main

import (
	"cmp"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

type row struct{ feature, clause, test, pkg string }

var sentence = regexp.MustCompile(`^(Test\w+) checks (.+) \(([^()]*§[^()]*)\)\.`)

func main() {
	root := "."
	if len(os.Args) > 1 {
		root = os.Args[1]
	}
	rows, err := collect(root)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Print(render(rows))
}

func collect(root string) ([]row, error) {
	var rows []row
	fset := token.NewFileSet()
	err := filepath.WalkDir(filepath.Join(root, "internal"), func(path string, d fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		f, err := parser.ParseFile(fset, path, nil, parser.ParseComments)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, filepath.Dir(path))
		if err != nil {
			return err
		}
		for _, decl := range f.Decls {
			fn, ok := decl.(*ast.FuncDecl)
			if !ok || fn.Doc == nil {
				continue
			}
			text := strings.Join(strings.Fields(fn.Doc.Text()), " ")
			if m := sentence.FindStringSubmatch(text); m != nil && m[1] == fn.Name.Name {
				rows = append(rows, row{feature: m[2], clause: m[3], test: m[1], pkg: filepath.ToSlash(rel)})
			}
		}
		return nil
	})
	slices.SortFunc(rows, func(a, b row) int {
		return cmp.Or(cmp.Compare(a.pkg, b.pkg), cmp.Compare(strings.ToLower(a.feature), strings.ToLower(b.feature)), cmp.Compare(a.test, b.test))
	})
	return rows, err
}

func render(rows []row) string {
	var b strings.Builder
	b.WriteString("# Conformance: what is tested against which clause\n\n")
	b.WriteString("Made from the comments of the tests by `make generate`; do not edit.\n")
	fmt.Fprintf(&b, "%d tests name their clause. What the public suite skips, and why, is in [conformance.md](conformance.md).\n", len(rows))
	pkg := ""
	for _, r := range rows {
		if r.pkg != pkg {
			pkg = r.pkg
			fmt.Fprintf(&b, "\n## %s\n\n| command or feature | clause | test |\n|---|---|---|\n", pkg)
		}
		fmt.Fprintf(&b, "| %s | %s | `%s` |\n", strings.ReplaceAll(r.feature, "|", "\\|"), r.clause, r.test)
	}
	return b.String()
}
