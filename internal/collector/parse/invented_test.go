package parse

import (
	"bytes"
	"net/netip"
	"sort"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"tocsin/internal/collector/parse/packs"
	"tocsin/internal/event"
)

// TestInvented measures the share of invented values in the events of all samples: values that neither stand in their line nor follow from
// it. Words of the schema (event.category, observer.vendor …) count as derived; what an administrator or an attacker could be blamed for
// (addresses, ports, names, numbers, times, texts) must be in the line.
func TestInvented(t *testing.T) {
	s := testSet(t)
	said := packWords()
	var e event.Event
	values, invented := 0, 0
	where := map[string]int{}
	for _, sample := range samples(t) {
		for _, line := range readLines(t, sample.input) {
			if oneLine(s, &e, line); e.Len() == 0 {
				continue
			}
			d := derivation{line: line, low: strings.ToLower(plainText(string(line)))}
			miss := func(field, value string) {
				invented++
				where[sample.format+" "+field]++
				if where[sample.format+" "+field] <= 2 {
					t.Logf("%s: %s = %q is not in %.400q", sample.format, field, value, line)
				}
			}
			if e.Time != 0 && e.Time != received.UnixNano() {
				values++
				if !d.time(e.Time) {
					miss("@timestamp", time.Unix(0, e.Time).UTC().Format(time.RFC3339Nano))
				}
			}
			for i := range e.Len() {
				k, v := e.At(i)
				if schemaWords[k] {
					continue
				}
				values++
				if !d.value(k, v) && !said[word{k, v.Text()}] {
					miss(k.Name(), v.Text())
				}
			}
			for _, x := range e.Extras() {
				values++
				if !d.text(x.Value, false) {
					miss(x.Name, x.Value)
				}
			}
		}
	}
	var list []string
	for k, n := range where {
		list = append(list, k+": "+strconv.Itoa(n))
	}
	sort.Strings(list)
	t.Logf("%d of %d values invented (%.3f %%) %s", invented, values, 100*float64(invented)/float64(values), strings.Join(list, "; "))
	if 200*invented > values {
		t.Errorf("%d of %d values are invented, want under 0.5 %%", invented, values)
	}
}

// schemaWords are fields whose values are the schema's words, or ours.
var schemaWords = map[event.Key]bool{
	event.EventCategory: true, event.EventType: true, event.EventKind: true, event.EventOutcome: true, event.EventDataset: true, event.EventModule: true,
	event.ObserverVendor: true, event.ObserverProduct: true, event.ObserverType: true, event.NetworkTransport: true, event.NetworkDirection: true, event.TocsinVerdict: true,
	event.TocsinService: true, event.TocsinSeverity: true, event.TocsinFormat: true, event.CloudProvider: true,
}

type word struct {
	key  event.Key
	text string
}

// packWords are the constants that descriptions give: rules' values and tables' words.
func packWords() map[word]bool {
	m := map[word]bool{}
	eachOp(func(op *packs.Op) {
		key := op.Key
		switch op.Verb {
		case packs.VerbAction:
			key = event.EventAction
		case packs.VerbOutcome, packs.VerbVerdict, packs.VerbLevel:
			return
		}
		if op.Verb == packs.VerbConst || op.Verb == packs.VerbAdd {
			m[word{key, op.Const.Text()}] = true
		}
		if op.Text != "" {
			m[word{key, strings.ToLower(op.Text)}] = true
		}
		if op.Table != nil {
			for _, v := range op.Table.Words() {
				m[word{key, v}] = true
				m[word{key, strings.ToLower(v)}] = true
			}
		}
	})
	// What the parsers in Go call an action that the device names by a number or a longer word.
	for _, w := range []string{"allow", "deny", "built", "teardown", "permitted", "discarded", "requested", "accessed url", "denied", "login", "logged out", "user authentication",
		"aaa user authentication", "session disconnected", "authentication", "command executed", "session started", "session terminated", "authentication rejected", "failed",
		"no matching connection", "discard", "drop", "reject", "accept", "return", "session created", "session closed", "session denied", "session update", "url blocked",
		"url permitted", "ssh_login", "invalid user", "connection closed", "connection refused", "connection", "disconnect", "refused connect", "user not allowed",
		"maximum attempts exceeded", "session opened", "alert", "logged-in", "logon-failed", "logged-out", "block", "permit", "hipmatch", "query", "none"} {
		m[word{event.EventAction, w}] = true
	}
	return m
}

