package sigma

import (
	"strings"
	"testing"
)

// piped applies a pipeline to a rule and gives whether the result matches the event.
func piped(t *testing.T, pipeline, rule, event string) (bool, []*Error) {
	t.Helper()
	p, err := ParsePipeline("p.yml", []byte(pipeline))
	if err != nil {
		t.Fatalf("%s: %v", pipeline, err)
	}
	c := &Collection{}
	if errs := c.Parse("r.yml", []byte(rule)); len(errs) > 0 {
		t.Fatal(errs)
	}
	out, errs := c.Apply(p)
	names := &Names{}
	e, err := Compile(out, Options{Schema: names})
	if err != nil || len(e.Errors) > 0 {
		t.Fatal(err, e.Errors)
	}
	var rec Record
	d := &Decoder{Names: names}
	if err := d.Decode(&rec, []byte(event)); err != nil {
		t.Fatal(err)
	}
	var all []Source
	for _, r := range out.Rules {
		all = append(all, Source{LogSource: r.LogSource})
	}
	var m Matcher
	return len(m.Match(e.Set(all...), &rec, nil)) > 0, errs
}

const pipedRule = "title: t\nid: x\nlevel: high\ntags: [attack.t1]\nlogsource: {product: windows, category: process_creation}\ndetection:\n"

