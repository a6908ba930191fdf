package cli

import (
	"fmt"
	"strings"
	"time"

	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// word is the word for an enumeration value.
func word(e protoreflect.Enum) string { return enumWord(e.Descriptor(), e.Number()) }

// goodIf is the colour of a state.
func goodIf(ok bool) style {
	if ok {
		return green
	}
	return red
}

func stateText(state, reason string) string {
	if reason == "" {
		return state
	}
	return state + ": " + reason
}

// sizeText is a size with its exact number of bytes.
func sizeText(n uint64) string {
	if n < 1024 {
		return formatSize(n)
	}
	return fmt.Sprintf("%s (%s bytes)", formatSize(n), formatCount(n))
}

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

// onlyYes is a word for a table's cell that is empty in the usual case.
func onlyYes(b bool, word string) string {
	if b {
		return word
	}
	return ""
}

func timeText(t *timestamppb.Timestamp) string {
	if t == nil {
		return ""
	}
	return t.AsTime().Format(time.RFC3339)
}

// known is a number that the array may not know; the cell is then empty, which prints as a dash.
func known[N any](n *N, text func(N) string) string {
	if n == nil {
		return ""
	}
	return text(*n)
}

// countText is a number of sessions or the like.
func countText[N uint32 | uint64](n N) string { return fmt.Sprint(n) }

// orUnknown is the text of a detail that the array may not know.
func orUnknown(text string) string {
	if text == "" {
		return "unknown"
	}
	return text
}

// plural writes a number with its noun.
func plural(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// joinFew lists at most n words and says how many more there are.
func joinFew(words []string, n int) string {
	if len(words) <= n {
		return strings.Join(words, " ")
	}
	return fmt.Sprintf("%s +%d", strings.Join(words[:n], " "), len(words)-n)
}

// wrap breaks text into lines of at most width characters.
func wrap(text string, width int) string {
	var b strings.Builder
	column := 0
	for i, w := range strings.Fields(text) {
		switch {
		case i == 0:
		case column+1+len(w) > width:
			b.WriteByte('\n')
			column = 0
		default:
			b.WriteByte(' ')
			column++
		}
		b.WriteString(w)
		column += len(w)
	}
	return b.String()
}
