package demo

import (
	"fmt"

	"tocsin/internal/app/status"
)

// Expectation is one alert that the story must raise: exactly one alert, with the events grouped in it.
type Expectation struct {
	Member  string `json:"member"` // name of the member; "" for the alert that spans members
	Family  string `json:"family"`
	Entity  string `json:"entity"`
	AtLeast int64  `json:"at_least"` // detections or events grouped in it
	Meaning string `json:"meaning"`
	Found   int    `json:"found"` // alerts that match; 1 is right
	Count   int64  `json:"count"` // what that alert groups
	AlertID int64  `json:"alert_id,omitempty"`
	AfterMS int64  `json:"after_ms,omitempty"` // from the story's begin to the alert
}

// expectations is what an analyst would want to see of the story: eight alerts, no more.
func expectations() []Expectation {
	school, firm, council := cast[0].name, cast[1].name, cast[2].name
	a := attacker.String()
	return []Expectation{
		{Member: school, Family: "scan", Entity: a, AtLeast: 1, Meaning: "a stranger tries many ports at the school"},
		{Member: firm, Family: "scan", Entity: a, AtLeast: 1, Meaning: "the same stranger tries many ports at the firm"},
		{Member: council, Family: "scan", Entity: a, AtLeast: 1, Meaning: "and at the council"},
		{Member: "", Family: "campaign", Entity: a, AtLeast: 1, Meaning: "one source is seen at three members"},
		{Member: firm, Family: "password-guessing", Entity: a, AtLeast: 1, Meaning: "it tries passwords on the firm's VPN"},
		{Member: council, Family: "password-guessing", Entity: a, AtLeast: 1, Meaning: "and on the council's"},
		{Member: firm, Family: "account-takeover", Entity: a, AtLeast: 1, Meaning: "one of the passwords is right"},
		{Member: firm, Family: "ids", Entity: vpnClient.String(), AtLeast: 1, Meaning: "the firm's sensor sees an exploit from the VPN"},
		{Member: firm, Family: "indicator", Entity: fileHost.String(), AtLeast: 1, Meaning: "an inside host talks to an address on the indicator list"},
	}
}

// compare matches alerts with expectations. Alerts that match none are returned; so are those that match one that has an alert already
// (two alerts where one grouped alert should be are as wrong as an alert too many).
func compare(want []Expectation, alerts []status.Alert, name func(tenant uint32) string, beganNS int64) (unexpected []status.Alert) {
	for _, a := range alerts {
		matched := false
		for i := range want {
			w := &want[i]
			if w.Member != name(a.Tenant) || w.Family != a.Family || w.Entity != a.Entity {
				continue
			}
			matched = true
			w.Found++
			if w.Found > 1 {
				matched = false
				break
			}
			w.AlertID, w.Count = a.ID, a.Count
			w.AfterMS = max(0, (a.Raised-beganNS)/1e6) // an alert of an earlier run only grew
			break
		}
		if !matched {
			unexpected = append(unexpected, a)
		}
	}
	return unexpected
}

// missing lists the expectations without an alert, or whose alert groups too little.
func missing(want []Expectation) (out []Expectation) {
	for _, w := range want {
		if w.Found == 0 || w.Count < w.AtLeast {
			out = append(out, w)
		}
	}
	return out
}

func (w Expectation) String() string {
	who := w.Member
	if who == "" {
		who = "all members"
	}
	return fmt.Sprintf("%s at %s about %s (%s)", w.Family, who, w.Entity, w.Meaning)
}
