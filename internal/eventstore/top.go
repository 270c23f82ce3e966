package eventstore

import (
	"context"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/ClickHouse/ch-go/proto"

	"tocsin/internal/access"
	"tocsin/internal/event"
)

// Field is something a Top list can be made of.
type Field string

// The fields of Top, by ECS name; class and service are this package's.
const (
	BySourceIP        Field = "source.ip"
	ByCountry         Field = "source.geo.country_iso_code"
	ByAS              Field = "source.as.number"
	ByDestinationIP   Field = "destination.ip"
	ByPort            Field = "destination.port"
	ByRule            Field = "rule.id" // of IDS, malware and detection rules; a firewall's policy numbers are not listed
	ByAction          Field = "event.action"
	ByDataset         Field = "event.dataset"
	ByUser            Field = "user.name"
	ByProduct         Field = "observer.product"
	ByDomain          Field = "url.domain"
	ByClass           Field = "class"
	ByService         Field = "service"
	ByLevel           Field = "level"
	ByTenant          Field = "tenant"
	ByCollector       Field = "tocsin.collector.id"
	ByDestinationHost Field = "host.name"
)

// Count is one line of a Top list.
type Count struct {
	Value   string
	Label   string // rule.name of a rule, organization of an AS, transport of a port
	Count   uint64
	Members uint64 // distinct tenants; only in a national scope, and only for source.ip from the roll-up or any field from the events
	// For source.ip:
	Country     string
	AS          uint32
	ASName      string
	First, Last int64 // UTC nanoseconds, to the second
}

// topSource says where a field's list comes from: expressions in the tenants' and the scheme's roll-up, and in events.
type topSource struct {
	tenantTable, tenantValue, tenantLabel string
	schemeTable, schemeValue, schemeLabel string
	raw, rawLabel                         string
	hourly                                bool // the roll-ups have hours, not days
	skip                                  string
	cond                                  string // on events, where the roll-up counts only some
}

var topSources = map[Field]topSource{
	ByCountry:         {tenantTable: "tenant_source_day", tenantValue: "CAST(country, 'String')", schemeTable: "source_day", schemeValue: "CAST(country, 'String')", raw: "CAST(source_country, 'String')", skip: "''"},
	ByAS:              {tenantTable: "tenant_source_day", tenantValue: "CAST(as_number, 'String')", tenantLabel: "CAST(any(as_name), 'String')", schemeTable: "source_day", schemeValue: "CAST(as_number, 'String')", schemeLabel: "CAST(any(as_name), 'String')", raw: "CAST(source_as, 'String')", rawLabel: "CAST(any(source_as_name), 'String')", skip: "'0'"},
	ByPort:            {tenantTable: "tenant_port_day", tenantValue: "CAST(port, 'String')", tenantLabel: "CAST(any(transport), 'String')", raw: "CAST(destination_port, 'String')", rawLabel: "CAST(any(network_transport), 'String')", schemeTable: "scheme_hour", schemeValue: "CAST(port, 'String')", hourly: true, skip: "'0'"},
	ByRule:            {tenantTable: "tenant_rule_day", tenantValue: "CAST(rule_id, 'String')", tenantLabel: "CAST(any(rule_name), 'String')", schemeTable: "tenant_rule_day", schemeValue: "CAST(rule_id, 'String')", schemeLabel: "CAST(any(rule_name), 'String')", raw: "CAST(rule_id, 'String')", rawLabel: "CAST(any(rule_name), 'String')", skip: "''", cond: "class IN ('ids', 'malware', 'detection')"},
	ByClass:           {tenantTable: "tenant_hour", tenantValue: "CAST(class, 'String')", schemeTable: "scheme_hour", schemeValue: "CAST(class, 'String')", raw: "CAST(class, 'String')", hourly: true, skip: "''"},
	ByLevel:           {tenantTable: "tenant_hour", tenantValue: "CAST(level, 'String')", schemeTable: "scheme_hour", schemeValue: "CAST(level, 'String')", raw: "CAST(level, 'String')", hourly: true, skip: "''"},
	ByService:         {tenantTable: "tenant_hour", tenantValue: "CAST(service, 'String')", schemeTable: "tenant_hour", schemeValue: "CAST(service, 'String')", raw: "CAST(service, 'String')", hourly: true, skip: "''"},
	ByTenant:          {tenantTable: "tenant_hour", tenantValue: "CAST(tenant, 'String')", schemeTable: "tenant_hour", schemeValue: "CAST(tenant, 'String')", raw: "CAST(tenant, 'String')", hourly: true, skip: "'0'"},
	ByDestinationIP:   {raw: "CAST(destination_ip, 'String')", skip: "'::'"},
	ByAction:          {raw: "CAST(event_action, 'String')", skip: "''"},
	ByDataset:         {raw: "CAST(event_dataset, 'String')", skip: "''"},
	ByUser:            {raw: "user_name", skip: "''"},
	ByProduct:         {raw: "CAST(observer_product, 'String')", skip: "''"},
	ByDomain:          {raw: "url_domain", skip: "''"},
	ByCollector:       {raw: "CAST(collector, 'String')", skip: "''"},
	ByDestinationHost: {raw: "CAST(host_name, 'String')", skip: "''"},
}

