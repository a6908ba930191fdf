package main

import (
	"fmt"
	"io"
	"strings"
	"unicode/utf8"
)

// report collects what was measured.
type report struct {
	rows    []row
	floor   []floorRow
	figures []figure
	note    string // what is missing, and why
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
	t := table{{"workload", "server", "IOPS", "MB/s", "p50 µs", "p99 µs", "server CPU µs per I/O", "IOPS of tgt's", "CPU of tgt's"}}
	var goals []figure
	for i := range r.rows {
		row := &r.rows[i]
		ours, theirs := median(row.lintel), median(row.tgt)
		compared := len(row.tgt) > 0
		cells := append([]string{row.name, "lintel"}, ours.cells()...)
		if compared {
			cells = append(cells, fmt.Sprintf("%.2f ×", ours.iops/theirs.iops), fmt.Sprintf("%.2f ×", ours.cpu/theirs.cpu))
		}
		t = append(t, cells)
		if !compared {
			continue
		}
		t = append(t, append([]string{"", "tgt"}, theirs.cells()...))
		for _, g := range row.goals {
			goals = append(goals, g.figure(row.name, ours, theirs))
		}
	}
	for _, f := range r.floor {
		t = append(t, append([]string{f.name, "floor"}, median(f.samples).cells()...))
	}
	if len(t) > 1 {
		t.write(w)
		fmt.Fprintln(w)
	}
	if r.note != "" {
		fmt.Fprintf(w, "Not compared: %s.\n\n", r.note)
	}
	met = r.note == ""
	t = table{{"goal", "reached", "wanted", ""}}
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

func (s sample) cells() []string {
	return []string{
		fmt.Sprintf("%.0f", s.iops), fmt.Sprintf("%.0f", s.rate/1e6),
		fmt.Sprintf("%.1f", s.p50), fmt.Sprintf("%.1f", s.p99), fmt.Sprintf("%.2f", s.cpu),
	}
}

func (g goal) figure(name string, ours, theirs sample) figure {
	ratio := g.value(ours) / g.value(theirs)
	sign, met := "≥", ratio >= g.limit
	if g.atMost {
		sign, met = "≤", ratio <= g.limit
	}
	return figure{
		what: fmt.Sprintf("%s: %s of tgt's", name, g.what), met: met,
		got: fmt.Sprintf("%.2f ×", ratio), goal: fmt.Sprintf("%s %.2f ×", sign, g.limit),
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
