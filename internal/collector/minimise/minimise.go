package minimise

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"tocsin/internal/event"
	"tocsin/internal/indicator"
)

// Options are a policy and what the member adds to it.
type Options struct {
	Policy    *Policy
	Own       []netip.Prefix // the member's public ranges; private ranges count as own without being named
	AlsoLeave []string       // fields that the member lets go beyond the policy
	AlsoKeep  []string       // fields that the member keeps beyond the policy; stronger than AlsoLeave
	// Pseudonyms asked for: of own addresses, of users (who then leave although the policy keeps them, but only as pseudonyms).
	PseudonymAddresses, PseudonymUsers bool
	PseudonymKey                       [32]byte
	OldestDeviceTime                   time.Duration // a device time further back is not believed; default 30 days
}

// Minimiser applies a policy. It belongs to one goroutine, but for SetIndicators.
type Minimiser struct {
	o          Options
	clauses    []clause
	questions  []question
	answers    []answer    // of the event at hand, by question
	treat      []treatment // by event.Key; for keys beyond it see late.go
	extras     []string    // patterns of extras that may leave
	own        []netip.Prefix
	digest     string
	indicators atomic.Pointer[indicator.Set]
	denied     firstSeen
	late       atomic.Pointer[[]treatment] // of keys beyond treat, see late.go
}

type treatment uint8

const (
	stays treatment = iota
	leaves
	address
	user
)

func prefixes(s ...string) (ps []netip.Prefix) {
	for _, p := range s {
		ps = append(ps, netip.MustParsePrefix(p))
	}
	return ps
}

// userFields name people. With pseudonyms of users they leave as such.
var userFields = []string{"user.name", "source.user.name", "destination.user.name", "user.target.name", "client.user.name"}

// New makes a minimiser. It refuses what cannot be meant: own ranges that would make half the internet inside.
func New(o Options) (*Minimiser, error) {
	if o.Policy == nil {
		return nil, fmt.Errorf("no policy")
	}
	if o.OldestDeviceTime <= 0 {
		o.OldestDeviceTime = 30 * 24 * time.Hour
	}
	m := &Minimiser{o: o}
	for _, p := range o.Own {
		p = p.Masked()
		if !p.IsValid() || p.Addr().Is4() && p.Bits() < 8 || p.Addr().Is6() && p.Bits() < 16 {
			return nil, fmt.Errorf("own range %v is too wide to be one member's", p)
		}
		m.own = append(m.own, p)
	}
	for _, name := range slices.Concat(o.AlsoLeave, o.AlsoKeep) {
		if err := checkName(name); err != nil {
			return nil, err
		}
	}
	if err := m.compile(); err != nil {
		return nil, err
	}
	m.treat = make([]treatment, event.NumKeys())
	for k := 1; k < len(m.treat); k++ {
		m.treat[k] = m.treatmentOf(event.Key(k).Name())
	}
	// Fields that the schema does not know have names that a sender chose: "threat.*" means the schema's, not whatever a device's JSON calls
	// so. They leave by their whole names, under "*", or when the member lets them go.
	for _, name := range o.Policy.Fields.Leave {
		if name == "*" || !strings.HasSuffix(name, "*") {
			m.extras = append(m.extras, name)
		}
	}
	m.extras = append(m.extras, o.AlsoLeave...)
	var pseudonyms []string
	if o.PseudonymAddresses {
		pseudonyms = append(pseudonyms, "addresses")
	}
	if o.PseudonymUsers {
		pseudonyms = append(pseudonyms, "users")
	}
	m.digest = effective{o.Policy, o.AlsoLeave, o.AlsoKeep, pseudonyms}.digest()
	return m, nil
}

func (m *Minimiser) treatmentOf(name string) treatment {
	p := m.o.Policy
	switch {
	case covers(m.o.AlsoKeep, name):
		return stays
	case m.o.PseudonymUsers && slices.Contains(userFields, name):
		return user
	case covers(p.Fields.Address, name):
		return address
	case covers(p.Fields.Leave, name), covers(m.o.AlsoLeave, name):
		if k, ok := event.Lookup(name); ok && k.Kind() == event.IP {
			return address // an address is one even when "*" lets it go
		}
		return leaves
	}
	return stays
}

// Digest names the policy as applied here, member's changes included: hexadecimal SHA-256 of its canonical JSON.
func (m *Minimiser) Digest() string { return m.digest }

// Policy is the policy applied.
func (m *Minimiser) Policy() *Policy { return m.o.Policy }

// SetIndicators replaces the scheme's indicator set; nil removes it. Safe to call at any time.
func (m *Minimiser) SetIndicators(s *indicator.Set) { m.indicators.Store(s) }

