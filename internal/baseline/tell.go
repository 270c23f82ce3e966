package baseline

import (
	"fmt"
	"math"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"tocsin/internal/baseline/distance"
	"tocsin/internal/event"
)

// warm says whether a lesson was learnt long enough.
func (t *tenant) warm(l int, at int64) bool {
	now, s := uint32(at/1e9), t.lessons[l].since
	return s != 0 && now-min(s, now) >= t.warmFor
}

// counted says what was counted; ongoing: up to now.
func counted(m metric, n uint64, ongoing bool) string {
	have, has := "", ""
	if ongoing {
		have, has = "have ", "has "
	}
	switch m {
	case mDenied:
		return "The firewall " + has + "refused " + number(n) + " connections"
	case mFailed:
		return number(n) + " sign-ins " + have + "failed"
	case mIDS:
		return "The intrusion detection " + has + "reported " + number(n) + " hits"
	case mSources:
		return "The firewall " + has + "refused connections from " + number(n) + " different addresses"
	case mOutBytes:
		return "Machines here " + have + "sent " + size(n) + " to the Internet"
	}
	return "Machines here " + have + "connected " + number(n) + " times to networks that were new for them"
}

// rateSubject: rates are about the member itself, so the alert is grouped by the kind.
func rateSubject(k kind, lane int) subject {
	v := infos[k].ID
	if lane == 1 {
		v += " (over UDP)"
	}
	return subject{kind: "rule", value: v}
}

// tellRate tells of an unusual hour: when it becomes so, each time it doubles, and at its end. Unusual hours in a row are one detection.
func (e *Engine) tellRate(t *tenant, lane int, m metric, r *rate, h *hour, over bool) {
	k := metricOf[m].kind
	again := h.told > 0
	if r.began == 0 || h.hour-r.ended > 6 {
		r.began = h.hour
	} else if r.ended >= r.began {
		again = true
	}
	r.ended = h.hour
	var p past
	r.past(e.momentOf(h.hour), &p)
	from := time.Unix(int64(h.hour)*3600, 0).In(e.opts.Location)
	to := from.Add(time.Hour)
	when := fmt.Sprintf("between %s and %s", from.Format("15:04"), to.Format("15:04"))
	if !over {
		when = fmt.Sprintf("since %s", from.Format("15:04"))
	}
	reason := fmt.Sprintf("%s %s; on the last %s %s it was %s in that hour.", counted(m, h.n, !over), when, words(len(p.wall)), from.Weekday().String()+"s", span(m, p.wall))
	if len(p.utc) > 0 {
		reason = strings.TrimSuffix(reason, ".") + fmt.Sprintf(" (%s in the one that was that hour before the clocks were changed).", span(m, p.utc))
	}
	s := rateSubject(k, lane)
	if top, ok := h.most(); ok {
		a := netip.AddrFrom16(top.addr).Unmap()
		switch m {
		case mOutBytes:
			reason += fmt.Sprintf(" At least %s of it came from %s.", size(top.n), e.named("source.ip", a.String(), "one machine"))
			s.host = a.String()
		case mNewNets:
			reason += fmt.Sprintf(" At least %s of them were made by %s.", number(top.n), e.named("source.ip", a.String(), "one address"))
			s.host = a.String()
		case mDenied, mFailed, mIDS:
			reason += fmt.Sprintf(" At least %s of them came from %s.", number(top.n), e.named("source.ip", a.String(), "one address"))
			s.source = a.String()
		}
	}
	h.told = max(h.n, 1)
	if again {
		e.stats.Updates++
		if lane == 1 {
			reason += " The lines that say so came over UDP, which proves no sender."
		}
		e.add(t, k, s, fmt.Sprintf("%d/%d/%d", t.id, lane, r.began), h.first, h.lastAt, countOf(m, h.n), h.ids, reason, nil)
		return
	}
	e.emit(t, k, lane == 0, s, fmt.Sprintf("%d/%d/%d", t.id, lane, r.began), h.first, h.lastAt, countOf(m, h.n), h.ids, reason)
}

// countOf is what an alert counts as events: bytes and addresses are none.
func countOf(m metric, n uint64) int {
	if m == mOutBytes || m == mSources {
		return 1
	}
	return int(min(n, math.MaxInt32))
}

// tellDay tells of 24 hours that together are unusual although none of them may be.
func (e *Engine) tellDay(t *tenant, lane int, m metric, h *hour, hr int32, d day24) {
	k := metricOf[m].kind
	end := time.Unix(int64(hr+1)*3600, 0).In(e.opts.Location)
	at := end.UnixNano()
	e.emit(t, k, lane == 0, rateSubject(k, lane), fmt.Sprintf("%d/%d/day/%d", t.id, lane, hr), at-24*hourNS, at-1, countOf(m, d.sum), nil,
		fmt.Sprintf("%s in the 24 hours up to %s on %s; in the same 24 hours of the last %s weeks it was %s.", counted(m, d.sum, false), end.Format("15:04"), end.Format("Monday"), words(d.n), span(m, []uint64{d.low, d.top})))
}

