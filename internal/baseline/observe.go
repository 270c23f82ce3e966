package baseline

import (
	"net/netip"

	"tocsin/internal/event"
)

// What says of what sorts an event is; it can be several at once.
type What uint16

// Sorts of events.
const (
	DeniedInbound  What = 1 << iota // traffic from outside was refused
	FailedSignIn                    // somebody failed to sign in
	SignIn                          // somebody signed in, proved by the service
	Intrusion                       // an intrusion detection system fired
	Outbound                        // a connection from inside to outside was let through
	AllowedInbound                  // a connection from outside was let in
	Suspicious                      // a device refused or reported it, and there was a session: a web attack, an intrusion, a failed sign-in
)

// Observation is what the engine takes from one event. Its strings may share memory with the event: the engine keeps none of them.
type Observation struct {
	Tenant event.TenantID
	ID     event.ID
	At     int64  // event time, UTC nanoseconds: when the collector received it
	N      uint32 // events that it stands for; 0 is 1
	What   What
	// Proven says that the connection, over which the line came, names its sender: TCP, TLS or on the machine itself. UDP does not.
	Proven bool
	// Session says that the event's own source is proved, by a connection at least.
	Session bool

	Source, Destination netip.Addr
	Port                uint16 // of the destination
	Bytes               uint64 // sent by the source
	Country             string // of the outside end, ISO 3166-1 alpha-2; "" when unknown
	Network             uint32 // of the outside end: number of its autonomous system; 0 when unknown
	NetworkName         string
	User                string
	Signature           string // number or name of an intrusion signature, with the product's before it
	SignatureName       string
	URL                 string // path of a request
	JA3                 string
}

// mostBytes is more than one connection sends; what says more must not be able to make sums of it overflow.
const mostBytes = 1 << 50

// Read takes from an event what the engine looks at. ok is false when it is nothing that baselines are made of, or must not teach.
func Read(e *event.Event) (o Observation, ok bool) {
	switch {
	case e.Has(event.TocsinSenderProductChanged), e.Has(event.TocsinCollectorQuarantined):
		return o, false // TRUST: never urgent, never corroborating; so it teaches nothing either
	case e.Str(event.EventModule) == "tocsin", e.Str(event.TocsinLeftReason) == "site_detection":
		return o, false // our own words, and the few benign events that a detection brought along
	}
	verdict, direction := e.Str(event.TocsinVerdict), e.Str(event.NetworkDirection)
	var signin, network, web bool
	for i := e.Find(event.EventCategory); i >= 0 && i < e.Len(); i++ {
		k, v := e.At(i)
		if k != event.EventCategory {
			break
		}
		switch v.Str() {
		case "authentication":
			signin = true
		case "intrusion_detection":
			o.What |= Intrusion
		case "network":
			network = true
		case "web":
			web = true
		}
	}
	proof := e.Str(event.TocsinSourceProof)
	o.Session = proof == "session" || proof == "authenticated" || proof == "handshake"
	switch outcome := e.Str(event.EventOutcome); {
	case signin && outcome == "failure":
		o.What |= FailedSignIn
	case signin && outcome == "success" && proof == "authenticated":
		o.What |= SignIn
	}
	outside := direction == "inbound" || direction == "external"
	switch {
	case verdict == "deny" && outside && !signin:
		o.What |= DeniedInbound
	case verdict == "allow" && direction == "outbound" && !signin:
		o.What |= Outbound
	case verdict == "allow" && outside && network && !web && proof == "handshake":
		o.What |= AllowedInbound
	}
	if o.Session && (o.What&(Intrusion|FailedSignIn) != 0 || (verdict == "deny" || verdict == "detect") && (web || o.What&DeniedInbound != 0)) {
		o.What |= Suspicious
	}
	if o.What == 0 {
		return o, false
	}
	o.Tenant, o.ID, o.At = e.Tenant, e.ID, e.Created
	if o.At == 0 {
		o.At = e.Time
	}
	switch e.Str(event.TocsinSenderAssurance) {
	case "tcp", "tls", "mutual", "local":
		o.Proven = true
	}
	o.Source, _ = e.IP(event.SourceIP)
	o.Destination, _ = e.IP(event.DestinationIP)
	country, as, name := event.SourceGeoCountryISOCode, event.SourceASNumber, event.SourceASOrganizationName
	if o.What&Outbound != 0 {
		country, as, name = event.DestinationGeoCountryISOCode, event.DestinationASNumber, event.DestinationASOrganizationName
		if n, ok := e.Int(event.SourceBytes); ok && n > 0 {
			o.Bytes = min(uint64(n), mostBytes)
		}
	}
	o.Country = e.Str(country)
	if n, ok := e.Int(as); ok && n > 0 && n < 1<<32 {
		o.Network, o.NetworkName = uint32(n), e.Str(name)
	}
	if n, ok := e.Int(event.DestinationPort); ok && n > 0 && n < 1<<16 {
		o.Port = uint16(n)
	}
	if o.What&SignIn != 0 {
		if o.User = e.Str(event.UserName); o.User == "" {
			o.User = e.Str(event.UserEmail)
		}
	}
	if o.What&Intrusion != 0 {
		o.Signature, o.SignatureName = e.Text(event.RuleID), e.Str(event.RuleName)
		if o.Signature == "" {
			o.Signature = o.SignatureName
		}
	}
	if o.What&Suspicious != 0 {
		if web || o.What&Intrusion != 0 {
			if o.URL = e.Str(event.URLPath); o.URL == "" {
				o.URL = e.Str(event.URLOriginal)
			}
		}
		o.JA3 = e.Str(event.TLSClientJA3)
	}
	return o, true
}

// outside is the end that is not the member's.
func (o *Observation) outside() netip.Addr {
	if o.What&Outbound != 0 {
		return o.Destination
	}
	return o.Source
}

// inside is the member's end of an outbound connection.
func (o *Observation) inside() netip.Addr { return o.Source }

// network names the outside network: its number, or what stands for it where no numbers are known, an IPv4 /16 or an IPv6 /32.
// 0: unknown.
func (o *Observation) network() uint64 {
	if o.Network != 0 {
		return 1<<40 | uint64(o.Network)
	}
	a := o.outside()
	if !a.IsValid() {
		return 0
	}
	if a = a.Unmap(); a.Is4() {
		b := a.As4()
		return 2<<40 | uint64(b[0])<<8 | uint64(b[1])
	}
	b := a.As16()
	return 3<<40 | uint64(b[0])<<24 | uint64(b[1])<<16 | uint64(b[2])<<8 | uint64(b[3])
}
