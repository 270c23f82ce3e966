package load

import (
	"fmt"
	"net/netip"
	"time"

	"tocsin/internal/collector/minimise"
	"tocsin/internal/collector/parse"
	"tocsin/internal/event"
)

// encoder turns a line into the event that a collector with the default policy would send, by the same packages. It belongs to one goroutine.
type encoder struct {
	parse    *parse.Set
	minimise *minimise.Minimiser
	in, out  event.Event
	clock    time.Time
}

func newEncoder() (*encoder, error) {
	policy, err := minimise.Load("metadata")
	if err != nil {
		return nil, err
	}
	e := &encoder{}
	e.parse = parse.New(parse.Options{Location: time.UTC, Now: func() time.Time { return e.clock }})
	e.minimise, err = minimise.New(minimise.Options{Policy: policy, Own: []netip.Prefix{netip.MustParsePrefix("240.0.0.0/8")}})
	return e, err
}

// sender is how every member of the load knows its firewall.
var sender = minimise.Sender{Addr: netip.AddrFrom4([4]byte{127, 0, 0, 1}), Assurance: "tcp"}

// encode appends the event as JSON. reason is the policy's word under which a collector would count the line.
func (e *encoder) encode(dst, line []byte, at time.Time) (out []byte, reason string, urgent bool, err error) {
	e.clock = at
	e.in.Reset()
	e.in.Created = at.UnixNano()
	e.in.SetRaw(line)
	if _, ok := e.parse.Parse(&e.in, ""); !ok {
		return dst, "", false, fmt.Errorf("a generated line is not understood: %s", line)
	}
	e.minimise.Prepare(&e.in, sender)
	d := e.minimise.Decide(&e.in)
	if !d.Leave {
		return dst, "", false, fmt.Errorf("a generated line would stay at home: %s", line)
	}
	reason, _ = e.minimise.Reason(d.Clause)
	e.minimise.Mark(&e.in, d)
	e.minimise.Reduce(&e.out, &e.in)
	return e.out.AppendJSON(dst), reason, d.Urgent, nil
}
