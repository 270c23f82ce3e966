package collector

import (
	"bytes"
	"fmt"
	"testing"
	"testing/fstest"
	"time"

	"tocsin/internal/collector/archive"
	"tocsin/internal/detect"
)

// A hub that signs rules which name content as their entity, group by it and write it into their sentences gets none of it: the list of
// fields binds what rules say as it binds events.
func TestHostileRules(t *testing.T) {
	files := fstest.MapFS{}
	n := 0
	for _, entity := range []string{"host", "source", "user", "rule"} {
		for _, field := range []string{"url.query", "message", "user.name", "file.name", "email.subject", "user_agent.original"} {
			n++
			files[fmt.Sprintf("r%d.yml", n)] = &fstest.MapFile{Data: fmt.Appendf(nil, `title: Collect
id: 00000000-0000-4000-8000-%012d
status: stable
level: low
logsource: {product: tocsin}
detection:
  s: {%s|exists: true}
  condition: s
tocsin:
  runs: site
  family: collect
  entity: %s
  entity_fields: [%s]
  group_by: [user.name, url.path]
  reason: "{%s} {user.name} {message} {url.full} {times}"
  member: {title: t, what: w, do: d}
`, n, field, entity, field, field)}
		}
	}
	c := DefaultConfig()
	c.OwnRanges = []string{"198.51.100.0/24"}
	m, err := c.minimiser([32]byte{1})
	if err != nil {
		t.Fatal(err)
	}
	det, err := detect.New(detect.Options{Rules: files, Where: detect.Site, Origin: "c", Withhold: withhold(m)})
	if err != nil {
		t.Fatal(err)
	}
	if errs := det.Errors(); len(errs) > 0 {
		t.Fatal(errs[0])
	}
	p, err := newPipeline(&c, m, det, archive.Secret{1}, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i, l := range secretLines() {
		p.line(&archive.Line{Number: uint64(i + 1), Created: time.Now().UnixNano(), Via: archive.TCP, Text: []byte(l)}, full)
	}
	if got := p.tally.madeDetection; got < 24 {
		t.Errorf("%d detections of %d rules: too few to say anything", got, n)
	}
	for _, secret := range []string{"SECRET", "secret"} {
		if at := bytes.Index(p.frames, []byte(secret)); at >= 0 {
			t.Errorf("content left: …%s…", p.frames[max(0, at-300):min(len(p.frames), at+100)])
		}
	}
}
