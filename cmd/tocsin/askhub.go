package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	"tocsin/internal/app"
)

// maxAnswer bounds what is read of the hub's answer.
const maxAnswer = 64 << 20

// errNoHub is for whoever can do without.
var errNoHub = errors.New("no hub runs")

// askHub asks the running hub on its own socket. why says, in an error, what no other program can do.
func askHub(ctx context.Context, o *app.Office, method, path string, in any, why string) ([]byte, http.Header, error) {
	client := &http.Client{Timeout: time.Minute, Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", app.AdminSocket(o.Dir))
	}}}
	defer client.CloseIdleConnections()
	var body io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return nil, nil, err
		}
		body = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://hub"+path, body)
	if err != nil {
		return nil, nil, err
	}
	res, err := client.Do(req)
	if err != nil {
		var dial *net.OpError
		if errors.As(err, &dial) && dial.Op == "dial" {
			return nil, nil, fmt.Errorf("%w on %s: start `tocsin hub` first; %s", errNoHub, o.Dir, why)
		}
		return nil, nil, fmt.Errorf("asking the hub: %w", err)
	}
	defer res.Body.Close()
	out, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer))
	if err != nil {
		return nil, nil, fmt.Errorf("reading the hub's answer: %w", err)
	}
	if res.StatusCode != http.StatusOK {
		var problem struct{ Title, Next string }
		if json.Unmarshal(out, &problem) != nil || problem.Title == "" {
			problem.Title = res.Status
		}
		if problem.Next != "" {
			problem.Title += ". " + problem.Next
		}
		return nil, nil, errors.New(problem.Title)
	}
	return out, res.Header, nil
}
