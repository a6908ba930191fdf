package lab

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const fixturePatch = `Why it is needed.

--- a/arch/one.c
+++ b/arch/one.c
@@ -1,7 +1,8 @@
 alpha
 beta
 gamma
+running
 delta
 epsilon
 zeta
 eta
--- a/two.c
+++ b/two.c
@@ -1,3 +1,3 @@
 first
-old
+new
 last
`

func TestKernelPatch(t *testing.T) {
	const (
		plainOne = "alpha\nbeta\ngamma\ndelta\nepsilon\nzeta\neta\n"
		fixedOne = "alpha\nbeta\ngamma\nrunning\ndelta\nepsilon\nzeta\neta\n"
		plainTwo = "first\nold\nlast\n"
		fixedTwo = "first\nnew\nlast\n"
		none     = "" // no such file
	)
	for _, test := range []struct {
		name, one, two string
		wants          string // what an error says, nothing where the patch is in afterwards
		step           bool   // the build says that the patch is in already
	}{
		{name: "plain", one: plainOne, two: plainTwo},
		{name: "there already", one: fixedOne, two: fixedTwo, step: true},
		{name: "moved", one: "/* a comment */\n\n" + plainOne, two: plainTwo},
		{name: "there already, moved", one: "/* a comment */\n\n" + fixedOne, two: fixedTwo, step: true},
		{name: "half there", one: fixedOne, two: plainTwo, wants: "does not fit arch/one.c in "},
		{name: "other code", one: plainOne, two: "first\nother\nlast\n", wants: "does not fit two.c in "},
		{name: "file missing", one: plainOne, two: none, wants: "does not fit two.c in "},
		{name: "all missing", one: none, two: none, wants: "does not fit arch/one.c, two.c in "},
	} {
		t.Run(test.name, func(t *testing.T) {
			dir := t.TempDir()
			tree, patch := filepath.Join(dir, "tree"), filepath.Join(dir, "lab.patch")
			write := func(path, text string) {
				if text == none {
					return
				}
				if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			if err := os.MkdirAll(filepath.Join(tree, "arch"), 0o755); err != nil {
				t.Fatal(err)
			}
			one, two := filepath.Join(tree, "arch/one.c"), filepath.Join(tree, "two.c")
			write(one, test.one)
			write(two, test.two)
			write(patch, fixturePatch)
			var log strings.Builder
			err := applyPatch(t.Context(), &log, tree, patch)
			left := func(path string) string { text, _ := os.ReadFile(path); return string(text) }
			if test.wants != "" {
				if err == nil || !strings.Contains(err.Error(), test.wants) || !strings.Contains(err.Error(), KernelVariable) {
					t.Errorf("error %v, want one with %q and what to do", err, test.wants)
				}
				if left(one) != test.one || left(two) != test.two {
					t.Error("a patch that does not fit changed the source")
				}
				return
			}
			if err != nil {
				t.Fatalf("%v\n%s", err, &log)
			}
			if !strings.HasSuffix(left(one), fixedOne) || left(two) != fixedTwo {
				t.Errorf("the source is %q and %q now", left(one), left(two))
			}
			if strings.Contains(log.String(), stepPrefix) != test.step {
				t.Errorf("the build says %q", &log)
			}
			entries, err := filepath.Glob(filepath.Join(tree, "*.*"))
			if err != nil || len(entries) != 1 {
				t.Errorf("in the source are %q, %v", entries, err)
			}
		})
	}
}
