// Package flows takes NetFlow v5 and v9 and IPFIX over UDP, and gives the sink one line for each flow: an event with ECS names, as
// event.AppendJSON writes it.
//
// Templates are kept for each exporter, version and observation domain, bounded in number and size; when there is no room the domain that sent
// nothing for longest makes it. They are written to Options.State now and then and at the end, because exporters repeat them only every few
// minutes: after a restart flows are understood from the first one. Data whose template is not known is counted by datagram set. Options data
// gives the sampling interval and the names of interfaces and applications where exporters send them.
//
// The decoder is our own and not that of goflow2: a template whose fields are all empty makes that one loop without end, and padding behind
// records of variable length makes it drop them all.
//
// UDP has no acknowledgement. What the kernel drops is counted, and gaps in the exporters' own sequence numbers are counted as lost_sequence.
// Numbers of bytes and packets are as the exporter gives them; where it samples, netflow.sampling_interval says one in how many.
package flows

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"tocsin/internal/collector/listen"
	"tocsin/internal/durable"
	"tocsin/internal/event"
)

// Options bound a listener.
type Options struct {
	listen.Options
	State string // file of templates; "" keeps them in memory only
}

// Server is a socket for flow exporters.
type Server struct {
	*listen.UDP
	state string
	log   *slog.Logger
	d     *decoder

	sink  listen.Sink
	e     event.Event
	lines []listen.Line
	ends  []int
	buf   []byte
	saved time.Time

	flows, bytes, malformed, unknown, noTemplate, options, lostSeq, refusedTemplates, evicted atomic.Uint64
}

// Listen opens a socket.
func Listen(addr string, o Options) (*Server, error) {
	o.Options = o.Defaults()
	o.Binary = true
	u, err := listen.ListenUDP(addr, o.Options)
	if err != nil {
		return nil, err
	}
	s := &Server{UDP: u, state: o.State, log: o.Logger, d: newDecoder(), saved: time.Now()}
	if err := s.load(); err != nil {
		s.log.Warn("the kept templates of flow exporters cannot be read; flows are understood again when the exporters repeat them", "error", err)
	}
	return s, nil
}

// Stats are the counters so far. Lines are flows; bytes those of the datagrams.
func (s *Server) Stats() listen.Stats {
	st := s.UDP.Stats()
	st.Bytes, st.Lines = s.bytes.Load(), s.flows.Load()
	st.By = map[string]uint64{"refused_malformed": s.malformed.Load(), "refused_version": s.unknown.Load(), "no_template": s.noTemplate.Load(), "options": s.options.Load(),
		"lost_sequence": s.lostSeq.Load(), "refused_templates": s.refusedTemplates.Load(), "evicted_domains": s.evicted.Load()}
	return st
}

// Serve takes datagrams until ctx ends.
func (s *Server) Serve(ctx context.Context, sink listen.Sink) error {
	s.sink = sink
	err := s.UDP.Serve(ctx, s)
	s.save()
	return err
}

// Receive decodes datagrams: it is the socket's sink, called from one goroutine.
func (s *Server) Receive(ctx context.Context, datagrams []listen.Line) error {
	var kept error
	for i := range datagrams {
		dg := &datagrams[i]
		s.bytes.Add(uint64(len(dg.Text)))
		err := s.d.datagram(dg.Sender, dg.Text, dg.Created, func(f *flow) {
			if len(s.buf) >= chunk && kept == nil {
				kept = s.flush(ctx)
			}
			if kept != nil {
				return
			}
			f.fill(&s.e, dg.Created)
			s.buf = s.e.AppendJSON(s.buf)
			s.ends = append(s.ends, len(s.buf))
			s.lines = append(s.lines, listen.Line{Created: dg.Created, Sender: dg.Sender, Via: listen.ViaUDP})
		})
		if kept != nil {
			return kept
		}
		switch {
		case errors.Is(err, errVersion):
			s.unknown.Add(1)
		case err != nil:
			s.malformed.Add(1)
		}
	}
	s.count()
	if now := time.Now(); s.d.changed && now.Sub(s.saved) > 10*time.Second {
		s.saved = now
		s.save()
	}
	return s.flush(ctx)
}

const chunk = 1 << 20 // bytes of lines that are gathered before they are handed on

// flush hands on what was gathered.
func (s *Server) flush(ctx context.Context) error {
	from := 0
	for i := range s.lines {
		s.lines[i].Text = s.buf[from:s.ends[i]]
		from = s.ends[i]
	}
	n := uint64(len(s.lines))
	if n > 0 {
		if err := s.sink.Receive(ctx, s.lines); err != nil {
			return err
		}
	}
	s.flows.Add(n)
	s.lines, s.ends, s.buf = s.lines[:0], s.ends[:0], s.buf[:0]
	return nil
}

func (s *Server) count() {
	c := &s.d.counts
	s.noTemplate.Add(c.noTemplate)
	s.options.Add(c.options)
	s.lostSeq.Add(c.lostSeq)
	s.refusedTemplates.Add(c.refused)
	s.evicted.Add(c.evicted)
	*c = counts{}
}

// kept is the file of templates.
type kept struct {
	Exporter netip.Addr `json:"exporter"`
	Version  uint16     `json:"version"`
	Domain   uint32     `json:"domain"`
	Template uint16     `json:"template"`
	Scope    int        `json:"scope,omitempty"`
	Options  bool       `json:"options,omitempty"`
	Fields   []field    `json:"fields"`
}

func (s *Server) save() {
	if s.state == "" || !s.d.changed {
		return
	}
	var all []kept
	for k, d := range s.d.domains {
		for id, t := range d.templates {
			all = append(all, kept{k.exporter, k.version, k.domain, id, t.scope, t.options, t.fields})
		}
	}
	b, err := json.Marshal(all)
	if err == nil {
		err = os.MkdirAll(filepath.Dir(s.state), 0o700)
	}
	if err == nil {
		err = durable.Replace(s.state, b, 0o600)
	}
	if err != nil {
		s.log.Warn("cannot keep the templates of flow exporters", "error", err)
		return
	}
	s.d.changed = false
}

func (s *Server) load() error {
	if s.state == "" {
		return nil
	}
	b, err := os.ReadFile(s.state)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	var all []kept
	if err := json.Unmarshal(b, &all); err != nil {
		return err
	}
	for _, k := range all {
		d := s.d.domain(key{k.Exporter, k.Version, k.Domain}, time.Now().UnixNano())
		s.d.add(d, k.Template, &template{fields: k.Fields, scope: k.Scope, options: k.Options})
	}
	s.d.changed = false
	s.d.counts = counts{}
	return nil
}
