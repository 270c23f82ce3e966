package baseline

import (
	"fmt"
	"slices"
	"strings"

	"tocsin/internal/baseline/sketch"
)

// account is one that signs in: where from, how often, when last.
type account struct {
	visits
	lastPlace uint16 // country of the last sign-in that had one
	placeAt   uint32 // when that was
	countries [accountCountries]seenPlace
	nets      [accountNets]seenNet
}

// visits is when something was there: an account, or a machine. Its name is not kept, only a keyed hash.
type visits struct {
	h       uint64
	first   uint32 // seconds
	lastAt  uint32
	days    uint16 // on which it was there
	lastDay uint16
}

func (v *visits) key() uint64 { return v.h }

// note notes that it is there.
func (v *visits) note(now uint32, day uint16) {
	if v.lastDay != day || v.days == 0 {
		if v.days < 1<<16-1 {
			v.days++
		}
		v.lastDay = day
	}
	v.lastAt = now
}

// worthFor is worth for what is no loss after so many days away.
func (v *visits) worthFor(days, now uint32) int64 {
	if now > v.lastAt && now-v.lastAt > days*86400 {
		return 0
	}
	return int64(v.lastAt)
}

func (v *visits) code(c *sketch.Codec) {
	c.U64(&v.h)
	c.U32(&v.first)
	c.U32(&v.lastAt)
	c.U16(&v.days)
	c.U16(&v.lastDay)
}

type seenPlace struct {
	place uint16 // two letters; 0: free
	n     uint8
	last  uint16 // day
}

type seenNet struct {
	net  uint32 // hash of the network; 0: free
	n    uint8
	last uint16
}

const (
	accountCountries = 6
	accountNets      = 6
	accountBytes     = 128

	accountWarmDays = 14 // an account must have been known so long
	accountUsedDays = 5  // and have signed in on so many days
	accountNetDays  = 30 // for the milder finding
	placeAge        = 180
	establishedUses = 3
)

// worth: the longest away goes first; who has not signed in for half a year is no loss.
func (a *account) worth(now uint32) int64 { return a.worthFor(placeAge, now) }

func (a *account) code(c *sketch.Codec) {
	a.visits.code(c)
	c.U16(&a.lastPlace)
	c.U32(&a.placeAt)
	for i := range a.countries {
		p := &a.countries[i]
		c.U16(&p.place)
		c.U8(&p.n)
		c.U16(&p.last)
	}
	for i := range a.nets {
		p := &a.nets[i]
		c.U32(&p.net)
		c.U8(&p.n)
		c.U16(&p.last)
	}
}

// placeOf packs a country's two letters; 0 when they are none.
func placeOf(country string) uint16 {
	if len(country) != 2 || country[0] < 'A' || country[0] > 'Z' || country[1] < 'A' || country[1] > 'Z' {
		return 0
	}
	return uint16(country[0])<<8 | uint16(country[1])
}

func placeText(p uint16) string { return string([]byte{byte(p >> 8), byte(p)}) }

func (a *account) country(p uint16, day uint16) *seenPlace {
	for i := range a.countries {
		if s := &a.countries[i]; s.place == p && s.place != 0 && day-min(s.last, day) <= placeAge {
			return s
		}
	}
	return nil
}

// use notes a sign-in from a country; the one longest unused gives way.
func (a *account) use(p uint16, day uint16) {
	old := 0
	for i := range a.countries {
		s := &a.countries[i]
		if s.place == p {
			if day-min(s.last, day) > placeAge {
				s.n = 0
			}
			if s.n < 255 {
				s.n++
			}
			s.last = day
			return
		}
		if s.place == 0 || a.countries[old].place != 0 && s.last < a.countries[old].last {
			old = i
		}
	}
	a.countries[old] = seenPlace{p, 1, day}
}

func (a *account) useNet(net uint32, day uint16) (known bool) {
	old := 0
	for i := range a.nets {
		s := &a.nets[i]
		if s.net == net {
			if s.n < 255 {
				s.n++
			}
			known = day-min(s.last, day) <= placeAge
			s.last = day
			return known
		}
		if s.net == 0 || a.nets[old].net != 0 && s.last < a.nets[old].last {
			old = i
		}
	}
	a.nets[old] = seenNet{net, 1, day}
	return false
}