func TestPipelines(t *testing.T) {
	one := func(item string) string {
		return "name: p\ntransformations:\n  - " + strings.ReplaceAll(item, "\n", "\n    ") + "\n"
	}
	sel := func(s string) string { return pipedRule + "  sel: " + s + "\n  condition: sel\n" }
	for _, c := range []struct {
		name, pipeline, rule, event string
		want                        bool
	}{
		{"mapping", one("type: field_name_mapping\nmapping: {Image: process.executable}"), sel(`{Image|endswith: '\a.exe'}`), `{"process.executable":"c:\\a.exe"}`, true},
		{"mapping leaves others", one("type: field_name_mapping\nmapping: {Image: x}"), sel(`{User: a}`), `{"User":"a"}`, true},
		{"mapping to several is an or", one("type: field_name_mapping\nmapping: {ip: [src, dst]}"), sel(`{ip|cidr: 10.0.0.0/8}`), `{"dst":"10.1.1.1"}`, true},
		{"mapping of fieldref", one("type: field_name_mapping\nmapping: {a: x, b: y}"), sel(`{a|fieldref: b}`), `{"x":"1","y":"1"}`, true},
		{"mapping of keywords", one("type: field_name_mapping\nmapping: {null: message}"), sel(`[mimi]`), `{"message":"a mimikatz"}`, true},
		{"mapping of keywords", one("type: field_name_mapping\nmapping: {null: message}"), sel(`[mimi]`), `{"other":"a mimikatz"}`, false},
		{"prefix mapping", one("type: field_name_prefix_mapping\nmapping: {win.: winlog.}"), sel(`{win.x: a}`), `{"winlog.x":"a"}`, true},
		{"prefix", one("type: field_name_prefix\nprefix: event_data."), sel(`{x: a}`), `{"event_data":{"x":"a"}}`, true},
		{"suffix", one("type: field_name_suffix\nsuffix: .text"), sel(`{x: a}`), `{"x.text":"a"}`, true},
		{"transform", one("type: field_name_transform\ntransform_func: snake_case"), sel(`{CommandLine: a}`), `{"command_line":"a"}`, true},
		{"only where the field condition holds", one("type: field_name_prefix\nprefix: p.\nfield_name_conditions:\n  - {type: include_fields, fields: [a]}"), sel(`{a: 1, b: 2}`), `{"p.a":1,"b":2}`, true},
		{"field condition by expression", one("type: field_name_prefix\nprefix: p.\nfield_name_conditions:\n  - {type: exclude_fields, fields: ['^b'], mode: re}"), sel(`{a: 1, b: 2}`), `{"p.a":1,"b":2}`, true},
		{"only for a log source", one("type: field_name_prefix\nprefix: p.\nrule_conditions:\n  - {type: logsource, product: linux}"), sel(`{a: 1}`), `{"a":1}`, true},
		{"rule conditions joined by or", one("type: field_name_prefix\nprefix: p.\nrule_cond_op: or\nrule_conditions:\n  - {type: logsource, product: linux}\n  - {type: tag, tag: attack.t1}"), sel(`{a: 1}`), `{"p.a":1}`, true},
		{"rule conditions by expression", one("type: field_name_prefix\nprefix: p.\nrule_cond_expr: high and not linux\nrule_conditions:\n  high: {type: rule_attribute, attribute: level, op: gte, value: medium}\n  linux: {type: logsource, product: linux}"), sel(`{a: 1}`), `{"p.a":1}`, true},
		{"negated rule condition", one("type: field_name_prefix\nprefix: p.\nrule_cond_not: true\nrule_conditions:\n  - {type: contains_field, field: a}"), sel(`{a: 1}`), `{"a":1}`, true},
		{"drop", one("type: drop_detection_item\nfield_name_conditions:\n  - {type: include_fields, fields: [b]}"), sel(`{a: 1, b: 2}`), `{"a":1}`, true},
		{"add condition", one("type: add_condition\nconditions: {EventID: 1}"), sel(`{a: 1}`), `{"a":1,"EventID":"2"}`, false},
		{"add condition", one("type: add_condition\nconditions: {EventID: 1}"), sel(`{a: 1}`), `{"a":1,"EventID":"1"}`, true},
		{"add condition, negated, from the log source", one("type: add_condition\nnegated: true\ntemplate: true\nconditions: {kind: $category}"), sel(`{a: 1}`), `{"a":1,"kind":"process_creation"}`, false},
		{"change log source", one("type: change_logsource\nproduct: windows\nservice: sysmon"), sel(`{a: 1}`), `{"a":1}`, true},
		{"replace", one(`type: replace_string` + "\n" + `regex: '^HKLM\\(.*)$'` + "\n" + `replacement: 'HKEY_LOCAL_MACHINE\\\1'`), sel(`{k: 'HKLM\a'}`), `{"k":"HKEY_LOCAL_MACHINE\\a"}`, true},
		{"map", one("type: map_string\nmapping: {'yes': ['1', 'true']}"), sel(`{a: 'yes'}`), `{"a":"true"}`, true},
		{"set", one("type: set_value\nvalue: 7\ndetection_item_conditions:\n  - {type: match_string, pattern: 'x.*'}"), sel(`{a: xyz, b: 1}`), `{"a":7,"b":1}`, true},
		{"is_null", one("type: set_value\nvalue: '-'\ndetection_item_conditions:\n  - {type: is_null}"), sel(`{a: null}`), `{"a":"-"}`, true},
		{"placeholders", "vars: {admins: [ann, 'b*']}\n" + one("type: value_placeholders"), sel(`{u|expand: '%admins%'}`), `{"u":"bob"}`, true},
		{"placeholders within a pattern", "vars: {x: [1]}\n" + one("type: value_placeholders"), sel(`{u|contains|expand: 'a%x%b'}`), `{"u":"_a1b_"}`, true},
		{"wildcards for placeholders", one("type: wildcard_placeholders"), sel(`{u|expand: 'a%x%'}`), `{"u":"abc"}`, true},
		{"hashes", one("type: hashes_fields\nvalid_hash_algos: [MD5]\nfield_prefix: File"), sel(`{Hashes|contains: ['MD5=0123456789abcdef0123456789abcdef', 'SHA1=x']}`), `{"FileMD5":"0123456789ABCDEF0123456789ABCDEF"}`, true},
		{"extract", one("type: extract_fields\nregex: '(?P<type>[A-Za-z]+):(?P<value>[0-9]+)'\nfield_prefix: reg"), sel(`{Details: 'Dword:00001'}`), `{"reg.type":"dword","reg.value":"00001"}`, true},
		{"extract, leading zeros stay", one("type: extract_fields\nregex: '(?P<type>[A-Za-z]+):(?P<value>[0-9]+)'\nfield_prefix: reg"), sel(`{Details: 'Dword:00001'}`), `{"reg.type":"dword","reg.value":"1"}`, false},
		{"extract of several is an or", one("type: extract_fields\nregex: '(?P<k>\\w+)=(?P<v>\\w+)'"), sel(`{d: ['a=b', 'c=d', other]}`), `{"k":"c","v":"d"}`, true},
		{"extract drops what does not match", one("type: extract_fields\nregex: '(?P<k>\\w+)=(?P<v>\\w+)'"), sel(`{d: ['a=b', other]}`), `{"d":"other"}`, false},
		{"extract keeps what does not match", one("type: extract_fields\nregex: '(?P<k>\\w+)=(?P<v>\\w+)'\npreserve_unmatched: true"), sel(`{d: ['a=b', other]}`), `{"d":"other"}`, true},
		{"extract sees wildcards", one("type: extract_fields\nregex: '(?P<k>\\w+)=(?P<v>.+)'"), sel(`{d|startswith: 'a=b'}`), `{"k":"a","v":"bcd"}`, true},
		{"extract with all", one("type: extract_fields\nregex: '(?P<k>\\w+):(?P<v>\\w+)|(?P<w>\\w+)=(?P<x>\\w+)'"), sel(`{d|all: ['a:b', 'c=d']}`), `{"k":"a","v":"b","w":"c","x":"d"}`, true},
		{"extract of null and of a number", one("type: extract_fields\nregex: '(?P<k>\\w+)=(?P<v>\\w+)'"), sel(`{d: 'n=null'}`), `{"k":"n"}`, true},
		{"extract leaves what nothing matches", one("type: extract_fields\nregex: '(?P<k>\\w+)=(?P<v>\\w+)'"), sel(`{d: other}`), `{"d":"other"}`, true},
		{"extract leaves other modifiers", one("type: extract_fields\nregex: '(?P<k>.+)'"), sel(`{d|re: 'o.her'}`), `{"d":"other"}`, true},
		{"an escaped percent sign", "vars: {x: [1]}\n" + one("type: value_placeholders"), sel(`{u|expand: '\%a%x%'}`), `{"u":"%a1"}`, true},
		{"nest", one("type: nest\nitems:\n  - {type: field_name_prefix, prefix: a.}\n  - {type: field_name_prefix, prefix: b.}"), sel(`{x: 1}`), `{"b.a.x":1}`, true},
		{"applied", "transformations:\n  - {id: first, type: field_name_prefix, prefix: a., field_name_conditions: [{type: include_fields, fields: [x]}]}\n  - {type: set_value, value: 9, detection_item_conditions: [{type: processing_item_applied, processing_item_id: first}]}\n", sel(`{x: 1, y: 2}`), `{"a.x":9,"y":2}`, true},
		{"state", "transformations:\n  - {type: set_state, key: k, val: v}\n  - {type: field_name_prefix, prefix: a., rule_conditions: [{type: processing_state, key: k, val: v}]}\n", sel(`{x: 1}`), `{"a.x":1}`, true},
	} {
		got, errs := piped(t, c.pipeline, c.rule, c.event)
		if got != c.want || len(errs) > 0 {
			t.Errorf("%s: %v, want %v; %v", c.name, got, c.want, errs)
		}
	}
}

