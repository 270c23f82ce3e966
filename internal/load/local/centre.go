package local

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
	"strings"
	"time"

	"tocsin/internal/app/status"
)

// Centre is the hub's admin socket: what `tocsin admin` and this supervisor speak to. The file's owner alone may open it.
type Centre struct {
	http http.Client
}

// UnixClient speaks HTTP over a unix socket.
func UnixClient(path string) http.Client {
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

// NewCentre speaks to the hub whose admin socket that is.
func NewCentre(socket string) *Centre { return &Centre{http: UnixClient(socket)} }

// Problem is the hub's answer when it refuses (RFC 9457).
type Problem struct {
	Status int    `json:"-"`
	Code   string `json:"code"`
	Title  string `json:"title"`
	Detail string `json:"detail"`
	Next   string `json:"next"`
}

func (p *Problem) Error() string {
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
		p := &Problem{Status: resp.StatusCode}
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

// Ready is nil when every stage of the hub works.
func (c *Centre) Ready(ctx context.Context) error {
	return call(ctx, &c.http, http.MethodGet, "/healthz", nil, nil)
}

// Organisation is a member as the hub knows it.
type Organisation struct {
	Tenant uint32 `json:"tenant"`
	Name   string `json:"name"`
}

// Members lists all members.
func (c *Centre) Members(ctx context.Context) (out []Organisation, err error) {
	err = call(ctx, &c.http, http.MethodGet, "/admin/members", nil, &out)
	return out, err
}

// AddMember makes a member.
func (c *Centre) AddMember(ctx context.Context, name, sector, region string) (tenant uint32, err error) {
	var out Organisation
	err = call(ctx, &c.http, http.MethodPost, "/admin/members", map[string]string{"name": name, "sector": sector, "region": region}, &out)
	return out.Tenant, err
}

// AddToken makes a single-use enrolment token for one site of the member.
func (c *Centre) AddToken(ctx context.Context, tenant uint32, site string) (string, error) {
	var out struct {
		Token string `json:"token"`
	}
	err := call(ctx, &c.http, http.MethodPost, "/admin/tokens", map[string]any{"tenant": tenant, "site": site}, &out)
	return out.Token, err
}

// SignIn is how one person of the demo gets in. It is invented for this demo and kept in its folder.
type SignIn struct {
	Email    string `json:"email"`
	Role     string `json:"role"`
	Who      string `json:"who"`
	Password string `json:"password"`
	Secret   string `json:"totp_secret"`
}

// AddUser makes a sign-in with a random password and TOTP secret.
func (c *Centre) AddUser(ctx context.Context, email, name, role string, tenant uint32) (SignIn, error) {
	s := SignIn{Email: email, Role: role, Who: name}
	err := call(ctx, &c.http, http.MethodPost, "/admin/users", map[string]any{"email": email, "name": name, "role": role, "tenant": tenant}, &s)
	return s, err
}

// Registered is a collector as the hub knows it.
type Registered struct {
	ID         string `json:"id"`
	Tenant     uint32 `json:"tenant"`
	State      string `json:"state"`
	CheckWords Words  `json:"check_words"`
}

// Words are check words, separated by blanks. In JSON they are a string or a list.
type Words string

// UnmarshalJSON takes both forms.
func (w *Words) UnmarshalJSON(b []byte) error {
	var list []string
	var text string
	switch {
	case json.Unmarshal(b, &list) == nil:
		*w = Words(strings.Join(list, " "))
	case json.Unmarshal(b, &text) == nil:
		*w = Words(strings.Join(strings.FieldsFunc(text, func(r rune) bool { return r == ' ' || r == '-' || r == ',' }), " "))
	default:
		return fmt.Errorf("check words %.100s are neither a text nor a list", b)
	}
	return nil
}

// Collectors lists all collectors.
func (c *Centre) Collectors(ctx context.Context) (out []Registered, err error) {
	err = call(ctx, &c.http, http.MethodGet, "/admin/collectors", nil, &out)
	return out, err
}

// Confirm ends a collector's quarantine, the check words having been compared.
func (c *Centre) Confirm(ctx context.Context, id string, words Words) error {
	return call(ctx, &c.http, http.MethodPost, "/admin/collectors/"+url.PathEscape(id)+"/confirm", map[string]string{"words": string(words)}, nil)
}

// ImportIndicators adds a list, one value and an optional note a line, and returns how many are new.
func (c *Centre) ImportIndicators(ctx context.Context, source, list string) (int, error) {
	var out struct {
		Added int `json:"added"`
	}
	err := call(ctx, &c.http, http.MethodPost, "/admin/indicators?source="+url.QueryEscape(source), list, &out)
	return out.Added, err
}

// Status returns the sums from every collector to every alert.
func (c *Centre) Status(ctx context.Context) (out status.Status, err error) {
	err = call(ctx, &c.http, http.MethodGet, "/status", nil, &out)
	return out, err
}

// OnSite is what a collector says of itself on its own socket (see package collector, Status).
type OnSite struct {
	State      string            `json:"state"`      // as the hub last said
	Indicators string            `json:"indicators"` // the set in force, "" for none
	Counts     map[string]uint64 `json:"counts"`
	Waiting    uint64            `json:"waiting"`
	Unreported bool              `json:"unreported"` // counts that no batch with a receipt has carried
	HubTrouble string            `json:"hub_trouble"`
}

// SiteStatus asks a collector.
func SiteStatus(ctx context.Context, client *http.Client) (out OnSite, err error) {
	err = call(ctx, client, http.MethodGet, "/status", nil, &out)
	return out, err
}