// drop tells when a firewall that always refuses a good deal reports next to nothing for three hours, while other lines come.
func (e *Engine) drop(t *tenant, lane int, r *rate, h *hour, when *moment) {
	var p past
	r.past(when, &p)
	if len(p.wall) < warmWeeks+1 || p.least() < 20 || h.n*5 > p.least() {
		r.low = 0
		return
	}
	if r.low < 255 {
		r.low++
	}
	if r.low != 3 {
		return
	}
	from := time.Unix(int64(h.hour-2)*3600, 0).In(e.opts.Location)
	at := int64(h.hour+1) * hourNS
	e.emit(t, deniedDrop, lane == 0, rateSubject(deniedDrop, lane), fmt.Sprintf("%d/%d/%d", t.id, lane, h.hour-2), at-3*hourNS, at-1, 1, nil,
		fmt.Sprintf("The firewall has reported hardly any refused connections since %s: %s in the last hour, in which it was %s on the last %s %ss. Other lines still arrive.",
			from.Format("15:04"), number(h.n), span(mDenied, p.wall), words(len(p.wall)), from.Weekday()))
}

// tellFull tells that something had to be pushed out: at the hub to the centre, on a site to the member.
func (e *Engine) tellFull(t *tenant, n uint32, h int32) {
	at := int64(h+1) * hourNS
	to, who := t, "here"
	if e.opts.Where == Hub {
		to, who = &e.centre, fmt.Sprintf("of member %d", t.id)
	}
	e.emit(to, full, true, subject{kind: "rule", value: infos[full].ID}, fmt.Sprintf("%d/%d", t.id, h/24), at-24*hourNS, at-1, 1, nil,
		fmt.Sprintf("%s accounts, machines or destinations %s were forgotten before their time within a day, because their tables are full.", number(uint64(n)), who))
}

// span says the least and the most.
func span(m metric, v []uint64) string {
	say := number
	if m == mOutBytes {
		say = size
	}
	if len(v) == 0 {
		return "unknown"
	}
	if lo, hi := v[0], v[len(v)-1]; lo != hi {
		return say(lo) + " to " + say(hi)
	}
	return say(v[0])
}

// number writes thousands apart.
func number(n uint64) string {
	s := strconv.FormatUint(n, 10)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

func size(n uint64) string {
	switch {
	case n >= 1e12:
		return fmt.Sprintf("%.1f TB", float64(n)/1e12)
	case n >= 1e9:
		return fmt.Sprintf("%.1f GB", float64(n)/1e9)
	case n >= 1e6:
		return fmt.Sprintf("%.0f MB", float64(n)/1e6)
	}
	return fmt.Sprintf("%.0f kB", math.Ceil(float64(n)/1e3))
}

func words(n int) string {
	if w := []string{"no", "one", "two", "three", "four", "five", "six"}; n < len(w) {
		return w[n]
	}
	return strconv.Itoa(n)
}

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return number(uint64(n)) + " " + what + "s"
}

// about says seconds as people do.
func about(s int64) string {
	switch {
	case s < 120:
		return plural(int(s), "second")
	case s < 2*3600:
		return plural(int((s+30)/60), "minute")
	case s < 48*3600:
		return plural(int((s+1800)/3600), "hour")
	}
	return plural(int((s+43200)/86400), "day")
}

func after(s int64) string {
	if s < 60 {
		return "less than a minute"
	}
	return about(s)
}

func orUnknown(s string) string {
	if s == "" {
		return "places that are not known"
	}
	return s
}

// clipText bounds a value that a stranger chose and keeps it on one line.
func clipText(v string) string {
	v = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r == 0x2028 || r == 0x2029 || r >= 0x202a && r <= 0x202e || r >= 0x2066 && r <= 0x2069 {
			return ' ' // control characters, line breaks and marks that turn the reading direction
		}
		return r
	}, v)
	if r := []rune(v); len(r) > 80 {
		v = string(r[:79]) + "…"
	}
	return v
}

// named is a value, or other words for it where the policy of a site keeps the field at home.
func (e *Engine) named(field, value, instead string) string {
	if value == "" || e.opts.Withhold != nil && e.opts.Withhold(field) {
		return instead
	}
	return clipText(value)
}

// travelTime is the least distance between two countries in kilometres, and the seconds that an aeroplane takes for it. Both are 0 when
// it is not known, or so short that place data may be wrong about it.
func (e *Engine) travelTime(a, b uint16) (km int, seconds int64) {
	km, ok := distance.KM(placeText(a), placeText(b))
	if !ok || km < travelLeast {
		return 0, 0
	}
	return km, int64(km) * 3600 / travelSpeed
}

const (
	travelLeast = 500 // kilometres
	travelSpeed = 900 // kilometres an hour
)

func (e *Engine) countryName(code string) string {
	if e.opts.Country != nil {
		if n := e.opts.Country(code); n != "" {
			return n
		}
	}
	return code
}

func (e *Engine) country(p uint16) string { return e.countryName(placeText(p)) }

func (e *Engine) area(id event.TenantID) string {
	if e.opts.Area == nil {
		return ""
	}
	return e.opts.Area(id)
}
