package eventstore

import (
	"context"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/ClickHouse/ch-go/proto"

	"tocsin/internal/access"
	"tocsin/internal/event"
)

// What a reader may be told.
var (
	ErrTooLong   = errors.New("the question took too long: ask about a shorter time or fewer members")
	ErrTooBig    = errors.New("the question needs more memory than one query may have: ask about a shorter time or fewer members")
	ErrBadFilter = errors.New("the question cannot be asked that way")
)

// reader is one query's arguments: limits, and what the conditions bind.
type reader struct {
	args  args
	conds []string
	// none: the scope covers nothing, so the answer is empty without asking.
	none bool
	all  bool
}

// reader makes the arguments of a query in the scope. Every query of this file starts here; the condition on tenants is
// the first and nothing that a caller gives can widen it.
func (s *Store) reader(scope access.Scope) *reader {
	r := &reader{args: args{
		"readonly": "1", "max_threads": "1", "os_thread_priority": "10",
		"max_execution_time": strconv.FormatFloat(s.opt.QueryTime.Seconds(), 'f', 3, 64), "timeout_overflow_mode": "throw",
		"max_memory_usage": strconv.FormatInt(s.opt.QueryMemory, 10), "max_result_rows": "200000", "max_result_bytes": strconv.Itoa(256 << 20),
	}}
	tenants, all := scope.Tenants()
	switch {
	case all:
		r.all = true
	case len(tenants) == 0:
		r.none = true
	default:
		ids := make([]uint32, len(tenants))
		for i, t := range tenants {
			ids[i] = uint32(t)
		}
		r.where("tenant IN {tenants:Array(UInt32)}", "tenants", uintList(ids))
	}
	return r
}

func (r *reader) where(cond string, nameValues ...string) *reader {
	if cond != "" {
		r.conds = append(r.conds, cond)
	}
	for i := 0; i < len(nameValues); i += 2 {
		r.args["param_"+nameValues[i]] = nameValues[i+1]
	}
	return r
}

// sqlWhere gives "WHERE ..." or nothing.
func (r *reader) sqlWhere() string {
	if len(r.conds) == 0 {
		return ""
	}
	return " WHERE " + strings.Join(r.conds, " AND ")
}

// run asks, within the readers' semaphore.
func (s *Store) run(ctx context.Context, r *reader, sql string, results proto.Results, restart func(), each func(rows int) error) error {
	if r.none {
		return nil
	}
	select {
	case s.slots <- struct{}{}:
		defer func() { <-s.slots }()
	case <-ctx.Done():
		return ctx.Err()
	}
	s.queries.Add(1)
	// The engine stops by itself at QueryTime; the rest is for a restart in between.
	ctx, cancel := context.WithTimeout(ctx, s.opt.QueryTime+10*time.Second)
	defer cancel()
	err := s.c.query(ctx, sql, r.args, results, restart, each)
	var e *Error
	if errors.As(err, &e) {
		switch e.Code {
		case 159, 160, 158: // TIMEOUT_EXCEEDED, TOO_SLOW, TOO_MANY_ROWS
			s.refused.Add(1)
			return ErrTooLong
		case 241, 396, 307: // MEMORY_LIMIT_EXCEEDED, TOO_MANY_ROWS_OR_BYTES, TOO_MANY_BYTES
			s.refused.Add(1)
			return ErrTooBig
		}
	}
	if err != nil {
		s.failed.Add(1)
	}
	return err
}

// Filter chooses events. The zero Filter chooses all in the scope. Every value is bound, never part of the statement.
type Filter struct {
	From, To      int64 // storage time, UTC nanoseconds, half open; 0 means no bound
	Tenants       []event.TenantID
	SourceIP      netip.Prefix // one address is a full-length prefix
	DestinationIP netip.Prefix
	EitherIP      netip.Prefix // source or destination
	Port          uint16       // destination.port
	Country       string       // source.geo.country_iso_code
	User          string       // user.name
	Rule          string       // rule.id
	Action        string       // event.action
	Dataset       string       // event.dataset
	Collector     string       // tocsin.collector.id
	Class         string
	Service       string
	Level         string
	Domain        string // url.domain or dns.question.name
	Text          string // every word must occur in message, url.full, rule.name, user.name or event.action
	Quarantined   bool   // also events of collectors whose check words are not confirmed yet
}

