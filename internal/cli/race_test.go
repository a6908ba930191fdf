//go:build race

package cli

// scripts are the transcripts that run under the race detector, which makes a
// process start forty times slower: those with something concurrent in them.
var scripts = []string{"testdata/script/serve.txtar", "testdata/script/bench.txtar", "testdata/script/tour.txtar"}
