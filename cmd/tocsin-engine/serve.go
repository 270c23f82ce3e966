package main

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

const (
	maxStatement  = 1 << 20   // bytes of SQL
	maxInsertBody = 512 << 20 // bytes of one insert; a plan of 50,000 events is about 32 MiB
	pieceSize     = 1 << 20
)

// server answers ClickHouse's HTTP interface: statement in ?query= (then the body is an insert's data) or in the body,
// settings and param_NAME in the query string, exceptions as "Code: N. ..." with X-ClickHouse-Exception-Code, an
// exception in mid answer as "\r\n__exception__..." followed by a broken connection.
type server struct {
	lib    *chdb
	log    *slog.Logger
	slots  chan struct{} // bounds statements at once; each costs a thread
	prefix string
	next   atomic.Uint64
	active sync.WaitGroup
}

func newServer(lib *chdb, log *slog.Logger, concurrent int) *server {
	var b [6]byte
	rand.Read(b[:])
	return &server{lib: lib, log: log, slots: make(chan struct{}, concurrent), prefix: "tocsin-" + hex.EncodeToString(b[:]) + "-"}
}

// ServeHTTP handles one statement on one connection of its own.
func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/ping" {
		io.WriteString(w, "Ok.\n")
		return
	}
	if r.URL.Path != "/" || r.Method != http.MethodPost && r.Method != http.MethodGet {
		http.Error(w, "the event store's engine answers POST / and GET /ping", http.StatusNotFound)
		return
	}
	s.active.Add(1)
	defer s.active.Done()
	select {
	case s.slots <- struct{}{}:
		defer func() { <-s.slots }()
	case <-r.Context().Done():
		return
	}
	if err := s.statement(w, r); err != nil {
		s.fail(w, err)
	}
}

// started wraps an error that came after the answer's first byte.
type started struct{ error }

func (s *server) fail(w http.ResponseWriter, err error) {
	var ee *engineError
	if !errors.As(err, &ee) {
		ee = &engineError{1001, "Code: 1001. DB::Exception: " + err.Error()}
	}
	var mid started
	if errors.As(err, &mid) {
		fmt.Fprintf(w, "\r\n__exception__\r\n%s\r\n", ee.Text)
		if f, ok := w.(http.Flusher); ok {
			f.Flush()
		}
		panic(http.ErrAbortHandler) // the client must not take what it got for the whole
	}
	status := http.StatusInternalServerError
	switch ee.Code {
	case 62, 47, 36, 43, 53, 115, 456, 457:
		status = http.StatusBadRequest
	case 60, 81:
		status = http.StatusNotFound
	case 164:
		status = http.StatusForbidden
	case 159:
		status = http.StatusRequestTimeout
	}
	w.Header().Set("X-ClickHouse-Exception-Code", strconv.Itoa(ee.Code))
	w.Header().Set("Content-Type", "text/plain; charset=UTF-8")
	w.WriteHeader(status)
	io.WriteString(w, ee.Text+"\n")
}

func (s *server) statement(w http.ResponseWriter, r *http.Request) error {
	sql, format, given, params, err := s.parse(w, r)
	if err != nil {
		return err
	}
	id := s.prefix + strconv.FormatUint(s.next.Add(1), 36)
	set, err := setStatement(given)
	if err != nil {
		return err
	}
	set = strings.Replace(set, "SET ", "SET log_comment="+quote(id)+", ", 1)

	// The library keeps state per thread for the length of a call.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	c, err := s.lib.open()
	if err != nil {
		return err
	}
	defer c.close()
	if _, _, err := c.query(set, "Null", nil); err != nil {
		return err
	}
	if given["readonly"] == "1" {
		// readonly alone does not stop INTO OUTFILE and KILL QUERY.
		class, statements, err := c.classify(sql)
		if err != nil {
			return err
		}
		if class == classUnknown && statements == 0 {
			return &engineError{62, "Code: 62. DB::Exception: the query could not be read (SYNTAX_ERROR)"}
		}
		if class != classReadOnly || statements != 1 {
			return &engineError{164, "Code: 164. DB::Exception: readers may run one statement that only reads (READONLY)"}
		}
	}

	// Whoever went away does not need the answer: the engine stops within about 20 ms.
	stop := make(chan struct{})
	var watch sync.WaitGroup
	watch.Add(1)
	go func() {
		defer watch.Done()
		select {
		case <-stop:
		case <-r.Context().Done():
			s.kill(id, stop)
		}
	}()
	defer watch.Wait()
	defer close(stop)

	v := verb(sql)
	switch v {
	case "SELECT", "WITH", "(":
		return s.selectInto(w, c, sql, format, params)
	case "INSERT":
		if statement, format, ok := splitInsert(sql); ok {
			return s.insertFrom(w, r, c, statement, format)
		}
	}
	out, sum, err := c.query(sql, format, params)
	if err != nil {
		return err
	}
	s.head(w, format, sum)
	w.Write(out)
	return nil
}

