// Package eventstore keeps events: it makes rows of them, inserts them exactly once, answers the questions that pages and
// reports ask, and keeps the roll-ups that make the answers cheap.
//
// It stands on ClickHouse, spoken to over its HTTP interface: by default the in-process library in a child of the hub
// (package engine starts and supervises it, cmd/tocsin-engine is the child), or a server at a URL. Nothing here can tell
// which.
//
// It reads blocks of events from the worker and writes the table events and the roll-ups beside it. Tenants are a value of
// every call: an insert carries each event's own, a query takes an [access.Scope] and adds its tenants below everything the
// caller says.
//
// After a crash an insert is repeated with the same token and the same rows; the engine drops what it has. Because the
// engine can lose rows when it is killed between its two commit steps (package dedup mends that) and because a failed
// commit leaves a doubt, every insert that did not go straight through is followed by a count of its rows by batch and
// day; what is missing or doubled is put right and the roll-ups of those days are rebuilt.
//
// Counted: rows and bytes inserted, inserts repeated, checks, repairs, queries and refusals ([Store.Stats]).
package eventstore

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ClickHouse/ch-go/proto"

	"tocsin/internal/event"
)

// Options says where the store is and how much of the machine its readers may take.
type Options struct {
	// Address is unix:/path/of/socket or http(s)://[user:password@]host:port.
	Address string
	// Ready waits until the engine answers or ctx ends; nil for an external server. Callers of the store wait in it while a
	// killed engine comes back.
	Ready func(ctx context.Context) error
	// Database is the engine's database; default "tocsin". Letters, digits and underscores.
	Database string
	// Readers is how many queries run at once; default 4. The others wait.
	Readers int
	// QueryTime bounds one query; default 10 s.
	QueryTime time.Duration
	// QueryMemory bounds one query's memory in bytes; default 400 MiB.
	QueryMemory int64
	// InsertTime bounds how long Insert waits for an engine that is away; default 5 minutes.
	InsertTime time.Duration
	Logger     *slog.Logger
	// Now is the clock; default time.Now. Retention itself follows the engine's own clock.
	Now func() time.Time
}

// Stats counts since the store was opened.
type Stats struct {
	Rows, Bytes, Inserts     uint64 // acknowledged; bytes as sent
	Repeated                 uint64 // requests sent again
	Checks, Repairs          uint64 // counts by batch after a doubt; repairs of rows or roll-ups
	Queries, Refused, Failed uint64 // readers' queries: run, refused for a limit, failed
}

// Store is safe for concurrent use.
type Store struct {
	c     *client
	db    string
	opt   Options
	log   *slog.Logger
	slots chan struct{}
	bufs  sync.Pool // *proto.Buffer

	// mend is held for reading by inserts and for writing by checks and repairs, which compare tables that must stand still.
	mend sync.RWMutex

	rows, bytes, inserts, repeated, checks, repairs, queries, refused, failed atomic.Uint64
}

var databaseName = regexp.MustCompile(`^[a-z][a-z0-9_]{0,62}$`)

// Open connects, brings the tables to this version and finishes repairs that a crash interrupted. It waits for the engine
// until ctx ends, at most two minutes.
func Open(ctx context.Context, o Options) (*Store, error) {
	if o.Database == "" {
		o.Database = "tocsin"
	}
	if !databaseName.MatchString(o.Database) {
		return nil, fmt.Errorf("event store database %q: use lower-case letters, digits and underscores", o.Database)
	}
	if o.Readers <= 0 {
		o.Readers = 4
	}
	if o.QueryTime <= 0 {
		o.QueryTime = 10 * time.Second
	}
	if o.QueryMemory <= 0 {
		o.QueryMemory = 400 << 20
	}
	if o.InsertTime <= 0 {
		o.InsertTime = 5 * time.Minute
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, 2*time.Minute)
		defer cancel()
	}
	c, err := newClient(o.Address, o.Ready)
	if err != nil {
		return nil, err
	}
	s := &Store{c: c, db: o.Database, opt: o, log: o.Logger, slots: make(chan struct{}, o.Readers)}
	s.bufs.New = func() any { return &proto.Buffer{} }
	for _, sql := range migrations(s.db) {
		if err := c.exec(ctx, sql, args{"mutations_sync": "2"}); err != nil {
			return nil, fmt.Errorf("bring the event store's tables up to date: %w", err)
		}
	}
	if err := s.finishRepairs(ctx); err != nil {
		return nil, fmt.Errorf("finish the event store's repairs: %w", err)
	}
	return s, nil
}

