package doctor

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"tocsin/internal/collector"
	"tocsin/internal/collector/update"
)

// The levels of a finding.
const (
	OK   = "ok"
	Warn = "warn" // look at it
	Fail = "fail" // mend it: the collector does not do its work
	Skip = "skip" // could not be looked at, with the reason
)

// Finding is one thing that doctor looked at.
type Finding struct {
	Check  string `json:"check"` // what was looked at, for people
	Code   string `json:"code"`  // what was found, for programs; one of a closed set, such as port_in_use
	Level  string `json:"level"`
	Detail string `json:"detail"`
	Next   string `json:"next,omitempty"` // what to do about it
}

// Options say what to look at.
type Options struct {
	Config  *collector.Config
	Version string
	// Watch is how long to look at the network when lines do not come; 0: not at all. It needs root (CAP_NET_RAW).
	Watch time.Duration
	// Environ is the environment; proxies stand in it.
	Environ []string
	Now     func() time.Time
	// Found, if set, is given each finding when it is made.
	Found func(Finding)
}

// run is one visit.
type run struct {
	o        Options
	c        *collector.Config
	now      time.Time
	status   *collector.Status // nil: no collector runs, or it does not answer
	findings []Finding
}

func (r *run) add(check, code, level, detail, next string) {
	f := Finding{Check: check, Code: code, Level: level, Detail: detail, Next: next}
	r.findings = append(r.findings, f)
	if r.o.Found != nil {
		r.o.Found(f)
	}
}

// Run looks at everything and gives what it found, in the order in which a person would look. It changes nothing.
func Run(ctx context.Context, o Options) []Finding {
	if o.Now == nil {
		o.Now = time.Now
	}
	r := &run{o: o, c: o.Config, now: o.Now()}
	r.settings()
	if !r.folder() {
		return r.findings
	}
	r.disk()
	r.running(ctx)
	r.ports()
	r.inputs()
	r.packetFilter(ctx)
	enrolled := r.enrolment(ctx)
	lines := r.lines(ctx)
	if lines {
		r.archive()
	}
	if enrolled {
		r.waiting(ctx)
	}
	r.update()
	return r.findings
}

// Failed says whether anything must be mended.
func Failed(fs []Finding) bool {
	return slices.ContainsFunc(fs, func(f Finding) bool { return f.Level == Fail })
}

func (r *run) settings() {
	if err := r.c.Check(); err != nil {
		r.add("settings", "settings_wrong", Fail, err.Error(), "Correct the settings file and run doctor again.")
	} else {
		r.add("settings", "settings_ok", OK, fmt.Sprintf("policy %s, %d listeners", r.c.Policy.Name, len(r.c.Ports())), "")
	}
	if len(r.c.OwnRanges) == 0 {
		r.add("own ranges", "own_ranges_empty", Warn, "own_ranges is empty: only private addresses count as your own",
			"Add your public addresses, such as own_ranges: [198.51.100.0/24], so that directions are right.")
	}
}

// running asks the collector and, where there is systemd, its service.
func (r *run) running(ctx context.Context) {
	s, err := collector.FetchStatus(ctx, r.c)
	switch {
	case err == nil:
		r.status = s
		r.add("running", "running", OK, fmt.Sprintf("process %d, version %s, since %s", s.PID, s.Version, s.Started.Local().Format(time.DateTime)), "")
		r.settingsInForce()
	case errors.Is(err, collector.ErrNotRunning):
		detail, next := "no collector is running in "+r.c.Dir, "Start it: systemctl start tocsin-collector, or tocsin-collector run --config FILE"
		if d, n := service(ctx); d != "" {
			detail, next = detail+"; "+d, n
		}
		r.add("running", "not_running", Warn, detail, next)
	default:
		r.add("running", "no_answer", Warn, err.Error(), "Run doctor with sudo, or as the user that the collector runs as.")
	}
}

