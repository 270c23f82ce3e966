package listen

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
	"time"
)

// What a stranger makes a port say again and again is written a few times a minute, and how often it was not.
func TestSparing(t *testing.T) {
	var out bytes.Buffer
	h := Sparing(slog.New(slog.NewTextHandler(&out, nil))).With("port", 514).Handler()
	at := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	say := func(text string, after time.Duration) {
		t.Helper()
		r := slog.NewRecord(at.Add(after), slog.LevelWarn, text, 0)
		if err := h.Handle(t.Context(), r); err != nil {
			t.Fatal(err)
		}
	}
	for range 1000 {
		say("refused", time.Second)
	}
	say("another", 2*time.Second)
	if got := out.String(); strings.Count(got, "msg=refused") != sayings || strings.Count(got, "msg=another") != 1 || strings.Count(got, "port=514") != sayings+1 {
		t.Errorf("%s", got)
	}
	out.Reset()
	say("refused", 2*time.Minute)
	say("another", 2*time.Minute)
	if got := out.String(); strings.Count(got, "not_written_before=995") != 1 || strings.Count(got, "not_written") != 1 {
		t.Errorf("%s", got)
	}
}