// Close drops the idle connections.
func (s *Store) Close() { s.c.http.CloseIdleConnections() }

// Stats returns the counters.
func (s *Store) Stats() Stats {
	return Stats{s.rows.Load(), s.bytes.Load(), s.inserts.Load(), s.repeated.Load(), s.checks.Load(), s.repairs.Load(), s.queries.Load(), s.refused.Load(), s.failed.Load()}
}

// Ping asks the engine for one row.
func (s *Store) Ping(ctx context.Context) error {
	return s.c.do(ctx, "SELECT 1", args{"max_execution_time": "5"}, nil, nil)
}

// Insert stores the block's rows exactly once: they are on the disk, in the table and in every roll-up, when it returns nil.
// The token names the rows: the same token must always come with the same rows. It may be repeated after any error and
// after a crash; then use Redo, which looks before it writes. Insert waits while the engine restarts, at most InsertTime.
func (s *Store) Insert(ctx context.Context, token string, b *Block) error {
	return s.insert(ctx, token, b, false)
}

// Redo is Insert for rows that may be stored already, in whole or in part: it counts them by batch first and once more after.
func (s *Store) Redo(ctx context.Context, token string, b *Block) error {
	return s.insert(ctx, token, b, true)
}

func (s *Store) insert(ctx context.Context, token string, b *Block, doubt bool) error {
	if b.n == 0 {
		return nil
	}
	if token == "" {
		return errors.New("event store: an insert needs a token")
	}
	ctx, cancel := context.WithTimeout(ctx, s.opt.InsertTime)
	defer cancel()
	if doubt {
		if done, err := s.complete(ctx, b); err != nil {
			return err
		} else if done {
			return nil
		}
	}
	uncertain, err := s.send(ctx, token, b)
	if err != nil {
		return err
	}
	if doubt || uncertain {
		if err := s.verify(ctx, token, b); err != nil {
			return err
		}
	}
	s.inserts.Add(1)
	s.rows.Add(uint64(b.n))
	return nil
}

// send inserts the block under the token until the engine says yes. uncertain: an earlier try failed in a way that leaves
// open what it stored.
func (s *Store) send(ctx context.Context, token string, b *Block) (uncertain bool, err error) {
	buf := s.bufs.Get().(*proto.Buffer)
	defer func() {
		if cap(buf.Buf) <= MaxBlockBytes {
			s.bufs.Put(buf)
		}
	}()
	buf.Reset()
	if err := b.encode(buf); err != nil {
		return false, err
	}
	s.bytes.Add(uint64(len(buf.Buf)))
	a := args{
		"insert_deduplication_token": token, "async_insert": "0", "insert_deduplicate": "1", "deduplicate_blocks_in_dependent_materialized_views": "1",
		"max_partitions_per_insert_block": "100", "max_insert_block_size": strconv.Itoa(2 * MaxBlockRows), "max_threads": "1", "max_insert_threads": "1",
	}
	s.mend.RLock()
	defer s.mend.RUnlock()
	tries := 0
	err = s.c.retry(ctx, false, func(ctx context.Context) error {
		if tries++; tries > 1 {
			uncertain = true
			s.repeated.Add(1)
		}
		return s.c.do(ctx, "INSERT INTO "+s.db+".events ("+columnNames+") FORMAT Native", a, buf.Buf, nil)
	})
	if err != nil {
		return true, fmt.Errorf("insert %d events: %w", b.n, err)
	}
	return uncertain, nil
}

