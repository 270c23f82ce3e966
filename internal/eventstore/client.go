package eventstore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/ClickHouse/ch-go/proto"
)

// Error is an exception of the engine.
type Error struct {
	Code int    // ClickHouse's error code
	Text string // its sentence
}

func (e *Error) Error() string { return "event store: " + e.Text }

// Permanent says that the engine cannot take these rows, whenever they come.
func (e *Error) Permanent() bool {
	switch e.Code {
	case 6, 26, 27, 33, 53, 117, 131: // cannot parse or read, type mismatch, incorrect data, string too large
		return true
	}
	return false
}

// ErrUnavailable says that the store did not answer in the time allowed. Nothing was lost: an insert with the same token can
// be repeated.
var ErrUnavailable = errors.New("the event store is not answering")

// errCut is a broken connection: whether the statement took effect is not known.
type errCut struct{ err error }

func (e *errCut) Error() string { return "event store: connection lost: " + e.err.Error() }
func (e *errCut) Unwrap() error { return e.err }

// client speaks ClickHouse's HTTP interface. Safe for concurrent use.
type client struct {
	base  string // "http://host:port/" or "http://engine/" over the socket
	user  string
	pass  string
	http  *http.Client
	ready func(ctx context.Context) error // waits for the engine; nil for an external server
}

// newClient takes unix:/path, or http(s)://[user:password@]host:port.
func newClient(spec string, ready func(context.Context) error) (*client, error) {
	tr := &http.Transport{MaxIdleConns: 32, MaxIdleConnsPerHost: 32, IdleConnTimeout: 30 * time.Second, DisableCompression: true, WriteBufferSize: 1 << 16, ReadBufferSize: 1 << 16}
	c := &client{http: &http.Client{Transport: tr}, ready: ready}
	if path, ok := strings.CutPrefix(spec, "unix:"); ok {
		tr.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", path)
		}
		c.base = "http://engine/"
		return c, nil
	}
	u, err := url.Parse(spec)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return nil, fmt.Errorf("event store address %q: want unix:/path/of/socket or http(s)://[user:password@]host:port", spec)
	}
	if u.User != nil {
		c.user = u.User.Username()
		c.pass, _ = u.User.Password()
	}
	c.base = u.Scheme + "://" + u.Host + "/"
	return c, nil
}

// args are the settings ("max_threads") and parameters ("param_from") of a statement.
type args map[string]string

func (a args) with(more args) args {
	out := make(args, len(a)+len(more))
	for k, v := range a {
		out[k] = v
	}
	for k, v := range more {
		out[k] = v
	}
	return out
}

