package gate

import (
	"encoding/hex"
	"encoding/json"
	"net/http"
	"strconv"
	"time"

	"tocsin/internal/batch"
	"tocsin/internal/member"
)

// statement answers with the hub's signed word on what it holds of the collector that asks.
func (g *Gate) statement(w http.ResponseWriter, r *http.Request) {
	reg, id, p := g.who(r)
	if p != nil {
		g.refuse(w, r, id.Collector, p)
		return
	}
	now := g.o.Now().UTC() // before the heads are read: a batch that comes meanwhile may be in the statement, none from before is missing
	heads, err := g.o.Records.Heads(r.Context(), member.GateReader, reg.ID)
	if err != nil {
		g.refuse(w, r, reg.ID, g.refusedBy(err, "the stream heads could not be read"))
		return
	}
	events, err := g.o.Records.StreamEvents(r.Context(), reg.ID)
	if err != nil {
		g.refuse(w, r, reg.ID, g.refusedBy(err, "the sums of streams could not be read"))
		return
	}
	s := batch.Statement{Collector: reg.ID, Tenant: uint32(reg.Tenant), HubTime: now}
	for _, h := range heads {
		s.Streams = append(s.Streams, batch.StatementStream{Lane: batch.Lane(h.Lane), Epoch: h.Epoch, Batches: h.Seq, Events: events[h.Stream], Digest: hex.EncodeToString(h.Digest[:]),
			First: time.Unix(0, h.StartedNS).UTC(), Last: time.Unix(0, h.UpdatedNS).UTC()})
	}
	env, err := batch.SignStatement(s, g.o.Receipts)
	if err != nil {
		g.refuse(w, r, reg.ID, g.refusedBy(err, "the statement could not be signed"))
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.Write(env)
}

// directives answers with the signed directives for the collector that asks, as they were signed: the gate cannot make one.
func (g *Gate) directives(w http.ResponseWriter, r *http.Request) {
	reg, id, p := g.who(r)
	if p != nil {
		g.refuse(w, r, id.Collector, p)
		return
	}
	have, err := strconv.Unquote(r.Header.Get("If-None-Match"))
	if err != nil {
		have = "" // none, or one of another making: the whole answer
	}
	seen := batch.Tree{Origin: r.FormValue("origin")}
	seen.Size, _ = strconv.ParseUint(r.FormValue("size"), 10, 64) // what is no number is nothing seen
	out, tag, err := g.o.Directives(r.Context(), reg.ID, have, seen)
	if err != nil {
		g.refuse(w, r, reg.ID, g.refusedBy(err, "the directives could not be read"))
		return
	}
	w.Header().Set("ETag", strconv.Quote(tag))
	w.Header().Set("Cache-Control", "private, no-cache")
	if have != "" && have == tag {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	if out.Directives == nil {
		out.Directives, out.Proofs = []json.RawMessage{}, []batch.Inclusion{}
	}
	answer(w, out)
}
