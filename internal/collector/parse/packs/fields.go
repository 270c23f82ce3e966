package packs

import (
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"tocsin/internal/event"
)

// verbs are the targets that know what a value means, beside the names of fields.
var verbs = map[string]Verb{
	"time": VerbTime, "action": VerbAction, "verdict": VerbVerdict, "outcome": VerbOutcome, "user": VerbUser,
	"source": VerbSource, "destination": VerbDestination, "source.nat": VerbSourceNAT, "destination.nat": VerbDestinationNAT,
	"transport": VerbTransport, "service": VerbService, "url": VerbURL, "method": VerbMethod, "hash": VerbHash,
	"level": VerbLevel, "duration": VerbDuration, "duration_ms": VerbDurationMS, "file": VerbFile, "sentence": VerbSentence,
	"keep": VerbKeep, "drop": VerbDrop,
}

// constVerbs are what a rule can set beside fields.
var constVerbs = map[string]Verb{"sign_in": VerbSignIn, "alert": VerbAlert, "network": VerbNetwork, "session": VerbSession, "verdict": VerbVerdict, "action": VerbAction, "outcome": VerbOutcome}

// fields reads native name: target. A target is a text, a mapping with options, or a list of these.
func (c *compiler) fields(n *yaml.Node) []Op {
	var out []Op
	for _, kv := range c.pairs(n, "fields") {
		name := kv[0].Value
		for _, item := range c.items(kv[1]) {
			out = append(out, c.op(kv[0], name, item))
		}
	}
	return out
}

func (c *compiler) count(n *yaml.Node) {
	c.ops++
	if c.ops > maxOps {
		c.fail(n, "has more than %d fields", maxOps)
	}
}

func (c *compiler) op(at *yaml.Node, name string, n *yaml.Node) Op {
	c.count(n)
	op := Op{Slot: -1, ZoneSlot: -1, Name: name}
	to := ""
	var join []string
	lower, text := false, false
	if n.Kind == yaml.ScalarNode {
		to = c.literal(n, "a target")
	} else {
		c.options(n, "field "+name, map[string]func(*yaml.Node){
			"to":     func(v *yaml.Node) { to = c.literal(v, "to") },
			"join":   func(v *yaml.Node) { join = c.texts(v, "join") },
			"after":  func(v *yaml.Node) { op.After = c.literal(v, "after") },
			"before": func(v *yaml.Node) { op.Before = c.literal(v, "before") },
			"last":   func(v *yaml.Node) { op.Last = c.yes(v, "last") },
			"lower":  func(v *yaml.Node) { lower = c.yes(v, "lower") },
			"text":   func(v *yaml.Node) { text = c.yes(v, "text") },
			"when":   func(v *yaml.Node) { op.When = c.conds(v) },
			"zone":   func(v *yaml.Node) { op.ZoneSlot = c.use(v, c.literal(v, "zone")) },
			"layout": func(v *yaml.Node) { op.Layout = c.layout(v) },
			"map": func(v *yaml.Node) {
				if v.Kind == yaml.ScalarNode {
					t, ok := c.tables[v.Value]
					if !ok {
						c.fail(v, "there is no table %q", v.Value)
					}
					op.Table = t
				} else {
					op.Table = c.table(v)
				}
			},
		})
		if to == "" {
			c.fail(n, "field %s: to is missing", name)
		}
	}
	c.target(n, &op, to, lower, text)
	if len(join) == 0 {
		op.Slot = c.use(at, name)
		return op
	}
	if len(join) > 16 {
		c.fail(n, "join has more than 16 pieces")
	}
	some := false
	for _, piece := range join { // '$name' is a value, anything else a literal
		if v, ok := strings.CutPrefix(piece, "$"); ok && v != "" {
			op.Join = append(op.Join, Piece{Slot: c.use(n, v)})
			some = true
		} else {
			op.Join = append(op.Join, Piece{Text: piece, Slot: -1})
		}
	}
	if !some {
		c.fail(n, "join has no value; write $name for the value of name")
	}
	return op
}

