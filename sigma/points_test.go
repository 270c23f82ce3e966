package sigma

import (
	"fmt"
	"strings"
	"testing"
)

const correlationHead = "title: c\nid: c1\ncorrelation:\n  timespan: 10s\n"

// count is a correlation over failed sign-ins of a user.
func count(kind, cond string) string {
	return correlationHead + "  rules: [failed]\n  group-by: [user]\n  type: " + kind + "\n  condition: {" + cond + "}\n"
}

// correlationTable has a timeline for each point on which engines differ, beginning with the number of the point. f is a failed sign-in, s a
// success, at the second behind it, with fields; t lets time pass. A hit is the second at which it was told, and its value.
var correlationTable = []struct{ point, correlation, timeline, want string }{
	{"22 event_count", count("event_count", "gte: 2"), "f100 f101", "101=2"},
	{"22 value_count", count("value_count", "field: port, gte: 2"), "f100,port=1 f101,port=2", "101=2"},
	{"22 value_sum", count("value_sum", "field: bytes, gt: 50"), "f100,bytes=30 f101,bytes=20 f102,bytes=0.5", "102=50.5"},
	{"22 value_avg", count("value_avg", "field: bytes, gte: 10"), "f100,bytes=5 f101,bytes=15", "101=10"},
	{"22 value_percentile", count("value_percentile", "field: bytes, percentile: 90, gte: 9"), "f100,bytes=0 f101,bytes=10", "101=9"},
	{"22 value_median", count("value_median", "field: bytes, gte: 5"), "f100,bytes=1 f101,bytes=9 f102,bytes=4 f103,bytes=9", "101=5"},
	{"22 temporal", correlationHead + "  type: temporal\n  rules: [failed, success]\n  group-by: [user]\n", "s100 f101", "101=2"},
	{"22 temporal_ordered", correlationHead + "  type: temporal_ordered\n  rules: [failed, success]\n  group-by: [user]\n", "s100 f101 s102", "102=2"},
	{"22 extended", correlationHead + "  type: temporal\n  group-by: [user]\n  condition: failed and success\n", "s100 f101", "101=2"},
	{"22 value_count of two fields", count("value_count", "field: [port, bytes], gte: 3"), "f100,port=1,bytes=1 f101,port=1,bytes=2 f102,port=1,bytes=1 f103,port=1 f104,port=2,bytes=1", "104=3"},
	{"23 a rule may be named by its id", strings.Replace(count("event_count", "gte: 1"), "failed", "11111111-0000-4000-8000-000000000001", 1), "f100", "100=1"},
	{"24 the window slides", count("event_count", "gte: 3"), "f108 f109 f118", "118=3"},
	{"24 and has an end", count("event_count", "gte: 3"), "f108 f109 f119", ""},
	{"24 a timespan of a week", strings.Replace(count("event_count", "gte: 2"), "10s", "1w", 1), "f100 f604900", "604900=2"},
	{"24 a timespan of a month has 2,629,746 seconds", strings.Replace(count("event_count", "gte: 2"), "10s", "1M", 1), "f100 f2629846", "2629846=2"},
	{"24 and not one more", strings.Replace(count("event_count", "gte: 2"), "10s", "1M", 1), "f100 f2629847", ""},
	{"24 a timespan of a year", strings.Replace(count("event_count", "gte: 2"), "10s", "1y", 1), "f100 f31557052", "31557052=2"},
	{"24 events out of order count with those around them", count("event_count", "gte: 3"), "f100 f109 f105", "105=3"},
	{"25 groups are apart", count("event_count", "gte: 2"), "f100 f101,user=b", ""},
	{"25 without the field an event is not counted", count("event_count", "gte: 2"), "f100,user= f101,user= f102", ""},
	{"25 two fields are one group", strings.Replace(count("event_count", "gte: 2"), "[user]", "[user, port]", 1), "f100,port=1 f101,port=2 f102,port=1", "102=2"},
	{"25 an alias names another field for each rule", correlationHead + "  type: temporal\n  rules: [failed, success]\n  group-by: [who]\n  aliases: {who: {failed: user, success: port}}\n", "f100 s101,user=b,port=b s102,user=b,port=a", "102=2"},
	{"25 without group-by there is one group", correlationHead + "  type: event_count\n  rules: [failed]\n  condition: {gte: 2}\n", "f100 f101,user=b", "101=2"},
	{"26 all rules, without a condition", correlationHead + "  type: temporal\n  rules: [failed, success]\n  group-by: [user]\n", "f100 f101", ""},
	{"26 a number of rules", correlationHead + "  type: temporal\n  rules: [failed, success]\n  group-by: [user]\n  condition: {gte: 1}\n", "f100", "100=1"},
	{"26 ordered: equal times in the order in which they came", correlationHead + "  type: temporal_ordered\n  rules: [failed, success]\n  group-by: [user]\n", "f100 s100", "100=2"},
	{"26 ordered: all of them may be asked for by number", correlationHead + "  type: temporal_ordered\n  rules: [failed, success]\n  group-by: [user]\n  condition: {gte: 2}\n", "f100 s101", "101=2"},
	{"27 distinct values", count("value_count", "field: port, gte: 2"), "f100,port=1 f101,port=1 f102,port=1", ""},
	{"27 a missing value does not count", count("value_count", "field: port, gte: 2"), "f100,port=1 f101", ""},
	{"27 an upper bound is decided when the window is over", count("event_count", "lt: 3"), "f100 f101 t110 t111", "111=2"},
	{"27 an upper bound that is passed", count("event_count", "lt: 3"), "f100 f101 f102 t111", ""},
	{"27 several bounds must all hold", count("event_count", "gte: 2, lte: 3"), "f100 f101 t111", "111=2"},
	{"27 eq", count("event_count", "eq: 2"), "f100 f101 f102 t111 f120 f121 t140", "140=2"},
	{"27 neq", count("event_count", "neq: 2"), "f100 f101 t111 f120 t140", "140=1"},
	{"28 it fires once, not for each further event", count("event_count", "gte: 2"), "f100 f101 f102 f103 f104", "101=2"},
	{"28 and again after a pause of a timespan", count("event_count", "gte: 2"), "f100 f101 f200 f201", "101=2 201=2"},
}