// Sender is what the collector knows of whoever sent a line.
type Sender struct {
	Addr      netip.Addr
	Assurance string // udp, tcp, tls, mutual, local
	Changed   bool   // the sender has begun to send the lines of another product
}

// Prepare adds what the collector knows to a parsed event. clock says that the device's time was not believed and was replaced.
func (m *Minimiser) Prepare(e *event.Event, s Sender) (clock bool) {
	clean(e)
	if ahead := e.Time - e.Created; ahead > int64(5*time.Minute) || -ahead > int64(m.o.OldestDeviceTime) {
		e.SetTime(event.TocsinDeviceTime, e.Time)
		e.Time = e.Created
		clock = true
	}
	e.SetString(event.TocsinSenderAssurance, s.Assurance)
	if s.Addr.IsValid() {
		e.SetIP(event.TocsinSenderIP, s.Addr)
	}
	if s.Changed {
		e.SetBool(event.TocsinSenderProductChanged, true)
	}
	m.direction(e)
	if set := m.indicators.Load(); set != nil {
		m.match(e, set)
	}
	e.SetString(event.TocsinSourceProof, proof(e))
	return clock
}

// ours are the fields that only the collector, the engine and the hub may set: a sender who writes them into a line must not be believed.
var ours, oursSet = func() (keys []event.Key, set event.KeySet) {
	for k := event.Key(1); int(k) < event.NumKeys(); k++ {
		switch k {
		case event.TocsinFormat, event.TocsinService, event.TocsinSeverity, event.TocsinVerdict: // the parser's
		case event.EventSequence: // the number of the line in the archive stands there
			keys = append(keys, k)
		default:
			if strings.HasPrefix(k.Name(), "tocsin.") {
				keys = append(keys, k)
			}
		}
	}
	for _, k := range keys {
		if !set.Add(k) {
			panic("the schema has more keys than an event has bits")
		}
	}
	return keys, set
}()

// clean removes what a line must not say of itself.
func clean(e *event.Event) {
	if e.HasAny(&oursSet) {
		for _, k := range ours {
			e.Del(k)
		}
	}
	if e.Str(event.EventModule) == "tocsin" {
		e.Del(event.EventModule)
	}
	if strings.HasPrefix(e.Str(event.EventDataset), "tocsin.") {
		e.Del(event.EventDataset)
	}
}

// IsOwn says whether an address is one of the member's: private, or in the ranges the member named.
func (m *Minimiser) IsOwn(a netip.Addr) bool {
	a = a.Unmap()
	// RFC 1918, 3927, 4193, 4291, 6598, and the many that a packet inside may be sent to. Without a loop: this is asked twice for every line.
	if a.Is4() {
		switch b := a.As4(); b[0] {
		case 10, 127:
			return true
		case 192:
			if b[1] == 168 {
				return true
			}
		case 172:
			if b[1]&0xf0 == 16 {
				return true
			}
		case 100:
			if b[1]&0xc0 == 64 {
				return true
			}
		case 169:
			if b[1] == 254 {
				return true
			}
		case 0, 255:
			if b == [4]byte{} || b == [4]byte{255, 255, 255, 255} {
				return true
			}
		default:
			if b[0]&0xf0 == 224 {
				return true
			}
		}
	} else if b := a.As16(); b[0]&0xfe == 0xfc || b[0] == 0xff || b[0] == 0xfe && b[1]&0xc0 == 0x80 || a.IsLoopback() || a.IsUnspecified() {
		return true
	}
	for _, p := range m.own {
		if p.Contains(a) {
			return true
		}
	}
	return false
}

// direction sets network.direction from the member's ranges where they decide it; otherwise the device's own word stands, if it gave one.
func (m *Minimiser) direction(e *event.Event) {
	src, haveSrc := e.IP(event.SourceIP)
	dst, haveDst := e.IP(event.DestinationIP)
	if !haveSrc && !haveDst {
		return
	}
	srcOwn, dstOwn := haveSrc && m.IsOwn(src), haveDst && m.IsOwn(dst)
	var d string
	switch {
	case haveSrc && haveDst && srcOwn && dstOwn:
		d = "internal"
	case haveSrc && haveDst && srcOwn:
		d = "outbound"
	case haveSrc && !srcOwn && dstOwn:
		d = "inbound"
	case e.Has(event.NetworkDirection):
		return
	case haveSrc && !srcOwn && !haveDst:
		d = "inbound" // a stranger at the device itself
	case haveSrc && !srcOwn:
		d = "external"
	default:
		return
	}
	e.SetString(event.NetworkDirection, d)
}