// settingsInForce compares the settings file with what the running collector listens on: it reads its settings only at the start.
func (r *run) settingsInForce() {
	open := map[string]bool{}
	for _, l := range r.status.Listeners {
		open[portKey(l.Network, l.Address)] = true
	}
	var missing []string
	for _, p := range r.c.Ports() {
		if k := portKey(p.Network, p.Addr); !strings.HasSuffix(k, " 0") && !open[k] {
			missing = append(missing, strings.ToUpper(p.Network)+" "+p.Addr)
		}
	}
	switch {
	case len(missing) > 0:
		r.add("settings in force", "settings_changed", Fail, "the running collector does not listen on "+strings.Join(missing, ", ")+", which the settings ask for", "It reads its settings at the start: systemctl restart tocsin-collector")
	case r.status.Policy != "" && r.status.Policy != policyName(r.c):
		r.add("settings in force", "settings_changed", Warn, fmt.Sprintf("the running collector uses policy %q, the settings say %q", r.status.Policy, r.c.Policy.Name), "It reads its settings at the start: systemctl restart tocsin-collector")
	}
}

// lines looks at what arrives, from the collector's own counts. It says whether there is anything to look at in the archive.
func (r *run) lines(ctx context.Context) bool {
	st := r.status
	if st == nil {
		return true
	}
	received := st.Counts["received"]
	quiet := received == 0 || r.now.Sub(st.LastLine) > collector.QuietAfter
	switch {
	case received == 0:
		r.add("lines", "nothing_arrived", Warn, "nothing has arrived yet", r.sendHere())
	case st.Counts["not_understood"]*5 > received:
		r.add("lines", "not_understood", Warn, fmt.Sprintf("of %d lines %d were not understood", received, st.Counts["not_understood"]),
			"Look with explain at a few of them; choose another log format on the firewall, or tell us its product.")
	default:
		r.add("lines", "lines_ok", OK, fmt.Sprintf("%d received, %d understood, %d events confirmed by the hub", received, st.Counts["parsed"], st.Acknowledged), "")
	}
	if received > 0 && quiet {
		last := "the last line came at " + st.LastLine.Local().Format(time.DateTime)
		if st.LastLine.IsZero() {
			last = "no line has come since the collector was started"
		}
		r.add("silence", "silence", Warn, last, "Look whether the device still sends. "+r.sendHere())
	} else if received > 0 {
		for _, d := range st.Senders {
			if ago := r.now.Sub(d.Last); ago > collector.QuietAfter && d.Lines >= 100 {
				r.add("silence", "sender_silent", Warn, fmt.Sprintf("%s (%s) has sent nothing since %s, while others send", d.Address, strings.Join(d.Products, ", "), d.Last.Local().Format(time.DateTime)),
					"Look whether that device is on and still sends its log here.")
			}
		}
	}
	for _, l := range st.Listeners {
		if l.Refused > 0 {
			r.add("connections", "connections_refused", Warn, fmt.Sprintf("%d TCP connections to %s were refused: more than listen.max_connections were open", l.Refused, l.Address), "Raise listen.max_connections, or look which device opens so many.")
		}
		if l.Framing > 0 {
			r.add("framing", "framing_lost", Warn, fmt.Sprintf("%d TCP streams to %s were closed because they were not syslog", l.Framing, l.Address), "Set the device to syslog over TCP, one line each or with octet counts (RFC 6587), without TLS on this port.")
		}
	}
	for _, w := range st.Warnings {
		check := "sender " + w.Sender
		if w.Sender == "" {
			check = "warning"
		}
		r.add(check, w.Code, Warn, w.Text, w.Next)
	}
	if n := st.Counts["udp_dropped"]; n > 0 {
		r.add("udp", "udp_dropped", Warn, fmt.Sprintf("the kernel dropped %d UDP messages for want of room", n), "Use TCP on the firewall, or raise net.core.rmem_max.")
	}
	if quiet {
		r.watch(ctx)
	}
	return received > 0
}