// complete says whether all rows of the block are stored, none of them twice, and the roll-ups of its days agree.
func (s *Store) complete(ctx context.Context, b *Block) (bool, error) {
	s.mend.Lock()
	defer s.mend.Unlock()
	wrong, short, err := s.compare(ctx, b)
	if err != nil || len(wrong) > 0 || short {
		return false, err
	}
	off, err := s.rollupsOff(ctx, b.tenants(), b.dayList())
	return !off, err
}

// verify counts the block's rows by batch and day and mends what is wrong: rows that a lost replay left out, rows that a
// lost deduplication record let in twice, and roll-ups that do not add up.
func (s *Store) verify(ctx context.Context, token string, b *Block) error {
	s.mend.Lock()
	defer s.mend.Unlock()
	s.checks.Add(1)
	wrong, err := s.wrongDays(ctx, b)
	if err != nil {
		return fmt.Errorf("count the rows of an insert: %w", err)
	}
	off := false
	if len(wrong) == 0 {
		if off, err = s.rollupsOff(ctx, b.tenants(), b.dayList()); err != nil {
			return fmt.Errorf("compare the roll-ups of an insert: %w", err)
		}
		if !off {
			return nil
		}
	}
	s.repairs.Add(1)
	var keys []batchDay
	for k, have := range wrong {
		keys = append(keys, k)
		s.log.Warn("rows of a batch are missing or doubled in the event store and are put right", "batch", k.String(), "have", have, "want", b.counts()[k])
	}
	if len(keys) == 0 {
		s.log.Warn("roll-ups do not agree with the events and are rebuilt", "days", len(b.days), "tenants", len(b.tenants()))
	}
	return s.repair(ctx, token, b, keys)
}

// wrongDays compares the rows stored with the rows of the block; it returns those batches and days that differ and can be mended.
func (s *Store) wrongDays(ctx context.Context, b *Block) (map[batchDay]int, error) {
	wrong, _, err := s.compare(ctx, b)
	return wrong, err
}

// compare does that, and says whether rows are missing on days that are too old to be mended: those of a backlog or a look-back. They are
// not there yet, or have expired since; the insert's token tells the two apart.
func (s *Store) compare(ctx context.Context, b *Block) (wrong map[batchDay]int, short bool, err error) {
	want := b.counts()
	streams := map[event.StreamID]bool{}
	var seqMin, seqMax uint64
	first := true
	for k := range want {
		streams[k.stream] = true
		if first || k.seq < seqMin {
			seqMin = k.seq
		}
		if first || k.seq > seqMax {
			seqMax = k.seq
		}
		first = false
	}
	names := make([]string, 0, len(streams))
	for st := range streams {
		names = append(names, "'"+hex.EncodeToString(st[:])+"'")
	}
	a := args{
		"param_tenants": uintList(b.tenants()), "param_from": timeParam(b.min * 1e3), "param_to": timeParam(b.max*1e3 + 1e3), "param_streams": "[" + strings.Join(names, ",") + "]",
		"param_smin": strconv.FormatUint(seqMin, 10), "param_smax": strconv.FormatUint(seqMax, 10),
	}.with(b.edges())
	sql := "SELECT tenant, stream, seq, toInt32(toDate(time)) AS day, count() AS n FROM " + s.db + ".events WHERE tenant IN {tenants:Array(UInt32)}" +
		" AND time >= {from:DateTime64(6, 'UTC')} AND time < {to:DateTime64(6, 'UTC')} AND seq BETWEEN {smin:UInt64} AND {smax:UInt64}" +
		" AND stream IN (SELECT toFixedString(unhex(arrayJoin({streams:Array(String)})), 16)) AND " + withinEdges + " GROUP BY tenant, stream, seq, day"
	var (
		tenant proto.ColUInt32
		stream proto.ColFixedStr
		seq, n proto.ColUInt64
		day    proto.ColInt32
	)
	stream.SetSize(16)
	have := map[batchDay]int{}
	err = s.c.query(ctx, sql, a, proto.Results{{Data: &tenant}, {Data: &stream}, {Data: &seq}, {Data: &day}, {Data: &n}}, func() { clear(have) }, func(rows int) error {
		for i := range rows {
			have[batchDay{event.TenantID(tenant[i]), event.StreamID(stream.Row(i)), seq[i], day[i]}] = int(n[i])
		}
		return nil
	})
	if err != nil {
		return nil, false, err
	}
	wrong = map[batchDay]int{}
	oldest := s.mendable()
	for k, w := range want {
		switch {
		case have[k] == w:
		case k.day > oldest:
			wrong[k] = have[k]
		case have[k] < w:
			short = true
		}
	}
	return wrong, short, nil
}

