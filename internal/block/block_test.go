package block

import (
	"errors"
	"fmt"
	"testing"
)

func TestErrorText(t *testing.T) {
	cause := errors.New("cause")
	for _, c := range []struct {
		err  *Error
		text string
	}{
		{&Error{Op: Read, Kind: KindMedium, Off: 7, Err: cause}, "read at byte 7: medium error: cause"},
		{&Error{Op: Write, Kind: KindNoSpace}, "write at byte 0: no space"},
		{&Error{Op: Discard, Kind: KindReadOnly}, "discard at byte 0: read-only"},
		{&Error{Op: Zero, Kind: KindRange}, "zero at byte 0: out of range"},
		{&Error{Op: Flush, Kind: KindGone}, "flush at byte 0: device gone"},
		{&Error{Op: Op(9), Kind: KindIO}, "op(9) at byte 0: I/O error"},
	} {
		if got := c.err.Error(); got != c.text {
			t.Errorf("got %q, want %q", got, c.text)
		}
	}
	wrapped := fmt.Errorf("outer: %w", &Error{Kind: KindMedium, Err: cause})
	if KindOf(wrapped) != KindMedium || !errors.Is(wrapped, cause) {
		t.Error("the kind or the cause is lost in wrapping")
	}
	if KindOf(cause) != KindIO {
		t.Error("a foreign error is not KindIO")
	}
}