// do sends one request. body nil: the statement itself is the body.
func (c *client) do(ctx context.Context, sql string, a args, body []byte, read func(io.Reader) error) error {
	q := url.Values{"default_format": {"Native"}}
	for k, v := range a {
		q.Set(k, v)
	}
	if body != nil {
		q.Set("query", sql)
	} else {
		body = []byte(sql)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.base+"?"+q.Encode(), bytes.NewReader(body))
	if err != nil {
		return err
	}
	if c.user != "" {
		req.Header.Set("X-ClickHouse-User", c.user)
		req.Header.Set("X-ClickHouse-Key", c.pass)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return &errCut{err}
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK || resp.Header.Get("X-ClickHouse-Exception-Code") != "" {
		b, err := io.ReadAll(io.LimitReader(resp.Body, 1<<16))
		if err != nil {
			return &errCut{err}
		}
		return exception(resp.Header.Get("X-ClickHouse-Exception-Code"), string(b))
	}
	if read == nil {
		_, err := io.Copy(io.Discard, resp.Body)
		if err != nil {
			return &errCut{err}
		}
		return nil
	}
	tail := &tailReader{r: resp.Body}
	if err := read(tail); err != nil {
		// The reader stumbled over an exception in mid answer, or over a broken connection.
		io.Copy(io.Discard, io.LimitReader(tail, 1<<16))
		if i := bytes.Index(tail.last, []byte("__exception__")); i >= 0 {
			return exception("", string(tail.last[i+len("__exception__"):]))
		}
		if tail.err != nil && tail.err != io.EOF { //nolint:errorlint // the transport gives io.EOF itself at a clean end
			if ctx.Err() != nil {
				return ctx.Err()
			}
			return &errCut{tail.err}
		}
		return err
	}
	return nil
}

var codeInText = regexp.MustCompile(`Code: (\d+)`)

func exception(code, text string) error {
	e := &Error{Text: strings.TrimSpace(text)}
	e.Code, _ = strconv.Atoi(code)
	if e.Code == 0 {
		if m := codeInText.FindStringSubmatch(text); m != nil {
			e.Code, _ = strconv.Atoi(m[1])
		}
	}
	if i := strings.Index(e.Text, "Stack trace"); i > 0 {
		e.Text = strings.TrimRight(e.Text[:i], " ,\n")
	}
	return e
}

// tailReader remembers the last bytes, where an exception in mid answer stands, and the error that ended the body.
type tailReader struct {
	r    io.Reader
	last []byte
	err  error
}

func (t *tailReader) Read(p []byte) (int, error) {
	n, err := t.r.Read(p)
	const keep = 1 << 14
	if n >= keep {
		t.last = append(t.last[:0], p[n-keep:n]...)
	} else {
		t.last = append(t.last, p[:n]...)
		if len(t.last) > 2*keep {
			t.last = append(t.last[:0], t.last[len(t.last)-keep:]...)
		}
	}
	if err != nil {
		t.err = err
	}
	return n, err
}

// again says whether a failed request may be repeated as it is: the engine was away or overloaded, not displeased.
func again(err error) bool {
	var cut *errCut
	if errors.As(err, &cut) {
		return true
	}
	var e *Error
	if errors.As(err, &e) {
		switch e.Code {
		case 236, // ABORTED: the engine is stopping
			241,                // MEMORY_LIMIT_EXCEEDED
			242,                // TABLE_IS_READ_ONLY
			252,                // TOO_MANY_PARTS
			210,                // NETWORK_ERROR
			209,                // SOCKET_TIMEOUT
			202,                // TOO_MANY_SIMULTANEOUS_QUERIES
			243,                // NOT_ENOUGH_SPACE
			999,                // KEEPER_EXCEPTION
			319,                // UNKNOWN_STATUS_OF_INSERT
			285,                // TOO_FEW_LIVE_REPLICAS
			225,                // NO_ZOOKEEPER
			74, 75, 76, 77, 87, // reading, writing, opening, closing, seeking in files
			1001: // STD_EXCEPTION
			return true
		}
	}
	return false
}

// exec runs a statement that can be repeated, waiting out restarts of the engine.
func (c *client) exec(ctx context.Context, sql string, a args) error {
	return c.retry(ctx, false, func(ctx context.Context) error { return c.do(ctx, sql, a, nil, nil) })
}

// retry repeats f while the engine is away. bounded: readers do not wait for an engine that is overloaded.
func (c *client) retry(ctx context.Context, reader bool, f func(context.Context) error) error {
	wait := 10 * time.Millisecond
	for {
		if c.ready != nil {
			if err := c.ready(ctx); err != nil {
				return fmt.Errorf("%w: %w", ErrUnavailable, err)
			}
		}
		err := f(ctx)
		var cut *errCut
		if err == nil || !again(err) || reader && !errors.As(err, &cut) {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", ErrUnavailable, err)
		case <-time.After(wait):
			wait = min(2*wait, time.Second)
		}
	}
}

// query runs a SELECT and calls each for every block of the result, whose columns are then in results.
func (c *client) query(ctx context.Context, sql string, a args, results proto.Results, restart func(), each func(rows int) error) error {
	return c.retry(ctx, true, func(ctx context.Context) error {
		restart()
		return c.do(ctx, sql, a, nil, func(r io.Reader) error {
			pr := proto.NewReader(r)
			for {
				var b proto.Block
				if err := b.DecodeRawBlock(pr, 0, results); err != nil {
					if errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) && b.Columns == 0 {
						return nil
					}
					return fmt.Errorf("read the store's answer: %w", err)
				}
				if b.Rows > 0 {
					if err := each(b.Rows); err != nil {
						return err
					}
				}
			}
		})
	})
}
