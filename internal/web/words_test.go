package web

import "testing"

func TestReasonText(t *testing.T) {
	_, reasons, _ := policyWords("metadata")
	for word, want := range map[string]string{
		"denied_inbound":                "Traffic from outside was refused",
		"spool_full.denied_inbound":     "Given up because the collector's disk was full while the centre was away: traffic from outside was refused",
		"spool_full.site_detection":     "Given up because the collector's disk was full while the centre was away: a rule on the site fired on them",
		"spool_full":                    "Given up because the collector's disk was full while the centre was away",
		"spool_damage":                  "Their file on the collector was damaged",
		"unsendable":                    "Too long to be sent",
		"a_reason_of_the_member's_own.": "A reason of the member's own.",
		"":                              "",
	} {
		if got := reasonText(reasons, word, true); got != want {
			t.Errorf("%q: %q, want %q", word, got, want)
		}
	}
}
