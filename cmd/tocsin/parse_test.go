package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"
)

func TestParseCommand(t *testing.T) {
	huge := "<134>Nov 12 08:50:01 fw sshd[1]: Failed password for root from 203.0.113.77 port 40001 ssh2 " + strings.Repeat("x", 3<<20)
	in := strings.Join([]string{
		"<134>Nov 12 08:41:07 Vigor2927: [FILTER][Block][WAN->LAN/RT/VPN, 12:04:51    ][@S:R=2:4, 203.0.113.77:51514->198.51.100.20:3389][TCP][HLen=20, TLen=52]",
		"this is no log line",
		"",
		"\xff\xfe\x00",
		huge,
		"<134>Nov 12 08:50:01 filterlog[21853]: 4,,,1000000103,igb0,match,block,in,4,0x0,,241,54321,0,none,6,tcp,40,203.0.113.77,198.51.100.20,51514,3389,0,S,1,,1024,,",
	}, "\n") // the last line has no line end
	var out, errs bytes.Buffer
	if code := runParse(context.Background(), nil, strings.NewReader(in), &out, &errs); code != 0 {
		t.Fatalf("exit code %d: %s", code, errs.String())
	}
	lines := strings.Split(strings.TrimSuffix(out.String(), "\n"), "\n")
	if len(lines) != 6 {
		t.Fatalf("%d objects for 6 lines", len(lines))
	}
	for i, want := range []string{"203.0.113.77", "", "", "", "203.0.113.77", "203.0.113.77"} {
		var o map[string]any
		if err := json.Unmarshal([]byte(lines[i]), &o); err != nil {
			t.Fatalf("line %d: %v", i+1, err)
		}
		if want == "" {
			if lines[i] != "{}" {
				t.Errorf("line %d: want {}, got %.200s", i+1, lines[i])
			}
			continue
		}
		if o["source.ip"] != want {
			t.Errorf("line %d: source.ip = %v, want %s", i+1, o["source.ip"], want)
		}
		if o["event.created"] != nil {
			t.Errorf("line %d: event.created is not in the line", i+1)
		}
	}
}

type brokenWriter struct{}

func (brokenWriter) Write([]byte) (int, error) { return 0, errors.New("no space left on device") }

func TestParseCommandRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		args []string
		code int
		say  string
	}{
		"unknown format": {[]string{"--format", "nonsense"}, 2, "fortigate"},
		"unknown zone":   {[]string{"--timezone", "Mars/Olympus"}, 2, "Europe/London"},
		"file as an arg": {[]string{"firewall.log"}, 2, "tocsin parse < FILE"},
	} {
		var out, errs bytes.Buffer
		if code := runParse(context.Background(), c.args, strings.NewReader("x\n"), &out, &errs); code != c.code || !strings.Contains(errs.String(), c.say) || out.Len() > 0 {
			t.Errorf("%s: exit code %d, said %q, wrote %q", name, code, errs.String(), out.String())
		}
	}
	var errs bytes.Buffer
	if code := runParse(context.Background(), nil, strings.NewReader("x\n"), brokenWriter{}, &errs); code != 1 || !strings.Contains(errs.String(), "no space left") {
		t.Errorf("broken output: exit code %d, said %q", code, errs.String())
	}
}

func TestParseCommandTimezone(t *testing.T) {
	line := "<14>Jul 12 08:50:01 fw sshd[1]: Failed password for root from 203.0.113.77 port 40001 ssh2\n"
	for zone, want := range map[string]string{"Europe/London": "T07:50:01Z", "UTC": "T08:50:01Z"} {
		var out, errs bytes.Buffer
		runParse(context.Background(), []string{"--timezone", zone}, strings.NewReader(line), &out, &errs)
		if !strings.Contains(out.String(), want) {
			t.Errorf("%s: want %s in %s %s", zone, want, out.String(), errs.String())
		}
	}
}