// target turns the text behind a field's name into verb and key.
func (c *compiler) target(n *yaml.Node, op *Op, to string, lower, text bool) {
	if v, ok := verbs[to]; ok {
		op.Verb = v
		return
	}
	key := c.key(n, to)
	op.Key = key
	switch {
	case lower:
		op.Verb = VerbLower
		if key.Kind() != event.String {
			c.fail(n, "lower: %s is not a text", to)
		}
		return
	case text:
		op.Verb = VerbText
		if key.Kind() != event.String {
			c.fail(n, "text: %s is not a text", to)
		}
		return
	}
	switch key.Kind() {
	case event.IP:
		op.Verb = VerbIP
	case event.Int:
		op.Verb = VerbInt
		if strings.HasSuffix(to, ".port") {
			op.Verb = VerbPort
		}
	case event.Time:
		op.Verb = VerbTimeField
	case event.Float, event.Bool:
		op.Verb = VerbField
	default:
		switch {
		case to == "network.transport":
			op.Verb = VerbTransport
		case to == "http.request.method":
			op.Verb = VerbMethod
		case to == "event.outcome":
			op.Verb = VerbOutcome
		case to == "event.action":
			op.Verb = VerbLower
		case strings.HasSuffix(to, ".mac"):
			op.Verb = VerbMAC
		case to == "user.name" || strings.HasSuffix(to, ".user.name") || to == "user.target.name":
			op.Verb = VerbUser
		case strings.HasSuffix(to, ".domain") && !strings.Contains(to, "user") || to == "dns.question.name" || to == "tls.client.server_name":
			op.Verb = VerbDomain
		case to == "network.protocol" || to == "network.application":
			op.Verb = VerbLower
		default:
			op.Verb = VerbText
		}
	}
}

// forbidden are fields that a description must not set, because the collector or the hub vouches for them.
func forbidden(name string) bool {
	switch name {
	case "tocsin.service", "tocsin.severity", "event.id":
		return false
	}
	return strings.HasPrefix(name, "tocsin.") || name == "event.dataset" || name == "event.module" || strings.HasPrefix(name, "agent.")
}

func (c *compiler) key(n *yaml.Node, name string) event.Key {
	if forbidden(name) {
		c.fail(n, "%s is not for parsers to set", name)
	}
	if k, ok := event.Lookup(name); ok {
		return k
	}
	if !strings.Contains(name, ".") {
		c.fail(n, "there is no target %q; use the name of an ECS field, or time, action, verdict, outcome, user, source, destination, source.nat, destination.nat, transport, service, url, method, hash, level, duration, duration_ms, file, sentence, keep, drop", name)
	}
	if c.fresh++; c.fresh > maxNewNames {
		c.fail(n, "has more than %d field names that the schema does not have", maxNewNames)
	}
	k, err := event.Register(name)
	if err != nil {
		c.fail(n, "%v", err)
	}
	return k
}

func (c *compiler) layout(n *yaml.Node) Layout {
	s := c.literal(n, "layout")
	switch s {
	case "auto":
		return Layout{}
	case "unix":
		return Layout{Kind: LayoutUnix}
	case "unix_ms":
		return Layout{Kind: LayoutUnixMS}
	case "unix_us":
		return Layout{Kind: LayoutUnixUS}
	case "unix_ns":
		return Layout{Kind: LayoutUnixNS}
	case "filetime":
		return Layout{Kind: LayoutFileTime}
	case "day_first":
		return Layout{Kind: LayoutDayFirst}
	case "month_first":
		return Layout{Kind: LayoutMonthFirst}
	}
	if !strings.Contains(s, "04") || !strings.Contains(s, "05") && !strings.Contains(s, ":04") {
		c.fail(n, "layout %q: use auto, unix, unix_ms, unix_us, unix_ns, filetime, day_first, month_first, or write the time 2 January 2006 15:04:05 as the device would", s)
	}
	ref := time.Date(2006, 1, 2, 15, 4, 5, 0, time.UTC)
	if _, err := time.Parse(s, ref.Format(s)); err != nil {
		c.fail(n, "layout %q cannot be read back", s)
	}
	return Layout{Kind: LayoutGo, Go: s}
}

// rulesOf reads rules and a set without conditions, which comes last.
func (c *compiler) rulesOf(rules, set *yaml.Node) []Rule {
	var out []Rule
	if rules != nil {
		for _, item := range c.items(rules) {
			var r Rule
			var sets, fields *yaml.Node
			c.options(item, "a rule", map[string]func(*yaml.Node){
				"when":   func(v *yaml.Node) { r.When = c.conds(v) },
				"set":    func(v *yaml.Node) { sets = v },
				"fields": func(v *yaml.Node) { fields = v },
			})
			if sets == nil && fields == nil {
				c.fail(item, "a rule needs set or fields")
			}
			if fields != nil {
				r.Ops.List = c.fields(fields)
			}
			if sets != nil {
				r.Ops.List = append(r.Ops.List, c.set(sets)...)
			}
			out = append(out, r)
			c.rules++
			if c.rules > maxRules {
				c.fail(item, "has more than %d rules", maxRules)
			}
		}
	}
	if set != nil {
		out = append(out, Rule{Ops: Ops{List: c.set(set)}})
	}
	return out
}

