// Command summary runs a command that prints test2json events (go test -json),
// shows failures as they happen, and closes with the counts:
//
//	summary [-skips] [-tests] -- go test -json ./...
package main

import (
	"bufio"
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"
)

type event struct {
	Action  string
	Package string
	Test    string
	Output  string
	Elapsed float64
}

func main() {
	skips := flag.Bool("skips", false, "list every skipped test with its reason")
	tests := flag.Bool("tests", false, "show tests that took a second or more as they pass")
	flag.Parse()
	os.Exit(run(flag.Args(), *skips, *tests))
}

func run(args []string, listSkips, showTests bool) int {
	if len(args) == 0 {
		fmt.Fprintln(os.Stderr, "usage: summary [-skips] [-tests] -- go test -json ...")
		return 2
	}
	start := time.Now()
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	passed, failed, skipped := 0, 0, []string{}
	output := map[string][]string{} // of tests that have not ended
	sc := bufio.NewScanner(out)
	sc.Buffer(make([]byte, 1<<20), 64<<20)
	for sc.Scan() {
		var e event
		if json.Unmarshal(sc.Bytes(), &e) != nil {
			fmt.Println(sc.Text())
			continue
		}
		key := e.Package + " " + e.Test
		switch e.Action {
		case "output", "build-output":
			output[key] = append(output[key], e.Output)
			continue
		case "pass", "fail", "skip", "build-fail":
		default:
			continue
		}
		lines := output[key]
		delete(output, key)
		switch {
		case e.Test == "" && e.Action == "pass":
			fmt.Printf("ok    %s %.1fs\n", e.Package, e.Elapsed)
		case e.Action == "build-fail" || e.Action == "fail":
			if e.Test != "" {
				failed++
			}
			fmt.Printf("FAIL  %s\n%s", key, strings.Join(lines, ""))
			if e.Test == "" { // its process has ended in the middle of these, and told why
				for _, test := range slices.Sorted(maps.Keys(output)) {
					if strings.HasPrefix(test, key) {
						fmt.Printf("FAIL  %s did not end\n%s", test, strings.Join(output[test], ""))
						delete(output, test)
					}
				}
			}
		case e.Test != "" && e.Action == "pass":
			passed++
			if showTests && e.Elapsed >= 1 && !strings.Contains(e.Test, "/") {
				fmt.Printf("ok    %s %.0fs\n", e.Test, e.Elapsed)
			}
		case e.Test != "" && e.Action == "skip":
			skipped = append(skipped, key+": "+reason(lines))
		}
	}
	err = cmd.Wait()
	slices.Sort(skipped)
	if listSkips || len(skipped) <= 20 {
		for _, s := range skipped {
			fmt.Println("skip ", s)
		}
	} else {
		fmt.Printf("%d tests skipped; -skips lists them\n", len(skipped))
	}
	fmt.Printf("in %s\n", time.Since(start).Round(time.Second))
	if err != nil && failed == 0 {
		failed = 1 // a build or a package failed outside of any test
	}
	fmt.Printf("%d passed, %d failed, %d skipped\n", passed, failed, len(skipped))
	if err != nil || failed > 0 {
		return 1
	}
	return 0
}

// reason returns what the test said when it skipped: the line before the
// closing "--- SKIP".
func reason(lines []string) string {
	for _, l := range slices.Backward(lines) {
		l = strings.TrimSpace(l)
		if l == "" || strings.HasPrefix(l, "---") || strings.HasPrefix(l, "===") {
			continue
		}
		if _, text, ok := strings.Cut(l, ": "); ok {
			return text
		}
		return l
	}
	return "no reason given"
}