// TestPipelineKeepsTheRules: what is applied to is not changed, so that two pipelines can be applied to one collection.
func TestPipelineKeepsTheRules(t *testing.T) {
	c := &Collection{}
	c.Parse("r.yml", []byte(pipedRule+"  sel: {a: 1, b|contains: [x, y]}\n  condition: sel\n"))
	p, err := ParsePipeline("p.yml", []byte("transformations:\n  - {type: field_name_prefix, prefix: p.}\n  - {type: set_value, value: 3}\n  - {type: add_condition, conditions: {z: 1}}\n"))
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		out, errs := c.Apply(p)
		if len(errs) > 0 || len(out.Rules) != 1 || len(out.Rules[0].searches) != 2 || len(c.Rules[0].searches) != 1 || c.Rules[0].searches["sel"].kids[0].item.field != "a" || c.Rules[0].searches["sel"].kids[0].item.values[0].text != "1" {
			t.Fatalf("%+v, %v", c.Rules[0].searches["sel"].kids[0].item, errs)
		}
	}
}

// TestPipelineOnFiltersAndCorrelations: filters are changed with the rules that they narrow; group-by, aliases and the counted field too.
func TestPipelineOnFiltersAndCorrelations(t *testing.T) {
	c := &Collection{}
	if errs := c.Parse("r.yml", []byte(pipedRule+"  sel: {a: 1}\n  condition: sel\n---\ntitle: f\nlogsource: {product: windows}\nfilter:\n  rules: any\n  quiet: {user: svc}\n  condition: not quiet\n---\ntitle: c\nid: c1\ncorrelation:\n  type: value_count\n  rules: [x]\n  group-by: [user, who]\n  aliases: {who: {x: owner}}\n  timespan: 1m\n  condition: {gte: 2, field: port}\n")); len(errs) > 0 {
		t.Fatal(errs)
	}
	p, _ := ParsePipeline("p.yml", []byte("transformations:\n  - {type: field_name_prefix, prefix: p.}\n"))
	out, errs := c.Apply(p)
	if len(errs) > 0 || len(out.Filters) != 0 {
		t.Fatal(errs, out.Filters)
	}
	cor := out.Correlations[0]
	if strings.Join(cor.GroupBy, " ") != "p.user who" || cor.Aliases["who"]["x"] != "p.owner" || cor.ValueField() != "p.port" || c.Correlations[0].GroupBy[0] != "user" {
		t.Errorf("%+v", cor)
	}
	names := &Names{}
	e, err := Compile(out, Options{Schema: names})
	if err != nil || len(e.Errors) > 0 {
		t.Fatal(err, e.Errors)
	}
	var m Matcher
	var rec Record
	d := &Decoder{Names: names}
	for line, want := range map[string]int{`{"p.a":1,"p.user":"svc"}`: 0, `{"p.a":1,"p.user":"ann"}`: 1} {
		if err := d.Decode(&rec, []byte(line)); err != nil {
			t.Fatal(err)
		}
		if got := m.Match(e.Set(Source{LogSource: LogSource{Product: "windows", Category: "process_creation"}}), &rec, nil); len(got) != want {
			t.Errorf("%s: %d, want %d", line, len(got), want)
		}
	}
}