// set reads field: constant.
func (c *compiler) set(n *yaml.Node) []Op {
	var out []Op
	for _, kv := range c.pairs(n, "set") {
		name := kv[0].Value
		values := c.texts(kv[1], name)
		for _, v := range values {
			c.count(kv[1])
			if len(v) > maxLiteral {
				c.fail(kv[1], "%s: a constant has at most %d bytes", name, maxLiteral)
			}
			op := Op{Slot: -1, ZoneSlot: -1, Name: name, Text: v}
			if verb, ok := constVerbs[name]; ok {
				op.Verb = verb
				switch name {
				case "verdict":
					if v != "allow" && v != "deny" && v != "detect" {
						c.fail(kv[1], "verdict must be allow, deny or detect")
					}
				case "outcome":
					if v != "success" && v != "failure" {
						c.fail(kv[1], "outcome must be success or failure")
					}
				case "session":
					if v != "start" && v != "end" {
						c.fail(kv[1], "session must be start or end")
					}
				}
				out = append(out, op)
				continue
			}
			if name == "event.dataset" { // another product of the same make
				if !strings.HasPrefix(v, c.pack.Module+".") {
					c.fail(kv[1], "event.dataset must begin with %s.", c.pack.Module)
				}
				op.Key, op.Verb, op.Const = event.EventDataset, VerbConst, event.StringValue(v)
				out = append(out, op)
				continue
			}
			op.Key = c.key(kv[0], name)
			switch name {
			case "event.category", "event.type", "tags":
				op.Verb = VerbAdd
			default:
				op.Verb = VerbConst
				if len(values) > 1 {
					c.fail(kv[1], "%s takes one value", name)
				}
			}
			var ok bool
			if op.Const, ok = event.ParseValue(op.Key.Kind(), v); !ok {
				c.fail(kv[1], "%s cannot be %q", name, v)
			}
			out = append(out, op)
		}
	}
	return out
}

// conds reads conditions: a mapping of which all must hold, or a list of mappings of which one must.
func (c *compiler) conds(n *yaml.Node) Conds {
	var out Conds
	for _, item := range c.items(n) {
		var all []Cond
		for _, kv := range c.pairs(item, "when") {
			all = append(all, c.cond(kv[0], kv[1])...)
		}
		if len(all) == 0 {
			c.fail(item, "when is empty")
		}
		out = append(out, all)
	}
	if len(out) > 64 {
		c.fail(n, "when has more than 64 alternatives")
	}
	return out
}

func (c *compiler) cond(k, v *yaml.Node) []Cond {
	base := Cond{Slot: -1}
	if name, ok := strings.CutPrefix(k.Value, "ecs."); ok {
		key, known := event.Lookup(name)
		if !known {
			c.fail(k, "there is no field %q", name)
		}
		base.Key = key
	} else {
		base.Slot = c.use(k, k.Value)
	}
	words := func(n *yaml.Node) []string {
		out := c.texts(n, k.Value)
		c.rows += len(out)
		if len(out) == 0 || len(out) > 400 || c.rows > maxTableRows {
			c.fail(n, "%s: between 1 and 400 values are taken", k.Value)
		}
		return out
	}
	if v.Kind != yaml.MappingNode {
		base.Kind, base.Values = CondIs, words(v)
		base.finish()
		return []Cond{base}
	}
	var out []Cond
	rng := Cond{Slot: base.Slot, Key: base.Key, Kind: CondRange, Lo: -1 << 62, Hi: 1 << 62}
	ranged := false
	for _, kv := range c.pairs(v, "when "+k.Value) {
		x := base
		what := kv[0].Value
		if rest, ok := strings.CutPrefix(what, "not-"); ok {
			x.Not, what = true, rest
		}
		switch what {
		case "is":
			x.Kind, x.Values = CondIs, words(kv[1])
		case "not":
			x.Kind, x.Not, x.Values = CondIs, true, words(kv[1])
		case "starts":
			x.Kind, x.Values = CondStarts, words(kv[1])
		case "ends":
			x.Kind, x.Values = CondEnds, words(kv[1])
		case "contains":
			x.Kind, x.Values = CondContains, words(kv[1])
		case "present":
			x.Kind = CondPresent
			x.Not = !c.yes(kv[1], "present")
		case "from", "to":
			b, err := strconv.ParseInt(c.text(kv[1], what), 10, 64)
			if err != nil {
				c.fail(kv[1], "%s must be a whole number", what)
			}
			if what == "from" {
				rng.Lo = b
			} else {
				rng.Hi = b
			}
			ranged = true
			continue
		default:
			c.fail(kv[0], "when: there is no %q; known are is, not, starts, not-starts, ends, not-ends, contains, not-contains, present, from, to", kv[0].Value)
		}
		out = append(out, x)
	}
	if ranged {
		out = append(out, rng)
	}
	if len(out) == 0 {
		c.fail(v, "when %s: says nothing", k.Value)
	}
	for i := range out {
		out[i].finish()
	}
	return out
}
