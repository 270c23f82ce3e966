package baseline

import (
	"fmt"

	"tocsin/internal/baseline/sketch"
)

// host is a machine inside that speaks with the outside.
type host struct {
	visits
	lastNew uint32 // when it last spoke with a network that was new for it
	nets    uint16 // networks it spoke with
}

const (
	hostBytes    = 32
	hostWarmDays = 30 // it must have been known so long,
	hostUsedDays = 20 // have been active on so many days,
	hostMostNets = 20 // with no more networks,
	hostQuiet    = 14 // and none new for so many days
	hostAge      = 60 // days after which one that is not seen is no loss
)

func (h *host) worth(now uint32) int64 { return h.worthFor(hostAge, now) }

func (h *host) code(c *sketch.Codec) {
	h.visits.code(c)
	c.U32(&h.lastNew)
	c.U16(&h.nets)
}

// contact takes a connection from inside to outside.
func (e *Engine) contact(t *tenant, o *Observation) {
	in, net := o.inside(), o.network()
	if !in.IsValid() || net == 0 || !e.teaches(t, lessonContact, o) {
		return
	}
	now, day := uint32(o.At/1e9), dayOf(o.At)
	id := e.key.Hash128(in.As16(), 0) | 1
	t.hosts.changed = e.gen
	known := t.filter(fHostNets, e).Add(e.key.Hash128(in.As16(), net), day, filterAge, e.lim.filterMost)
	h := t.hosts.find(id)
	if h == nil {
		h = t.hosts.place(id, now, e.lim.hosts*t.share)
		*h = host{visits: visits{h: id, first: now}, lastNew: now}
	}
	h.note(now, day)
	if known {
		return
	}
	e.rateOf(t, mNewNets, o, uint64(max(o.N, 1)), in.As16())
	if now-min(h.first, now) >= hostWarmDays*86400 && h.days >= hostUsedDays && h.nets > 0 && h.nets <= hostMostNets && now-min(h.lastNew, now) >= hostQuiet*86400 {
		e.emit(t, hostNetwork, o.Proven, subject{kind: "host", value: in.String(), host: in.String()}, fmt.Sprintf("%d/%x/%x", t.id, id, net), o.At, o.At, 1, []eventID{o.ID},
			fmt.Sprintf("%s connected to %s in %s; in the %d days before it spoke with %s outside, and with none that was new for %d days.",
				e.named("source.ip", in.String(), "A machine"), e.named("destination.ip", o.Destination.String(), "an address"), networkText(o), (now-h.first)/86400, plural(int(h.nets), "network"), (now-h.lastNew)/86400))
	}
	if h.nets < 1<<16-1 {
		h.nets++
	}
	h.lastNew = now
}

// letIn takes a connection that the firewall let in from outside.
func (e *Engine) letIn(t *tenant, o *Observation) {
	if !o.Destination.IsValid() || o.Port == 0 || !e.teaches(t, lessonLetIn, o) {
		return
	}
	day := dayOf(o.At)
	if t.filter(fPorts, e).Add(e.key.Hash128(o.Destination.As16(), uint64(o.Port)), day, filterAge, e.lim.filterMost) || !t.warm(lessonLetIn, o.At) {
		return
	}
	e.emit(t, openedPort, o.Proven, subject{kind: "host", value: o.Destination.String(), host: o.Destination.String(), source: o.Source.String(), field: "destination.ip"}, fmt.Sprintf("%d/%s/%d", t.id, o.Destination, o.Port), o.At, o.At, 1, []eventID{o.ID},
		fmt.Sprintf("The firewall let a connection in from %s to port %d of %s; in the %d days before, nothing was let in there.", e.named("source.ip", o.Source.String(), "outside"), o.Port, e.named("destination.ip", o.Destination.String(), "a machine"), t.lessonDays(lessonLetIn, o.At)))
}

// intrusion takes a hit of an intrusion signature.
func (e *Engine) intrusion(t *tenant, o *Observation) {
	if o.Signature == "" || !e.teaches(t, lessonIntrusion, o) {
		return
	}
	day := dayOf(o.At)
	sig := e.key.Hash("signature\x00" + o.Signature)
	known := t.filter(fSignatures, e).Add(sig, day, filterAge, e.lim.filterMost)
	if known {
		return
	}
	others := e.signatures.note(sig, t.id, day)
	if !t.warm(lessonIntrusion, o.At) || others >= commonAt {
		return
	}
	seen := "no other organisation of the scheme has had it in that time"
	if others > 0 {
		// Below five, how many is nobody's business but the centre's (access.Figure).
		seen = "fewer than five others of the scheme have had it in that time"
	}
	source := ""
	if o.Session && o.Source.IsValid() {
		source = o.Source.String()
	}
	name := o.SignatureName
	if name == "" {
		name = o.Signature
	}
	e.emit(t, newSignature, o.Proven, subject{kind: "rule", value: "signature " + clipText(o.Signature), source: source}, fmt.Sprintf("%d/%x/%d", t.id, sig, day), o.At, o.At, int(max(o.N, 1)), []eventID{o.ID},
		fmt.Sprintf("The intrusion signature %q fired here for the first time in the %d days that were learnt; %s.", clipText(name), t.lessonDays(lessonIntrusion, o.At), seen))
}

func networkText(o *Observation) string {
	switch {
	case o.Network != 0 && o.NetworkName != "":
		return fmt.Sprintf("AS%d (%s)", o.Network, clipText(o.NetworkName))
	case o.Network != 0:
		return fmt.Sprintf("AS%d", o.Network)
	}
	a := o.outside().Unmap()
	n := 16
	if a.Is6() {
		n = 32
	}
	p, err := a.Prefix(n)
	if err != nil {
		return a.String()
	}
	return p.String()
}