// narrow says whether the filter chooses by more than time and tenant.
func (f Filter) narrow() bool {
	return f.SourceIP.IsValid() || f.DestinationIP.IsValid() || f.EitherIP.IsValid() || f.Port != 0 || f.Country != "" || f.User != "" || f.Rule != "" || f.Action != "" || f.Dataset != "" ||
		f.Collector != "" || f.Class != "" || f.Service != "" || f.Level != "" || f.Domain != "" || f.Text != ""
}

const maxWords = 8

// events adds the filter's conditions on the table events.
func (r *reader) events(f Filter) error {
	if f.From != 0 {
		r.where("time >= {from:DateTime64(6, 'UTC')}", "from", timeParam(f.From))
	}
	if f.To != 0 {
		r.where("time < {to:DateTime64(6, 'UTC')}", "to", timeParam(f.To))
	}
	if !f.Quarantined && r.all {
		r.where("quarantined = 0")
	}
	if len(f.Tenants) > 0 {
		ids := make([]uint32, len(f.Tenants))
		for i, t := range f.Tenants {
			ids[i] = uint32(t)
		}
		r.where("tenant IN {only:Array(UInt32)}", "only", uintList(ids))
	}
	prefix := func(cond, name string, p netip.Prefix) {
		if !p.IsValid() {
			return
		}
		lo, hi := prefixRange(p)
		if lo == hi {
			r.where(strings.ReplaceAll(cond, "?", "= {"+name+":IPv6}"), name, lo.String())
			return
		}
		r.where(strings.ReplaceAll(cond, "?", "BETWEEN {"+name+"lo:IPv6} AND {"+name+"hi:IPv6}"), name+"lo", lo.String(), name+"hi", hi.String())
	}
	prefix("source_ip ?", "sip", f.SourceIP)
	prefix("destination_ip ?", "dip", f.DestinationIP)
	prefix("(source_ip ? OR destination_ip ?)", "eip", f.EitherIP)
	if f.Port != 0 {
		r.where("destination_port = {port:UInt16}", "port", strconv.Itoa(int(f.Port)))
	}
	for _, c := range []struct{ column, value string }{
		{"source_country", f.Country}, {"user_name", f.User}, {"rule_id", f.Rule}, {"event_action", f.Action}, {"event_dataset", f.Dataset},
		{"collector", f.Collector}, {"class", f.Class}, {"service", f.Service}, {"level", f.Level},
	} {
		if c.value != "" {
			r.where(c.column+" = {f_"+c.column+":String}", "f_"+c.column, escapeParam(c.value))
		}
	}
	if f.Domain != "" {
		r.where("(url_domain = {domain:String} OR dns_question = {domain:String})", "domain", escapeParam(f.Domain))
	}
	words := strings.Fields(f.Text)
	if len(words) > maxWords {
		return fmt.Errorf("%w: search for at most %d words at once", ErrBadFilter, maxWords)
	}
	for i, w := range words {
		if len(w) > 200 {
			return fmt.Errorf("%w: a word of more than 200 letters", ErrBadFilter)
		}
		p := "{w" + strconv.Itoa(i) + ":String}"
		var alt []string
		for _, c := range []string{"message", "url_full", "rule_name", "user_name", "event_action", "raw"} {
			alt = append(alt, "positionCaseInsensitiveUTF8("+c+", "+p+") > 0")
		}
		r.where("("+strings.Join(alt, " OR ")+")", "w"+strconv.Itoa(i), escapeParam(w))
	}
	return nil
}

// prefixRange gives the first and last address of a prefix, IPv4 as mapped.
func prefixRange(p netip.Prefix) (lo, hi netip.Addr) {
	bits := p.Bits()
	if p.Addr().Is4() {
		bits += 96
	}
	b := p.Addr().As16()
	c := b
	for i := bits; i < 128; i++ {
		b[i/8] &^= 0x80 >> (i % 8)
		c[i/8] |= 0x80 >> (i % 8)
	}
	return netip.AddrFrom16(b), netip.AddrFrom16(c)
}

// Cursor is a place in a list of events, newest first. The zero Cursor is the beginning.
type Cursor string