// MaxTop bounds a Top list.
const MaxTop = 1000

// Top lists the n most frequent values of a field among the events that the filter chooses. A filter on time and tenants
// only is answered from roll-ups where one has the field, then by whole days (or hours); any other from the events.
func (s *Store) Top(ctx context.Context, scope access.Scope, field Field, f Filter, n int) ([]Count, error) {
	if n <= 0 || n > MaxTop {
		n = 10
	}
	if field == BySourceIP {
		return s.topSources(ctx, scope, f, n)
	}
	src, ok := topSources[field]
	if !ok {
		return nil, fmt.Errorf("%w: there is no list by %q", ErrBadFilter, field)
	}
	r := s.reader(scope)
	table, value, label, count, members := "events", src.raw, src.rawLabel, "count()", "toUInt64(0)"
	scheme := r.all && len(f.Tenants) == 0 && !f.Quarantined
	switch {
	case !f.narrow() && scheme && src.schemeTable != "":
		table, value, label, count = src.schemeTable, src.schemeValue, src.schemeLabel, "sum(n)"
	case !f.narrow() && src.tenantTable != "":
		table, value, label, count = src.tenantTable, src.tenantValue, src.tenantLabel, "sum(n)"
	}
	if table == "events" || strings.HasSuffix(table, "_hour") {
		r.figures(f)
	}
	if table == "events" {
		if err := r.events(f); err != nil {
			return nil, err
		}
		r.where(src.cond)
		if r.all {
			members = "uniq(tenant)"
		}
	} else {
		if strings.HasPrefix(table, "tenant_") {
			r.rollupTenants(f)
		}
		if strings.HasSuffix(table, "_hour") {
			if f.From != 0 {
				r.where("hour >= toStartOfHour({from:DateTime('UTC')})", "from", strconv.FormatInt(f.From/1e9, 10))
			}
			if f.To != 0 {
				r.where("hour < {to:DateTime('UTC')}", "to", strconv.FormatInt((f.To+1e9-1)/1e9, 10))
			}
		} else {
			r.days(f.From, f.To)
		}
	}
	if label == "" {
		label = "''"
	}
	r.where("v != " + src.skip)
	sql := "SELECT " + value + " AS v, " + label + " AS l, toUInt64(" + count + ") AS c, toUInt64(" + members + ") FROM " + s.db + "." + table + r.sqlWhere() + " GROUP BY v ORDER BY c DESC, v LIMIT " + strconv.Itoa(n)
	var (
		v, l proto.ColStr
		c, m proto.ColUInt64
		out  []Count
	)
	err := s.run(ctx, r, sql, proto.Results{{Data: &v}, {Data: &l}, {Data: &c}, {Data: &m}}, func() { out = out[:0] }, func(rows int) error {
		for i := range rows {
			x := Count{Value: v.Row(i), Label: l.Row(i), Count: c[i], Members: m[i]}
			if field == ByDestinationIP {
				if a, err := netip.ParseAddr(x.Value); err == nil {
					x.Value = a.Unmap().String()
				}
			}
			out = append(out, x)
		}
		return nil
	})
	return out, err
}

