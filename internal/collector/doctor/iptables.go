package doctor

import "strings"

// readIPTables reads the table filter of what "iptables-save" prints (iptables-save(8)).
func (f *filter) readIPTables(b []byte) error {
	table := ""
	for line := range strings.Lines(string(b)) {
		line = strings.TrimSpace(line)
		switch {
		case strings.HasPrefix(line, "*"):
			table = line[1:]
		case table != "filter" || line == "" || line[0] == '#':
		case line[0] == ':': // ":INPUT DROP [0:0]"
			w := strings.Fields(line[1:])
			if len(w) < 2 {
				continue
			}
			c := &chain{name: "iptables, chain " + w[0], policy: strings.ToLower(w[1])}
			f.chains["iptables/"+w[0]] = c
			f.ufw = f.ufw || strings.HasPrefix(w[0], "ufw-")
			if w[0] == "INPUT" {
				c.hook = true
				f.order = append(f.order, "iptables/INPUT")
			}
		case strings.HasPrefix(line, "-A "):
			w := words(line)
			c := f.chains["iptables/"+w[1]]
			if c == nil {
				continue
			}
			c.rules = append(c.rules, iptablesRule(w[2:]))
		}
	}
	return nil
}

// words parts a line at blanks, outside of quotes.
func words(line string) (list []string) {
	var b strings.Builder
	quoted, some := false, false
	for i := 0; i < len(line); i++ {
		switch c := line[i]; {
		case c == '\\' && quoted && i+1 < len(line):
			i++
			b.WriteByte(line[i])
		case c == '"':
			quoted, some = !quoted, true
		case c == ' ' && !quoted:
			if some || b.Len() > 0 {
				list = append(list, b.String())
			}
			b.Reset()
			some = false
		default:
			b.WriteByte(c)
		}
	}
	if some || b.Len() > 0 {
		list = append(list, b.String())
	}
	return list
}

func iptablesRule(w []string) rule {
	r := rule{text: strings.Join(w, " ")}
	var conds []func(probe) certainty
	negate := false
	add := func(m func(probe) certainty) {
		if n := negate; n {
			conds = append(conds, func(p probe) certainty { return m(p).not() })
		} else {
			conds = append(conds, m)
		}
		negate = false
	}
	unknown := func(probe) certainty { return maybe }
	arg := func(i int) string {
		if i+1 < len(w) {
			return w[i+1]
		}
		return ""
	}
	for i := 0; i < len(w); i++ {
		v := arg(i)
		switch w[i] {
		case "!":
			negate = true
			continue
		case "-m", "--comment", "--reject-with", "--log-prefix", "--log-level", "--nflog-group", "--nflog-prefix":
		case "-p":
			add(func(p probe) certainty {
				if v == p.network || v == "all" || v == protoNumber(p.network) {
					return yes
				}
				return no
			})
		case "--dport", "--dports":
			add(func(p probe) certainty {
				c := no
				for part := range strings.SplitSeq(v, ",") {
					c = max(c, portIn(part, p.port, ":"))
				}
				return c
			})
		case "-i":
			add(func(probe) certainty {
				if v == "lo" {
					return no
				}
				if o := others(); len(o) == 1 && o[0] == v {
					return yes
				}
				return maybe
			})
		case "-s":
			if v == "0.0.0.0/0" {
				break
			}
			add(unknown)
		case "--ctstate", "--state":
			add(func(probe) certainty {
				for part := range strings.SplitSeq(v, ",") {
					if part == "NEW" {
						return yes
					}
				}
				return no
			})
		case "--dst-type", "--src-type":
			add(func(probe) certainty {
				switch v {
				case "LOCAL":
					return yes
				case "BROADCAST", "MULTICAST", "ANYCAST":
					return no
				}
				return maybe
			})
		case "-j", "-g":
			switch v {
			case "ACCEPT", "DROP", "RETURN":
				r.does = strings.ToLower(v)
			case "REJECT":
				r.does = "drop"
			case "LOG", "NFLOG", "MARK", "CONNMARK", "TRACE", "SET", "AUDIT":
			default:
				r.does, r.target = "jump", "iptables/"+v
				if w[i] == "-g" {
					r.does = "goto"
				}
			}
		default: // a match this program does not read
			if strings.HasPrefix(w[i], "-") {
				add(unknown)
			}
			continue
		}
		i++
	}
	r.match = func(p probe) certainty {
		all := yes
		for _, m := range conds {
			all = all.and(m(p))
		}
		return all
	}
	return r
}