func makeCursor(e Stored) Cursor {
	b := binary.BigEndian.AppendUint64(nil, uint64(e.StoredAt/1e3))
	b = append(b, e.ID.Stream[:]...)
	b = binary.BigEndian.AppendUint64(b, e.ID.Seq)
	b = binary.BigEndian.AppendUint32(b, e.ID.Index)
	return Cursor(base64.RawURLEncoding.EncodeToString(b))
}

func (c Cursor) parse() (us int64, id event.ID, err error) {
	b, err := base64.RawURLEncoding.DecodeString(string(c))
	if err != nil || len(b) != 36 {
		return 0, id, fmt.Errorf("%w: the page's cursor is damaged, start at the first page", ErrBadFilter)
	}
	us = int64(binary.BigEndian.Uint64(b))
	copy(id.Stream[:], b[8:])
	id.Seq, id.Index = binary.BigEndian.Uint64(b[24:]), binary.BigEndian.Uint32(b[32:])
	return us, id, nil
}

// MaxEvents bounds one page of events.
const MaxEvents = 1000

// Events lists the newest events that the filter chooses, at most limit of them, from the cursor on. next is empty at the end.
func (s *Store) Events(ctx context.Context, scope access.Scope, f Filter, limit int, from Cursor) (list []Stored, next Cursor, err error) {
	if limit <= 0 || limit > MaxEvents {
		limit = MaxEvents
	}
	r := s.reader(scope)
	if err := r.events(f); err != nil {
		return nil, "", err
	}
	if from != "" {
		us, id, err := from.parse()
		if err != nil {
			return nil, "", err
		}
		r.where("time <= fromUnixTimestamp64Micro({cus:Int64}, 'UTC') AND (time, stream, seq, idx) < (fromUnixTimestamp64Micro({cus:Int64}, 'UTC'), toFixedString(unhex({cst:String}), 16), {csq:UInt64}, {cix:UInt32})",
			"cus", strconv.FormatInt(us, 10), "cst", hex.EncodeToString(id.Stream[:]), "csq", strconv.FormatUint(id.Seq, 10), "cix", strconv.FormatUint(uint64(id.Index), 10))
	}
	// The rows are found by their key columns first: reading all columns of what is then sorted away costs most of the time.
	sql := "SELECT " + eventColumns + " FROM " + s.db + ".events" + r.sqlWhere() + " ORDER BY time DESC, stream DESC, seq DESC, idx DESC LIMIT " + strconv.Itoa(limit+1)
	list, err = s.events(ctx, r, sql)
	if err != nil {
		return nil, "", err
	}
	if len(list) > limit {
		list = list[:limit]
		next = makeCursor(list[limit-1])
	}
	return list, next, nil
}

func (s *Store) events(ctx context.Context, r *reader, sql string) ([]Stored, error) {
	rows := newRowReader()
	var list []Stored
	err := s.run(ctx, r, sql, rows.results, func() { list = list[:0] }, func(n int) error {
		for i := range n {
			list = append(list, rows.row(i))
		}
		return nil
	})
	return list, err
}