// A batch may be cut by the end of a block: of such a batch each block counts, and mends, only its own rows. (Otherwise a block that is
// redone would take the other one's rows for its own doubled ones and delete them.)
const withinEdges = "NOT (stream = toFixedString(unhex({edge1stream:String}), 16) AND seq = {edge1seq:UInt64} AND idx < {edge1idx:UInt32})" +
	" AND NOT (stream = toFixedString(unhex({edge2stream:String}), 16) AND seq = {edge2seq:UInt64} AND idx > {edge2idx:UInt32})"

// edges are the parameters of withinEdges.
func (b *Block) edges() args {
	if b.n == 0 {
		b = &Block{last: event.ID{Index: math.MaxUint32}} // no batch is cut
	}
	a := args{}
	for name, id := range map[string]event.ID{"param_edge1": b.first, "param_edge2": b.last} {
		a[name+"stream"], a[name+"seq"], a[name+"idx"] = hex.EncodeToString(id.Stream[:]), strconv.FormatUint(id.Seq, 10), strconv.FormatUint(uint64(id.Index), 10)
	}
	return a
}

// mendable gives the day before which nothing is compared or mended: rows of that age may have expired, and a roll-up made
// anew from what is left would forget them.
func (s *Store) mendable() int32 { return int32(s.opt.Now().Unix()/86400) - MinKeep + 1 }

func (s *Store) mendableDays(days []int32) []int32 {
	oldest := s.mendable()
	return slices.DeleteFunc(slices.Clone(days), func(d int32) bool { return d <= oldest })
}

// rollupsOff compares the sum of every roll-up with the events of the given days. The caller holds mend for writing.
func (s *Store) rollupsOff(ctx context.Context, tenants []uint32, days []int32) (bool, error) {
	if days = s.mendableDays(days); len(days) == 0 {
		return false, nil
	}
	for i := range rollups {
		r := &rollups[i]
		a := args{"param_days": dayList(days), "param_tenants": uintList(tenants)}
		cond, by := "time >= toDateTime64(arrayMin({days:Array(Date)}), 6, 'UTC') AND toDate(time) IN {days:Array(Date)}", "toInt32(toDate(time))"
		rcond, rby := r.day+" IN {days:Array(Date)}", "toInt32("+r.day+")"
		if r.tenant {
			cond = "tenant IN {tenants:Array(UInt32)} AND " + cond
			rcond = "tenant IN {tenants:Array(UInt32)} AND " + rcond
			by += ", tenant"
			rby += ", tenant"
		} else {
			by += ", toUInt32(0)"
			rby += ", toUInt32(0)"
		}
		if r.where != "" {
			cond += " AND " + r.where
		}
		base, err := s.sums(ctx, "SELECT "+by+", count() FROM "+s.db+".events WHERE "+cond+" GROUP BY 1, 2", a)
		if err != nil {
			return false, err
		}
		roll, err := s.sums(ctx, "SELECT "+rby+", sum(n) FROM "+s.db+"."+r.name+" WHERE "+rcond+" GROUP BY 1, 2", a)
		if err != nil {
			return false, err
		}
		if len(base) != len(roll) {
			return true, nil
		}
		for k, n := range base {
			if roll[k] != n {
				return true, nil
			}
		}
	}
	return false, nil
}

