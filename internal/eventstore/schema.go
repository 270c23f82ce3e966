package eventstore

import (
	"fmt"
	"strings"

	"tocsin/internal/event"
)

// columnKind is how a column is kept in memory and on the wire.
type columnKind uint8

const (
	kindString columnKind = iota // String
	kindLow                      // LowCardinality(String): few distinct values
	kindList                     // LowCardinality(String) of values joined by commas
	kindIP                       // IPv6, IPv4 mapped; :: is absent
	kindUint8                    // 0 is absent
	kindUint16
	kindUint32
	kindUint64
)

var kindTypes = [...]string{
	kindString: "String", kindLow: "LowCardinality(String)", kindList: "LowCardinality(String)", kindIP: "IPv6",
	kindUint8: "UInt8", kindUint16: "UInt16", kindUint32: "UInt32", kindUint64: "UInt64",
}

// columnDef is one column that holds a field of the event. A value that the column cannot hold exactly (zero or empty, out
// of range, of another kind, or the second of a list) goes to the column `fields` under its name, so nothing is lost.
type columnDef struct {
	name  string
	key   event.Key
	kind  columnKind
	codec string
	index string // skip index, after the word TYPE
}

const (
	codecText  = "ZSTD(1)"
	bloom      = "bloom_filter(0.01) GRANULARITY 1"
	few        = "set(32) GRANULARITY 4" // of columns with few values, some of them rare
	tokenBloom = "tokenbf_v1(8192, 3, 7) GRANULARITY 1"
)

// layout is the columns that hold fields, in table order. Appending one is a schema change that the migration makes by
// itself (ADD COLUMN); older rows then keep that field in `fields`, and both places are read.
var layout = []columnDef{
	{"source_ip", event.SourceIP, kindIP, codecText, bloom},
	{"source_port", event.SourcePort, kindUint16, codecText, ""},
	{"destination_ip", event.DestinationIP, kindIP, codecText, bloom},
	{"destination_port", event.DestinationPort, kindUint16, codecText, ""},
	{"source_nat_ip", event.SourceNATIP, kindIP, codecText, ""},
	{"destination_nat_ip", event.DestinationNATIP, kindIP, codecText, ""},
	{"network_transport", event.NetworkTransport, kindLow, codecText, ""},
	{"network_protocol", event.NetworkProtocol, kindLow, codecText, ""},
	{"network_direction", event.NetworkDirection, kindLow, codecText, ""},
	{"source_bytes", event.SourceBytes, kindUint64, codecText, ""},
	{"destination_bytes", event.DestinationBytes, kindUint64, codecText, ""},
	{"source_country", event.SourceGeoCountryISOCode, kindLow, codecText, ""},
	{"source_as", event.SourceASNumber, kindUint32, codecText, ""},
	{"source_as_name", event.SourceASOrganizationName, kindLow, codecText, ""},
	{"destination_country", event.DestinationGeoCountryISOCode, kindLow, codecText, ""},
	{"destination_as", event.DestinationASNumber, kindUint32, codecText, ""},
	{"destination_as_name", event.DestinationASOrganizationName, kindLow, codecText, ""},
	{"event_kind", event.EventKind, kindLow, codecText, ""},
	{"event_category", event.EventCategory, kindList, codecText, ""},
	{"event_type", event.EventType, kindList, codecText, ""},
	{"event_action", event.EventAction, kindLow, codecText, ""},
	{"event_outcome", event.EventOutcome, kindLow, codecText, ""},
	{"event_module", event.EventModule, kindLow, codecText, ""},
	{"event_dataset", event.EventDataset, kindLow, codecText, ""},
	{"event_code", event.EventCode, kindLow, codecText, ""},
	{"event_severity", event.EventSeverity, kindUint16, codecText, ""},
	{"severity", event.TocsinSeverity, kindLow, codecText, ""},
	{"rule_id", event.RuleID, kindLow, codecText, ""},
	{"rule_name", event.RuleName, kindLow, codecText, ""},
	{"rule_category", event.RuleCategory, kindLow, codecText, ""},
	{"user_name", event.UserName, kindString, codecText, bloom},
	{"host_name", event.HostName, kindLow, codecText, ""},
	{"observer_vendor", event.ObserverVendor, kindLow, codecText, ""},
	{"observer_product", event.ObserverProduct, kindLow, codecText, ""},
	{"observer_type", event.ObserverType, kindLow, codecText, ""},
	{"observer_name", event.ObserverName, kindLow, codecText, ""},
	{"observer_ingress", event.ObserverIngressInterfaceName, kindLow, codecText, ""},
	{"observer_egress", event.ObserverEgressInterfaceName, kindLow, codecText, ""},
	{"url_full", event.URLFull, kindString, codecText, tokenBloom},
	{"url_domain", event.URLDomain, kindString, codecText, bloom},
	{"dns_question", event.DNSQuestionName, kindString, codecText, bloom},
	{"file_sha256", event.FileHashSHA256, kindString, codecText, bloom},
	{"message", event.Message, kindString, "ZSTD(3)", tokenBloom},
	{"indicator_id", event.TocsinIndicatorID, kindLow, codecText, ""},
	{"indicator_matched", event.TocsinIndicatorMatched, kindString, codecText, bloom},
	{"format", event.TocsinFormat, kindLow, codecText, ""},
	{"kept_service", event.TocsinService, kindLow, codecText, ""},
	{"assurance", event.TocsinSenderAssurance, kindLow, codecText, ""},
	{"proof", event.TocsinSourceProof, kindLow, codecText, ""},
	{"sender_ip", event.TocsinSenderIP, kindIP, codecText, ""},
	{"left_reason", event.TocsinLeftReason, kindLow, codecText, few}, // answers to questions are sought among all that ever came
	{"collector", event.TocsinCollectorID, kindLow, codecText, ""},
}

