package sigma

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"
)

// detects compiles one detection (the YAML below `detection:`) and gives whether it matches the JSON event.
func detects(t *testing.T, detection, event string) bool {
	t.Helper()
	e, names := compileText(t, "title: t\nid: x\nlogsource: {product: p}\ndetection:\n  "+strings.ReplaceAll(detection, "\n", "\n  ")+"\n")
	var rec Record
	d := &Decoder{Names: names}
	if err := d.Decode(&rec, []byte(event)); err != nil {
		t.Fatal(err)
	}
	s := e.Set(Source{LogSource: LogSource{Product: "p"}})
	var m Matcher
	got, all := m.Match(s, &rec, nil), s.MatchAll(&rec, nil)
	if !same(got, all) {
		t.Fatalf("%s on %s: with index %v, without %v", detection, event, got, all)
	}
	return len(got) == 1
}

// specification names, for each point of the semantics on which engines differ, where the specification, version 2.1.0, speaks of it: in
// "Sigma Rules Specification" where nothing else is said. Where it is silent, pySigma 1.5 decides; so it is with the points 3, 4, 9 and 11 in part.
var specification = map[int]string{
	1:  `Detection, General; Modifiers appendix, Regular Expression, and "cased" in Generic Modifiers`,
	2:  `Detection, Escape Character`,
	3:  `Detection, String Wildcard`,
	4:  `Modifiers appendix, Generic Modifiers: contains, startswith, endswith`,
	5:  `Detection, Value Modifiers: applied in the given order; Modifiers appendix, "all" in Generic Modifiers`,
	6:  `Modifiers appendix, String Modifiers: windash`,
	7:  `Modifiers appendix, Encoding: base64, base64offset, wide, utf16le, utf16be, utf16`,
	8:  `Detection, Special Field Values and Field Existence; Modifiers appendix, "exists"`,
	9:  `Condition: not; Modifiers appendix, Specific Modifiers: fieldref; "neq"`,
	10: `Detection, General; Modifiers appendix, Numeric Modifiers and Time Modifiers`,
	11: `Detection, Maps`,
	12: `Detection, Lists and Keywords search`,
	13: `Detection, Field Usage`,
	14: `Modifiers appendix, IP (Internet Protocol) Modifiers`,
	15: `Detection, Placeholders; Modifiers appendix, Specific Modifiers: expand`,
	16: `Condition`,
	17: `Detection, Lists and Maps`,
	18: `LogSource`,
	19: `Detection, General: values are strings, and every character counts`,
	20: `Yaml File; Detection, General: values are as they are written`,
	21: `not of the specification: an index must not lose matches`,
	22: `Correlation Rules Specification, Correlation Types`,
	23: `Correlation Rules Specification, Related rules and Generate`,
	24: `Correlation Rules Specification, Compatibility (static time boundaries lose matches) and Time Selection`,
	25: `Correlation Rules Specification, Grouping, Aliases and Field Name Aliases`,
	26: `Correlation Rules Specification, Temporal Proximity and Ordered Temporal Proximity`,
	27: `Correlation Rules Specification, Condition and Value Count`,
	28: `Correlation Rules Specification, silent: what follows the first match is for the engine to say`,
}

// pointOf is the number with which the name of a row begins, 0 for none.
func pointOf(row string) (n int) {
	fmt.Sscan(row, &n)
	return n
}

// TestEveryPoint: the table below has rows for the points 1 to 20 and TestCorrelationPoints for 22 to 28; 18 is also TestLogSource and
// TestRegistryCategories, 21 is TestDifferential, TestRandomRules, TestOracle, FuzzMatch and FuzzRules.
func TestEveryPoint(t *testing.T) {
	rows := map[int]int{21: 1}
	for _, c := range semanticsTable {
		rows[pointOf(c.point)]++
	}
	for _, c := range correlationTable {
		rows[pointOf(c.point)]++
	}
	for n := range 28 {
		if rows[n+1] == 0 || specification[n+1] == "" {
			t.Errorf("point %d: %d rows, section %q", n+1, rows[n+1], specification[n+1])
		}
	}
}

