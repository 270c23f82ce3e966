package app

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/pprof"
	"os"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"

	"tocsin/internal/access"
	"tocsin/internal/event"
	"tocsin/internal/intel"
	"tocsin/internal/member"
	"tocsin/internal/people"
	"tocsin/internal/report"
	"tocsin/internal/worker"
)

// serveAdmin answers the operator of this machine on a unix socket that only the hub's own user can open. It is how the demo, the load
// generator and monitoring speak with a running hub.
func (h *hub) serveAdmin(ctx context.Context) error {
	path := AdminSocket(h.cfg.DataDir)
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return err
	}
	if err := os.Chmod(path, 0o600); err != nil {
		return errors.Join(err, l.Close())
	}
	return h.serveHTTP(ctx, l, h.adminHandler(), "", "")
}

func (h *hub) adminHandler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(h.metrics, promhttp.HandlerOpts{}))
	mux.HandleFunc("GET /healthz", h.healthz)
	mux.HandleFunc("GET /debug/pprof/", pprof.Index)
	mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	answer(mux, "GET /status", func(r *http.Request) (any, error) { return h.status(r.Context()) })
	answer(mux, "GET /admin/members", func(r *http.Request) (any, error) {
		list, err := h.office.Members.Organisations(r.Context(), h.office.scope())
		out := make([]organisationJSON, len(list))
		for i, o := range list {
			out[i] = organisationJSON{o.ID, o.Name}
		}
		return out, err
	})
	answer(mux, "POST /admin/members", func(r *http.Request) (any, error) {
		var in struct{ Name, Sector, Region, ContactName, ContactEmail string }
		if err := decode(r, &in); err != nil {
			return nil, err
		}
		o, err := h.office.AddMember(r.Context(), member.Organisation{Name: in.Name, Sector: in.Sector, Area: in.Region, ContactName: in.ContactName, ContactEmail: in.ContactEmail})
		return organisationJSON{o.ID, o.Name}, err
	})
	answer(mux, "POST /admin/tokens", func(r *http.Request) (any, error) {
		var in struct {
			Tenant event.TenantID
			Site   string
		}
		if err := decode(r, &in); err != nil {
			return nil, err
		}
		org, err := h.office.Members.Organisation(r.Context(), h.office.scope(), in.Tenant)
		if err != nil {
			return nil, err
		}
		token, until, err := h.office.Token(r.Context(), org, in.Site)
		if err != nil {
			return nil, err
		}
		return map[string]any{"token": token.String(), "expires": until}, nil
	})
	answer(mux, "POST /admin/users", func(r *http.Request) (any, error) {
		var in struct {
			Email, Name, Role string
			Tenant            event.TenantID
		}
		if err := decode(r, &in); err != nil {
			return nil, err
		}
		role, err := access.ParseRole(in.Role)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", people.ErrInvalid, err)
		}
		return h.office.People.Create(r.Context(), Operator, people.Invitation{Email: in.Email, Name: in.Name, Role: role, Tenant: in.Tenant})
	})
	answer(mux, "GET /admin/collectors", func(r *http.Request) (any, error) {
		list, err := h.office.Members.Collectors(r.Context(), h.office.scope())
		type row struct {
			ID         string         `json:"id"`
			Tenant     event.TenantID `json:"tenant"`
			Name       string         `json:"name"`
			State      string         `json:"state"`
			CheckWords string         `json:"check_words"`
		}
		out := make([]row, len(list))
		for i, c := range list {
			out[i] = row{c.ID, c.Tenant, c.Name, c.State, c.Words}
		}
		return out, err
	})
	answer(mux, "POST /admin/collectors/{id}/confirm", func(r *http.Request) (any, error) {
		var in struct{ Words string }
		if err := decode(r, &in); err != nil {
			return nil, err
		}
		return struct{}{}, h.office.Members.ConfirmWords(r.Context(), h.office.scope(), Operator.UserID, r.PathValue("id"), in.Words)
	})
	answer(mux, "POST /admin/indicators", func(r *http.Request) (any, error) {
		q := r.URL.Query()
		source := q.Get("source")
		if source == "" {
			source = "a list imported on the hub"
		}
		tlp := q.Get("tlp")
		if tlp == "" {
			tlp = "green"
		}
		res, err := h.office.Import(r.Context(), r.Body, intel.ImportOptions{Source: source, TLP: tlp, Push: q.Get("push") != "no"})
		if err != nil {
			return nil, err
		}
		// What was imported is in force when the call returns; other changes are noticed within a second.
		if err := h.office.Intel.Publish(r.Context()); err != nil {
			return nil, err
		}
		return map[string]any{"added": res.Added, "updated": res.Updated, "refused": res.Refused}, nil
	})
	mux.HandleFunc("GET /admin/report", h.serveReport)
	answer(mux, "POST /admin/dead-letters/retry", h.serveRetry)
	answer(mux, "POST /admin/rules/reload", h.serveReload)
	answer(mux, "GET /admin/rules/health", h.serveDetectionHealth)
	answer(mux, "GET /admin/rules/coverage", h.serveCoverage)
	answer(mux, "GET /admin/rules/daily", func(r *http.Request) (any, error) { return h.dailyTests(r.Context()) })
	answer(mux, "POST /admin/rules/daily", h.sendDaily)
	return mux
}