// slotOf gives a schema key's place in layout plus one; 0 for keys that live in `fields`.
var slotOf = func() (s [1024]uint8) {
	for i, d := range layout {
		s[d.key] = uint8(i + 1)
	}
	return s
}()

// headColumns stand before the layout in the table and in every insert.
var headColumns = []struct{ name, typ, codec, index string }{
	{"tenant", "UInt32", "Delta, ZSTD(1)", ""},
	// The storage time: the collector's receive time corrected by its clock's measured offset. Partition, order and
	// every time range use it; the device's own time stands in `timestamp`.
	{"time", "DateTime64(6, 'UTC')", "Delta, ZSTD(1)", ""},
	{"timestamp", "DateTime64(6, 'UTC')", "Delta, ZSTD(1)", ""},
	// event.created less the storage time, in microseconds: constant along a batch, where a second full time would cost 3 bytes.
	{"created_shift", "Int64", "ZSTD(1)", ""},
	{"ingested", "DateTime64(6, 'UTC')", "Delta, ZSTD(1)", ""},
	// The event's id, which is also its batch: stream and sequence.
	{"stream", "FixedString(16)", "ZSTD(1)", bloom},
	{"seq", "UInt64", "Delta, ZSTD(1)", "minmax GRANULARITY 1"},
	{"idx", "UInt32", "Delta, ZSTD(1)", ""},
	{"keep", "UInt16", "ZSTD(1)", ""}, // days, see the table's TTL
	{"quarantined", "UInt8", "ZSTD(1)", ""},
	{"class", "LowCardinality(String)", codecText, ""},
	{"service", "LowCardinality(String)", codecText, ""},
	{"level", "LowCardinality(String)", codecText, ""}, // low, medium, high, critical: tocsin.severity, or derived from the class
}

// rollup is a table kept beside events by a materialised view. Both the view and a rebuild use its select.
type rollup struct {
	name    string
	columns string // column list of the table
	engine  string
	key     string // ORDER BY
	part    string // PARTITION BY
	day     string // expression giving the day of one of its rows
	tenant  bool   // has a tenant column; the others hold the whole scheme without quarantined collectors
	where   string // which events it counts
	sel     string // SELECT list from events
	group   string
}