// semanticsTable has rows for the points on which engines differ, beginning with the number of the point.
var semanticsTable = []struct {
	point  string
	sel    string // the selection; condition: s is added
	event  string
	want   bool
	custom bool // sel holds the condition too
}{
	{"1 case", `s: {f: "PowerShell"}`, `{"f":"powershell"}`, true, false},
	{"1 case, Unicode", `s: {f|contains: "ÜBER–"}`, `{"f":"x über–y"}`, true, false},
	{"1 re regards case", `s: {f|re: "abc"}`, `{"f":"ABC"}`, false, false},
	{"1 re with i", `s: {f|re|i: "abc"}`, `{"f":"xABCx"}`, true, false},
	{"1 cased", `s: {f|cased: "Abc"}`, `{"f":"abc"}`, false, false},
	{"1 cased contains", `s: {f|contains|cased: "Abc"}`, `{"f":"xAbcx"}`, true, false},
	{"2 a backslash stands for itself", `s: {f|endswith: '\cmd.exe'}`, `{"f":"C:\\Windows\\cmd.exe"}`, true, false},
	{"2 two are one", `s: {f: 'a\\b'}`, `{"f":"a\\b"}`, true, false},
	{"2 escaped star", `s: {f: 'a\*'}`, `{"f":"ab"}`, false, false},
	{"2 escaped star", `s: {f: 'a\*'}`, `{"f":"a*"}`, true, false},
	{"2 backslash and wildcard", `s: {f: 'a\\*'}`, `{"f":"a\\bcd"}`, true, false},
	{"2 backslash and star, both plain", `s: {f: 'a\\\*'}`, `{"f":"a\\*"}`, true, false},
	{"2 backslash and star, both plain", `s: {f: 'a\\\*'}`, `{"f":"a\\b"}`, false, false},
	{"2 four are two", `s: {f: '\\\\host'}`, `{"f":"\\\\host"}`, true, false},
	{"2 three are two", `s: {f: '\\\host'}`, `{"f":"\\\\host"}`, true, false},
	{"2 escaped question mark", `s: {f: 'a\?'}`, `{"f":"a?"}`, true, false},
	{"2 escaped question mark", `s: {f: 'a\?'}`, `{"f":"ab"}`, false, false},
	{"3 wildcards cross lines", `s: {f|contains: 'a*b'}`, `{"f":"xa\n\nbx"}`, true, false},
	{"3 question mark is one character", `s: {f: 'a?b'}`, `{"f":"aéb"}`, true, false},
	{"3 question mark is exactly one", `s: {f: 'a?b'}`, `{"f":"ab"}`, false, false},
	{"4 no second star", `s: {f|contains: '*a'}`, `{"f":"xa"}`, true, false},
	{"4 inner wildcards", `s: {f|startswith: 'a*b'}`, `{"f":"aXbY"}`, true, false},
	{"5 order of modifiers", `s: {f|wide|base64offset|contains: "ping"}`, `{"f":"xxcABpAG4AZwxx"}`, true, false},
	{"5 all with a list", `s: {f|all|contains: [a, b]}`, `{"f":"ba"}`, true, false},
	{"5 all with a list", `s: {f|contains|all: [a, b]}`, `{"f":"aa"}`, false, false},
	{"6 windash, all five", `s: {f|windash|contains: " -a"}`, `{"f":"x ―a"}`, true, false},
	{"6 windash leaves inner dashes", `s: {f|windash|contains: "-a-b"}`, `{"f":"/a/b"}`, false, false},
	{"6 windash leaves inner dashes", `s: {f|windash|contains: "-a-b"}`, `{"f":"/a-b"}`, true, false},
	{"6 windash, all permutations", `s: {f|windash|contains: "-a -b"}`, `{"f":"x ―a –b"}`, true, false},
	{"6 windash from a slash", `s: {f|windash|contains: " /c "}`, `{"f":"cmd -c x"}`, true, false},
	{"7 base64offset", `s: {f|base64offset|contains: "/bin/bash"}`, `{"f":"xxL2Jpbi9iYXNoxx"}`, true, false},
	{"7 base64offset", `s: {f|base64offset|contains: "/bin/bash"}`, `{"f":"9iaW4vYmFza"}`, true, false},
	{"7 base64offset, the third", `s: {f|base64offset|contains: "/bin/bash"}`, `{"f":"xxvYmluL2Jhc2"}`, true, false},
	{"7 base64", `s: {f|base64: "foo"}`, `{"f":"Zm9v"}`, true, false},
	{"8 null is absent", `s: {f: null}`, `{"g":1}`, true, false},
	{"8 null is null", `s: {f: null}`, `{"f":null}`, true, false},
	{"8 null is not empty", `s: {f: null}`, `{"f":""}`, false, false},
	{"8 empty is present", `s: {f: ""}`, `{"f":""}`, true, false},
	{"8 empty is present", `s: {f: ""}`, `{"g":""}`, false, false},
	{"8 exists", `s: {f|exists: true}`, `{"f":""}`, true, false},
	{"8 exists not", `s: {f|exists: no}`, `{"f":""}`, false, false},
	{"8 exists not", `s: {f|exists: no}`, `{"g":""}`, true, false},
	{"8 exists, null", `s: {f|exists: true}`, `{"f":null}`, true, false},
	{"8 null beside a value", `s: {f: [a, null]}`, `{"g":1}`, true, false},
	{"8 not null", "s: {e: 1}\nn: {f: null}\ncondition: s and not n", `{"e":1,"f":"x"}`, true, true},
	{"8 not null", "s: {e: 1}\nn: {f: null}\ncondition: s and not n", `{"e":1}`, false, true},
	{"9 absent and not", "s: {f: a}\ncondition: not s", `{"g":1}`, true, true},
	{"9 fieldref", `s: {a|fieldref: b}`, `{"a":"X","b":"x"}`, true, false},
	{"9 fieldref, one side missing", `s: {a|fieldref: b}`, `{"a":"X"}`, false, false},
	{"9 fieldref, both missing", `s: {a|fieldref: b}`, `{"c":"X"}`, false, false},
	{"9 fieldref endswith", `s: {a|fieldref|endswith: b}`, `{"a":"fooBAR","b":"bar"}`, true, false},
	{"9 fieldref with neq", `s: {a|fieldref|neq: b}`, `{"a":"X","b":"y"}`, true, false},
	{"9 fieldref with neq", `s: {a|fieldref|neq: b}`, `{"a":"X","b":"x"}`, false, false},
	{"10 number and text", `s: {f: 4688}`, `{"f":"4688"}`, true, false},
	{"10 number and number", `s: {f: 4688}`, `{"f":4688}`, true, false},
	{"10 hexadecimal stays text", `s: {f: "0x10"}`, `{"f":16}`, false, false},
	{"10 gte", `s: {f|gte: 10}`, `{"f":"10"}`, true, false},
	{"10 gt", `s: {f|gt: 10}`, `{"f":10}`, false, false},
	{"10 lt of what is no number", `s: {f|lt: 10}`, `{"f":"x"}`, false, false},
	{"10 lte, fraction", `s: {f|lte: 1.5}`, `{"f":1.5}`, true, false},
	{"10 minute", `s: {f|minute: 4}`, `{"f":"2024-05-06T03:04:05Z"}`, true, false},
	{"10 day", `s: {f|day: 6}`, `{"f":"2024-05-06T03:04:05Z"}`, true, false},
	{"10 month", `s: {f|month: 5}`, `{"f":"2024-05-06"}`, true, false},
	{"10 year", `s: {f|year: 2024}`, `{"f":"2024-05-06T03:04:05.678Z"}`, true, false},
	{"10 year of what is no time", `s: {f|year: 2024}`, `{"f":"2024"}`, false, false},
	{"11 any element", `s: {f: b}`, `{"f":["a","b"]}`, true, false},
	{"11 all by different elements", `s: {f|contains|all: [a, b]}`, `{"f":["xa","xb"]}`, true, false},
	{"12 keywords in any value", `s: [mimi, other]`, `{"f":1,"g":{"h":"xxMIMIxx"}}`, true, false},
	{"12 all keywords", `s: {"|all": [one, two]}`, `{"f":"one","g":"two"}`, true, false},
	{"12 all keywords", `s: {"|all": [one, two]}`, `{"f":"one"}`, false, false},
	{"12 one keyword", `s: mimi`, `{"f":"mimi"}`, true, false},
	{"13 field names regard case", `s: {F: a}`, `{"f":"a"}`, false, false},
	{"13 blanks in names", `s: {ThreatName: a}`, `{"Threat Name":"a"}`, true, false},
	{"13 nested", `s: {a.b.c: x}`, `{"a":{"b":[{"c":"y"},{"c":"x"}]}}`, true, false},
	{"13 a literal name wins", `s: {a.b: x}`, `{"a":{"b":"x"},"a.b":"y"}`, false, false},
	{"14 cidr", `s: {f|cidr: 10.0.0.0/8}`, `{"f":"10.2.3.4"}`, true, false},
	{"14 cidr, mapped", `s: {f|cidr: 10.0.0.0/8}`, `{"f":"::ffff:10.2.3.4"}`, true, false},
	{"14 cidr, v6", `s: {f|cidr: ["192.0.2.0/24", "2001:db8::/32"]}`, `{"f":"2001:db8:1::1"}`, true, false},
	{"14 cidr of what is no address", `s: {f|cidr: 10.0.0.0/8}`, `{"f":"10.2.3.4:80"}`, false, false},
	{"15 percent signs without expand", `s: {f|contains: "%TEMP%"}`, `{"f":"x%temp%y"}`, true, false},
	{"15 an escaped percent sign", `s: {f|expand: '\%a%'}`, `{"f":"%a%"}`, true, false},
	{"16 1 of them leaves out underscores", "s1: {f: a}\n_s2: {f: b}\ncondition: 1 of them", `{"f":"b"}`, false, true},
	{"16 patterns", "s_1_a: {f: a}\ns_1_b: {g: b}\ncondition: all of s_1_*", `{"f":"a","g":"b"}`, true, true},
	{"16 patterns", "s1: {f: a}\nt1: {g: b}\ncondition: 1 of *1 and not t1", `{"f":"a"}`, true, true},
	{"16 not binds before and, and before or", "a: {f: 1}\nb: {g: 1}\nc: {h: 1}\ncondition: a or b and not c", `{"f":1,"h":1}`, true, true},
	{"16 parentheses", "a: {f: 1}\nb: {g: 1}\nc: {h: 1}\ncondition: (a or b) and not c", `{"f":1,"h":1}`, false, true},
	{"16 a list of conditions", "a: {f: 1}\nb: {g: 1}\ncondition: [a, b]", `{"g":1}`, true, true},
	{"16 any of", "a1: {f: 1}\na2: {g: 1}\ncondition: any of a*", `{"g":1}`, true, true},
	{"16 all of them", "a1: {f: 1}\na2: {g: 1}\n_b: {h: 1}\ncondition: all of them", `{"f":1,"g":1}`, true, true},
	{"16 an identifier named like an operator in capitals", "AND: {f: 1}\nb: {g: 1}\ncondition: AND and b", `{"f":1,"g":1}`, true, true},
	{"17 list of maps", "s: [{f: a, g: b}, {f: c}]", `{"f":"c"}`, true, false},
	{"17 list of maps", "s: [{f: a, g: b}, {f: c}]", `{"f":"a"}`, false, false},
	{"17 maps and keywords", "s: [{f: a}, word]", `{"g":"a word"}`, true, false},
	{"18 every attribute of the log source must be given", `s: {f: a}`, `{"f":"a"}`, true, false},
	{"19 blanks at the end count", `s: {f|endswith: "/c "}`, `{"f":"cmd /c "}`, true, false},
	{"19 blanks at the end count", `s: {f|endswith: "/c "}`, `{"f":"cmd /c"}`, false, false},
	{"20 yes stays yes", `s: {f: yes}`, `{"f":"yes"}`, true, false},
	{"20 an octal stays as written", `s: {f: 010}`, `{"f":"010"}`, true, false},
	{"20 a date stays as written", `s: {f: 2024-01-02}`, `{"f":"2024-01-02"}`, true, false},
	{"neq", `s: {f|neq: a}`, `{"f":"b"}`, true, false},
	{"neq of what is absent", `s: {f|neq: a}`, `{"g":"b"}`, true, false},
	{"neq contains", `s: {f|contains|neq: a}`, `{"f":"bab"}`, false, false},
	{"re s", `s: {f|re|s: "a.b"}`, `{"f":"a\nb"}`, true, false},
	{"re without s", `s: {f|re: "a.b"}`, `{"f":"a\nb"}`, false, false},
	{"re, the end of the text", `s: {f|re: "b$"}`, `{"f":"ab\n"}`, true, false},
	{"re, the end of the text", `s: {f|re: "b$"}`, `{"f":"ab\n\n"}`, false, false},
	{"re, the end of the text", `s: {f|re: "^(a|b$)"}`, `{"f":"b\n"}`, true, false},
	{"re, the end of the text", `s: {f|re: 'b\z'}`, `{"f":"b\n"}`, false, false},
	{"re m", `s: {f|re|m: "^b$"}`, `{"f":"a\nb"}`, true, false},
	{"re, a long run", `s: {f|re: ".{20,}"}`, `{"f":"aaaaaaaaaaaaaaaaaaa\nbbbbbb"}`, false, false},
	{"re, a long run", `s: {f|re: ".{20,}"}`, `{"f":"x\naaaaaaaaaaaaaaaaaaab"}`, true, false},
	{"re, a run of a class", `s: {f|re: '\s[a-f0-9]{12}$'}`, `{"f":"xyz abcdef012345"}`, true, false},
	{"re, a run of a class", `s: {f|re: '\s[a-f0-9]{12}$'}`, `{"f":"xyz abcdefg12345"}`, false, false},
	{"re of a number", `s: {f|re: "^46"}`, `{"f":4688}`, true, false},
	{"utf16be", `s: {f|utf16be|base64: "ab"}`, `{"f":"AGEAYg=="}`, true, false},
	{"utf16", `s: {f|utf16|base64: "ab"}`, `{"f":"//5hAGIA"}`, true, false},
	{"hour", `s: {f|hour: 3}`, `{"f":"2024-05-06T03:04:05Z"}`, true, false},
	{"week", `s: {f|week: 1}`, `{"f":"2025-12-30 00:00:00"}`, true, false},
	{"many literals are one set", `s: {f|contains: [aaaa, bbbbb, cc, "d", eeeeeee]}`, `{"f":"xxbbbbbxx"}`, true, false},
	{"many literals are one set", `s: {f|endswith: ["\\a.exe", "\\bb.exe", "\\ccc.exe", "\\dddd.exe", "\\longer-name.exe"]}`, `{"f":"c:\\longer-name.EXE"}`, true, false},
	{"a star alone wants a value", `s: {f: "*"}`, `{"f":""}`, true, false},
	{"a star alone wants a value", `s: {f: "*"}`, `{"g":""}`, false, false},
	{"bool", `s: {f: true}`, `{"f":true}`, true, false},
}