// ByIDs gives the events of the ids that exist and lie in the scope, in the order of the ids. At most MaxEvents.
func (s *Store) ByIDs(ctx context.Context, scope access.Scope, ids []event.ID) ([]Stored, error) {
	if len(ids) > MaxEvents {
		return nil, fmt.Errorf("%w: at most %d events at once", ErrBadFilter, MaxEvents)
	}
	r := s.reader(scope)
	if len(ids) == 0 || r.none {
		return nil, nil
	}
	streams := map[event.StreamID]bool{}
	var names, triples []string
	var smin, smax uint64
	for i, id := range ids {
		h := hex.EncodeToString(id.Stream[:])
		if !streams[id.Stream] {
			streams[id.Stream] = true
			names = append(names, h)
		}
		triples = append(triples, h+"-"+strconv.FormatUint(id.Seq, 10)+"-"+strconv.FormatUint(uint64(id.Index), 10))
		if i == 0 || id.Seq < smin {
			smin = id.Seq
		}
		smax = max(smax, id.Seq)
	}
	seqs := make([]string, 0, len(ids))
	for _, id := range ids {
		seqs = append(seqs, strconv.FormatUint(id.Seq, 10))
	}
	r.where("stream IN (SELECT toFixedString(unhex(arrayJoin({streams:Array(String)})), 16))", "streams", stringList(names))
	r.where("seq BETWEEN {smin:UInt64} AND {smax:UInt64} AND seq IN {seqs:Array(UInt64)}", "smin", strconv.FormatUint(smin, 10), "smax", strconv.FormatUint(smax, 10), "seqs", "["+strings.Join(seqs, ",")+"]")
	r.where("concat(lower(hex(stream)), '-', CAST(seq, 'String'), '-', CAST(idx, 'String')) IN {ids:Array(String)}", "ids", stringList(triples))
	list, err := s.events(ctx, r, "SELECT "+eventColumns+" FROM "+s.db+".events"+r.sqlWhere())
	if err != nil {
		return nil, err
	}
	place := make(map[event.ID]int, len(ids))
	for i, id := range ids {
		place[id] = i
	}
	slices.SortFunc(list, func(a, b Stored) int { return place[a.ID] - place[b.ID] })
	return list, nil
}

// Bucket is one step of a histogram.
type Bucket struct {
	Start                       int64 // UTC nanoseconds
	Low, Medium, High, Critical uint64
}

// Total is the sum over the levels.
func (b Bucket) Total() uint64 { return b.Low + b.Medium + b.High + b.Critical }

// MaxBuckets bounds a histogram.
const MaxBuckets = 5000

// Histogram counts events by level in steps from f.From to f.To, which must be given; every step is there, empty ones too.
// Steps of whole hours over all events come from the roll-ups, everything else from the events.
func (s *Store) Histogram(ctx context.Context, scope access.Scope, f Filter, step time.Duration) ([]Bucket, error) {
	if f.From <= 0 || f.To <= f.From || step < time.Second || step%time.Second != 0 {
		return nil, fmt.Errorf("%w: a histogram needs a start, a later end and a step of whole seconds", ErrBadFilter)
	}
	start := f.From - f.From%int64(step)
	n := int((f.To - start + int64(step) - 1) / int64(step))
	if n > MaxBuckets {
		return nil, fmt.Errorf("%w: %d steps are more than the %d allowed, take a longer step", ErrBadFilter, n, MaxBuckets)
	}
	out := make([]Bucket, n)
	r := s.reader(scope)
	r.figures(f)
	secs := strconv.FormatInt(int64(step/time.Second), 10)
	var sql string
	if !f.narrow() && step%time.Hour == 0 && start%int64(time.Hour) == 0 && f.From == start && f.To%int64(time.Hour) == 0 {
		table := r.hourTable(f)
		r.where("hour >= {from:DateTime('UTC')} AND hour < {to:DateTime('UTC')}", "from", strconv.FormatInt(f.From/1e9, 10), "to", strconv.FormatInt(f.To/1e9, 10))
		sql = "SELECT toInt64(intDiv(toUnixTimestamp(hour) - {start:Int64}, {step:Int64})) AS b, CAST(level, 'String') AS l, sum(n) FROM " + s.db + "." + table + r.sqlWhere() + " GROUP BY b, l"
	} else {
		if err := r.events(f); err != nil {
			return nil, err
		}
		sql = "SELECT toInt64(intDiv(toUnixTimestamp(toDateTime(time)) - {start:Int64}, {step:Int64})) AS b, CAST(level, 'String') AS l, count() FROM " + s.db + ".events" + r.sqlWhere() + " GROUP BY b, l"
	}
	r.where("", "start", strconv.FormatInt(start/1e9, 10), "step", secs)
	var (
		bucket proto.ColInt64
		level  proto.ColStr
		count  proto.ColUInt64
	)
	clearAll := func() {
		for i := range out {
			out[i] = Bucket{Start: start + int64(i)*int64(step)}
		}
	}
	clearAll()
	err := s.run(ctx, r, sql, proto.Results{{Data: &bucket}, {Data: &level}, {Data: &count}}, clearAll, func(rows int) error {
		for i := range rows {
			if bucket[i] < 0 || int(bucket[i]) >= n {
				continue
			}
			b := &out[bucket[i]]
			switch level.Row(i) {
			case "critical":
				b.Critical += count[i]
			case "high":
				b.High += count[i]
			case "medium":
				b.Medium += count[i]
			default:
				b.Low += count[i]
			}
		}
		return nil
	})
	return out, err
}

