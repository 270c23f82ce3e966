package member

import (
	"testing"

	"tocsin/internal/access"
)

// What is set back is taken again, under its old digest, and counted once.
func TestSetBack(t *testing.T) {
	s, c := newStore(t)
	_, site := organisation(t, s, "Ashgrove School")
	r := enrol(t, s, c, site, 1)
	counts := map[string]uint64{"received": 5, "parsed": 5, "left.denied": 5, "sent": 5}
	accept := func(seq uint64, want Sequence) {
		t.Helper()
		if v, err := s.Accept(t.Context(), aBatch(r, 1, "e1", seq, counts)); err != nil || v.Sequence != want {
			t.Fatalf("batch %d: %d %v, want %d", seq, v.Sequence, err, want)
		}
	}
	accept(1, Opening)
	accept(2, Next)
	accept(3, Next)
	stream := aBatch(r, 1, "e1", 1, nil).Stream
	list, err := s.AcceptedAfter(t.Context(), stream, 1, 10)
	if err != nil || len(list) != 2 || list[0].Seq != 2 || list[1].Digest != digest(1, 3, 0) || list[0].Events != 5 || list[0].Size != 100 {
		t.Errorf("accepted after 1: %+v %v", list, err)
	}
	if err := s.SetBack(t.Context(), stream, 1); err != nil {
		t.Fatal(err)
	}
	h, ok, err := s.Head(t.Context(), GateReader, stream)
	if err != nil || !ok || h.Seq != 1 || h.Digest != digest(1, 1, 0) || string(h.Receipt) != "receipt 1" || h.Position != "" {
		t.Errorf("head %+v %v %v", h, ok, err)
	}
	accept(3, OutOfSequence)
	accept(2, Next)
	if err := s.SetBack(t.Context(), stream, 0); err != nil {
		t.Fatal(err)
	}
	if _, ok, err := s.Head(t.Context(), GateReader, stream); ok || err != nil {
		t.Errorf("a head is there after everything was set back: %v", err)
	}
	for seq := uint64(1); seq <= 4; seq++ {
		accept(seq, map[bool]Sequence{true: Opening, false: Next}[seq == 1])
	}
	all, err := s.Collectors(t.Context(), access.System("test"))
	if err != nil || len(all) != 1 || all[0].Balance.Received != 20 || all[0].Balance.Accepted != 20 {
		t.Errorf("after three batches, two of them again, and a fourth: %+v %v", all, err)
	}
}