func TestSemantics(t *testing.T) {
	for _, c := range semanticsTable {
		text := c.sel
		if !c.custom {
			text += "\ncondition: s"
		}
		if got := detects(t, text, c.event); got != c.want {
			t.Errorf("%s (%s): %s on %s: %v, want %v", c.point, specification[pointOf(c.point)], c.sel, c.event, got, c.want)
		}
	}
}

func TestPlaceholders(t *testing.T) {
	c := &Collection{}
	text := "title: t\nid: x\nlogsource: {product: p}\ndetection:\n  s: {user|expand: ['%admins%', 'root']}\n  condition: s\n"
	if errs := c.Parse("t.yml", []byte(text)); len(errs) > 0 {
		t.Fatal(errs)
	}
	for _, p := range []map[string][]string{nil, {"admins": {"ann", "b*"}}} {
		names := &Names{}
		e, err := Compile(c, Options{Schema: names, Placeholders: p})
		if err != nil || len(e.Errors) > 0 {
			t.Fatal(err, e.Errors)
		}
		if (len(e.Unexpanded) == 1) != (p == nil) {
			t.Errorf("placeholders %v: %d rules unexpanded", p, len(e.Unexpanded))
		}
		var rec Record
		rec.AddString(names.Lookup("user"), "Bob")
		var m Matcher
		if got := len(m.Match(e.Set(Source{LogSource: LogSource{Product: "p"}}), &rec, nil)) == 1; got != (p != nil) {
			t.Errorf("placeholders %v: match %v", p, got)
		}
	}
}

