package main

import (
	"errors"
	"fmt"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"unsafe"

	"github.com/ebitengine/purego"
)

// chdb is the part of libchdb's C interface that is used, bound without cgo. The package on npm ships no header; the
// declarations follow chdb.h of release 26.7.3. Every argument is an integer or a pointer, no struct goes by value.
// Handles are opaque. A connection runs one statement at a time.
type chdb struct {
	version           func() string
	setSignalHandlers func(enabled int32)
	connect           func(argc int32, argv unsafe.Pointer) unsafe.Pointer // *chdb_connection
	closeConn         func(conn unsafe.Pointer)                            // takes the outer pointer
	classifyN         func(conn, sql unsafe.Pointer, n uintptr, db unsafe.Pointer, dbn uintptr, out unsafe.Pointer) int32

	queryN       func(conn, q unsafe.Pointer, qn uintptr, format unsafe.Pointer, fn uintptr, names, nameLens, values, valueLens unsafe.Pointer, count uintptr) unsafe.Pointer
	streamQueryN func(conn, q unsafe.Pointer, qn uintptr, format unsafe.Pointer, fn uintptr, names, nameLens, values, valueLens unsafe.Pointer, count uintptr) unsafe.Pointer
	streamFetch  func(conn, result unsafe.Pointer) unsafe.Pointer
	streamCancel func(conn, result unsafe.Pointer)

	insertN       func(conn, q unsafe.Pointer, qn uintptr, format unsafe.Pointer, fn uintptr) unsafe.Pointer
	insertAppend  func(stream, data unsafe.Pointer, n uintptr) int32
	insertDone    func(stream unsafe.Pointer) unsafe.Pointer
	insertCancel  func(stream unsafe.Pointer)
	insertError   func(stream unsafe.Pointer) string
	insertDestroy func(stream unsafe.Pointer)

	resultBuffer      func(result unsafe.Pointer) unsafe.Pointer
	resultLength      func(result unsafe.Pointer) uintptr
	resultError       func(result unsafe.Pointer) string
	resultRowsRead    func(result unsafe.Pointer) uint64
	resultRowsWritten func(result unsafe.Pointer) uint64
	destroyResult     func(result unsafe.Pointer)

	baseArgs []string
}

// loadLibrary maps libchdb into the process. It takes 40 ms with a warm page cache and a third of a second without.
func loadLibrary(path string) (c *chdb, err error) {
	handle, err := purego.Dlopen(path, purego.RTLD_NOW|purego.RTLD_LOCAL)
	if err != nil {
		return nil, fmt.Errorf("load %s: %w", path, err)
	}
	defer func() {
		// RegisterLibFunc panics when a symbol is missing: another version of the library.
		if r := recover(); r != nil {
			c, err = nil, fmt.Errorf("bind %s: %v", path, r)
		}
	}()
	c = &chdb{}
	for name, fn := range map[string]any{
		"chdb_version":                     &c.version,
		"chdb_set_signal_handlers_enabled": &c.setSignalHandlers,
		"chdb_connect":                     &c.connect,
		"chdb_close_conn":                  &c.closeConn,
		"chdb_classify_query_n":            &c.classifyN,
		"chdb_query_with_params_n":         &c.queryN,
		"chdb_stream_query_with_params_n":  &c.streamQueryN,
		"chdb_stream_fetch_result":         &c.streamFetch,
		"chdb_stream_cancel_query":         &c.streamCancel,
		"chdb_stream_insert_n":             &c.insertN,
		"chdb_stream_append":               &c.insertAppend,
		"chdb_stream_done":                 &c.insertDone,
		"chdb_stream_cancel_insert":        &c.insertCancel,
		"chdb_stream_insert_error":         &c.insertError,
		"chdb_destroy_insert_stream":       &c.insertDestroy,
		"chdb_result_buffer":               &c.resultBuffer,
		"chdb_result_length":               &c.resultLength,
		"chdb_result_error":                &c.resultError,
		"chdb_result_rows_read":            &c.resultRowsRead,
		"chdb_result_rows_written":         &c.resultRowsWritten,
		"chdb_destroy_query_result":        &c.destroyResult,
	} {
		purego.RegisterLibFunc(fn, handle, name)
	}
	return c, nil
}

// conn is one connection: a session with its own settings.
type conn struct {
	lib   *chdb
	outer unsafe.Pointer // what chdb_close_conn wants
	inner unsafe.Pointer // what everything else wants
}

