package cli

import (
	"fmt"
	"io"
	"strings"
	"unicode/utf8"
)

// column is one column of a table of T.
type column[T any] struct {
	head string
	text func(T) string
	// right aligns numbers.
	right bool
	// style is the terminal's colour for a cell; nil for none.
	style func(T) style
}

// style is a colour or weight of the terminal (ECMA-48 SGR parameter).
type style string

const (
	plain  style = ""
	bold   style = "1"
	green  style = "32"
	yellow style = "33"
	red    style = "31"
)

// paint wraps text in a style where colour is on.
func paint(on bool, s style, text string) string {
	if !on || s == plain {
		return text
	}
	return "\x1b[" + string(s) + "m" + text + "\x1b[0m"
}

// writeTable prints rows under their heads, columns two spaces apart. An empty
// cell is a dash, so that every row has as many words as the head.
func writeTable[T any](w io.Writer, colour bool, columns []column[T], rows []T) error {
	cells := make([][]string, len(rows)+1)
	widths := make([]int, len(columns))
	for r := range cells {
		cells[r] = make([]string, len(columns))
		for c, col := range columns {
			text := col.head
			if r > 0 {
				if text = printable(col.text(rows[r-1])); text == "" {
					text = "-"
				}
			}
			cells[r][c] = text
			widths[c] = max(widths[c], utf8.RuneCountInString(text))
		}
	}
	var b strings.Builder
	for r, row := range cells {
		for c, text := range row {
			s := bold
			if r > 0 {
				s = plain
				if columns[c].style != nil {
					s = columns[c].style(rows[r-1])
				}
			}
			pad := strings.Repeat(" ", widths[c]-utf8.RuneCountInString(text))
			if columns[c].right {
				b.WriteString(pad)
			}
			b.WriteString(paint(colour, s, text))
			if c < len(row)-1 {
				if !columns[c].right {
					b.WriteString(pad)
				}
				b.WriteString("  ")
			}
		}
		b.WriteByte('\n')
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// detail is one line of the description of a single object.
type detail struct{ name, text string }

// writeDetails prints the lines with their texts aligned; lines without text
// are left out.
func writeDetails(w io.Writer, colour bool, details []detail) error {
	width := 0
	for _, d := range details {
		if d.text != "" {
			width = max(width, utf8.RuneCountInString(d.name))
		}
	}
	var b strings.Builder
	for _, d := range details {
		if d.text == "" {
			continue
		}
		pad := strings.Repeat(" ", width-utf8.RuneCountInString(d.name))
		fmt.Fprintf(&b, "%s%s  %s\n", paint(colour, bold, d.name), pad, printable(d.text))
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// printable replaces control characters: names that initiators chose must not
// steer the administrator's terminal.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r >= 0x7f && r < 0xa0 {
			return '?'
		}
		return r
	}, s)
}
