package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"tocsin/internal/collector"
	"tocsin/internal/collector/doctor"
	"tocsin/internal/event"
)

// cef is a line in ArcSight's form, of any product.
func cef(product string, n int) string {
	return fmt.Sprintf(`<134>%s gw CEF:0|Example|%s|1.0|100|connection denied|5|src=203.0.113.%d dst=198.51.100.7 spt=4000 dpt=3389 proto=TCP act=deny`, time.Now().UTC().Format(time.Stamp), product, n%250+1)
}

// A device that suddenly is another one is marked, until the member has looked and says so with the program.
func TestAcceptSender(t *testing.T) {
	t.Parallel()
	h, s, r, c := begin(t, "Inn")
	udp, tcp := ports(t)
	config := s.writeConfig(udp, tcp)
	// A sender is known by at most eight products; what comes beyond them was not learnt.
	for i := range 8 {
		fmt.Fprintln(c, cef(fmt.Sprintf("Gate %d", i), i))
	}
	fmt.Fprintln(c, cef("Impostor", 8))
	st := r.settled(9)
	if len(st.Senders) != 1 || !slices.Equal(st.Senders[0].Refused, []string{"Impostor"}) || st.Senders[0].Changed != 1 {
		t.Fatalf("%+v", st.Senders)
	}
	if code, out, _ := call(t, "", "senders", "--config", config); code != 0 || !strings.Contains(out, "LOOK: it now sends lines of Impostor") || !strings.Contains(out, "senders accept 127.0.0.1") {
		t.Errorf("senders: %d", code)
	}
	if code, _, errs := call(t, "", "senders", "accept", "192.0.2.1", "--config", config); code != 1 || !strings.Contains(errs, "no sender has the address") {
		t.Errorf("a sender that is none: %d %s", code, errs)
	}
	if code, _, errs := call(t, "", "senders", "accept", "gateway", "--config", config); code != 2 || !strings.Contains(errs, "not an address") {
		t.Errorf("no address: %d %s", code, errs)
	}
	if code, out, _ := call(t, "", "senders", "accept", "127.0.0.1", "--config", config); code != 0 || !strings.Contains(out, "may send lines of Impostor") {
		t.Errorf("accept: %d", code)
	}
	if code, out, _ := call(t, "", "senders", "accept", "127.0.0.1", "--config", config, "--json"); code != 0 || !strings.Contains(out, `"sender":"127.0.0.1"`) {
		t.Errorf("accept again: %d", code)
	}
	fmt.Fprintln(c, cef("Impostor", 9))
	r.settled(10)
	marked := map[bool]int{}
	k := h.take(s.id)
	for i := range k.events {
		if e := &k.events[i]; e.Str(event.ObserverProduct) == "Impostor" {
			marked[strings.Contains(k.raw[i], "product_changed")]++
		}
	}
	if marked[true] != 1 || marked[false] != 1 {
		t.Errorf("marked %v, want one line before the member looked:\n%s", marked, strings.Join(k.raw, "\n"))
	}
	// The next start still knows it.
	r.end()
	r = s.start()
	if d := r.Status().Senders; len(d) != 1 || len(d[0].Refused) > 0 || !slices.Contains(d[0].Products, "Impostor") {
		t.Errorf("after a restart: %+v", d)
	}
}

// A Cisco ASA that logs over TCP stops its traffic when this collector is away: doctor and the page say so, until the ASA says that it is told
// otherwise.
func TestDoctorASA(t *testing.T) {
	t.Parallel()
	_, s, r, c := begin(t, "Jetty")
	asa := func(text string) {
		fmt.Fprintf(c, "<164>%s asa1 : %s\n", time.Now().UTC().Format("Jan 02 2006 15:04:05"), text)
	}
	visit := func() map[string]doctor.Finding {
		found := map[string]doctor.Finding{}
		for _, f := range doctor.Run(t.Context(), doctor.Options{Config: &s.cfg, Version: "test"}) {
			found[f.Code] = f
		}
		return found
	}
	asa(`%ASA-4-106023: Deny tcp src outside:203.0.113.5/40001 dst inside:198.51.100.7/3389 by access-group "outside_in" [0x0, 0x0]`)
	r.settled(1)
	want(t, visit(), "asa_permit_hostdown", doctor.Warn, "lets no new traffic through", "logging permit-hostdown", "UDP")
	asa(`%ASA-5-111008: User 'admin' executed the 'logging permit-hostdown' command.`)
	r.settled(2)
	if f, there := visit()["asa_permit_hostdown"]; there {
		t.Errorf("it still warns: %+v", f)
	}
	asa(`%ASA-5-111008: User 'admin' executed the 'no logging permit-hostdown' command.`)
	r.settled(3)
	want(t, visit(), "asa_permit_hostdown", doctor.Warn)
}