// match looks the event's foreign addresses, names and digests up in the indicator set. The first hit counts; the destination comes first,
// because an own host that talks to a listed address is graver than a listed address that knocks.
func (m *Minimiser) match(e *event.Event, set *indicator.Set) {
	for _, k := range [...]event.Key{event.DestinationIP, event.SourceIP} {
		if a, ok := e.IP(k); ok && !m.IsOwn(a) {
			if h, ok := set.MatchIP(a); ok {
				hit(e, h, e.CopyString(a.String()))
				return
			}
		}
	}
	if u := e.Str(event.URLFull); u != "" {
		if h, ok := set.MatchURL(u); ok {
			// What matched may hold a query: the address of the page stays home, its host does not.
			host := e.Str(event.URLDomain)
			hit(e, h, host)
			return
		}
	}
	for _, k := range [...]event.Key{event.URLDomain, event.DNSQuestionName, event.TLSClientServerName, event.DestinationDomain} {
		if name := e.Str(k); name != "" {
			if h, ok := set.MatchDomain(name); ok {
				hit(e, h, name)
				return
			}
		}
	}
	for _, k := range [...]event.Key{event.FileHashSHA256, event.FileHashSHA1, event.FileHashMD5} {
		if d := e.Str(k); d != "" {
			if h, ok := set.MatchHash(d); ok {
				hit(e, h, d)
				return
			}
		}
	}
}

func hit(e *event.Event, h indicator.Hit, matched string) {
	var id [16]byte
	const digits = "0123456789abcdef"
	for i := range id {
		id[i] = digits[h.ID>>(60-4*i)&15]
	}
	e.SetString(event.TocsinIndicatorID, e.Copy(id[:]))
	e.SetString(event.TocsinIndicatorKind, h.Kind.String())
	if matched != "" {
		e.SetString(event.TocsinIndicatorMatched, matched)
	}
}

// proof says how the source address is proved: whoever only sends a SYN, a datagram or a ping may put any address into it.
func proof(e *event.Event) string {
	var authentication, web, intrusion bool
	for i := e.Find(event.EventCategory); i >= 0 && i < e.Len(); i++ {
		k, v := e.At(i)
		if k != event.EventCategory {
			break
		}
		switch v.Str() {
		case "authentication":
			authentication = true
		case "web":
			web = true
		case "intrusion_detection":
			intrusion = true
		}
	}
	transport, verdict := e.Str(event.NetworkTransport), e.Str(event.TocsinVerdict)
	switch {
	case authentication:
		if e.Str(event.EventOutcome) == "success" {
			return "authenticated"
		}
		if transport == "udp" || verdict == "deny" && !e.Has(event.EventOutcome) {
			return "none"
		}
		return "session"
	case verdict == "deny" && !web && !intrusion:
		return "none"
	case transport == "udp" || transport == "icmp" || transport == "ipv6-icmp":
		return "none"
	case web || e.Has(event.HTTPRequestMethod) || e.Has(event.HTTPResponseStatusCode):
		return "session"
	case transport != "tcp":
		return "none"
	case intrusion:
		return "session"
	case verdict == "allow":
		return "handshake"
	}
	return "none"
}

// Mark writes the decision into the event, so that it leaves with its reason.
func (m *Minimiser) Mark(e *event.Event, d Decision) {
	e.SetString(event.TocsinLeftReason, m.o.Policy.Events[d.Clause].Reason())
	if d.First {
		e.SetBool(event.TocsinFirstDenial, true)
	}
	if d.Urgent {
		e.SetBool(event.TocsinUrgent, true)
	}
}

// Reduce makes dst what of e may leave. dst shares e's strings: it is good as long as e is.
func (m *Minimiser) Reduce(dst, e *event.Event) {
	dst.Reset()
	dst.ID, dst.Time, dst.Created = e.ID, e.Time, e.Created
	dst.RawDigest, dst.HasRawDigest = e.RawDigest, e.HasRawDigest
	for i := range e.Len() {
		k, v := e.At(i)
		switch m.Treatment(k) {
		case leaves:
			if int(k) < len(deviceWords) && deviceWords[k] {
				var ok bool
				if v, ok = m.tidy(e, k, v); !ok {
					continue
				}
			}
			dst.Add(k, v)
		case address:
			if m.o.PseudonymAddresses && v.Kind() == event.IP && m.IsOwn(v.IP()) {
				v = event.IPValue(m.PseudonymIP(v.IP()))
			}
			dst.Add(k, v)
		case user:
			dst.Add(k, event.StringValue(m.PseudonymUser(v.Str())))
		}
	}
	if len(e.Extras()) > 0 && len(m.extras) > 0 {
		for _, x := range e.Extras() {
			if covers(m.extras, x.Name) && !covers(m.o.AlsoKeep, x.Name) {
				dst.SetNamed(x.Name, x.Value)
			}
		}
	}
	if m.o.Policy.Raw && e.Raw() != "" && !covers(m.o.AlsoKeep, "event.original") {
		dst.SetRaw([]byte(e.Raw()))
		dst.IncludeRaw(true)
	}
}

