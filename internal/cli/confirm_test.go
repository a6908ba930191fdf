package cli

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"testing"
)

func TestConfirm(t *testing.T) {
	for _, c := range []struct {
		answer string
		change change
		ok     bool
	}{
		{"y\n", change{}, true}, {"YES\n", change{}, true}, {"yes", change{}, true},
		{"n\n", change{}, false}, {"\n", change{}, false}, {"", change{}, false}, {"yup\n", change{}, false},
		{"", change{yes: true}, true}, {"", change{dry: true}, true},
	} {
		var asked bytes.Buffer
		a := &app{Streams: Streams{In: strings.NewReader(c.answer), Err: &asked}}
		err := a.confirm(c.change, "This destroys %s", "db\x1b1")
		if (err == nil) != c.ok {
			t.Errorf("%q %+v: %v, want %v", c.answer, c.change, err, c.ok)
		}
		const question = "This destroys db?1.\nGo on? [y/N] "
		if !c.change.yes && !c.change.dry && asked.String() != question {
			t.Errorf("asked %q, want %q", asked.String(), question)
		}
	}
}

// The first SIGINT ends a question, though the command still waits for its input.
func TestConfirmIsInterrupted(t *testing.T) {
	in, typed := io.Pipe()
	defer typed.Close()
	interrupted := make(chan struct{})
	close(interrupted)
	a := &app{Streams: Streams{In: in, Err: io.Discard}, interrupted: interrupted}
	if err := a.confirm(change{}, "This destroys everything"); !errors.Is(err, context.Canceled) || message(err) != "interrupted" {
		t.Errorf("got %v", err)
	}
}
