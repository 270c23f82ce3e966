package doctor

import (
	"encoding/json"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
)

// readNFT reads what "nft -j list ruleset" prints (libnftables-json(5)). Tables that iptables keeps in nftables are left to iptables-save:
// nft cannot show their matches.
func (f *filter) readNFT(b []byte) error {
	var doc struct {
		Nftables []struct {
			Chain *struct {
				Family, Table, Name, Hook, Policy, Type string
				Prio                                    int
			}
			Rule *struct {
				Family, Table, Chain string
				Expr                 []map[string]json.RawMessage
			}
		}
	}
	if err := json.Unmarshal(b, &doc); err != nil {
		return err
	}
	key := func(family, table, chain string) string { return family + "/" + table + "/" + chain }
	foreign := map[string]bool{}
	for _, o := range doc.Nftables {
		if o.Rule != nil {
			for _, e := range o.Rule.Expr {
				if _, ok := e["xt"]; ok {
					foreign[o.Rule.Family+"/"+o.Rule.Table] = true
				}
			}
		}
	}
	type base struct {
		key  string
		prio int
	}
	var bases []base
	for _, o := range doc.Nftables {
		if c := o.Chain; c != nil && !foreign[c.Family+"/"+c.Table] {
			// Chains of iptables without a match of its own kind are read from iptables-save too, to the same end.
			n := &chain{name: fmt.Sprintf("table %s %s, chain %s", c.Family, c.Table, c.Name), policy: c.Policy}
			k := key(c.Family, c.Table, c.Name)
			f.chains[k] = n
			f.zones = f.zones || c.Table == "firewalld"
			if c.Hook == "input" && c.Type == "filter" && (c.Family == "inet" || c.Family == "ip") {
				n.hook = true
				bases = append(bases, base{k, c.Prio})
			}
		}
		if o.Rule == nil || f.chains[key(o.Rule.Family, o.Rule.Table, o.Rule.Chain)] == nil {
			continue
		}
		c := f.chains[key(o.Rule.Family, o.Rule.Table, o.Rule.Chain)]
		r := rule{}
		var conds []func(probe) certainty
		var text []string
		for _, e := range o.Rule.Expr {
			for word, arg := range e {
				switch word {
				case "match":
					m, t := nftMatch(arg)
					conds = append(conds, m)
					text = append(text, t)
				case "accept", "drop", "return":
					r.does = word
				case "reject":
					r.does = "drop"
				case "jump", "goto":
					var t struct{ Target string }
					if json.Unmarshal(arg, &t) == nil {
						r.does, r.target = word, key(o.Rule.Family, o.Rule.Table, t.Target)
					}
				case "limit", "vmap", "quota", "xt", "connlimit", "ct count":
					conds = append(conds, func(probe) certainty { return maybe })
					text = append(text, word)
					if word == "vmap" { // some verdict, by a map
						c.rules = append(c.rules, nftVerdictMap(arg, func(t string) string { return key(o.Rule.Family, o.Rule.Table, t) })...)
					}
				}
			}
		}
		r.match = func(p probe) certainty {
			all := yes
			for _, m := range conds {
				all = all.and(m(p))
			}
			return all
		}
		r.text = strings.Join(append(text, r.does), " ")
		c.rules = append(c.rules, r)
	}
	slices.SortStableFunc(bases, func(a, b base) int { return a.prio - b.prio })
	for _, b := range bases {
		f.order = append(f.order, b.key)
	}
	return nil
}

// nftVerdictMap gives the verdicts of a map as rules that may match.
func nftVerdictMap(arg json.RawMessage, key func(string) string) (rules []rule) {
	var v struct {
		Data struct{ Set [][2]json.RawMessage }
	}
	if json.Unmarshal(arg, &v) != nil {
		return nil
	}
	for _, pair := range v.Data.Set {
		var verdict map[string]json.RawMessage
		if json.Unmarshal(pair[1], &verdict) != nil {
			continue
		}
		r := rule{text: "map " + string(pair[0]), match: func(probe) certainty { return maybe }}
		if s := string(pair[0]); s == `"established"` || s == `"related"` || s == `"invalid"` {
			continue // the states of other packets than a first one
		}
		for word, target := range verdict {
			r.does = word
			var t struct{ Target string }
			if json.Unmarshal(target, &t) == nil {
				r.target = key(t.Target)
			}
		}
		rules = append(rules, r)
	}
	return rules
}

