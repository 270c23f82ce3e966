package app

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"tocsin/internal/detect"
	"tocsin/internal/event"
	"tocsin/internal/health"
	"tocsin/internal/layer"
)

const ownRule = `title: Own rule
id: 00000000-0000-4000-8000-00000000000a
description: Constructed.
level: high
logsource: {category: proxy}
detection:
  selection: {url.path: /own}
  condition: selection
`

// The operator's own file comes, breaks, is mended and goes, while the detector works.
func TestRulesWhileRunning(t *testing.T) {
	h := settings(t)
	createScheme(t, h)
	office, err := OpenOffice(t.Context(), h, nil, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer office.Close()
	cat, err := LoadRules(h.DataDir)
	if err != nil {
		t.Fatal(err)
	}
	k := &ruleKeeper{dir: h.DataDir, log: slog.New(slog.DiscardHandler), layers: office.Layers}
	engine, err := detect.New(detect.Options{Catalogue: cat, Where: detect.Hub, Exceptions: k.exceptions})
	if err != nil {
		t.Fatal(err)
	}
	k.apply, k.left = engine.Reload, engine.Errors
	k.cat.Store(cat)
	n := 0
	fires := func() bool {
		n++
		var ev event.Event
		ev.Tenant, ev.Created = 1, int64(n)*int64(48*time.Hour) // no two in one episode
		ev.ID.Seq = uint64(n)
		ev.SetString(event.EventCategory, "web")
		ev.SetString(event.URLPath, "/own")
		dets, err := k.filter(t.Context(), engine.Process(&ev, ev.Created))
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range dets {
			if d.RuleTitle == "Own rule" {
				return true
			}
		}
		return false
	}
	local := Rules(h.DataDir).Local()
	if err := os.MkdirAll(local, 0o700); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(local, "own.yml")
	stamps := map[uint64]bool{}
	change := func(text string) {
		t.Helper()
		if text == "" {
			err = os.Remove(file)
		} else {
			err = os.WriteFile(file, []byte(text), 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
		s, err := k.stamp()
		if err != nil || stamps[s] && text != "" {
			t.Errorf("a change is not seen: %v", err)
		}
		stamps[s] = true
	}
	if fires() {
		t.Error("it fires before it is there")
	}
	change(ownRule)
	if _, err := k.reload(t.Context()); err != nil || !fires() || k.trouble() != nil {
		t.Fatal(err, k.trouble())
	}
	change(ownRule + "---\ntitle: [")
	if _, err := k.reload(t.Context()); err == nil || !strings.Contains(err.Error(), "local/own.yml") {
		t.Errorf("a broken file: %v", err)
	}
	if err := k.trouble(); err == nil || !strings.Contains(err.Error(), "own.yml") || !fires() {
		t.Errorf("the rules from before do not run on, or nobody is told: %v", err)
	}
	var found bool
	for _, f := range Doctor(t.Context(), h) {
		if f.Name == "rules" {
			found = true
			if f.OK || !strings.Contains(f.Text, "own.yml") || f.Next == "" {
				t.Errorf("doctor: %+v", f)
			}
		}
	}
	if !found {
		t.Error("doctor does not look at rules")
	}
	change(ownRule + "# mended\n")
	if _, err := k.reload(t.Context()); err != nil || k.trouble() != nil || !fires() {
		t.Errorf("mended: %v %v", err, k.trouble())
	}
	// Switched off, its detections are kept back; the layer outlives the rule.
	l := layer.Layer{Kind: layer.Off, Rule: "Own rule", Scope: layer.Scheme, Reason: "it is only a test", Owner: "IT support"}
	if _, err := office.Layers.Add(t.Context(), Operator.UserID, l, k.cat.Load()); err != nil {
		t.Fatal(err)
	}
	if err := k.layers.Refresh(t.Context(), k.cat.Load()); err != nil {
		t.Fatal(err)
	}
	if fires() || k.layers.Suppressed() != 1 {
		t.Errorf("switched off, and it fires (%d kept back)", k.layers.Suppressed())
	}
	change("")
	if _, err := k.reload(t.Context()); err != nil || fires() {
		t.Errorf("gone: %v", err)
	}
	change(ownRule)
	if _, err := k.reload(t.Context()); err != nil || fires() || k.layers.Suppressed() != 2 {
		t.Errorf("back, and the layer does not work: %v, %d", err, k.layers.Suppressed())
	}
	if k.reloads.Load() != 4 || k.refused.Load() != 1 {
		t.Errorf("%d taken, %d refused", k.reloads.Load(), k.refused.Load())
	}
}

// Layers know the baselines and what detection health raises, beside the rules.
func TestKnown(t *testing.T) {
	cat, err := LoadRules(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	for _, l := range []layer.Layer{
		{Kind: layer.Off, Rule: "baseline-denied"}, {Kind: layer.Level, Rule: "An account is in two countries sooner than anybody can travel", Level: "low"},
		{Kind: layer.Except, Rule: "baseline-beacon", Field: "source.ip", Value: "192.0.2.0/24", Expires: now.Add(time.Hour).UnixNano()}, {Kind: layer.Off, Rule: health.RuleSilent},
		{Kind: layer.Except, Rule: "baseline-new-signature", Field: "rule.id", Value: "*2001219", Expires: now.Add(time.Hour).UnixNano()}, // only what the kind names
	} {
		l.Scope, l.Tenant, l.Reason, l.Owner = layer.Member, 1, "it is only a test", "IT support"
		if err := l.Check(Known{cat}, now); err != nil || l.Title == "" {
			t.Errorf("%s: %v", l.Rule, err)
		}
	}
	for _, l := range []layer.Layer{
		{Kind: layer.Off, Rule: "baseline-nothing"}, {Kind: layer.Off, Rule: "baseline-across-source"}, // over all members, so not for one
		{Kind: layer.Except, Rule: "baseline-denied", Field: "url.path", Value: "/x", Expires: now.Add(time.Hour).UnixNano()},
	} {
		l.Scope, l.Tenant, l.Reason, l.Owner = layer.Member, 1, "it is only a test", "IT support"
		if err := l.Check(Known{cat}, now); !errors.Is(err, layer.ErrInvalid) {
			t.Errorf("%s: %v", l.Rule, err)
		}
	}
}
