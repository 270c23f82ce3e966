package demo

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"time"

	"tocsin/internal/app/status"
)

// centre is the hub's admin socket: what `tocsin admin` and this supervisor speak to. The file's owner alone may open it.
type centre struct {
	http http.Client
}

// unixClient speaks HTTP over a unix socket.
func unixClient(path string) http.Client {
	return http.Client{
		Timeout: 30 * time.Second,
		Transport: &http.Transport{
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				var d net.Dialer
				return d.DialContext(ctx, "unix", path)
			},
			MaxIdleConns: 4, IdleConnTimeout: 30 * time.Second,
		},
	}
}

func newCentre(socket string) *centre { return &centre{http: unixClient(socket)} }

// problem is the hub's answer when it refuses (RFC 9457).
type problem struct {
	Status int    `json:"-"`
	Code   string `json:"code"`
	Title  string `json:"title"`
	Detail string `json:"detail"`
	Next   string `json:"next"`
}

func (p *problem) Error() string {
	text := p.Title
	if p.Detail != "" {
		text += ": " + p.Detail
	}
	if p.Next != "" {
		text += " " + p.Next
	}
	return text
}

const maxAnswer = 32 << 20

// call sends in (nil, a string as plain text, or JSON) and decodes the answer into out when that is not nil.
func call(ctx context.Context, client *http.Client, method, path string, in, out any) error {
	var body io.Reader
	kind := ""
	switch v := in.(type) {
	case nil:
	case string:
		body, kind = bytes.NewBufferString(v), "text/plain; charset=utf-8"
	default:
		b, err := json.Marshal(v)
		if err != nil {
			return err
		}
		body, kind = bytes.NewReader(b), "application/json"
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://hub"+path, body)
	if err != nil {
		return err
	}
	if kind != "" {
		req.Header.Set("Content-Type", kind)
	}
	resp, err := client.Do(req)
	if err != nil {
		var u *url.Error
		if errors.As(err, &u) {
			err = u.Err
		}
		return fmt.Errorf("%s %s: %w", method, path, err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return fmt.Errorf("%s %s: %w", method, path, err)
	}
	if resp.StatusCode/100 != 2 {
		p := &problem{Status: resp.StatusCode}
		if json.Unmarshal(b, p) != nil || p.Title == "" {
			p.Title = resp.Status
		}
		return fmt.Errorf("%s %s: %w", method, path, p)
	}
	if out == nil {
		return nil
	}
	if err := json.Unmarshal(b, out); err != nil {
		return fmt.Errorf("%s %s: the answer is not understood: %w", method, path, err)
	}
	return nil
}

func (c *centre) ready(ctx context.Context) error {
	return call(ctx, &c.http, http.MethodGet, "/healthz", nil, nil)
}

type organisation struct {
	Tenant uint32 `json:"tenant"`
	Name   string `json:"name"`
}

func (c *centre) members(ctx context.Context) (out []organisation, err error) {
	return out, call(ctx, &c.http, http.MethodGet, "/admin/members", nil, &out)
}

func (c *centre) addMember(ctx context.Context, m *member) (uint32, error) {
	var out organisation
	err := call(ctx, &c.http, http.MethodPost, "/admin/members", map[string]string{"name": m.name, "sector": m.sector, "region": m.region}, &out)
	return out.Tenant, err
}

func (c *centre) addToken(ctx context.Context, tenant uint32, site string) (string, error) {
	var out struct {
		Token string `json:"token"`
	}
	err := call(ctx, &c.http, http.MethodPost, "/admin/tokens", map[string]any{"tenant": tenant, "site": site}, &out)
	return out.Token, err
}

// signIn is how one person of the demo gets in. It is invented for this demo and kept in its folder.
type signIn struct {
	Email    string `json:"email"`
	Role     string `json:"role"`
	Who      string `json:"who"`
	Password string `json:"password"`
	Secret   string `json:"totp_secret"`
}

func (c *centre) addUser(ctx context.Context, email, name, role string, tenant uint32) (signIn, error) {
	s := signIn{Email: email, Role: role, Who: name}
	err := call(ctx, &c.http, http.MethodPost, "/admin/users", map[string]any{"email": email, "name": name, "role": role, "tenant": tenant}, &s)
	return s, err
}

type registered struct {
	ID         string `json:"id"`
	Tenant     uint32 `json:"tenant"`
	State      string `json:"state"`
	CheckWords string `json:"check_words"`
}

func (c *centre) collectors(ctx context.Context) (out []registered, err error) {
	return out, call(ctx, &c.http, http.MethodGet, "/admin/collectors", nil, &out)
}

func (c *centre) confirm(ctx context.Context, id, words string) error {
	return call(ctx, &c.http, http.MethodPost, "/admin/collectors/"+url.PathEscape(id)+"/confirm", map[string]string{"words": words}, nil)
}

func (c *centre) importIndicators(ctx context.Context, list string) (int, error) {
	var out struct {
		Added int `json:"added"`
	}
	err := call(ctx, &c.http, http.MethodPost, "/admin/indicators", list, &out)
	return out.Added, err
}

func (c *centre) status(ctx context.Context) (out status.Status, err error) {
	return out, call(ctx, &c.http, http.MethodGet, "/status", nil, &out)
}

// onSite is what a collector says of itself on its own socket.
type onSite struct {
	Counts  map[string]uint64 `json:"counts"`
	Waiting uint64            `json:"waiting"`
}

func siteStatus(ctx context.Context, client *http.Client) (out onSite, err error) {
	return out, call(ctx, client, http.MethodGet, "/status", nil, &out)
}