type dayTenant struct {
	day    int32
	tenant uint32
}

func (s *Store) sums(ctx context.Context, sql string, a args) (map[dayTenant]uint64, error) {
	var (
		day    proto.ColInt32
		tenant proto.ColUInt32
		n      proto.ColUInt64
	)
	out := map[dayTenant]uint64{}
	err := s.c.query(ctx, sql, a, proto.Results{{Data: &day}, {Data: &tenant}, {Data: &n}}, func() { clear(out) }, func(rows int) error {
		for i := range rows {
			if n[i] > 0 {
				out[dayTenant{day[i], tenant[i]}] = n[i]
			}
		}
		return nil
	})
	return out, err
}

// repair deletes what is stored of the given batches and days, inserts those rows anew, and rebuilds the roll-ups of all the
// block's days. A note in the table repairs makes sure that the roll-ups are rebuilt even if it is cut short; the rows
// are put right by the caller's own repetition (Redo).
func (s *Store) repair(ctx context.Context, token string, b *Block, keys []batchDay) error {
	tenants, days := b.tenants(), b.dayList()
	id := token + "/" + strconv.FormatInt(time.Now().UnixNano(), 36)
	note := args{"param_id": id, "param_tenants": uintList(tenants), "param_days": dayList(days)}
	if err := s.c.exec(ctx, "INSERT INTO "+s.db+".repairs SELECT {id:String}, now('UTC'), {tenants:Array(UInt32)}, {days:Array(Date)}, 0", note); err != nil {
		return fmt.Errorf("note a repair: %w", err)
	}
	set := map[batchDay]bool{}
	for _, k := range keys {
		set[k] = true
		err := s.c.exec(ctx, "ALTER TABLE "+s.db+".events DELETE IN PARTITION {day:String} WHERE tenant = {tenant:UInt32} AND stream = toFixedString(unhex({stream:String}), 16) AND seq = {seq:UInt64} AND "+withinEdges,
			b.edges().with(args{
				"param_day": strings.ReplaceAll(dayString(k.day), "-", ""), "param_tenant": strconv.FormatUint(uint64(k.tenant), 10), "param_stream": hex.EncodeToString(k.stream[:]),
				"param_seq": strconv.FormatUint(k.seq, 10), "mutations_sync": "2",
			}))
		if err != nil {
			return fmt.Errorf("repair rows of %s: %w", k, err)
		}
	}
	if len(keys) > 0 {
		part := b.subset(func(k batchDay) bool { return set[k] })
		buf := &proto.Buffer{}
		if err := part.encode(buf); err != nil {
			return err
		}
		// A token of its own: the old one is known to the engine. A cut connection here is settled by counting again.
		a := args{"insert_deduplication_token": id, "async_insert": "0", "max_partitions_per_insert_block": "100"}
		err := s.c.retry(ctx, false, func(ctx context.Context) error {
			return s.c.do(ctx, "INSERT INTO "+s.db+".events ("+columnNames+") FORMAT Native", a, buf.Buf, nil)
		})
		if err != nil {
			return fmt.Errorf("repair rows: %w", err)
		}
		wrong, err := s.wrongDays(ctx, b)
		if err != nil {
			return err
		}
		if len(wrong) > 0 {
			return fmt.Errorf("repair rows: %d batches still differ", len(wrong))
		}
	}
	if err := s.rebuild(ctx, tenants, days); err != nil {
		return err
	}
	return s.c.exec(ctx, "ALTER TABLE "+s.db+".repairs DELETE WHERE id = {id:String}", args{"param_id": id, "mutations_sync": "2"})
}