// sendHere says what to set on the device.
func (r *run) sendHere() string {
	if onlyFiles(r.c) {
		return "Lines come from files here: look whether what writes them is running."
	}
	var where, others []string
	for _, p := range r.c.Ports() {
		port := strings.ToUpper(p.Network) + " port " + portOf(p.Addr)
		if strings.HasPrefix(p.Key, "listen.syslog") {
			where = append(where, port)
		} else {
			key, _, _ := strings.Cut(p.Key, "[")
			others = append(others, port+" ("+key+")")
		}
	}
	list := func(words []string) string {
		slices.Sort(words)
		return strings.Join(slices.Compact(words), " or ")
	}
	switch {
	case len(where) > 0:
		return "Set this machine's address and " + list(where) + " as the syslog server on the firewall."
	case len(others) > 0:
		return "Let your devices send to this machine's " + list(others) + "."
	}
	return "Add a listener to the settings."
}

// waiting looks at what has not left.
func (r *run) waiting(ctx context.Context) {
	st := r.status
	if st == nil {
		return
	}
	if st.Full {
		r.add("disk", "disk_full", Fail, "lines are waiting because they cannot be written", "Make room on the disk.")
	}
	if st.HubTrouble != "" {
		r.add("sending", "hub_trouble", Warn, strings.TrimRight(st.HubTrouble, "."), fmt.Sprintf("%d events wait on this machine and will be sent when the hub answers.", st.Waiting))
	}
	used := float64(st.SpoolBytes) / float64(r.c.Spool.MaxBytes)
	size := fmt.Sprintf("%d events (%d MiB of %d) wait to leave", st.Waiting, st.SpoolBytes>>20, r.c.Spool.MaxBytes>>20)
	switch dropped := dropped(st); {
	case dropped > 0 && used > 0.9:
		r.add("spool", "spool_full", Fail, fmt.Sprintf("%s; the spool is full and %d events of the lowest value were dropped", size, dropped), "Mend the way to the hub (above), and raise spool.max_bytes until it is mended.")
	case used > 0.5:
		r.add("spool", "spool_filling", Warn, size, "Mend the way to the hub (above). When the spool is full, events of the lowest value are dropped first, and counted.")
	case st.Waiting > 1000:
		r.growing(ctx, size)
	default:
		r.add("spool", "spool_ok", OK, size, "")
	}
	if lag := st.ArchiveLag; lag > 64<<20 {
		r.add("pace", "behind", Warn, fmt.Sprintf("%d MiB of lines have not been worked on yet", lag>>20), "The machine is too slow for what arrives: give it another core, or send it less (only the firewall's own log).")
	}
}

func dropped(st *collector.Status) (n uint64) {
	for k, v := range st.Counts {
		if strings.HasPrefix(k, "dropped.") {
			n += v
		}
	}
	return n
}

// growing asks twice whether what waits becomes less.
func (r *run) growing(ctx context.Context, size string) {
	select {
	case <-ctx.Done():
		return
	case <-time.After(2 * time.Second): // two looks need time between them; a batch leaves at least every second while the hub answers
	}
	again, err := collector.FetchStatus(ctx, r.c)
	if err != nil {
		return
	}
	if again.Waiting > r.status.Waiting && again.Acknowledged == r.status.Acknowledged {
		r.add("spool", "spool_growing", Warn, size+", and they become more", "Mend the way to the hub (above). Nothing is lost until the spool is full.")
		return
	}
	r.add("spool", "spool_draining", OK, size+fmt.Sprintf("; %d were confirmed in the last 2 s", again.Acknowledged-r.status.Acknowledged), "")
}

// update says what is known of newer releases.
func (r *run) update() {
	k, err := update.Known(r.c.Update.Dir, r.o.Version)
	switch {
	case err != nil:
		r.add("update", "update_damaged", Fail, err.Error(), "The package's own program runs. Remove "+r.c.Update.Dir+" and run: tocsin-collector update")
	case k.Trial != "":
		r.add("update", "update_trial", OK, "version "+k.Trial+" is on trial", "")
	case k.Refused != "":
		r.add("update", "update_taken_back", Warn, k.Refused, "Tell the publisher of the release. tocsin-collector update --again tries it once more.")
	case k.Newer != "":
		r.add("update", "update_there", Warn, fmt.Sprintf("version %s is there; %s runs here", k.Newer, k.Running), "To install it: tocsin-collector update")
	}
}
