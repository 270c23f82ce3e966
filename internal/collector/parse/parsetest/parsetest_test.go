package parsetest

import (
	"bytes"
	"testing"
)

func TestLines(t *testing.T) {
	samples := [][]byte{
		[]byte("<134>date=2022-04-25 time=15:27:08 logid=0004000017 srcip=179.236.133.160 srcport=51234 dstip=10.1.2.3 sessionid=408903 dstport=443"),
		[]byte("2026-05-31T00:04:27.696749+02:00 gw MAC=00:08:a2:0c:1f:12 [fe80::20c:29ff:fe77:20d4]:40384->198.51.100.7"),
	}
	lines := Lines(samples, 100, func(sample, line []byte) bool { return len(line) > 90 })
	if len(lines) != 100 {
		t.Fatalf("%d lines", len(lines))
	}
	seen := map[string]bool{}
	for _, l := range lines {
		if seen[string(l)] {
			t.Errorf("twice: %s", l)
		}
		seen[string(l)] = true
		switch {
		case l[0] == '<':
			for _, same := range []string{"<134>date=2022-04-25 time=08:0", " logid=0004000017 srcip=179.236.", " dstip=10.1.2.", " sessionid=4", " dstport=443"} {
				if !bytes.Contains(l, []byte(same)) {
					t.Fatalf("%s: no %q", l, same)
				}
			}
		default:
			for _, same := range []string{"2026-05-31T08:0", ".696749+02:00 gw MAC=00:08:a2:0c:1f:12 [fe80::20c:29ff:fe77:", "->198.51.100."} {
				if !bytes.Contains(l, []byte(same)) {
					t.Fatalf("%s: no %q", l, same)
				}
			}
		}
	}
	for _, l := range Lines(samples, 10, func([]byte, []byte) bool { return false }) {
		if !bytes.Equal(l, samples[0]) && !bytes.Equal(l, samples[1]) {
			t.Errorf("not the sample: %s", l)
		}
	}
}