// open makes one more connection. The first one boots the engine with lib.baseArgs (path, configuration, memory bound);
// later ones must name the same path. A failure has no text in this interface.
func (c *chdb) open() (*conn, error) {
	argv := make([]*byte, len(c.baseArgs)+1)
	for i, a := range c.baseArgs {
		argv[i] = &append([]byte(a), 0)[0]
	}
	outer := c.connect(int32(len(c.baseArgs)), unsafe.Pointer(&argv[0]))
	runtime.KeepAlive(argv)
	if outer == nil {
		return nil, errors.New("the engine refused a connection (its own message is above, on standard error)")
	}
	inner := *(*unsafe.Pointer)(outer)
	if inner == nil {
		return nil, errors.New("the engine returned an empty connection")
	}
	return &conn{lib: c, outer: outer, inner: inner}, nil
}

func (c *conn) close() { c.lib.closeConn(c.outer) }

// engineError is an exception of the engine. Text is the engine's own sentence, "Code: 60. DB::Exception: ...".
type engineError struct {
	Code int
	Text string
}

func (e *engineError) Error() string { return e.Text }

var codePattern = regexp.MustCompile(`Code: (\d+)`)

func newEngineError(text string) *engineError {
	e := &engineError{Code: 1001, Text: strings.TrimSpace(text)} // 1001 is ClickHouse's STD_EXCEPTION
	if m := codePattern.FindStringSubmatch(text); m != nil {
		e.Code, _ = strconv.Atoi(m[1])
	} else {
		e.Text = fmt.Sprintf("Code: %d. DB::Exception: %s", e.Code, e.Text)
	}
	return e
}

// param is one bound parameter: {name:Type} in the statement takes value in the engine's text form.
type param struct{ name, value string }

// paramArrays is the four parallel arrays the interface wants. It must stay reachable during the call.
type paramArrays struct {
	names, values         []*byte
	nameLens, valueLens   []uintptr
	pNames, pNameLens     unsafe.Pointer
	pValues, pValueLens   unsafe.Pointer
	keepNames, keepValues [][]byte
}

func makeParams(ps []param) *paramArrays {
	a := &paramArrays{}
	if len(ps) == 0 {
		return a
	}
	for _, p := range ps {
		n, v := append([]byte(p.name), 0), append([]byte(p.value), 0)
		a.keepNames, a.keepValues = append(a.keepNames, n), append(a.keepValues, v)
		a.names, a.values = append(a.names, &n[0]), append(a.values, &v[0])
		a.nameLens, a.valueLens = append(a.nameLens, uintptr(len(p.name))), append(a.valueLens, uintptr(len(p.value)))
	}
	a.pNames, a.pNameLens = unsafe.Pointer(&a.names[0]), unsafe.Pointer(&a.nameLens[0])
	a.pValues, a.pValueLens = unsafe.Pointer(&a.values[0]), unsafe.Pointer(&a.valueLens[0])
	return a
}

func bytesPointer(s string) (unsafe.Pointer, uintptr, []byte) {
	b := append([]byte(s), 0)
	return unsafe.Pointer(&b[0]), uintptr(len(s)), b
}

// summary is what a finished statement reports.
type summary struct {
	readRows, writtenRows uint64
}

// query runs a statement that returns little or nothing: DDL, SET, KILL, INSERT ... SELECT, SHOW. The output is copied.
func (c *conn) query(sql, format string, ps []param) ([]byte, summary, error) {
	q, qn, qb := bytesPointer(sql)
	f, fn, fb := bytesPointer(format)
	a := makeParams(ps)
	r := c.lib.queryN(c.inner, q, qn, f, fn, a.pNames, a.pNameLens, a.pValues, a.pValueLens, uintptr(len(ps)))
	runtime.KeepAlive(a)
	runtime.KeepAlive(qb)
	runtime.KeepAlive(fb)
	if r == nil {
		return nil, summary{}, errors.New("the engine returned no result")
	}
	defer c.lib.destroyResult(r)
	if text := c.lib.resultError(r); text != "" {
		return nil, summary{}, newEngineError(text)
	}
	return c.lib.copyBuffer(r), summary{c.lib.resultRowsRead(r), c.lib.resultRowsWritten(r)}, nil
}

func (c *chdb) copyBuffer(r unsafe.Pointer) []byte {
	n := c.resultLength(r)
	p := c.resultBuffer(r)
	if n == 0 || p == nil {
		return nil
	}
	return append([]byte(nil), unsafe.Slice((*byte)(p), n)...)
}