func TestPipelineErrors(t *testing.T) {
	for _, c := range []struct{ pipeline, want string }{
		{"transformations: []\n", "no transformations"},
		{"name: x\n", "no transformations"},
		{"transformations:\n  - {type: magic}\n", `p.yml:2: unknown transformation "magic"`},
		{"transformations:\n  - {type: field_name_prefix}\n", "needs prefix"},
		{"transformations:\n  - {type: field_name_prefix, prefix: a, sufix: b}\n", `does not know "sufix"`},
		{"transformations:\n  - {type: field_name_prefix, prefix: a, rule_conditions: [{type: logsorce}]}\n", `unknown rule condition "logsorce"`},
		{"transformations:\n  - {type: field_name_prefix, prefix: a, rule_cond_op: xor, rule_conditions: [{type: is_sigma_rule}]}\n", "it must be and or or"},
		{"transformations:\n  - {type: http_placeholders}\n", "give the values under vars"},
		{"postprocessing: []\n", "changes the text of a query"},
		{"transformations:\n  - {type: replace_string, regex: '(', replacement: x}\n", "needs a regex"},
		{"transformations:\n  - {type: nest, items: []}\n", "nest has no items"},
		{"transformations:\n  - {type: extract_fields, regex: '(a'}\n", "needs a regex"},
		{"transformations:\n  - {type: extract_fields, regex: '(a)'}\n", "no named group"},
		{"[", "not valid YAML"},
	} {
		if _, err := ParsePipeline("p.yml", []byte(c.pipeline)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q: %v, want %q", c.pipeline, err, c.want)
		}
	}
	for _, c := range []struct{ item, want string }{
		{"{type: rule_failure, message: not for us}", "not for us"},
		{"{type: strict_field_mapping_failure}", `the field "a" was not mapped`},
		{"{type: drop_detection_item}", "nothing is left"},
		{"{type: convert_type, target_type: num}", "cannot be made a number"},
	} {
		p, err := ParsePipeline("p.yml", []byte("name: p\ntransformations:\n  - "+c.item+"\n"))
		if err != nil {
			t.Fatal(err)
		}
		col := &Collection{}
		col.Parse("r.yml", []byte(pipedRule+"  sel: {a: xyz}\n  condition: sel\n"))
		out, errs := col.Apply(p)
		if len(errs) != 1 || len(out.Rules) != 0 || !strings.Contains(errs[0].Error(), c.want) || !strings.Contains(errs[0].Error(), "rule x") {
			t.Errorf("%s: %v", c.item, errs)
		}
	}
}

func FuzzPipeline(f *testing.F) {
	f.Add("transformations:\n  - {type: field_name_mapping, mapping: {a: [b, c]}}\n  - type: add_condition\n    conditions: {x: 1}\n")
	f.Add("vars: {a: 1}\ntransformations:\n  - {type: nest, items: [{type: case, method: upper}]}\n  - {type: replace_string, regex: '(.)', replacement: '\\1x', skip_special: true}\n")
	f.Fuzz(func(t *testing.T, text string) {
		p, err := ParsePipeline("p.yml", []byte(text))
		if err != nil {
			return
		}
		c := &Collection{}
		c.Parse("r.yml", []byte(baseRule+"---\n"+counting("value_count", "field: port, gte: 4", "")))
		out, errs := c.Apply(p)
		if len(out.Rules)+len(out.Correlations)+len(errs) < len(c.Rules)+len(c.Correlations) {
			t.Fatal("a rule was lost in silence")
		}
		if _, err := Compile(out, Options{Schema: &Names{}}); err != nil {
			t.Fatal(err)
		}
	})
}
