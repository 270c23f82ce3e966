package collector

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"net/netip"
	"testing"
	"time"

	"tocsin/internal/collector/archive"
	"tocsin/internal/event"
	"tocsin/internal/keys"
)

// A raw line is shown with the key that proves it against the event that left, whoever names it by the event's number or hash; the key opens no other.
func TestRawLines(t *testing.T) {
	c := DefaultConfig()
	c.Dir = t.TempDir()
	if _, err := RawLines(t.Context(), &c, []string{"1"}); !errors.Is(err, keys.ErrNotEnrolled) {
		t.Fatalf("without keys: %v", err)
	}
	if _, err := keys.CreateCollector(c.KeyDir()); err != nil {
		t.Fatal(err)
	}
	s, err := secret(c.KeyDir(), "archive")
	if err != nil {
		t.Fatal(err)
	}
	a, err := archive.Open(archive.Options{Dir: c.path("archive")})
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	m, err := c.minimiser([32]byte{})
	if err != nil {
		t.Fatal(err)
	}
	p, err := newPipeline(&c, m, nil, archive.Secret(s), a)
	if err != nil {
		t.Fatal(err)
	}
	var b archive.Batch
	texts := []string{"<38>Nov 23 10:00:00 gw sshd[1]: Failed password for ann from 203.0.113.9 port 4711 ssh2", "<38>Nov 23 10:00:01 gw sshd[1]: Failed password for bob from 203.0.113.9 port 4712 ssh2"}
	for _, text := range texts {
		b.Add(&archive.Line{Created: time.Now().UnixNano(), Via: archive.UDP, Sender: netip.MustParseAddr("10.0.0.1"), Text: []byte(text)})
	}
	if err := a.Append(t.Context(), &b); err != nil {
		t.Fatal(err)
	}
	r := a.Reader(a.Start())
	defer r.Close()
	var names []string // what left
	var l archive.Line
	for r.Next(&l) == nil {
		p.frames = p.frames[:0]
		p.line(&l, full)
		var rec record
		if err := rec.decode(p.frames[8:]); err != nil {
			t.Fatal(err)
		}
		var e event.Event
		if err := event.DecodeJSON(&e, rec.json); err != nil || !e.HasRawDigest {
			t.Fatalf("%v: %s", err, rec.json)
		}
		names = append(names, e.Text(event.EventSequence), hex.EncodeToString(e.RawDigest[:]))
	}
	got, err := RawLines(t.Context(), &c, append(names, "7", hex.EncodeToString(make([]byte, 32))))
	if err != nil || len(got) != 6 {
		t.Fatalf("%v %v", got, err)
	}
	for i, g := range got[:4] {
		key, _ := hex.DecodeString(g.Key)
		mac := hmac.New(sha256.New, key)
		mac.Write(g.Bytes)
		if !g.Found || string(g.Bytes) != texts[i/2] || hex.EncodeToString(mac.Sum(nil)) != names[i|1] || g.Sender != "10.0.0.1" || g.Via != "udp" {
			t.Errorf("%+v", g)
		}
	}
	if got[0].Key == got[2].Key {
		t.Error("two lines have one key")
	}
	if got[4].Found || got[5].Found {
		t.Errorf("found what is not there: %+v", got[4:])
	}
	if _, err := RawLines(t.Context(), &c, []string{"fw.log"}); !errors.Is(err, ErrLineName) {
		t.Error(err)
	}
}