// stream starts a SELECT whose result is fetched piece by piece.
func (c *conn) stream(sql, format string, ps []param) (*resultStream, error) {
	q, qn, qb := bytesPointer(sql)
	f, fn, fb := bytesPointer(format)
	a := makeParams(ps)
	r := c.lib.streamQueryN(c.inner, q, qn, f, fn, a.pNames, a.pNameLens, a.pValues, a.pValueLens, uintptr(len(ps)))
	runtime.KeepAlive(a)
	runtime.KeepAlive(qb)
	runtime.KeepAlive(fb)
	if r == nil {
		return nil, errors.New("the engine returned no stream")
	}
	if text := c.lib.resultError(r); text != "" {
		c.lib.destroyResult(r)
		return nil, newEngineError(text)
	}
	return &resultStream{conn: c, handle: r}, nil
}

type resultStream struct {
	conn   *conn
	handle unsafe.Pointer
	ended  bool
}

// next calls use with the next piece, valid only during the call. more is false at the end.
func (s *resultStream) next(use func(piece []byte) error) (more bool, err error) {
	r := s.conn.lib.streamFetch(s.conn.inner, s.handle)
	if r == nil {
		return false, errors.New("the engine returned no piece")
	}
	defer s.conn.lib.destroyResult(r)
	if text := s.conn.lib.resultError(r); text != "" {
		s.ended = true
		return false, newEngineError(text)
	}
	n := s.conn.lib.resultLength(r)
	if n == 0 {
		s.ended = true
		return false, nil
	}
	return true, use(unsafe.Slice((*byte)(s.conn.lib.resultBuffer(r)), n))
}

func (s *resultStream) close() {
	if !s.ended {
		s.conn.lib.streamCancel(s.conn.inner, s.handle)
	}
	s.conn.lib.destroyResult(s.handle)
}

// insert starts an INSERT whose data arrives by append. Only done commits; close without done cancels.
func (c *conn) insert(sql, format string) (*insertStream, error) {
	q, qn, qb := bytesPointer(sql)
	f, fn, fb := bytesPointer(format)
	h := c.lib.insertN(c.inner, q, qn, f, fn)
	runtime.KeepAlive(qb)
	runtime.KeepAlive(fb)
	if h == nil {
		return nil, errors.New("the engine returned no insert stream")
	}
	if text := c.lib.insertError(h); text != "" {
		c.lib.insertDestroy(h)
		return nil, newEngineError(text)
	}
	return &insertStream{lib: c.lib, handle: h}, nil
}

type insertStream struct {
	lib      *chdb
	handle   unsafe.Pointer
	finished bool
}

// append hands over one piece (copied by the engine); it blocks while the engine is busy.
func (s *insertStream) append(b []byte) error {
	if len(b) == 0 {
		return nil
	}
	ok := s.lib.insertAppend(s.handle, unsafe.Pointer(&b[0]), uintptr(len(b))) == 0
	runtime.KeepAlive(b)
	if ok {
		return nil
	}
	if text := s.lib.insertError(s.handle); text != "" {
		return newEngineError(text)
	}
	return errors.New("the engine refused a piece of the insert without a reason")
}

// done commits. After an error nothing may be assumed about what was stored.
func (s *insertStream) done() (summary, error) {
	s.finished = true
	r := s.lib.insertDone(s.handle)
	if r == nil {
		return summary{}, errors.New("the engine returned no result for the insert")
	}
	defer s.lib.destroyResult(r)
	if text := s.lib.resultError(r); text != "" {
		return summary{}, newEngineError(text)
	}
	return summary{s.lib.resultRowsRead(r), s.lib.resultRowsWritten(r)}, nil
}

func (s *insertStream) close() {
	if !s.finished {
		s.lib.insertCancel(s.handle)
	}
	s.lib.insertDestroy(s.handle)
}

// What a statement would do, from chdb_query_class.
const (
	classReadOnly = 0
	classControl  = 3
	classUnknown  = 4
)

// classify asks the engine's own parser what the text is, without running it.
func (c *conn) classify(sql string) (class, statements int, err error) {
	report := [4]uint32{16, 0, 0, classUnknown} // struct_size, statement_count, flags, query_class
	q, qn, qb := bytesPointer(sql)
	state := c.lib.classifyN(c.inner, q, qn, nil, 0, unsafe.Pointer(&report[0]))
	runtime.KeepAlive(qb)
	if state != 0 {
		return classUnknown, 0, errors.New("the engine could not classify the statement")
	}
	return int(report[3]), int(report[1]), nil
}
