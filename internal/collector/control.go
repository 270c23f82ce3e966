package collector

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"syscall"
	"time"
)

// What the member may tell a running collector, over the folder's unix socket, which only the collector's own user can open. Everything runs
// in the loop, so that nothing changes in the middle of a line.

// control adds the calls to the socket's interface.
func (a *Agent) control(mux *http.ServeMux) {
	answer := func(w http.ResponseWriter, v any, err error) {
		w.Header().Set("Content-Type", "application/json")
		if err != nil {
			status := http.StatusConflict
			if errors.Is(err, ErrNoQuestion) {
				status = http.StatusNotFound
			}
			w.WriteHeader(status)
			v = map[string]string{"error": err.Error()}
		}
		_ = json.NewEncoder(w).Encode(v)
	}
	mux.HandleFunc("GET /questions", func(w http.ResponseWriter, r *http.Request) {
		var list []QuestionStatus
		err := a.inLoop(r.Context(), func() error { list = a.questionList(); return nil })
		answer(w, list, err)
	})
	mux.HandleFunc("POST /questions/{id}/{decision}", func(w http.ResponseWriter, r *http.Request) {
		allow := r.PathValue("decision") == "allow"
		if !allow && r.PathValue("decision") != "deny" {
			http.NotFound(w, r)
			return
		}
		answer(w, map[string]bool{"allowed": allow}, a.inLoop(r.Context(), func() error { return a.decideQuestion(r.PathValue("id"), allow, "the member, on this machine") }))
	})
	mux.HandleFunc("GET /senders", func(w http.ResponseWriter, r *http.Request) {
		var list []sender
		err := a.inLoop(r.Context(), func() error { list = a.pipe.senders.list(); return nil })
		out := []SenderStatus{}
		for _, d := range list {
			out = append(out, d.status())
		}
		answer(w, out, err)
	})
	mux.HandleFunc("POST /senders/{address}/accept", func(w http.ResponseWriter, r *http.Request) {
		addr, err := netip.ParseAddr(r.PathValue("address"))
		var products []string
		if err == nil {
			err = a.inLoop(r.Context(), func() error {
				var ok bool
				if products, ok = a.pipe.senders.accept(addr); !ok {
					return fmt.Errorf("no sender has the address %s; tocsin-collector senders lists them", addr)
				}
				a.log.Info("the member accepts what a sender sends now", "sender", addr, "products", products)
				return a.saveDetector()
			})
		}
		answer(w, map[string][]string{"accepted": products}, err)
	})
	mux.HandleFunc("POST /troubleshooting", func(w http.ResponseWriter, r *http.Request) {
		var t struct {
			Seconds int        `json:"seconds"`
			Sender  netip.Addr `json:"sender,omitzero"`
		}
		err := json.NewDecoder(io.LimitReader(r.Body, 4096)).Decode(&t)
		if err == nil {
			err = a.inLoop(r.Context(), func() error { return a.troubleshoot(time.Duration(t.Seconds)*time.Second, t.Sender) })
		}
		answer(w, map[string]int{"seconds": t.Seconds}, err)
	})
	mux.HandleFunc("GET /page", func(w http.ResponseWriter, r *http.Request) {
		url := a.pageURL()
		if url == "" {
			answer(w, nil, errors.New("this collector shows no page (page.listen is off, or its port is in use: see the log)"))
			return
		}
		answer(w, map[string]string{"url": url}, nil)
	})
}

// status is what is shown of a sender.
func (d *sender) status() SenderStatus {
	addr := "this machine" // whose files are read
	switch {
	case d.Addr.IsValid():
		addr = d.Addr.String()
	case d.First == 0: // the entry that all share beyond the table's bound
		addr = "others"
	}
	return SenderStatus{Address: addr, Lines: d.Lines, NotUnderstood: d.NotUnderstood, Changed: d.Changed, Products: d.Products, Refused: d.Refused, Last: time.Unix(0, d.Last).UTC()}
}

// callSocket asks the running collector.
func callSocket(ctx context.Context, c *Config, method, path string, body, out any) error {
	client := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		short, done, err := socketPath(c.StatusSocket())
		if err != nil {
			return nil, err
		}
		defer done()
		return new(net.Dialer).DialContext(ctx, "unix", short)
	}}}
	var b []byte
	if body != nil {
		var err error
		if b, err = json.Marshal(body); err != nil {
			return err
		}
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://localhost"+path, bytes.NewReader(b))
	if err != nil {
		return err
	}
	res, err := client.Do(req)
	if err != nil {
		if errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED) {
			return fmt.Errorf("%w (%s): start it with tocsin-collector run", ErrNotRunning, c.Dir)
		}
		return fmt.Errorf("ask the running collector: %w", err)
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		var p struct {
			Error string `json:"error"`
		}
		if json.NewDecoder(io.LimitReader(res.Body, 64<<10)).Decode(&p) == nil && p.Error != "" {
			return errors.New(p.Error)
		}
		return fmt.Errorf("the running collector answered %s", res.Status)
	}
	if err := json.NewDecoder(res.Body).Decode(out); err != nil {
		return fmt.Errorf("ask the running collector: %w", err)
	}
	return nil
}

// FetchQuestions lists the questions about the past that the running collector has been asked, the newest first.
func FetchQuestions(ctx context.Context, c *Config) (out []QuestionStatus, err error) {
	return out, callSocket(ctx, c, http.MethodGet, "/questions", nil, &out)
}

// DecideQuestion allows or denies one.
func DecideQuestion(ctx context.Context, c *Config, id string, allow bool) error {
	if !questionID.MatchString(id) {
		return ErrNoQuestion
	}
	var out map[string]bool
	return callSocket(ctx, c, http.MethodPost, "/questions/"+id+"/"+map[bool]string{true: "allow", false: "deny"}[allow], nil, &out)
}

// FetchSenders lists every device that sends.
func FetchSenders(ctx context.Context, c *Config) (out []SenderStatus, err error) {
	return out, callSocket(ctx, c, http.MethodGet, "/senders", nil, &out)
}

// AcceptSender lets a device send the products that it was not known for, and gives their names.
func AcceptSender(ctx context.Context, c *Config, addr netip.Addr) ([]string, error) {
	var out map[string][]string
	err := callSocket(ctx, c, http.MethodPost, "/senders/"+addr.String()+"/accept", nil, &out)
	return out["accepted"], err
}

// Troubleshoot lets raw lines leave for a time, of one sender or all; 0 ends it.
func Troubleshoot(ctx context.Context, c *Config, d time.Duration, sender netip.Addr) error {
	var out map[string]int
	return callSocket(ctx, c, http.MethodPost, "/troubleshooting", map[string]any{"seconds": int(d.Seconds()), "sender": sender}, &out)
}

// FetchPage gives the address of the local page, with the secret that signs in.
func FetchPage(ctx context.Context, c *Config) (string, error) {
	var out map[string]string
	err := callSocket(ctx, c, http.MethodGet, "/page", nil, &out)
	return out["url"], err
}
