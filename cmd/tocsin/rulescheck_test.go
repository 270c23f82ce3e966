package main

import (
	"bytes"
	"strings"
	"testing"
)

// The folder of our own rules, as whoever edits it has it: tests and steps in it are no rules.
func TestRulesCheckOurOwn(t *testing.T) {
	var out, errs bytes.Buffer
	if code := rulesCheck([]string{"../../rules"}, &out, &errs); code != 0 || strings.Contains(out.String(), "error") && !strings.Contains(out.String(), "0 errors") {
		t.Errorf("exit %d\n%s%s", code, out.String(), errs.String())
	}
}