// rebuild makes the roll-ups of these days anew from the events. The caller holds mend for writing.
func (s *Store) rebuild(ctx context.Context, tenants []uint32, days []int32) error {
	for i := range rollups {
		r := &rollups[i]
		for _, d := range s.mendableDays(days) {
			a := args{"param_day": dayString(d), "param_tenants": uintList(tenants), "mutations_sync": "2"}
			cond, base := r.day+" = {day:Date}", "time >= toDateTime64({day:Date}, 6, 'UTC') AND time < toDateTime64({day:Date} + 1, 6, 'UTC')"
			if r.tenant {
				cond = "tenant IN {tenants:Array(UInt32)} AND " + cond
				base = "tenant IN {tenants:Array(UInt32)} AND " + base
			}
			if err := s.c.exec(ctx, "ALTER TABLE "+s.db+"."+r.name+" DELETE WHERE "+cond, a); err != nil {
				return fmt.Errorf("rebuild %s: %w", r.name, err)
			}
			a = a.with(args{"insert_deduplicate": "0"})
			delete(a, "mutations_sync")
			if err := s.c.do(ctx, "INSERT INTO "+s.db+"."+r.name+" "+r.selectFrom(s.db, base), a, nil, nil); err != nil {
				return fmt.Errorf("rebuild %s: %w", r.name, err)
			}
		}
	}
	return nil
}

// finishRepairs rebuilds the roll-ups of repairs that were begun and not finished.
func (s *Store) finishRepairs(ctx context.Context) error {
	var (
		id      proto.ColStr
		tenants = new(proto.ColUInt32).Array()
		days    = new(proto.ColInt32).Array()
		ids     []string
		ts      []uint32
		ds      []int32
	)
	reset := func() { ids, ts, ds = nil, nil, nil }
	err := s.c.query(ctx, "SELECT id, tenants, arrayMap(d -> toInt32(d), days) FROM "+s.db+".repairs", nil, proto.Results{{Data: &id}, {Data: tenants}, {Data: days}}, reset, func(rows int) error {
		for i := range rows {
			ids = append(ids, id.Row(i))
			ts = append(ts, tenants.Row(i)...)
			ds = append(ds, days.Row(i)...)
		}
		return nil
	})
	if err != nil || len(ids) == 0 {
		return err
	}
	slices.Sort(ts)
	slices.Sort(ds)
	ts, ds = slices.Compact(ts), slices.Compact(ds)
	s.log.Warn("a repair of the event store was cut short: its roll-ups are rebuilt", "repairs", len(ids), "days", len(ds))
	s.mend.Lock()
	defer s.mend.Unlock()
	if err := s.rebuild(ctx, ts, ds); err != nil {
		return err
	}
	s.repairs.Add(1)
	return s.c.exec(ctx, "ALTER TABLE "+s.db+".repairs DELETE WHERE id IN {ids:Array(String)}", args{"param_ids": stringList(ids), "mutations_sync": "2"})
}

func uintList(v []uint32) string {
	var b strings.Builder
	b.WriteByte('[')
	for i, n := range v {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(strconv.FormatUint(uint64(n), 10))
	}
	b.WriteByte(']')
	return b.String()
}

func dayList(v []int32) string {
	out := make([]string, len(v))
	for i, d := range v {
		out[i] = "'" + dayString(d) + "'"
	}
	return "[" + strings.Join(out, ",") + "]"
}

// stringList writes an Array(String) parameter.
func stringList(v []string) string {
	out := make([]string, len(v))
	for i, s := range v {
		out[i] = "'" + strings.NewReplacer(`\`, `\\`, `'`, `\'`, "\n", `\n`, "\t", `\t`, "\x00", `\0`).Replace(s) + "'"
	}
	return "[" + strings.Join(out, ",") + "]"
}

// escapeParam writes a String parameter: the engine reads it as a tab-separated value.
func escapeParam(s string) string {
	return strings.NewReplacer(`\`, `\\`, "\n", `\n`, "\t", `\t`, "\r", `\r`, "\x00", `\0`).Replace(s)
}
