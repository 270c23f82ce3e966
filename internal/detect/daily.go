package detect

import (
	"fmt"
	"time"

	"tocsin/sigma"
)

// DailyRule is the id of the rule that finds the daily test (package daily): it is in force at every hub, in no catalogue, and no layer changes it.
// What it finds is caught before it becomes an alert; the entity is the test's number. DailySiteRule is the same rule on sites.
const (
	DailyRule     = "tocsin-daily-test"
	DailySiteRule = "tocsin-daily-test-site"
)

// DailyReason is the tocsin.left.reason of what belongs to the daily test: it stands in no figure.
const DailyReason = "daily_test"

// DailyDataset is the test's event.dataset. Collectors take such names out of what devices send.
const DailyDataset = "tocsin.daily"

const dailyText = `title: The daily test arrived
id: %s
level: informational
logsource: {product: tocsin}
detection:
  selection:
    event.dataset: ` + DailyDataset + `
    tocsin.left.reason: ` + DailyReason + `
  condition: selection
`

// dailyRule is that rule with what makes a detection of it.
func dailyRule(where Where) (*sigma.Rule, *attributes) {
	c := &sigma.Collection{}
	id := DailyRule
	if where == Site {
		id = DailySiteRule
	}
	if errs := c.Parse("daily.yml", fmt.Appendf(nil, dailyText, id)); len(errs) > 0 || len(c.Rules) != 1 {
		panic("detect: the rule of the daily test cannot be read")
	}
	return c.Rules[0], &attributes{Runs: where, Family: "daily-test", Entity: "host", EntityFields: list{"event.id"}, Window: time.Minute, Reason: "The daily test arrived."}
}