func TestCorrelationPoints(t *testing.T) {
	for _, c := range correlationTable {
		r := newRig(t, c.correlation, CorrelatorOptions{})
		var got []string
		for _, e := range strings.Fields(c.timeline) {
			parts := strings.Split(e[1:], ",")
			var s float64
			fmt.Sscan(parts[0], &s)
			var hits []Hit
			if e[0] == 't' {
				hits = r.c.Tick(int64(s*1e9), int64(s*1e9), nil)
			} else {
				fields := []string{map[byte]string{'f': "outcome=failure", 's': "outcome=success"}[e[0]]}
				user := "user=a"
				for _, f := range parts[1:] {
					if strings.HasPrefix(f, "user=") {
						user = f
					} else {
						fields = append(fields, f)
					}
				}
				if user != "user=" {
					fields = append(fields, user)
				}
				hits = r.at(s, fields...)
			}
			for _, h := range hits {
				got = append(got, fmt.Sprintf("%s=%g", parts[0], h.Value))
			}
		}
		if text := strings.Join(got, " "); text != c.want {
			t.Errorf("%s (%s): %s: %q, want %q", c.point, specification[pointOf(c.point)], c.timeline, text, c.want)
		}
	}
}

// TestGenerate is point 23: referenced rules do not alert on their own unless the correlation says generate; references may be forward, and
// correlations may build on one another.
func TestGenerate(t *testing.T) {
	for _, more := range []string{"", "  generate: false\n", "  generate: true\n", "generate: true\n", "generate: no\n"} {
		generate := strings.Contains(more, "true")
		e, _ := compileText(t, "title: outer\nid: o\ncorrelation: {type: event_count, rules: [inner], group-by: [user], timespan: 1h, condition: {gte: 2}}\n---\ntitle: inner\nid: i\nname: inner\ncorrelation:\n  type: event_count\n  rules: [failed]\n  group-by: [user]\n  timespan: 1m\n  condition: {gte: 2}\n"+more+"---\n"+baseRule)
		if e.Alerts(0) != generate || !e.Alerts(1) {
			t.Errorf("%q: alerts %v, %v", more, e.Alerts(0), e.Alerts(1))
		}
		for i, c := range e.Correlations {
			if want := c.ID == "o"; e.CorrelationAlerts(int32(i)) != want {
				t.Errorf("%s alerts: %v", c.ID, !want)
			}
		}
	}
}