// rollups are narrow on purpose: a wide one by tenant, port and country is no smaller than the events, and a sketch in
// what dashboards group often costs more than it saves.
var rollups = []rollup{
	{
		name:    "tenant_hour",
		columns: "tenant UInt32, hour DateTime('UTC') CODEC(Delta, ZSTD(1)), class LowCardinality(String), level LowCardinality(String), service LowCardinality(String), quarantined UInt8, n UInt64",
		engine:  "SummingMergeTree(n)", key: "(tenant, hour, class, level, service, quarantined)", part: "toYYYYMM(hour)", day: "toDate(hour)", tenant: true,
		sel: "tenant, toStartOfHour(time) AS hour, class, level, service, quarantined, count() AS n", group: "tenant, hour, class, level, service, quarantined",
	},
	{
		name: "tenant_source_day",
		columns: "tenant UInt32, day Date CODEC(Delta, ZSTD(1)), source_ip IPv6 CODEC(ZSTD(1)), quarantined UInt8, n SimpleAggregateFunction(sum, UInt64), first SimpleAggregateFunction(min, DateTime('UTC')), last SimpleAggregateFunction(max, DateTime('UTC'))," +
			" country SimpleAggregateFunction(anyLast, LowCardinality(String)), as_number SimpleAggregateFunction(anyLast, UInt32), as_name SimpleAggregateFunction(anyLast, LowCardinality(String))",
		engine: "AggregatingMergeTree", key: "(tenant, day, source_ip, quarantined)", part: "toYYYYMM(day)", day: "day", tenant: true,
		where: "source_ip != toIPv6('::')",
		sel: "tenant, toDate(time) AS day, source_ip, quarantined, count() AS n, min(toDateTime(time, 'UTC')) AS first, max(toDateTime(time, 'UTC')) AS last," +
			" anyLast(source_country) AS country, anyLast(source_as) AS as_number, anyLast(source_as_name) AS as_name",
		group: "tenant, day, source_ip, quarantined",
	},
	{
		name:    "tenant_port_day",
		columns: "tenant UInt32, day Date CODEC(Delta, ZSTD(1)), class LowCardinality(String), transport LowCardinality(String), port UInt16, quarantined UInt8, n UInt64",
		engine:  "SummingMergeTree(n)", key: "(tenant, day, class, transport, port, quarantined)", part: "toYYYYMM(day)", day: "day", tenant: true,
		where: "destination_port != 0",
		sel:   "tenant, toDate(time) AS day, class, network_transport AS transport, destination_port AS port, quarantined, count() AS n", group: "tenant, day, class, transport, port, quarantined",
	},
	{
		name:    "tenant_rule_day",
		columns: "tenant UInt32, day Date CODEC(Delta, ZSTD(1)), rule_id LowCardinality(String), rule_name LowCardinality(String), class LowCardinality(String), level LowCardinality(String), quarantined UInt8, n UInt64",
		engine:  "SummingMergeTree(n)", key: "(tenant, day, rule_id, rule_name, class, level, quarantined)", part: "toYYYYMM(day)", day: "day", tenant: true,
		where: "rule_id != '' AND class IN ('ids', 'malware', 'detection')",
		sel:   "tenant, toDate(time) AS day, rule_id, rule_name, class, level, quarantined, count() AS n", group: "tenant, day, rule_id, rule_name, class, level, quarantined",
	},
	{
		name: "source_day",
		columns: "day Date CODEC(Delta, ZSTD(1)), source_ip IPv6 CODEC(ZSTD(1)), n SimpleAggregateFunction(sum, UInt64), members AggregateFunction(uniq, UInt32), first SimpleAggregateFunction(min, DateTime('UTC')), last SimpleAggregateFunction(max, DateTime('UTC'))," +
			" country SimpleAggregateFunction(anyLast, LowCardinality(String)), as_number SimpleAggregateFunction(anyLast, UInt32), as_name SimpleAggregateFunction(anyLast, LowCardinality(String))",
		engine: "AggregatingMergeTree", key: "(day, source_ip)", part: "toYYYYMM(day)", day: "day",
		where: "source_ip != toIPv6('::') AND quarantined = 0",
		sel: "toDate(time) AS day, source_ip, count() AS n, uniqState(tenant) AS members, min(toDateTime(time, 'UTC')) AS first, max(toDateTime(time, 'UTC')) AS last," +
			" anyLast(source_country) AS country, anyLast(source_as) AS as_number, anyLast(source_as_name) AS as_name",
		group: "day, source_ip",
	},
	{
		name:    "scheme_hour",
		columns: "hour DateTime('UTC') CODEC(Delta, ZSTD(1)), class LowCardinality(String), level LowCardinality(String), country LowCardinality(String), port UInt16, n UInt64",
		engine:  "SummingMergeTree(n)", key: "(hour, class, level, country, port)", part: "toYYYYMM(hour)", day: "toDate(hour)",
		where: "quarantined = 0",
		sel:   "toStartOfHour(time) AS hour, class, level, source_country AS country, destination_port AS port, count() AS n", group: "hour, class, level, country, port",
	},
}