// TestLogSource is point 18: every attribute that the rule gives must be the event's; one without product applies to all.
func TestLogSource(t *testing.T) {
	e, _ := compileText(t, `
title: a
id: product
logsource: {product: windows}
detection: {s: [x], condition: s}
---
title: b
id: category
logsource: {category: antivirus}
detection: {s: [x], condition: s}
---
title: c
id: both
logsource: {product: windows, category: process_creation}
detection: {s: [x], condition: s}
---
title: d
id: service
logsource: {product: windows, service: security}
detection: {s: [x], condition: s}
`)
	for _, c := range []struct {
		sources []Source
		want    string
	}{
		{WindowsSources("Microsoft-Windows-Sysmon/Operational", "1", ""), "both product"},
		{WindowsSources("security", "4688", ""), "both product service"},
		{WindowsSources("Security", "4624", ""), "product service"},
		{WindowsSources("Microsoft-Windows-Windows Defender/Operational", "1116", ""), "category product"},
		{WindowsSources("Something else", "1", ""), "product"},
		{[]Source{{LogSource: LogSource{Category: "antivirus", Product: "linux"}}}, "category"},
		{[]Source{{LogSource: LogSource{Product: "linux"}}}, ""},
	} {
		if got := strings.Join(idsOf(e, e.Set(c.sources...).Rules()), " "); got != c.want {
			t.Errorf("%v: %q, want %q", c.sources, got, c.want)
		}
	}
}