// Treatment of a key.
func (m *Minimiser) Treatment(k event.Key) treatment {
	if int(k) < len(m.treat) {
		return m.treat[k]
	}
	return m.lateTreatment(k)
}

// MayLeave says whether values of the field leave, as they are or as pseudonyms.
func (m *Minimiser) MayLeave(k event.Key) (leave, pseudonym bool) {
	switch m.Treatment(k) {
	case leaves:
		return true, false
	case address:
		return true, m.o.PseudonymAddresses
	case user:
		return true, true
	}
	return false, false
}

// Detection writes a detection of the on-site engine into dst as the event that leaves, under the same list of fields as every event: a
// user whom the policy keeps at home leaves neither as a field nor as the entity nor in a sentence.
func (m *Minimiser) Detection(dst *event.Event, d *event.Detection) {
	dd := *d
	dd.Steps = slices.Clone(d.Steps)
	hide := func(value, instead string) {
		if value == "" || value == instead {
			return
		}
		dd.Reason = replaceWord(dd.Reason, value, instead)
		for i := range dd.Steps {
			dd.Steps[i].Text = replaceWord(dd.Steps[i].Text, value, instead)
		}
	}
	userAs := dd.User
	if dd.Entity.Kind == "user" && dd.User == "" {
		dd.User = dd.Entity.Value
		userAs = dd.User
	}
	rekey := false
	if dd.User != "" {
		switch m.Treatment(event.UserName) {
		case stays:
			userAs = ""
			hide(dd.User, "an account")
		case user:
			userAs = m.PseudonymUser(dd.User)
			hide(dd.User, userAs)
		}
		if dd.Entity.Kind == "user" && userAs != dd.User {
			rekey = true
			switch {
			case userAs != "":
				dd.Entity.Value = userAs
			case dd.Source != "":
				dd.Entity = event.Entity{Kind: "source", Value: dd.Source}
			case dd.Host != "":
				dd.Entity = event.Entity{Kind: "host", Value: dd.Host}
			default:
				dd.Entity = event.Entity{Kind: "rule", Value: dd.RuleID}
			}
		}
		dd.User = userAs
	}
	if m.o.PseudonymAddresses {
		for _, p := range []*string{&dd.Source, &dd.Host} {
			a, err := netip.ParseAddr(*p)
			if err != nil || !m.IsOwn(a) {
				continue
			}
			as := m.PseudonymIP(a).String()
			hide(*p, as)
			if dd.Entity.Value == *p {
				dd.Entity.Value = as
				rekey = true
			}
			*p = as
		}
	}
	if rekey {
		// The key names the entity; hashed under the member's key it still is the same for the same detection, and says no more than that.
		sum := m.mac("detection", []byte(d.Key))
		dd.Key = hex.EncodeToString(sum[:16])
	}
	dst.Reset()
	dst.Time = dd.Last
	event.FromDetection(dst, &dd)
	// Source, user and host are settled above; what the policy keeps of the rest goes here.
	for _, k := range [...]event.Key{event.SourceIP, event.UserName, event.HostIP} {
		if leave, _ := m.MayLeave(k); !leave {
			dst.Del(k)
		}
	}
	dst.SetString(event.TocsinLeftReason, "site_detection")
	dst.SetBool(event.TocsinUrgent, true)
}

// replaceWord replaces word in s where it stands alone, whatever its case.
func replaceWord(s, word, with string) string {
	if len(word) == 0 {
		return s
	}
	lower, w := strings.ToLower(s), strings.ToLower(word)
	if len(lower) != len(s) || len(w) != len(word) { // letters whose cases differ in length: compare as they are
		lower, w = s, word
	}
	var b bytes.Buffer
	from := 0
	for at := 0; ; {
		i := strings.Index(lower[at:], w)
		if i < 0 {
			b.WriteString(s[from:])
			return b.String()
		}
		i += at
		end := i + len(w)
		if i > 0 && wordByte(s[i-1]) && wordByte(s[i]) || end < len(s) && wordByte(s[end]) && wordByte(s[end-1]) {
			at = i + 1
			continue
		}
		b.WriteString(s[from:i])
		b.WriteString(with)
		from, at = end, end
	}
}

func wordByte(c byte) bool {
	return c == '_' || c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= 0x80
}
