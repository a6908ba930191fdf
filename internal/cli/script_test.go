package cli

import (
	"context"
	"os"
	"strconv"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"lintel": func() { os.Exit(Main(context.Background(), os.Args[1:], System())) },
	})
}

// TestScripts runs the transcripts: lintel as users call it. With UPDATE_SCRIPTS=1 the
// expected outputs are rewritten: look at what changed before committing it.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		UpdateScripts:       update(),
		Setup: func(env *testscript.Env) error {
			env.Setenv("LINTEL_DATA_DIR", env.WorkDir+"/array")
			env.Setenv("HOME", env.WorkDir)
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"code": exitsWith,
		},
	})
}

// update says whether to rewrite the expected outputs of the transcripts.
func update() bool {
	yes, err := strconv.ParseBool(os.Getenv("UPDATE_SCRIPTS"))
	return err == nil && yes
}

// exitsWith is "code N lintel ARGS...": it runs lintel and checks its exit code.
func exitsWith(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: code N COMMAND...")
	}
	err := ts.Exec(args[1], args[2:]...)
	got := 0
	if err != nil {
		exit, ok := err.(interface{ ExitCode() int })
		if !ok {
			ts.Fatalf("%v", err)
		}
		got = exit.ExitCode()
	}
	if want := args[0]; strconv.Itoa(got) != want {
		ts.Fatalf("exit code %d, want %s", got, want)
	}
}