func TestRegistryCategories(t *testing.T) {
	for in, want := range map[string]string{"12 CreateKey": "registry_event registry_add", "12 DeleteValue": "registry_event registry_delete", "13 SetValue": "registry_event registry_set", "14 RenameKey": "registry_event registry_rename"} {
		id, kind, _ := strings.Cut(in, " ")
		var got []string
		for _, s := range WindowsSources("Microsoft-Windows-Sysmon/Operational", id, kind)[1:] {
			got = append(got, s.Category)
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%s: %v, want %s", in, got, want)
		}
	}
}

func TestFilter(t *testing.T) {
	e, names := compileText(t, `
title: a
id: r1
logsource: {product: p}
detection: {s: {f: a}, condition: s}
---
title: not for the service account
logsource: {product: p}
filter:
  rules: [r1]
  sel: {user|startswith: svc_}
  condition: not sel
`)
	var m Matcher
	for user, want := range map[string]int{"svc_backup": 0, "ann": 1} {
		var rec Record
		rec.AddString(names.Lookup("f"), "a")
		rec.AddString(names.Lookup("user"), user)
		if got := len(m.Match(e.Set(Source{LogSource: LogSource{Product: "p"}}), &rec, nil)); got != want {
			t.Errorf("user %s: %d matches, want %d", user, got, want)
		}
	}
}