// topSources is Top by source address: the busiest are chosen by their counts alone, then looked up.
func (s *Store) topSources(ctx context.Context, scope access.Scope, f Filter, n int) ([]Count, error) {
	r := s.reader(scope)
	limit := strconv.Itoa(n)
	const place = "CAST(anyLast(country), 'String'), toUInt32(anyLast(as_number)), CAST(anyLast(as_name), 'String')"
	var sql string
	scheme := r.all && len(f.Tenants) == 0 && !f.Quarantined
	switch {
	case f.narrow():
		if err := r.events(f); err != nil {
			return nil, err
		}
		r.where("source_ip != toIPv6('::')")
		sql = "SELECT source_ip, toUInt64(count()) AS c, uniq(tenant), toInt64(toUnixTimestamp(toDateTime(min(time)))), toInt64(toUnixTimestamp(toDateTime(max(time))))," +
			" CAST(anyLast(source_country), 'String'), toUInt32(anyLast(source_as)), CAST(anyLast(source_as_name), 'String') FROM " + s.db + ".events" + r.sqlWhere() + " GROUP BY source_ip ORDER BY c DESC, source_ip LIMIT " + limit
	case scheme:
		r.days(f.From, f.To)
		w := r.sqlWhere()
		in := "source_ip IN (SELECT source_ip FROM " + s.db + ".source_day" + w + " GROUP BY source_ip ORDER BY sum(n) DESC, source_ip LIMIT " + limit + ")"
		r.where(in)
		sql = "SELECT source_ip, toUInt64(sum(n)) AS c, uniqMerge(members), toInt64(toUnixTimestamp(min(first))), toInt64(toUnixTimestamp(max(last))), " + place + " FROM " + s.db + ".source_day" + r.sqlWhere() + " GROUP BY source_ip ORDER BY c DESC, source_ip"
	default:
		r.rollupTenants(f)
		r.days(f.From, f.To)
		sql = "SELECT source_ip, toUInt64(sum(n)) AS c, uniq(tenant), toInt64(toUnixTimestamp(min(first))), toInt64(toUnixTimestamp(max(last))), " + place + " FROM " + s.db + ".tenant_source_day" + r.sqlWhere() + " GROUP BY source_ip ORDER BY c DESC, source_ip LIMIT " + limit
	}
	return s.addresses(ctx, r, sql)
}

func (s *Store) addresses(ctx context.Context, r *reader, sql string) ([]Count, error) {
	var (
		ip          proto.ColIPv6
		c, m        proto.ColUInt64
		first, last proto.ColInt64
		country, as proto.ColStr
		number      proto.ColUInt32
		out         []Count
	)
	err := s.run(ctx, r, sql, proto.Results{{Data: &ip}, {Data: &c}, {Data: &m}, {Data: &first}, {Data: &last}, {Data: &country}, {Data: &number}, {Data: &as}}, func() { out = out[:0] }, func(rows int) error {
		for i := range rows {
			x := Count{Value: unmapped(ip[i]).String(), Count: c[i], First: first[i] * 1e9, Last: last[i] * 1e9, Country: country.Row(i), AS: number[i], ASName: as.Row(i)}
			if r.all {
				x.Members = m[i]
			}
			out = append(out, x)
		}
		return nil
	})
	return out, err
}

// Address says what is known of one source address in the scope: how often it came, first and last, from where, and in a
// national scope at how many members. ok is false when it was not seen. from and to may be 0.
func (s *Store) Address(ctx context.Context, scope access.Scope, ip netip.Addr, from, to int64) (c Count, ok bool, err error) {
	r := s.reader(scope)
	const place = "CAST(anyLast(country), 'String'), toUInt32(anyLast(as_number)), CAST(anyLast(as_name), 'String')"
	table, members := "tenant_source_day", "uniq(tenant)"
	if r.all {
		table, members = "source_day", "uniqMerge(members)"
	}
	r.days(from, to)
	r.where("source_ip = {ip:IPv6}", "ip", ipParam(ip))
	list, err := s.addresses(ctx, r, "SELECT source_ip, toUInt64(sum(n)) AS c, "+members+", toInt64(toUnixTimestamp(min(first))), toInt64(toUnixTimestamp(max(last))), "+place+" FROM "+s.db+"."+table+r.sqlWhere()+" GROUP BY source_ip")
	if err != nil || len(list) == 0 {
		return Count{}, false, err
	}
	return list[0], true, nil
}

// CollectorCount is how many events of one collector are stored.
type CollectorCount struct {
	Tenant    event.TenantID
	Collector string
	Events    uint64
	Last      int64 // storage time of the newest, UTC nanoseconds
}

// CollectorCounts counts the stored events by tenant and collector, quarantined ones included. It reads two columns of
// every event in the span, so it is for checks of the balance, not for a page.
func (s *Store) CollectorCounts(ctx context.Context, scope access.Scope, from, to int64) ([]CollectorCount, error) {
	r := s.reader(scope)
	if err := r.events(Filter{From: from, To: to, Quarantined: true}); err != nil {
		return nil, err
	}
	var (
		tenant    proto.ColUInt32
		collector proto.ColStr
		n         proto.ColUInt64
		last      proto.ColInt64
		out       []CollectorCount
	)
	err := s.run(ctx, r, "SELECT tenant, CAST(collector, 'String') AS c, count(), toUnixTimestamp64Micro(max(time)) FROM "+s.db+".events"+r.sqlWhere()+" GROUP BY tenant, c ORDER BY tenant, c",
		proto.Results{{Data: &tenant}, {Data: &collector}, {Data: &n}, {Data: &last}}, func() { out = out[:0] }, func(rows int) error {
			for i := range rows {
				out = append(out, CollectorCount{event.TenantID(tenant[i]), collector.Row(i), n[i], last[i] * 1e3})
			}
			return nil
		})
	return out, err
}