// parse reads the request: where the statement is, its settings and parameters.
func (s *server) parse(w http.ResponseWriter, r *http.Request) (sql, format string, given map[string]string, params []param, err error) {
	format, given = "TabSeparated", map[string]string{}
	q := r.URL.Query()
	for name, values := range q {
		value := values[len(values)-1]
		switch {
		case name == "query":
			sql = value
		case name == "default_format":
			format = value
		case name == "database", name == "user", name == "password", name == "quota_key":
			// One database user, and every name in our SQL carries its database.
		case strings.HasPrefix(name, "param_"):
			params = append(params, param{name[len("param_"):], value})
		default:
			given[name] = value
		}
	}
	if f := r.Header.Get("X-ClickHouse-Format"); f != "" {
		format = f
	}
	if sql == "" {
		b, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxStatement))
		if err != nil {
			return "", "", nil, nil, fmt.Errorf("read the statement: %w", err)
		}
		sql = string(b)
	}
	if verb(sql) == "" {
		return "", "", nil, nil, &engineError{62, "Code: 62. DB::Exception: empty query (SYNTAX_ERROR)"}
	}
	return sql, format, given, params, nil
}

func (s *server) head(w http.ResponseWriter, format string, sum summary) {
	h := w.Header()
	h.Set("X-ClickHouse-Format", format)
	h.Set("Content-Type", "application/octet-stream")
	h.Set("X-ClickHouse-Summary", fmt.Sprintf(`{"read_rows":"%d","written_rows":"%d"}`, sum.readRows, sum.writtenRows))
}

func (s *server) selectInto(w http.ResponseWriter, c *conn, sql, format string, params []param) error {
	st, err := c.stream(sql, format, params)
	if err != nil {
		return err
	}
	defer st.close()
	sent := false
	for {
		more, err := st.next(func(piece []byte) error {
			if !sent {
				s.head(w, format, summary{})
				sent = true
			}
			_, err := w.Write(piece)
			return err
		})
		if err != nil {
			if sent {
				return started{err}
			}
			return err
		}
		if !more {
			if !sent {
				s.head(w, format, summary{})
			}
			return nil
		}
	}
}

// insertFrom streams the body into the engine. Only a clean end of the body commits: a cut connection must never store
// part of a batch, nor be answered as if it had stored all.
func (s *server) insertFrom(w http.ResponseWriter, r *http.Request, c *conn, statement, format string) error {
	st, err := c.insert(statement, format)
	if err != nil {
		return err
	}
	defer st.close()
	body := http.MaxBytesReader(w, r.Body, maxInsertBody)
	buf := make([]byte, pieceSize)
	fill := 0
	for {
		n, err := body.Read(buf[fill:])
		fill += n
		if fill == len(buf) || errors.Is(err, io.EOF) && fill > 0 {
			if err := st.append(buf[:fill]); err != nil {
				return err
			}
			fill = 0
		}
		if err == io.EOF { //nolint:errorlint // net/http says a cut body by another error than the bare io.EOF
			break
		}
		if err != nil {
			return fmt.Errorf("the insert's data ended early, nothing was stored: %w", err)
		}
	}
	if err := r.Context().Err(); err != nil {
		return fmt.Errorf("the caller left before the insert was complete, nothing was stored: %w", err)
	}
	sum, err := st.done()
	if err != nil {
		return err
	}
	s.head(w, format, sum)
	return nil
}

// kill ends the statement that carries the id, again until it has returned: a statement can be between two stages.
func (s *server) kill(id string, stop <-chan struct{}) {
	for {
		func() {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			c, err := s.lib.open()
			if err != nil {
				s.log.Warn("cannot cancel a statement whose caller left", "error", err)
				return
			}
			defer c.close()
			if _, _, err := c.query("KILL QUERY WHERE Settings['log_comment']="+quote(id)+" ASYNC", "Null", nil); err != nil {
				s.log.Warn("cannot cancel a statement whose caller left", "error", err)
			}
		}()
		select {
		case <-stop:
			return
		case <-time.After(250 * time.Millisecond):
		}
	}
}