type organisationJSON struct {
	Tenant event.TenantID `json:"tenant"`
	Name   string         `json:"name"`
}

// answer makes a handler of a function: its value as JSON, its error as problem+json.
func answer(mux *http.ServeMux, pattern string, f func(r *http.Request) (any, error)) {
	mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
		v, err := f(r)
		if err != nil {
			tell(w, err)
			return
		}
		b, err := json.Marshal(v)
		if err != nil {
			tell(w, err)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		w.Write(append(b, '\n')) // whoever asked may have gone
	})
}

func decode(r *http.Request, into any) error {
	dec := json.NewDecoder(io.LimitReader(r.Body, 1<<20))
	dec.DisallowUnknownFields()
	if err := dec.Decode(into); err != nil {
		return fmt.Errorf("%w: the request is not the JSON that was expected: %w", member.ErrInvalid, err)
	}
	return nil
}

// tell answers with an error. Everything here is for the machine's own administrator, so the whole text may be told.
func tell(w http.ResponseWriter, err error) {
	status, code, next := http.StatusInternalServerError, "internal", "Look at the hub's log."
	is := func(targets ...error) bool {
		for _, t := range targets {
			if errors.Is(err, t) {
				return true
			}
		}
		return false
	}
	switch {
	case is(worker.ErrNoLetter):
		status, code, next = http.StatusNotFound, "not_found", "See `tocsin admin dead-letters list`."
	case is(member.ErrNotFound, people.ErrNotFound, intel.ErrNotFound):
		status, code, next = http.StatusNotFound, "not_found", "Check the number or name."
	case is(member.ErrExists, people.ErrExists):
		status, code, next = http.StatusConflict, "exists", "Choose another name, or use what is there."
	case is(member.ErrInvalid, people.ErrInvalid, intel.ErrInvalid, member.ErrWords, member.ErrWordTries, report.ErrWeek, report.ErrFuture):
		status, code, next = http.StatusUnprocessableEntity, "invalid", "Correct it and send it again."
	}
	b, merr := json.Marshal(map[string]string{"code": code, "title": err.Error(), "next": next})
	if merr != nil {
		b = []byte(`{"code":"internal","title":"unreadable error"}`)
	}
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(status)
	w.Write(b) // whoever asked may have gone
}

// healthz says whether the hub can do its work now.
func (h *hub) healthz(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), 5*time.Second)
	defer cancel()
	for _, c := range h.vital(ctx) {
		if !c.OK {
			http.Error(w, c.Name+": "+c.Text, http.StatusServiceUnavailable)
			return
		}
	}
	text := "ok\n"
	if err := h.rules.trouble(); err != nil { // the hub does its work: this is for whoever looks
		text += "rules: " + err.Error() + "\n"
	}
	io.WriteString(w, text) // whoever asked may have gone
}
