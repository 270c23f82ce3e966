package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"tocsin/internal/batch"
	"tocsin/internal/directive"
)

const milkGate = `format: 1
name: milkgate
version: 1
vendor: Dairy Works
product: Milk Gate
type: firewall
dataset: dairy.gate
recognise:
  - program: milkgate
tables:
  words: {opened: allow, shut: deny}
read:
  - line: 'gate {what:word} from {from:ip}:{fport:int} to {to:ip}:{tport:int}/{proto:word}'
fields:
  what: {to: action, map: words}
  from: source.ip
  fport: source.port
  to: destination.ip
  tport: destination.port
  proto: transport
`

// handedOut are the newest directives of each type that the hub gives a site, by their version, each checked against its ledger as the site would. The client is the caller's: the
// gate bounds how often one address connects.
func (s *site) handedOut(own *http.Client) (map[string]uint64, error) {
	resp, err := own.Get("https://" + s.hub.gate + "/v1/directives")
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s %w", resp.Status, err)
	}
	var d batch.Directives
	if err := json.Unmarshal(b, &d); err != nil || len(d.Proofs) != len(d.Directives) {
		return nil, fmt.Errorf("%d directives, %d proofs: %w", len(d.Directives), len(d.Proofs), err)
	}
	newest := map[string]uint64{}
	if len(d.Directives) == 0 {
		return nil, nil
	}
	v, err := directive.OpenCheckpoint(s.trust, d.Checkpoint)
	if err != nil {
		return nil, err
	}
	for i, env := range d.Directives {
		if err := v.Includes(env, d.Proofs[i]); err != nil {
			return nil, err
		}
		for _, kind := range []string{directive.Rules, directive.Parsers, directive.LookBack} {
			p, _ := directive.Purpose(kind)
			if x, err := s.trust.OpenDirective(env, p, s.id, time.Now()); err == nil && x.Type == kind {
				newest[kind] = max(newest[kind], x.Version)
			}
		}
	}
	return newest, nil
}

// A pack and a question from the operator's command to the centre's page, each program a process of its own: signed away from the hub, entered
// in its ledger, fetched and checked by the collector, allowed by the member on its machine, and what came of it shown to both.
func TestQuestionAndPack(t *testing.T) {
	t.Parallel()
	h := newHub(t)
	s := h.join(t)
	c := s.collect(t)
	const shut = "<134>Nov 12 08:41:07 dairy milkgate: gate shut from 203.0.113.77:51514 to 198.51.100.7:3389/tcp\n"
	var text strings.Builder
	for i := range 20 {
		l := deny(i, time.Now())
		if i%5 == 0 { // benign then: it stays
			l = strings.NewReplacer(`action="deny"`, `action="accept"`, "srcip=203.0.113.", "srcip=10.0.0.", "dstip=198.51.100.7", "dstip=203.0.113.200").Replace(l)
		}
		text.WriteString(l + "\n")
	}
	if err := sendTCP(c.addr, text.String()+shut); err != nil {
		t.Fatal(err)
	}
	c.settled(t, 21)

	offline := filepath.Join(filepath.Dir(h.dir), "offline")
	pack := filepath.Join(folder(t), "pack", "milkgate")
	if err := errors.Join(os.MkdirAll(pack, 0o700), os.WriteFile(filepath.Join(pack, "parser.yaml"), []byte(milkGate), 0o600), os.WriteFile(filepath.Join(pack, "README.md"), []byte("# Milk Gate\n"), 0o600)); err != nil {
		t.Fatal(err)
	}
	h.admin(t, "pack", "publish", "parsers", filepath.Dir(pack), "--offline", offline)
	ask := []string{"look-back", "ask", "--offline", offline, "--indicator", "203.0.113.200", "--by", "Regional desk", "--purpose", "Who was visited?", "--regime", "uk-gdpr", "--basis", "legitimate interests",
		"--reference", "REF-7", "--approver", "J. Duty"}
	var asked struct {
		ID string `json:"id"`
	}
	if out := h.admin(t, ask...); json.Unmarshal([]byte(out), &asked) != nil || len(asked.ID) != 32 {
		t.Fatalf("%s", out)
	}
	if list := h.admin(t, "look-back", "list"); !strings.Contains(list, asked.ID) {
		t.Errorf("the list: %s", list)
	}
	for _, bad := range [][]string{append(slices.Clone(ask), "--collector", "../../x"), append(slices.Clone(ask), "--collector", "01a204e1-bc03-7d12-a6fc-026f67710d29")} {
		if code, _, errs := run(t, "", "tocsin", append([]string{"admin", "--config", h.config}, bad...)...); code == 0 || !strings.Contains(errs, "collector") {
			t.Errorf("asked of nobody: %d %s", code, errs)
		}
	}
	own := s.own()
	eventually(t, time.Minute, "both are handed out with their proofs", func() error {
		got, err := s.handedOut(own)
		if err == nil && (got[directive.Parsers] == 0 || got[directive.LookBack] == 0) {
			err = fmt.Errorf("only %v", got)
		}
		return err
	})
	c.stop() // a collector that starts asks at once; one that runs does every half a minute
	c = s.collect(t)
	member := func(args ...string) string {
		return must(t, "", "tocsin-collector", append(args, "--dir", s.dir, "--json")...)
	}
	eventually(t, time.Minute, "the question waits for the member", func() error {
		if out := member("questions"); !strings.Contains(out, asked.ID) || !strings.Contains(out, `"state":"waiting"`) {
			return fmt.Errorf("questions: %s", out)
		}
		return nil
	})
	member("questions", "allow", asked.ID)
	if err := sendTCP(c.addr, shut); err != nil {
		t.Fatal(err)
	}
	on, _ := c.settled(t, 22)
	if on.Counts["left.denied_inbound"] != 17 || on.Counts["not_understood"] != 1 {
		t.Errorf("the new parser was not used: %v", on.Counts)
	}
	analyst := h.signIn(t, "analyst@example.org", "analyst")
	eventually(t, time.Minute, "the answer on the centre's page", func() error {
		page := words(analyst.get("/questions/" + asked.ID))
		for _, want := range []string{"Who was visited?", "J. Duty", "UK GDPR", s.name, "Allowed, this once", "10.0.0.", "203.0.113.200:443"} {
			if !strings.Contains(page, want) {
				return fmt.Errorf("%q is not on the page", want)
			}
		}
		return nil
	})
	owner := h.signIn(t, "owner@example.org", "member", "--member", s.name)
	if page := owner.get("/questions"); !strings.Contains(page, "You allowed it: 4 events left your site") {
		t.Errorf("the member's page:\n%s", page)
	}
	if out := must(t, "", "tocsin-collector", "sent", "--compare", "--dir", s.dir); !strings.Contains(out, "The two agree") {
		t.Errorf("compare: %s", out)
	}
}
