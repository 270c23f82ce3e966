package app

import (
	"path/filepath"
	"strings"
	"testing"
	"time"

	"tocsin/internal/bus"
	"tocsin/internal/db"
	"tocsin/internal/event"
	"tocsin/internal/worker"
)

func TestDeadLetters(t *testing.T) {
	d, err := db.Open(t.Context(), db.Options{Path: filepath.Join(t.TempDir(), "t.db")})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	plans, now := worker.NewPlans(d), time.Date(2026, 11, 22, 13, 0, 0, 0, time.UTC)
	lease, err := plans.Acquire(t.Context(), "all", "hub", now, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	p := worker.Plan{Number: 1, First: 1, Last: 2, Messages: 2}
	if err := plans.Record(t.Context(), lease, p); err != nil {
		t.Fatal(err)
	}
	dead := []worker.Dead{{BusSeq: 1, Index: -1, Tenant: 3, Collector: "c", Digest: strings.Repeat("ab", 32), Stream: event.StreamID{1}, Events: 10, Reason: "its blob is gone", Notice: bus.Notice{Events: 10}.Encode()},
		{BusSeq: 2, Index: 7, Tenant: 3, Collector: "c", Digest: "cd", Events: 1, Reason: "no time", Notice: []byte("{}")}}
	if err := plans.Done(t.Context(), lease, p, nil, dead, nil, now.UnixNano()); err != nil {
		t.Fatal(err)
	}
	list, err := (&Office{DB: d}).DeadLetters(t.Context(), 10)
	if err != nil || len(list) != 2 {
		t.Fatalf("%+v, %v", list, err)
	}
	want := DeadLetter{At: now, Tenant: 3, Collector: "c", ID: "abababababab/all", Batch: strings.Repeat("ab", 32), Place: -1, Events: 10, Reason: "its blob is gone"}
	if list[1] != want || list[0].Place != 7 || list[0].Never == "" {
		t.Errorf("%+v, want %+v last", list, want)
	}
	if list, err := (&Office{DB: d}).DeadLetters(t.Context(), 1); err != nil || len(list) != 1 {
		t.Errorf("limited: %+v, %v", list, err)
	}
}
