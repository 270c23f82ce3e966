package doctor

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"
)

// certainty of a rule's match: what depends on the sender, the rate or something this program does not read is maybe.
type certainty uint8

const (
	no certainty = iota
	maybe
	yes
)

func (c certainty) and(d certainty) certainty { return min(c, d) }

func (c certainty) not() certainty {
	switch c {
	case no:
		return yes
	case yes:
		return no
	}
	return maybe
}

// probe is the first packet of a sender somewhere else.
type probe struct {
	network string // udp or tcp
	port    int
}

// rule is one rule of a packet filter, as far as it matters to a probe.
type rule struct {
	match  func(probe) certainty
	does   string // accept, drop, return, jump, goto; "" when it only counts or logs
	target string // of jump and goto
	text   string // as a person would write it
}

// chain is a list of rules; a base chain has a policy.
type chain struct {
	name   string // for people: table and chain
	hook   bool   // incoming packets begin here
	policy string // accept or drop
	rules  []rule
}

// filter is all of the machine's rules for incoming packets.
type filter struct {
	chains map[string]*chain
	order  []string // of base chains
	ufw    bool
	zones  bool // firewalld
}

// outcome is what may happen to a probe, with the rule that drops it.
type outcome struct {
	accept, drop, through bool // through: it reaches the end of the chain
	by                    string
}

// judge walks all base chains: a packet must pass each of them.
func (f *filter) judge(p probe) outcome {
	all := outcome{accept: true}
	for _, name := range f.order {
		c := f.chains[name]
		o := f.walk(c, p, 0)
		if o.through {
			if c.policy == "drop" {
				o.drop = true
				if o.by == "" {
					o.by = "the policy of " + c.name
				}
			} else {
				o.accept = true
			}
		}
		if o.drop {
			all.drop = true
			if all.by == "" {
				all.by = o.by
			}
		}
		all.accept = all.accept && o.accept
	}
	return all
}

func (f *filter) walk(c *chain, p probe, depth int) outcome {
	var o outcome
	if c == nil || depth > 32 {
		o.through = true
		return o
	}
	merge := func(s outcome) {
		o.accept = o.accept || s.accept
		if s.drop {
			o.drop = true
			if o.by == "" {
				o.by = s.by
			}
		}
	}
	for _, r := range c.rules {
		m := yes
		if r.match != nil {
			m = r.match(p)
		}
		if m == no {
			continue
		}
		switch r.does {
		case "accept":
			o.accept = true
		case "drop":
			o.drop = true
			if o.by == "" {
				o.by = fmt.Sprintf("%s, rule %q", c.name, r.text)
			}
		case "return":
			if m == yes {
				o.through = true
				return o
			}
			continue // what goes on meets the rules below, or the same end
		case "jump":
			s := f.walk(f.chains[r.target], p, depth+1)
			merge(s)
			if m == yes && !s.through {
				return o
			}
			continue
		case "goto":
			s := f.walk(f.chains[r.target], p, depth+1)
			merge(s)
			if m == yes {
				o.through = s.through
				return o
			}
			continue
		default:
			continue
		}
		if m == yes {
			return o
		}
	}
	o.through = true
	return o
}

// packetFilter looks whether this machine's own packet filter lets the ports in.
func (r *run) packetFilter(ctx context.Context) {
	f, err := readFilter(ctx)
	if err != nil {
		r.add("packet filter", "filter_unknown", Skip, err.Error(), "Run doctor with sudo to have it looked at.")
		return
	}
	if f == nil {
		return // neither nft nor iptables is installed: nothing filters
	}
	ok := 0
	for _, p := range r.c.Ports() {
		port, err := strconv.Atoi(portOf(p.Addr))
		if err != nil || port == 0 || loopback(p.Addr) {
			continue
		}
		o := f.judge(probe{p.Network, port})
		check := fmt.Sprintf("packet filter %s %d", p.Network, port)
		switch {
		case o.accept && !o.drop:
			ok++
		case o.drop && !o.accept:
			r.add(check, "filter_drops", Fail, "this machine's packet filter lets nothing in there: "+o.by, f.advice(p.Network, port))
		default:
			r.add(check, "filter_some", Warn, "this machine's packet filter lets only some in there; others meet "+o.by, "Look whether your firewall's address is among those let in. If not: "+f.advice(p.Network, port))
		}
	}
	if ok > 0 {
		r.add("packet filter", "filter_ok", OK, fmt.Sprintf("lets %d of the ports in", ok), "")
	}
}

func (f *filter) advice(network string, port int) string {
	switch {
	case f.ufw:
		return fmt.Sprintf("ufw allow from FIREWALL-ADDRESS to any port %d proto %s", port, network)
	case f.zones:
		return fmt.Sprintf("firewall-cmd --permanent --add-port=%d/%s && firewall-cmd --reload", port, network)
	}
	for _, name := range f.order {
		if c := f.chains[name]; strings.HasPrefix(c.name, "table ") {
			w := strings.Fields(c.name) // table FAMILY NAME, chain CHAIN
			return fmt.Sprintf("nft insert rule %s %s %s ip saddr FIREWALL-ADDRESS %s dport %d accept (and put it in /etc/nftables.conf)", w[1], strings.TrimSuffix(w[2], ","), w[4], network, port)
		}
	}
	return fmt.Sprintf("iptables -I INPUT -s FIREWALL-ADDRESS -p %s --dport %d -j ACCEPT", network, port)
}

// readFilter asks nft and iptables-save. A nil filter: there is neither.
func readFilter(ctx context.Context) (*filter, error) {
	f := &filter{chains: map[string]*chain{}}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	asked := false
	for _, t := range []struct {
		program string
		args    []string
		read    func(*filter, []byte) error
	}{
		{"nft", []string{"-j", "list", "ruleset"}, (*filter).readNFT},
		{"iptables-save", nil, (*filter).readIPTables},
	} {
		path := findProgram(t.program)
		if path == "" {
			continue
		}
		if os.Geteuid() != 0 {
			return nil, errors.New("only root may look at this machine's packet filter")
		}
		out, err := exec.CommandContext(ctx, path, t.args...).Output()
		if err != nil {
			continue // such as iptables of the old kind on a kernel without it
		}
		if err := t.read(f, out); err != nil {
			return nil, fmt.Errorf("%s: %w", t.program, err)
		}
		asked = true
	}
	if !asked {
		return nil, nil
	}
	return f, nil
}

// findProgram also looks where root's programs are, which are not on everybody's PATH.
func findProgram(name string) string {
	if p, err := exec.LookPath(name); err == nil {
		return p
	}
	for _, dir := range []string{"/usr/sbin/", "/sbin/"} {
		if _, err := os.Stat(dir + name); err == nil {
			return dir + name
		}
	}
	return ""
}
