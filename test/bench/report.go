package main

import (
	"fmt"
	"io"
	"strings"
	"unicode/utf8"
)

// report collects what was measured.
type report struct {
	comparisons []*comparison
	figures     []figure
	note        string // what is missing, and why
}

// figure is one goal with what was reached.
type figure struct {
	what, got, goal string
	met             bool
}

func (r *report) add(what, got, goal string, met bool) {
	r.figures = append(r.figures, figure{what, got, goal, met})
}

// write writes the tables as Markdown and reports whether every goal was met.
func (r *report) write(w io.Writer) (met bool) {
	var goals []figure
	for _, c := range r.comparisons {
		goals = append(goals, c.write(w)...)
	}
	if r.note != "" {
		fmt.Fprintf(w, "Not compared: %s.\n\n", r.note)
	}
	met = r.note == ""
	t := table{{"goal", "reached", "wanted", ""}}
	for _, f := range append(goals, r.figures...) {
		verdict := "PASS"
		if !f.met {
			verdict, met = "FAIL", false
		}
		t = append(t, []string{f.what, f.got, f.goal, verdict})
	}
	if len(t) > 1 {
		t.write(w)
	}
	return met
}

// write writes the table and returns the goals.
func (c *comparison) write(w io.Writer) (goals []figure) {
	t := table{{"workload", "server", "IOPS", "MB/s", "p50 µs", "p99 µs", "server CPU µs per I/O", "IOPS of " + c.whose, "CPU of " + c.whose}}
	for i := range c.rows {
		row := &c.rows[i]
		ours, theirs := median(row.oursSamples), median(row.theirsSamples)
		compared := len(row.theirsSamples) > 0
		cells := append([]string{row.name, c.ours}, ours.cells()...)
		if compared {
			cells = append(cells, times(row.ratio(sampleIOPS)), times(row.ratio(sampleCPU)))
		}
		t = append(t, cells)
		if !compared {
			continue
		}
		t = append(t, append([]string{"", c.theirs}, theirs.cells()...))
		for _, g := range row.goals {
			goals = append(goals, g.figure(row, c.whose))
		}
	}
	for _, f := range c.floor {
		t = append(t, append([]string{f.name, "floor"}, median(f.samples).cells()...))
	}
	t.write(w)
	fmt.Fprintln(w)
	return goals
}

func (s sample) cells() []string {
	return []string{
		fmt.Sprintf("%.0f", s.iops), fmt.Sprintf("%.0f", s.rate/1e6),
		fmt.Sprintf("%.1f", s.p50), fmt.Sprintf("%.1f", s.p99), fmt.Sprintf("%.2f", s.cpu),
	}
}

// times writes a ratio.
func times(ratio float64) string { return fmt.Sprintf("%.2f ×", ratio) }

func (g goal) figure(row *row, whose string) figure {
	ratio := row.ratio(g.value)
	sign, met := "≥", ratio >= g.limit
	if g.atMost {
		sign, met = "≤", ratio <= g.limit
	}
	return figure{
		what: fmt.Sprintf("%s: %s of %s", row.name, g.what, whose), met: met,
		got: times(ratio), goal: sign + " " + times(g.limit),
	}
}

// table is a Markdown table: a header and rows, which may be shorter. All
// columns but the first two are aligned right.
type table [][]string

func (t table) write(w io.Writer) {
	widths := make([]int, len(t[0]))
	for _, row := range t {
		for i, cell := range row {
			widths[i] = max(widths[i], utf8.RuneCountInString(cell), 3)
		}
	}
	line := func(row []string) {
		for i, width := range widths {
			cell := ""
			if i < len(row) {
				cell = row[i]
			}
			space := strings.Repeat(" ", width-utf8.RuneCountInString(cell))
			if i < 2 {
				fmt.Fprintf(w, "| %s%s ", cell, space)
			} else {
				fmt.Fprintf(w, "| %s%s ", space, cell)
			}
		}
		fmt.Fprintln(w, "|")
	}
	line(t[0])
	for i, width := range widths {
		if i < 2 {
			fmt.Fprintf(w, "| %s ", strings.Repeat("-", width))
		} else {
			fmt.Fprintf(w, "| %s: ", strings.Repeat("-", width-1))
		}
	}
	fmt.Fprintln(w, "|")
	for _, row := range t[1:] {
		line(row)
	}
}