// TestFilterFaults: a filter that cannot be compiled, or narrows nothing of what it names, is an error of its own; the rules work.
func TestFilterFaults(t *testing.T) {
	const rule = "title: a\nid: r1\nlogsource: {product: p}\ndetection: {s: {f: a}, condition: s}\n---\n"
	for _, c := range []struct{ filter, want string }{
		{"title: f\nid: x1\nlogsource: {product: p}\nfilter: {rules: any, s: {u|re: '('}, condition: not s}\n", "t.yml:9: rule x1: u|re: the regular expression"},
		{"title: f\nid: x1\nlogsource: {product: p}\nfilter: {rules: [r2], s: {u: b}, condition: not s}\n", `t.yml:6: rule x1: the filter names the rule "r2", which does not exist`},
		{"title: f\nid: x1\nlogsource: {product: q}\nfilter: {rules: [r1], s: {u: b}, condition: not s}\n", "is for another log source (product=q, the rule has product=p)"},
	} {
		for _, piped := range []bool{false, true} {
			col := &Collection{}
			errs := col.Parse("t.yml", []byte(rule+c.filter))
			if piped {
				p, err := ParsePipeline("p.yml", []byte("transformations:\n  - {type: add_field, field: x}\n"))
				if err != nil {
					t.Fatal(err)
				}
				out, more := col.Apply(p)
				col, errs = out, append(errs, more...)
			}
			e, err := Compile(col, Options{Schema: &Names{}})
			if err != nil {
				t.Fatal(err)
			}
			if errs = append(errs, e.Errors...); len(errs) != 1 || !strings.Contains(errs[0].Error(), c.want) || len(e.Rules) != 1 {
				t.Errorf("%q: %v, want %q; %d rules", c.filter, errs, c.want, len(e.Rules))
			}
		}
	}
}

// TestNames: the name of a rule is unique where a correlation refers to it.
func TestNames(t *testing.T) {
	col := &Collection{}
	rule := "title: a\nid: %s\nname: same\nlogsource: {product: p}\ndetection: {s: {f: a}, condition: s}\n---\n"
	errs := col.Parse("one.yml", fmt.Appendf(nil, rule, "r1"))
	errs = append(errs, col.Parse("two.yml", fmt.Appendf(nil, rule, "r2"))...)
	cor := "title: c\nid: %s\ncorrelation: {type: event_count, rules: [%s], timespan: 5m, condition: {gte: 1}}\n---\n"
	errs = append(errs, col.Parse("c.yml", fmt.Appendf(nil, cor+cor+cor, "c1", "same", "c2", "r1", "r2", "r1"))...)
	e, err := Compile(col, Options{Schema: &Names{}})
	if err != nil || len(errs) > 0 {
		t.Fatal(err, errs)
	}
	if len(e.Rules) != 2 || len(e.Correlations) != 1 || e.Correlations[0].ID != "c2" || len(e.Errors) != 2 {
		t.Fatalf("%d rules, %d correlations, %v", len(e.Rules), len(e.Correlations), e.Errors)
	}
	for i, want := range []string{`"same" is the name of two rules, in one.yml and two.yml`, "the id r2 is already used by two.yml"} {
		if !strings.Contains(e.Errors[i].Error(), want) {
			t.Errorf("%v, want %q", e.Errors[i], want)
		}
	}
}

// TestRepeat: a document with the action repeat is the one before it, with what it changes.
func TestRepeat(t *testing.T) {
	e, names := compileText(t, "title: g\nid: one\nlogsource: {product: p}\ndetection:\n  s: {f: a}\n  condition: s\n---\naction: repeat\nid: two\ndetection:\n  s: {f: b}\n")
	var rec Record
	rec.AddString(names.Lookup("f"), "b")
	var m Matcher
	if got := idsOf(e, m.Match(e.Set(Source{LogSource: LogSource{Product: "p"}}), &rec, nil)); len(e.Rules) != 2 || len(got) != 1 || got[0] != "two" {
		t.Errorf("%d rules, %v matches", len(e.Rules), got)
	}
	if errs := (&Collection{}).Parse("t.yml", []byte("action: repeat\nid: x\n")); len(errs) != 1 || !strings.Contains(errs[0].Error(), "no document before it") {
		t.Error(errs)
	}
}

