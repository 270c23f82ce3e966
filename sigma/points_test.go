package sigma

import (
	"fmt"
	"strings"
	"testing"
)

// TestCorrelationPoints has a timeline for each point of the specification of correlations ("Sigma Correlation Rules" 2.1.0) that engines
// read differently. f is a failed sign-in, s a success, at the second behind it, with fields; t lets time pass. A hit is the second at which
// it was told, and its value.
func TestCorrelationPoints(t *testing.T) {
	const head = "title: c\nid: c1\ncorrelation:\n  timespan: 10s\n"
	count := func(kind, cond string) string {
		return head + "  rules: [failed]\n  group-by: [user]\n  type: " + kind + "\n  condition: {" + cond + "}\n"
	}
	for _, c := range []struct{ point, correlation, timeline, want string }{
		{"22 event_count", count("event_count", "gte: 2"), "f100 f101", "101=2"},
		{"22 value_count", count("value_count", "field: port, gte: 2"), "f100,port=1 f101,port=2", "101=2"},
		{"22 value_sum", count("value_sum", "field: bytes, gt: 50"), "f100,bytes=30 f101,bytes=20 f102,bytes=0.5", "102=50.5"},
		{"22 value_avg", count("value_avg", "field: bytes, gte: 10"), "f100,bytes=5 f101,bytes=15", "101=10"},
		{"22 value_percentile", count("value_percentile", "field: bytes, percentile: 90, gte: 9"), "f100,bytes=0 f101,bytes=10", "101=9"},
		{"22 value_median", count("value_median", "field: bytes, gte: 5"), "f100,bytes=1 f101,bytes=9 f102,bytes=4 f103,bytes=9", "101=5"},
		{"22 temporal", head + "  type: temporal\n  rules: [failed, success]\n  group-by: [user]\n", "s100 f101", "101=2"},
		{"22 temporal_ordered", head + "  type: temporal_ordered\n  rules: [failed, success]\n  group-by: [user]\n", "s100 f101 s102", "102=2"},
		{"22 extended", head + "  type: temporal\n  group-by: [user]\n  condition: failed and success\n", "s100 f101", "101=2"},
		{"23 a rule may be named by its id", strings.Replace(count("event_count", "gte: 1"), "failed", "11111111-0000-4000-8000-000000000001", 1), "f100", "100=1"},
		{"24 the window slides", count("event_count", "gte: 3"), "f108 f109 f118", "118=3"},
		{"24 and has an end", count("event_count", "gte: 3"), "f108 f109 f119", ""},
		{"24 events out of order count with those around them", count("event_count", "gte: 3"), "f100 f109 f105", "105=3"},
		{"25 groups are apart", count("event_count", "gte: 2"), "f100 f101,user=b", ""},
		{"25 without the field an event is not counted", count("event_count", "gte: 2"), "f100,user= f101,user= f102", ""},
		{"25 without group-by there is one group", head + "  type: event_count\n  rules: [failed]\n  condition: {gte: 2}\n", "f100 f101,user=b", "101=2"},
		{"26 all rules, without a condition", head + "  type: temporal\n  rules: [failed, success]\n  group-by: [user]\n", "f100 f101", ""},
		{"26 a number of rules", head + "  type: temporal\n  rules: [failed, success]\n  group-by: [user]\n  condition: {gte: 1}\n", "f100", "100=1"},
		{"26 ordered: equal times in the order in which they came", head + "  type: temporal_ordered\n  rules: [failed, success]\n  group-by: [user]\n", "f100 s100", "100=2"},
		{"26 ordered: all of them may be asked for by number", head + "  type: temporal_ordered\n  rules: [failed, success]\n  group-by: [user]\n  condition: {gte: 2}\n", "f100 s101", "101=2"},
		{"27 distinct values", count("value_count", "field: port, gte: 2"), "f100,port=1 f101,port=1 f102,port=1", ""},
		{"27 a missing value does not count", count("value_count", "field: port, gte: 2"), "f100,port=1 f101", ""},
		{"27 an upper bound is decided when the window is over", count("event_count", "lt: 3"), "f100 f101 t110 t111", "111=2"},
		{"27 an upper bound that is passed", count("event_count", "lt: 3"), "f100 f101 f102 t111", ""},
		{"27 several bounds must all hold", count("event_count", "gte: 2, lte: 3"), "f100 f101 t111", "111=2"},
		{"27 eq", count("event_count", "eq: 2"), "f100 f101 f102 t111 f120 f121 t140", "140=2"},
		{"27 neq", count("event_count", "neq: 2"), "f100 f101 t111 f120 t140", "140=1"},
		{"28 it fires once, not for each further event", count("event_count", "gte: 2"), "f100 f101 f102 f103 f104", "101=2"},
		{"28 and again after a pause of a timespan", count("event_count", "gte: 2"), "f100 f101 f200 f201", "101=2 201=2"},
	} {
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
			t.Errorf("%s: %s: %q, want %q", c.point, c.timeline, text, c.want)
		}
	}
}

// TestGenerate is point 23: referenced rules do not alert on their own unless the correlation says generate; references may be forward, and
// correlations may build on one another.
func TestGenerate(t *testing.T) {
	for _, generate := range []bool{false, true} {
		more := fmt.Sprintf("  generate: %v\n", generate)
		e, _ := compileText(t, "title: outer\nid: o\ncorrelation: {type: event_count, rules: [inner], group-by: [user], timespan: 1h, condition: {gte: 2}}\n---\ntitle: inner\nid: i\nname: inner\ncorrelation:\n  type: event_count\n  rules: [failed]\n  group-by: [user]\n  timespan: 1m\n  condition: {gte: 2}\n"+more+"---\n"+baseRule)
		if e.Alerts(0) != generate || !e.Alerts(1) {
			t.Errorf("generate %v: alerts %v, %v", generate, e.Alerts(0), e.Alerts(1))
		}
		for i, c := range e.Correlations {
			if want := c.ID == "o"; e.CorrelationAlerts(int32(i)) != want {
				t.Errorf("%s alerts: %v", c.ID, !want)
			}
		}
	}
}
