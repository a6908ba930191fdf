package main

import (
	"os"
	"testing"
)

func TestCommittedTableIsFresh(t *testing.T) {
	rows, err := collect("../..")
	if err != nil {
		t.Fatal(err)
	}
	if len(rows) < 50 {
		t.Errorf("only %d tests name their clause", len(rows))
	}
	want := render(rows)
	got, err := os.ReadFile("../../docs/conformance-table.md")
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != want {
		t.Error("docs/conformance-table.md is stale: run make generate")
	}
}