// A collector that reads files and opens no port, and one whose senders have no token.
func TestDoctorInputs(t *testing.T) {
	t.Parallel()
	h := newHub(t)
	s := newSite(t, h, "Kiln")
	logs := t.TempDir()
	file := filepath.Join(logs, "fw.log")
	drop := filepath.Join(logs, "drop")
	s.cfg.Listen.Syslog = nil
	s.cfg.Listen.Files = []collector.Files{{Paths: []string{file}}, {Drop: drop}}
	watch := time.Minute
	visit := func() map[string]doctor.Finding {
		found := map[string]doctor.Finding{}
		for _, f := range doctor.Run(t.Context(), doctor.Options{Config: &s.cfg, Version: "test", Watch: watch}) {
			found[f.Code] = f
		}
		return found
	}
	found := visit()
	want(t, found, "file_missing", doctor.Warn, file)
	want(t, found, "no_drop", doctor.Fail, drop, "install -d")
	for _, code := range []string{"no_listeners", "only_loopback"} {
		if f, there := found[code]; there {
			t.Errorf("files are enough, and yet: %+v", f)
		}
	}
	if err := os.Mkdir(drop, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	r := s.start()
	up(t, s)
	found = visit() // it would take a minute if the network were watched for syslog
	want(t, found, "file_ok", doctor.OK)
	want(t, found, "drop_ok", doctor.OK)
	want(t, found, "nothing_arrived", doctor.Warn, "what writes them")
	if err := os.WriteFile(filepath.Join(drop, "damaged.gz"), []byte("\x1f\x8b\x08no gzip behind its head"), 0o600); err != nil {
		t.Fatal(err)
	}
	r.until("the damaged file is put aside", func(*collector.Status) bool {
		_, err := os.Stat(filepath.Join(drop, "failed", "damaged.gz.reason.txt"))
		return err == nil
	})
	var text strings.Builder
	for i := range 60 {
		fmt.Fprintln(&text, strings.Replace(traffic("accept", "10.0.0.5", "203.0.113.9", i), "date=20", "date=19", 1)) // a file may be old: its clock is not wrong for that
	}
	if err := os.WriteFile(file, []byte(text.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	r.settled(60)
	found = visit()
	want(t, found, "drop_failed", doctor.Warn, "1 files", filepath.Join(drop, "failed"))
	want(t, found, "no_denials", doctor.Warn, "the files on this machine")
	for _, f := range found {
		if strings.Contains(f.Check+f.Detail, "invalid IP") || f.Code == "device_clock" {
			t.Errorf("of a file: %+v", f)
		}
	}
	r.end()

	s = newSite(t, h, "Kiln Two")
	s.cfg.Listen.Syslog, watch = nil, 0
	s.cfg.Listen.HTTP = []collector.HTTP{{TCP: "127.0.0.1:0"}}
	r = s.start()
	up(t, s)
	found = visit()
	r.end()
	want(t, found, "no_token", doctor.Warn, "listen.http[0]", "tocsin-collector token --name")
	want(t, found, "nothing_arrived", doctor.Warn, "(listen.http)")
	if f := found["nothing_arrived"]; strings.Contains(f.Next, "syslog") {
		t.Errorf("an HTTP port is no syslog server: %+v", f)
	}
	if code, out, _ := call(t, "", "token", "--name", "web-1", "--dir", s.cfg.Dir); code != 0 || !strings.Contains(out, "tocsin_log_") {
		t.Fatalf("token: %d", code)
	}
	if f, there := visit()["no_token"]; there {
		t.Errorf("there is one: %+v", f)
	}
	if err := os.WriteFile(s.cfg.TokensFile(), []byte("not a digest\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	want(t, visit(), "tokens_wrong", doctor.Fail, "line 1")
}