// hourTable picks the hourly roll-up: the scheme's own when the scope is national and no tenants are chosen.
func (r *reader) hourTable(f Filter) string {
	if r.all && len(f.Tenants) == 0 && !f.Quarantined {
		return "scheme_hour"
	}
	r.rollupTenants(f)
	return "tenant_hour"
}

func (r *reader) rollupTenants(f Filter) {
	if len(f.Tenants) > 0 {
		ids := make([]uint32, len(f.Tenants))
		for i, t := range f.Tenants {
			ids[i] = uint32(t)
		}
		r.where("tenant IN {only:Array(UInt32)}", "only", uintList(ids))
	}
	if r.all && !f.Quarantined {
		r.where("quarantined = 0")
	}
}

// Summary is a member's picture of a span of time in a few figures.
type Summary struct {
	Events       uint64
	Sources      uint64 // distinct source addresses, by whole days
	Denied       uint64
	SignInFailed uint64
	SignIn       uint64 // successful ones that left the site
	IDS          uint64
	Malware      uint64
	Indicator    uint64
	Detections   uint64 // made by the rules on the site
	ByClass      map[string]uint64
	ByService    map[string]uint64 // what they tried
	ByLevel      map[string]uint64
}

// Summary counts from roll-ups: whole hours for events, whole days for sources. from and to are UTC nanoseconds.
func (s *Store) Summary(ctx context.Context, scope access.Scope, from, to int64) (Summary, error) {
	out := Summary{}
	r := s.reader(scope)
	r.figures(Filter{})
	r.rollupTenants(Filter{})
	r.where("hour >= toStartOfHour({from:DateTime('UTC')}) AND hour < {to:DateTime('UTC')}", "from", strconv.FormatInt(from/1e9, 10), "to", strconv.FormatInt((to+1e9-1)/1e9, 10))
	var (
		class, service, level proto.ColStr
		n                     proto.ColUInt64
	)
	reset := func() {
		out = Summary{ByClass: map[string]uint64{}, ByService: map[string]uint64{}, ByLevel: map[string]uint64{}}
	}
	reset()
	err := s.run(ctx, r, "SELECT CAST(class, 'String') AS c, CAST(service, 'String') AS s, CAST(level, 'String') AS l, sum(n) FROM "+s.db+".tenant_hour"+r.sqlWhere()+" GROUP BY c, s, l",
		proto.Results{{Data: &class}, {Data: &service}, {Data: &level}, {Data: &n}}, reset, func(rows int) error {
			for i := range rows {
				out.Events += n[i]
				out.ByClass[class.Row(i)] += n[i]
				out.ByLevel[level.Row(i)] += n[i]
				if sv := service.Row(i); sv != "" {
					out.ByService[sv] += n[i]
				}
			}
			return nil
		})
	if err != nil {
		return out, err
	}
	out.Denied, out.SignInFailed, out.SignIn = out.ByClass[ClassDenied], out.ByClass[ClassSignInFailed], out.ByClass[ClassSignIn]
	out.IDS, out.Malware, out.Indicator, out.Detections = out.ByClass[ClassIDS], out.ByClass[ClassMalware], out.ByClass[ClassIndicator], out.ByClass[ClassDetection]

	r = s.reader(scope)
	table := "source_day"
	if !r.all {
		table = "tenant_source_day"
	}
	r.days(from, to)
	var u proto.ColUInt64
	err = s.run(ctx, r, "SELECT uniqExact(source_ip) FROM "+s.db+"."+table+r.sqlWhere(), proto.Results{{Data: &u}}, func() {}, func(rows int) error {
		out.Sources = u[0]
		return nil
	})
	return out, err
}

// days limits a daily roll-up to the days that the span touches.
func (r *reader) days(from, to int64) {
	if from != 0 {
		r.where("day >= {dfrom:Date}", "dfrom", dayParam(from))
	}
	if to != 0 {
		r.where("day <= {dto:Date}", "dto", dayParam(to-1))
	}
}