// derivation says what follows from a line.
type derivation struct {
	line []byte
	low  string // in lower case, escapes undone
}

func (d *derivation) value(k event.Key, v event.Value) bool {
	switch v.Kind() {
	case event.String:
		return d.text(v.Str(), joinedFields()[k])
	case event.IP:
		return d.address(v.IP())
	case event.Time:
		return d.time(v.Time())
	case event.Int:
		return d.number(k, v.Int())
	}
	return d.text(v.Text(), false)
}

// joinedFields are those that descriptions make of several values.
var joinedFields = sync.OnceValue(func() map[event.Key]bool {
	m := map[event.Key]bool{}
	eachOp(func(op *packs.Op) {
		if len(op.Join) > 0 {
			m[op.Key] = true
			if op.Verb == packs.VerbURL {
				m[event.URLOriginal], m[event.URLFull] = true, true
			}
		}
	})
	return m
})

// text must stand in the line, in any case, escapes undone; a text made of several pieces, each of them.
func (d *derivation) text(s string, joined bool) bool {
	if bytes.Contains(d.line, []byte(s)) {
		return true
	}
	low := strings.ToLower(plainText(s))
	if strings.Contains(d.low, low) || strings.Contains(d.low, strings.ToLower(s)) {
		return true
	}
	if !joined {
		return false
	}
	for _, piece := range strings.FieldsFunc(low, func(r rune) bool { return strings.ContainsRune(` /:?&=@,;|.\-()"'`, r) }) {
		if !strings.Contains(d.low, piece) {
			return false
		}
	}
	return true
}

// address must stand in the line in some notation.
func (d *derivation) address(a netip.Addr) bool {
	if strings.Contains(d.low, a.String()) {
		return true
	}
	for _, w := range strings.FieldsFunc(d.low, func(r rune) bool { return !strings.ContainsRune("0123456789abcdef:.", r) }) {
		for _, w := range []string{w, strings.Trim(w, ":."), w[:max(strings.LastIndexAny(w, ":."), 0)]} {
			if b, err := netip.ParseAddr(w); err == nil && b.Unmap() == a {
				return true
			}
		}
	}
	return false
}

// number must stand in the line; a duration as seconds, milliseconds or clock time.
func (d *derivation) number(k event.Key, n int64) bool {
	if strings.Contains(d.low, strconv.FormatInt(n, 10)) {
		return true
	}
	switch k {
	case event.EventDuration:
		sec := n / 1e9
		for _, s := range []string{strconv.FormatInt(n/1e6, 10), strconv.FormatInt(sec, 10), strconv.FormatFloat(float64(n)/1e9, 'f', -1, 64),
			strconv.FormatInt(sec/3600, 10) + time.Unix(sec, 0).UTC().Format(":04:05"), time.Unix(sec, 0).UTC().Format("04:05")} {
			if strings.Contains(d.low, s) {
				return true
			}
		}
	case event.DestinationPort, event.SourcePort, event.URLPort: // a service by its name
		for name, port := range map[string]int64{"ssh": 22, "telnet": 23, "https": 443, "http": 80, "snmp": 161, "domain": 53} {
			if n == port && strings.Contains(d.low, name) {
				return true
			}
		}
	}
	return false
}

// time must stand in the line: its minute and second, or its count of seconds.
func (d *derivation) time(ns int64) bool {
	t := time.Unix(0, ns).UTC()
	for _, s := range []string{t.Format("04:05"), strconv.FormatInt(t.Unix(), 10), t.Format("150405"), t.Format("15.04.05"), t.Format("04:05.000"), strconv.FormatInt(t.Unix()/1000, 10)} {
		if strings.Contains(d.low, s) {
			return true
		}
	}
	return t.Second() == 0 && strings.Contains(d.low, t.Format(":04")) // without seconds
}

// plainText undoes escapes as far as they hide letters.
func plainText(s string) string {
	s = strings.NewReplacer(`\"`, `"`, `\/`, `/`, `\\`, `\`, `\=`, `=`, `\|`, `|`, `\n`, "\n", `\t`, "\t", `\r`, "\r", "&amp;", "&", "&lt;", "<", "&gt;", ">", "&quot;", `"`, "&apos;", "'", "#011", "\t").Replace(s)
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+5 < len(s) && s[i+1] == 'u' {
			if n, err := strconv.ParseUint(s[i+2:i+6], 16, 16); err == nil {
				b.WriteRune(rune(n))
				i += 5
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}
