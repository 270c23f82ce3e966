package rules_test

import (
	"regexp"
	"slices"
	"strings"
	"testing"

	"tocsin/internal/detect"
	"tocsin/rules"
)

var (
	technique = regexp.MustCompile(`^attack\.t[0-9]{4}(\.[0-9]{3})?$`)
	cve       = regexp.MustCompile(`CVE-[0-9]{4}-[0-9]{4,}`)
	wire      = regexp.MustCompile(`[a-z]+\.[a-z_]+\.[a-z_]+|[{}]`)
)

// tactics of ATT&CK's enterprise matrix, as Sigma tags name them.
var tactics = []string{"reconnaissance", "resource-development", "initial-access", "execution", "persistence", "privilege-escalation", "defense-evasion", "credential-access",
	"discovery", "lateral-movement", "collection", "command-and-control", "exfiltration", "impact"}

// Every rule that people hear of says what is known of its false positives, which technique it is about, and what an analyst looks at; what members
// read is free of the field's words.
func TestTexts(t *testing.T) {
	cat, err := detect.Load(rules.FS)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range cat.Infos() {
		bad := func(format string, args ...any) { t.Errorf(r.File+": "+r.Title+": "+format, args...) }
		if len(r.FalsePositives) == 0 {
			bad("no false positive is named")
		}
		if r.Analyst == "" || r.Description == "" {
			bad("a text is missing")
		}
		has := false
		for _, tag := range r.Tags {
			switch name := strings.TrimPrefix(tag, "attack."); {
			case technique.MatchString(tag):
				has = true
			case !slices.Contains(tactics, name):
				bad("the tag %q is neither a tactic nor a technique", tag)
			}
		}
		if !has {
			bad("no technique is named")
		}
		for _, text := range []string{r.Member.Title, r.Member.What, r.Member.Do} {
			if cve.MatchString(text) || wire.MatchString(text) {
				bad("members cannot read %q", text)
			}
		}
		if len(r.Member.Title) > 90 {
			bad("the title for members has %d characters", len(r.Member.Title))
		}
	}
}