func (a *account) netCount() (n int) {
	for _, s := range a.nets {
		if s.net != 0 {
			n++
		}
	}
	return n
}

// usual lists the countries that an account uses, most first.
func (a *account) usual(name func(string) string) string {
	var out []string
	for range accountCountries {
		best := -1
		for i, s := range a.countries {
			if s.place != 0 && (best < 0 || s.n > a.countries[best].n) && !slices.Contains(out, name(placeText(s.place))) {
				best = i
			}
		}
		if best < 0 || len(out) == 3 {
			break
		}
		out = append(out, name(placeText(a.countries[best].place)))
	}
	return and(out)
}

// and joins words as people do.
func and(list []string) string {
	switch len(list) {
	case 0:
		return ""
	case 1:
		return list[0]
	}
	return strings.Join(list[:len(list)-1], ", ") + " and " + list[len(list)-1]
}

// signIn takes a completed sign-in.
func (e *Engine) signIn(t *tenant, o *Observation) {
	if o.User == "" || !e.teaches(t, lessonSignIn, o) {
		return
	}
	now, day := uint32(o.At/1e9), dayOf(o.At)
	h := e.key.Hash("account\x00"+strings.ToLower(o.User)) | 1
	t.accounts.changed = e.gen
	netID := o.network()
	netKnown := true
	if netID != 0 {
		netKnown = t.filter(fSignInNets, e).Add(e.key.Hash128([16]byte{}, netID), day, filterAge, e.lim.filterMost)
	}
	a := t.accounts.find(h)
	if a == nil {
		a = t.accounts.place(h, now, e.lim.accounts*t.share)
		*a = account{visits: visits{h: h, first: now}}
	}
	a.note(now, day)
	age := now - min(a.first, now)
	warm := age >= accountWarmDays*86400 && a.days > accountUsedDays
	place := placeOf(o.Country)
	who := e.named("user.name", o.User, "An account")
	from := o.Source.String()
	if place != 0 {
		before, at := a.lastPlace, a.placeAt
		known := a.country(place, day)
		told := false
		if before != 0 && before != place && now >= at {
			_, pair := e.travelTime(before, place)
			elapsed := int64(now - at)
			old := a.country(before, day)
			odd := known == nil || known.n < establishedUses || old == nil || old.n < establishedUses
			if pair > elapsed && odd && warm {
				km, _ := e.travelTime(before, place)
				told = e.emit(t, travel, o.Proven, subject{kind: "user", value: o.User, user: o.User, source: from}, fmt.Sprintf("%d/%x/%s/%s/%d", t.id, h, placeText(min(before, place)), placeText(max(before, place)), day),
					int64(at)*1e9, o.At, 2, []eventID{o.ID},
					fmt.Sprintf("%s signed in from %s %s after a sign-in from %s; the two are at least %s km apart, which takes %s by air.",
						who, e.country(place), after(elapsed), e.country(before), number(uint64(km)), about(pair)))
			}
		}
		if known == nil && warm && !told {
			e.emit(t, newCountry, o.Proven, subject{kind: "user", value: o.User, user: o.User, source: from}, fmt.Sprintf("%d/%x/%s", t.id, h, placeText(place)), o.At, o.At, 1, []eventID{o.ID},
				fmt.Sprintf("%s signed in from %s for the first time; in the %d days before, the account signed in on %d days, from %s.", who, e.country(place), age/86400, a.days-1, orUnknown(a.usual(e.countryName))))
			told = true
		}
		if told {
			netKnown = true // one finding for one sign-in
		}
		a.use(place, day)
		a.lastPlace, a.placeAt = place, now
	}
	if netID != 0 {
		n := a.netCount()
		own := a.useNet(uint32(e.key.Hash128([16]byte{1}, netID))|1, day)
		if !own && !netKnown && age >= accountNetDays*86400 && a.days > 2*accountUsedDays && n <= 3 && t.since+accountNetDays*86400 <= now {
			e.emit(t, newNetwork, o.Proven, subject{kind: "user", value: o.User, user: o.User, source: from}, fmt.Sprintf("%d/%x/%x", t.id, h, netID), o.At, o.At, 1, []eventID{o.ID},
				fmt.Sprintf("%s signed in from %s, a network from which nobody here signed in during the last weeks; the account used %s in %d days.", who, networkText(o), plural(n, "network"), age/86400))
		}
	}
}