func nftMatch(arg json.RawMessage) (match func(probe) certainty, text string) {
	unknown := func(probe) certainty { return maybe }
	var m struct {
		Op    string
		Left  map[string]json.RawMessage
		Right json.RawMessage
	}
	if err := json.Unmarshal(arg, &m); err != nil {
		return unknown, "…"
	}
	var left struct{ Protocol, Field, Key string }
	for kind, l := range m.Left {
		if json.Unmarshal(l, &left) != nil {
			return unknown, "…"
		}
		if kind == "ct" {
			left.Key = "ct " + left.Key
		}
	}
	values := nftValues(m.Right)
	name := left.Key
	if left.Field != "" {
		name = left.Protocol + " " + left.Field
	}
	text = name + " " + strings.Join(values, ",")
	has := func(f func(string) certainty) certainty {
		c := no
		for _, v := range values {
			c = max(c, f(v))
		}
		if m.Op == "!=" {
			return c.not()
		}
		return c
	}
	word := func(w string) func(probe) certainty {
		return func(probe) certainty {
			return has(func(v string) certainty {
				if v == w {
					return yes
				}
				return no
			})
		}
	}
	switch {
	case name == "l4proto" || name == "ip protocol" || name == "ip6 nexthdr":
		return func(p probe) certainty {
			return has(func(v string) certainty {
				if v == p.network || v == protoNumber(p.network) {
					return yes
				}
				return no
			})
		}, text
	case left.Field == "dport":
		return func(p probe) certainty {
			c := yes
			if left.Protocol != "th" && left.Protocol != p.network {
				c = no // the payload's protocol is a match of its own
			}
			if c == no {
				return no
			}
			return has(func(v string) certainty { return portIn(v, p.port, "-") })
		}, text
	case name == "ct state":
		return word("new"), text
	case name == "iifname" || name == "iif":
		return func(probe) certainty {
			return has(func(v string) certainty {
				if v == "lo" {
					return no
				}
				if interfaces := others(); len(interfaces) == 1 && interfaces[0] == v {
					return yes
				}
				return maybe
			})
		}, text
	}
	return unknown, text
}

func protoNumber(network string) string {
	if network == "udp" {
		return "17"
	}
	return "6"
}

// others are the machine's interfaces but the loopback.
func others() (names []string) {
	is, err := net.Interfaces()
	if err != nil {
		return nil
	}
	for _, i := range is {
		if i.Flags&net.FlagLoopback == 0 {
			names = append(names, i.Name)
		}
	}
	return names
}

// portIn compares a port with "514" or "500-600"; a name or a named set may be it.
func portIn(v string, port int, dash string) certainty {
	from, to, isRange := strings.Cut(v, dash)
	a, err := strconv.Atoi(from)
	if err != nil {
		return maybe
	}
	b := a
	if isRange {
		if b, err = strconv.Atoi(to); err != nil {
			return maybe
		}
	}
	if a <= port && port <= b {
		return yes
	}
	return no
}

// nftValues flattens the right side of a match: a word, a number, a set, a range; a named set stays "@name".
func nftValues(b json.RawMessage) []string {
	var s string
	if json.Unmarshal(b, &s) == nil {
		return []string{s}
	}
	var n json.Number
	if json.Unmarshal(b, &n) == nil {
		return []string{n.String()}
	}
	var list []json.RawMessage
	if json.Unmarshal(b, &list) == nil {
		var all []string
		for _, l := range list {
			all = append(all, nftValues(l)...)
		}
		return all
	}
	var o struct {
		Set   []json.RawMessage
		Range []json.Number
		Elem  *struct{ Val json.RawMessage }
	}
	if json.Unmarshal(b, &o) == nil {
		switch {
		case len(o.Range) == 2:
			return []string{o.Range[0].String() + "-" + o.Range[1].String()}
		case o.Elem != nil:
			return nftValues(o.Elem.Val)
		case o.Set != nil:
			var all []string
			for _, l := range o.Set {
				all = append(all, nftValues(l)...)
			}
			return all
		}
	}
	return []string{"…"}
}
