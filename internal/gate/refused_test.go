package gate

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"

	"tocsin/internal/batch"
	"tocsin/internal/keys"
)

// resign signs a manifest changed by hand.
func (s *site) resign(b batch.Sealed, body []byte, change func(map[string]any)) []byte {
	s.t.Helper()
	p, err := keys.OpenEnvelope(b.Envelope, batch.Type, s.keys.Batch().Public())
	if err != nil {
		s.t.Fatal(err)
	}
	var m map[string]any
	if err := json.Unmarshal(p, &m); err != nil {
		s.t.Fatal(err)
	}
	sum := sha256.Sum256(body)
	m["body_size"], m["body_sha256"] = len(body), hex.EncodeToString(sum[:])
	if change != nil {
		change(m)
	}
	if p, err = json.Marshal(m); err != nil {
		s.t.Fatal(err)
	}
	env, err := s.keys.Batch().SignEnvelope(batch.Type, p)
	if err != nil {
		s.t.Fatal(err)
	}
	return append(append(env, '\n'), body...)
}

func TestRefusedBatches(t *testing.T) {
	h := newHub(t, nil)
	s := newSite(t, h, "Ashgrove School")
	s.send(5)
	stranger := keys.NewSigner(ed25519.NewKeyFromSeed(make([]byte, 32)))
	w := batch.NewWriter()
	foreign, err := w.Seal(s.manifest(), stranger)
	if err != nil {
		t.Fatal(err)
	}
	with := func(change func(*batch.Manifest)) []byte {
		m := s.manifest()
		change(&m)
		return s.seal(m, 2).Submission()
	}
	bomb := []byte{0x28, 0xb5, 0x2f, 0xfd, 0x00, 13 << 3}
	for i := range 128 { // 16 MiB of one letter in 518 bytes
		last := byte(0)
		if i == 127 {
			last = 1
		}
		n := uint32(128<<10)<<3 | 2 | uint32(last)
		bomb = append(bomb, byte(n), byte(n>>8), byte(n>>16), 'x')
	}
	for _, c := range []struct {
		name   string
		sub    func(b batch.Sealed) []byte
		status int
		code   string
	}{
		{"garbage", func(batch.Sealed) []byte { return randomBytes(1000) }, 400, "malformed"},
		{"empty", func(batch.Sealed) []byte { return nil }, 400, "malformed"},
		{"no envelope", func(b batch.Sealed) []byte { return append([]byte("{}\n"), b.Body...) }, 400, "malformed"},
		{"too big", func(batch.Sealed) []byte { return make([]byte, batch.MaxSubmission+1) }, 413, "too_big"},
		{"another's signature", func(batch.Sealed) []byte { return foreign.Submission() }, 403, "bad_signature"},
		{"changed manifest", func(b batch.Sealed) []byte {
			i := bytes.Index(b.Envelope, []byte(`"payload":"`)) + 60
			e := bytes.Clone(b.Envelope)
			if e[i] == 'A' {
				e[i] = 'B'
			} else {
				e[i] = 'A'
			}
			return append(append(e, '\n'), b.Body...)
		}, 403, "bad_signature"},
		{"changed body", func(b batch.Sealed) []byte {
			sub := b.Submission()
			sub[len(sub)-20] ^= 1
			return sub
		}, 422, "bad_digest"},
		{"cut body", func(b batch.Sealed) []byte { sub := b.Submission(); return sub[:len(sub)-1] }, 422, "bad_digest"},
		{"another collector's stream", func(batch.Sealed) []byte {
			return with(func(m *batch.Manifest) { m.Stream.Collector = "019aa0b4-7c00-7000-8000-000000000001" })
		}, 403, "wrong_collector"},
		{"another member's stream", func(batch.Sealed) []byte { return with(func(m *batch.Manifest) { m.Stream.Tenant = 999 }) }, 403, "wrong_member"},
		{"a bomb", func(b batch.Sealed) []byte {
			return s.resign(b, bomb, func(m map[string]any) { m["expanded"], m["events"] = 1000, 1 })
		}, 422, "bad_frame"},
		{"an honest bomb", func(b batch.Sealed) []byte {
			return s.resign(b, bomb, func(m map[string]any) { m["expanded"], m["events"] = 16<<20, 1 })
		}, 422, "bad_body"},
		{"over the events", func(b batch.Sealed) []byte {
			return s.resign(b, b.Body, func(m map[string]any) { m["events"] = 10001 })
		}, 413, "too_big"},
		{"other events than signed", func(b batch.Sealed) []byte { return s.resign(b, s.seal(s.manifest(), 2).Body, nil) }, 422, "bad_root"},
		{"fewer events than signed", func(b batch.Sealed) []byte { return s.resign(b, b.Body, func(m map[string]any) { m["events"] = 1 }) }, 422, "bad_body"},
		{"a later version", func(b batch.Sealed) []byte { return s.resign(b, b.Body, func(m map[string]any) { m["version"] = 2 }) }, 422, "version"},
		{"something critical", func(b batch.Sealed) []byte {
			return s.resign(b, b.Body, func(m map[string]any) { m["new"] = 1; m["crit"] = []string{"new"} })
		}, 422, "version"},
		{"no manifest", func(b batch.Sealed) []byte { return s.resign(b, b.Body, func(m map[string]any) { m["seq"] = "x" }) }, 422, "bad_manifest"},
		{"a gap", func(batch.Sealed) []byte { return with(func(m *batch.Manifest) { m.Seq += 5 }) }, 409, batch.CodeOutOfSequence},
		{"an unknown stream's middle", func(batch.Sealed) []byte {
			return with(func(m *batch.Manifest) { m.Stream.Epoch, m.Seq = strings.Repeat("ab", 16), 7 })
		}, 409, batch.CodeOutOfSequence},
	} {
		t.Run(c.name, func(t *testing.T) {
			s.t = t
			b := s.seal(s.manifest(), 2)
			p := s.refused("/v1/batches", c.sub(b), c.status, c.code)
			if c.name == "a gap" && (p.Head == nil || p.Head.Seq != s.seq) {
				t.Errorf("a gap is not told where the stream stands: %+v", p.Head)
			}
			// The line goes on: the next good batch is taken.
			var ack batch.Ack
			s.post("/v1/batches", b.Submission(), http.StatusOK, &ack)
			s.accepted(b, &ack)
		})
	}
	s.t = t
	if n, want := len(h.notices()), int(s.seq); n != want {
		t.Errorf("%d notices on the bus for %d accepted batches: something refused got through", n, want)
	}
	refused := h.gate.Refused(s.reg.Collector)
	if refused["bad_signature"] != 2 || refused["bad_digest"] != 2 || refused["aside_kept"] == 0 {
		t.Errorf("the member sees %v", refused)
	}
	// Without a length.
	req, err := http.NewRequest(http.MethodPost, "https://"+h.addr+"/v1/batches", io.MultiReader(strings.NewReader("x")))
	if err != nil {
		t.Fatal(err)
	}
	res, err := s.http.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if res.StatusCode != http.StatusLengthRequired {
		t.Errorf("without a length: %d", res.StatusCode)
	}
}