// tableSettings: every acknowledged insert is on the disk, and a token is remembered for the last 10,000 blocks of the table.
const tableSettings = "non_replicated_deduplication_window = 10000, fsync_after_insert = 1, fsync_part_directory = 1"

func (r *rollup) selectFrom(db, where string) string {
	conds := make([]string, 0, 2)
	if r.where != "" {
		conds = append(conds, r.where)
	}
	if where != "" {
		conds = append(conds, where)
	}
	s := "SELECT " + r.sel + " FROM " + db + ".events"
	if len(conds) > 0 {
		s += " WHERE " + strings.Join(conds, " AND ")
	}
	return s + " GROUP BY " + r.group
}

// migrations are the statements that bring any earlier state of the database to this one. Each can be repeated.
func migrations(db string) []string {
	var cols, index []string
	add := func(name, typ, codec, ix string) {
		cols = append(cols, fmt.Sprintf("%s %s CODEC(%s)", name, typ, codec))
		if ix != "" {
			index = append(index, fmt.Sprintf("INDEX ix_%s %s TYPE %s", name, name, ix))
		}
	}
	for _, c := range headColumns {
		add(c.name, c.typ, c.codec, c.index)
	}
	for _, d := range layout {
		add(d.name, kindTypes[d.kind], d.codec, d.index)
	}
	add("fields", "Map(LowCardinality(String), String)", codecText, "")
	add("raw", "String", "ZSTD(3)", "")
	out := []string{
		"CREATE DATABASE IF NOT EXISTS " + db,
		"CREATE TABLE IF NOT EXISTS " + db + ".events (" + strings.Join(append(cols, index...), ", ") + ") ENGINE = MergeTree PARTITION BY toDate(time) ORDER BY (tenant, time)" +
			" TTL toDateTime(time) + toIntervalDay(keep) SETTINGS " + tableSettings,
		// What a repair has begun and not finished: the roll-ups of these days are rebuilt at the next start.
		"CREATE TABLE IF NOT EXISTS " + db + ".repairs (id String, at DateTime('UTC'), tenants Array(UInt32), days Array(Date), done UInt8) ENGINE = MergeTree ORDER BY id SETTINGS fsync_after_insert = 1, fsync_part_directory = 1",
		// See mark.go.
		"CREATE TABLE IF NOT EXISTS " + db + ".marks (mark Int64, at DateTime('UTC')) ENGINE = MergeTree ORDER BY mark TTL at + toIntervalDay(400) SETTINGS fsync_after_insert = 1, fsync_part_directory = 1",
	}
	// One statement: each costs a write of the table's metadata.
	var grow []string
	for _, d := range layout {
		grow = append(grow, fmt.Sprintf("ADD COLUMN IF NOT EXISTS %s %s CODEC(%s)", d.name, kindTypes[d.kind], d.codec))
	}
	for _, ix := range index { // of what is stored from now on
		grow = append(grow, "ADD "+strings.Replace(ix, "INDEX ", "INDEX IF NOT EXISTS ", 1))
	}
	out = append(out, "ALTER TABLE "+db+".events "+strings.Join(grow, ", "))
	for i := range rollups {
		r := &rollups[i]
		out = append(out,
			fmt.Sprintf("CREATE TABLE IF NOT EXISTS %s.%s (%s) ENGINE = %s PARTITION BY %s ORDER BY %s SETTINGS %s", db, r.name, r.columns, r.engine, r.part, r.key, tableSettings),
			fmt.Sprintf("CREATE MATERIALIZED VIEW IF NOT EXISTS %s.%s_mv TO %s.%s AS %s", db, r.name, db, r.name, r.selectFrom(db, "")))
	}
	return out
}
