package detect

import (
	"time"

	"tocsin/sigma"
)

// DailyRule is the id of the rule that finds the daily test (package daily): it is in force at every hub, in no catalogue, and no layer changes it.
// What it finds is caught before it becomes an alert; the entity is the test's number.
const DailyRule = "tocsin-daily-test"

// DailyDataset is the test's event.dataset. Collectors take such names out of what devices send.
const DailyDataset = "tocsin.daily"

const dailyText = `title: The daily test arrived
id: ` + DailyRule + `
level: informational
logsource: {product: tocsin}
detection:
  selection:
    event.dataset: ` + DailyDataset + `
    tocsin.left.reason: daily_test
  condition: selection
`

// dailyRule is that rule with what makes a detection of it.
func dailyRule() (*sigma.Rule, *attributes) {
	c := &sigma.Collection{}
	if errs := c.Parse("daily.yml", []byte(dailyText)); len(errs) > 0 || len(c.Rules) != 1 {
		panic("detect: the rule of the daily test cannot be read")
	}
	return c.Rules[0], &attributes{Runs: Hub, Family: "daily-test", Entity: "host", EntityFields: list{"event.id"}, Window: time.Minute, Reason: "The daily test arrived."}
}