func TestGlobalDocument(t *testing.T) {
	e, _ := compileText(t, "action: global\ntitle: g\nlogsource: {product: p}\ndetection:\n  condition: s\n---\nid: one\ndetection:\n  s: {f: a}\n---\nid: two\nlogsource: {service: q}\ndetection:\n  s: {f: b}\n")
	if len(e.Rules) != 2 || e.Rules[1].LogSource != (LogSource{Product: "p", Service: "q"}) || e.Rules[0].Title != "g" {
		t.Fatalf("%+v", e.Rules)
	}
}

// TestTypedValues: what a program adds by type is what rules written as text mean.
func TestTypedValues(t *testing.T) {
	e, names := compileText(t, "title: t\nid: x\nlogsource: {product: p}\ndetection:\n  s: {ip|cidr: 192.0.2.0/24, port: 443, n|gt: 9, text|startswith: 192.0, at|hour: 5, ok: true, f: 1.5}\n  condition: s\n")
	var rec Record
	k := names.Lookup
	rec.AddIP(k("ip"), netip.MustParseAddr("192.0.2.7"))
	rec.AddIP(k("text"), netip.MustParseAddr("192.0.2.7"))
	rec.AddInt(k("port"), 443)
	rec.AddInt(k("n"), 10)
	rec.AddTime(k("at"), time.Date(2025, 1, 1, 5, 0, 0, 0, time.UTC).UnixNano())
	rec.AddBool(k("ok"), true)
	rec.AddFloat(k("f"), 1.5)
	var m Matcher
	s := e.Set(Source{LogSource: LogSource{Product: "p"}})
	if len(m.Match(s, &rec, nil)) != 1 {
		t.Error("no match")
	}
	ids := make([]int32, 0, 8)
	if n := testing.AllocsPerRun(100, func() { ids = m.Match(s, &rec, ids[:0]) }); n != 0 {
		t.Errorf("%v allocations a match", n)
	}
}

// TestErrors: each mistake is refused with the line and a reason that says what is wrong; the rules beside it load.
func TestErrors(t *testing.T) {
	const head = "title: t\nid: x\nlogsource: {product: p}\n"
	for _, c := range []struct{ text, want string }{
		{"title: [", "bad.yml:1: not valid YAML"},
		{"- a\n- b\n", "bad.yml:1: a rule must be a mapping"},
		{"id: x\ndetection: {}\n", "the title is missing"},
		{"title: t\ndetection: {s: {a: b}, condition: s}\n", "the logsource is missing"},
		{"title: t\nlogsource: {definition: x}\ndetection: {s: {a: b}, condition: s}\n", "bad.yml:2: rule t: logsource needs a category, a product or a service"},
		{head + "detection:\n  s: {a: b}\n", "bad.yml:5: rule x: the condition is missing"},
		{head + "detection:\n  s: {a: b}\n  condition: s and t\n", `bad.yml:6: rule x: condition "s and t": there is no search identifier "t"`},
		{head + "detection:\n  s: {a: b}\n  condition: (s\n", "a closing parenthesis is missing"},
		{head + "detection:\n  s: {a: b}\n  condition: s s\n", `"s" is not expected here`},
		{head + "detection:\n  s: {a: b}\n  condition: 2 of s*\n", "only 1, any and all"},
		{head + "detection:\n  s: {a: b}\n  condition: 1 of x*\n", `no search identifier is called "x*"`},
		{head + "detection:\n  s: {a: b}\n  condition: s | count() > 5\n", "write a correlation rule"},
		{head + "detection:\n  s:\n    a: b\n    a: c\n  condition: s\n", `bad.yml:7: rule x: s: a selection: the key "a" is given twice`},
		{head + "detection:\n  s:\n    a|contain: b\n  condition: s\n", `bad.yml:6: rule x: a|contain: unknown modifier "contain"`},
		{head + "detection:\n  s:\n    a|re: '(?<=x)y'\n  condition: s\n", "bad.yml:6: rule x: a|re: the regular expression"},
		{head + "detection:\n  s: {a|cidr: 10.0.0.0/99}\n  condition: s\n", "is not a network"},
		{head + "detection:\n  s: {a|gt: x}\n  condition: s\n", `"x" is not a number`},
		{head + "detection:\n  s: {a|base64: 'x*'}\n  condition: s\n", "wildcards cannot be encoded"},
		{head + "detection:\n  s: {a: []}\n  condition: s\n", "the list of values is empty"},
		{head + "level: severe\ndetection:\n  s: {a: b}\n  condition: s\n", `unknown level "severe"`},
		{head + "detection:\n  timeframe: 5m\n  s: {a: b}\n  condition: s\n", "timeframe belongs to the old aggregation"},
		{"title: c\nid: y\ncorrelation: {type: event_count, rules: [nobody], timespan: 5m, condition: {gte: 1}}\n", `"nobody", which does not exist`},
		{"title: c\nid: y\ncorrelation: {type: event_count, rules: [y], timespan: 5m, condition: {gte: 1}}\n", "refers back to it"},
		{"title: c\nid: y\ncorrelation: {type: event_count, rules: [good], timespan: 5x, condition: {gte: 1}}\n", `timespan "5x"`},
		{"title: c\nid: y\ncorrelation: {type: event_count, rules: [good], timespan: 5m, condition: {lt: x}}\n", `"x" is not a number`},
		{"title: c\nid: y\ncorrelation: {type: value_count, rules: [good], timespan: 5m, condition: {gte: 3}}\n", "needs the name of a field"},
	} {
		col := &Collection{}
		errs := col.Parse("good.yml", []byte("title: good\nid: g\nname: good\nlogsource: {product: p}\ndetection: {s: {a: b}, condition: s}\n"))
		errs = append(errs, col.Parse("bad.yml", []byte(c.text))...)
		e, err := Compile(col, Options{Schema: &Names{}})
		if err != nil {
			t.Fatal(err)
		}
		errs = append(errs, e.Errors...)
		if len(errs) != 1 || !strings.Contains(errs[0].Error(), c.want) {
			t.Errorf("%q: errors %v, want one with %q", c.text, errs, c.want)
		}
		if len(e.Rules) != 1 {
			t.Errorf("%q: %d rules loaded, want the good one", c.text, len(e.Rules))
		}
	}
}

