//go:build !race

package cli

// scripts are the transcripts that run: all.
var scripts = []string(nil)
