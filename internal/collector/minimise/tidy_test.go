package minimise

import (
	"testing"

	"tocsin/internal/event"
)

// A device's words leave without the names in them; its sentences do not leave.
func TestTidy(t *testing.T) {
	for _, c := range []struct {
		name   string
		event  []string
		change func(*Options)
		key    event.Key
		want   string
	}{
		{"a word", []string{"event.action=deny", "user.name=ann"}, nil, event.EventAction, "deny"},
		{"a name in an action", []string{"event.action=login ann failed", "user.name=ann"}, nil, event.EventAction, "login … failed"},
		{"another case", []string{"event.action=login ANN failed", "source.user.name=Ann"}, nil, event.EventAction, "login … failed"},
		{"part of a word", []string{"event.action=annul", "user.name=ann"}, nil, event.EventAction, "annul"},
		{"a sentence", []string{"event.action=user ann from ssh has logged in"}, nil, event.EventAction, ""},
		{"a mail address", []string{"event.action=sent to ann@example.org"}, nil, event.EventAction, ""},
		{"a file in a finding", []string{"rule.name=Trojan in Payroll-2026.xlsx found", "file.name=Payroll-2026.xlsx"}, nil, event.RuleName, "Trojan in … found"},
		{"a long signature", []string{"rule.name=ET EXPLOIT Apache HTTP Server 2.4.49 - Path Traversal Attempt (CVE-2021-41773) M2"}, nil, event.RuleName,
			"ET EXPLOIT Apache HTTP Server 2.4.49 - Path Traversal Attempt (CVE-2021-41773) M2"},
		{"users let go", []string{"event.action=login ann failed", "user.name=ann"}, func(o *Options) { o.AlsoLeave = []string{"user.name"} }, event.EventAction, "login ann failed"},
		{"sentences let go", []string{"event.action=the door was opened by nobody at night"}, func(o *Options) { o.AlsoLeave = []string{"message"} }, event.EventAction,
			"the door was opened by nobody at night"},
		{"pseudonyms", []string{"event.action=login ann failed", "user.name=ann"}, func(o *Options) { o.PseudonymUsers = true }, event.EventAction, "login " + newMinimiser(t, nil).PseudonymUser("ann") + " failed"},
	} {
		m := newMinimiser(t, c.change)
		var out event.Event
		m.Reduce(&out, ev(t, c.event...))
		if got := out.Str(c.key); got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}