func TestBillionLaughs(t *testing.T) {
	var b strings.Builder
	b.WriteString("title: t\nlogsource: {product: p}\na0: &a0 [x, x, x, x, x, x, x, x, x, x]\n")
	for i := range 12 {
		fmt.Fprintf(&b, "a%d: &a%d [*a%d, *a%d, *a%d, *a%d, *a%d, *a%d, *a%d, *a%d]\n", i+1, i+1, i, i, i, i, i, i, i, i)
	}
	b.WriteString("detection: {s: *a12, condition: s}\n")
	began := time.Now()
	if errs := (&Collection{}).Parse("t.yml", []byte(b.String())); len(errs) != 1 {
		t.Errorf("errors %v", errs)
	}
	if d := time.Since(began); d > 5*time.Second {
		t.Errorf("refusing it took %v", d)
	}
}

// learnAtOnce makes sets learn from their first events.
func learnAtOnce(t testing.TB) {
	after, every := learnAfter, learnEvery
	learnAfter, learnEvery = 0, 1
	t.Cleanup(func() { learnAfter, learnEvery = after, every })
}

// TestLearning: the index that has learnt gives the same as the one that has not.
func TestLearning(t *testing.T) {
	learnAtOnce(t)
	var b strings.Builder
	for i := range learnFrom + 10 {
		fmt.Fprintf(&b, "title: t\nid: r%d\nlogsource: {product: p}\ndetection: {s: {f|contains: word%d, g: common}, condition: s}\n---\n", i, i%7)
	}
	e, names := compileText(t, b.String())
	s := e.Set(Source{LogSource: LogSource{Product: "p"}})
	var m Matcher
	var rec Record
	for i := range learnEvents + 10 {
		rec.Reset()
		rec.AddString(names.Lookup("f"), fmt.Sprintf("a word%d", i%9))
		rec.AddString(names.Lookup("g"), "COMMON")
		if a, b := m.Match(s, &rec, nil), s.MatchAll(&rec, nil); !same(a, b) || (i%9 < 7) != (len(a) > 0) {
			t.Fatalf("event %d: %v, want %v", i, a, b)
		}
	}
	if s.learning.Load() != nil {
		t.Error("it still learns")
	}
	before := m.Stats().Candidates
	m.Match(s, &rec, nil)
	if n := m.Stats().Candidates - before; n > uint64(len(s.rules)/2) {
		t.Errorf("%d rules evaluated: the index did not learn that one literal is in every event", n)
	}
}
