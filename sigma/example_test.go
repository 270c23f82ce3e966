package sigma_test

import (
	"fmt"
	"time"

	"tocsin/sigma"
)

const exampleRules = `
title: Whoami
id: 11111111-0000-4000-8000-000000000001
logsource: {product: windows, category: process_creation}
detection:
  selection:
    Image|endswith: '\whoami.exe'
  filter:
    User|startswith: 'svc_'
  condition: selection and not filter
level: medium
`

// Rules are parsed, compiled against the names that they use, and matched with events read from JSON.
func Example() {
	c := &sigma.Collection{}
	for _, err := range c.Parse("whoami.yml", []byte(exampleRules)) {
		fmt.Println(err) // file, line and reason of what was refused; the rest is there
	}
	names := &sigma.Names{}
	engine, err := sigma.Compile(c, sigma.Options{Schema: names})
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, err := range engine.Errors {
		fmt.Println(err)
	}
	// The rules for one kind of event, made once; a matcher, a decoder and a record for each goroutine.
	set := engine.Set(sigma.Source{LogSource: sigma.LogSource{Product: "windows", Category: "process_creation"}})
	decoder := &sigma.Decoder{Names: names}
	var matcher sigma.Matcher
	var record sigma.Record
	var found []int32
	for _, line := range []string{
		`{"Image": "C:\\Windows\\System32\\whoami.exe", "User": "ann"}`,
		`{"Image": "C:\\Windows\\System32\\WHOAMI.EXE", "User": "svc_backup"}`,
	} {
		if err := decoder.Decode(&record, []byte(line)); err != nil {
			fmt.Println(err)
			continue
		}
		found = matcher.Match(set, &record, found[:0])
		fmt.Println(len(found), "rules match")
		for _, n := range found {
			fmt.Println(engine.Rules[n].Title, engine.Rules[n].Level)
		}
	}
	// Output:
	// 1 rules match
	// Whoami medium
	// 0 rules match
}

// Windows events say themselves which rules apply to them.
func ExampleRouter() {
	c := &sigma.Collection{}
	c.Parse("whoami.yml", []byte(exampleRules))
	names := &sigma.Names{}
	engine, _ := sigma.Compile(c, sigma.Options{Schema: names})
	router, err := sigma.NewRouter(engine)
	if err != nil {
		fmt.Println(err)
		return
	}
	decoder := &sigma.Decoder{Names: names}
	var matcher sigma.Matcher
	var record sigma.Record
	// Security 4688 has the program under another name than Sysmon 1: the reading as process_creation knows it.
	line := `{"Channel": "Security", "EventID": 4688, "NewProcessName": "C:\\Windows\\System32\\whoami.exe"}`
	if err := decoder.Decode(&record, []byte(line)); err != nil {
		fmt.Println(err)
	}
	if set := router.Route(&record); set != nil { // nil: not a Windows event
		fmt.Println(len(matcher.Match(set, &record, nil)))
	}
	// Output: 1
}

// A program with typed events of its own gives the engine its numbers for fields and fills records without any text between.
func ExampleRecord() {
	c := &sigma.Collection{}
	c.Parse("dns.yml", []byte(`
title: Name server outside
id: 11111111-0000-4000-8000-000000000002
logsource: {category: firewall}
detection:
  dns: {dst_port: 53}
  own: {dst_ip|cidr: 192.0.2.0/24}
  condition: dns and not own
`))
	var schema sigma.Names // or any other Schema
	engine, _ := sigma.Compile(c, sigma.Options{Schema: &schema})
	port, _ := schema.Key("dst_port")
	var record sigma.Record
	var matcher sigma.Matcher
	record.AddInt(port, 53)
	set := engine.Set(sigma.Source{LogSource: sigma.LogSource{Category: "firewall"}})
	fmt.Println(len(matcher.Match(set, &record, nil)))
	// Output: 1
}

// Matches become hits of correlations, on the events' own time.
func ExampleCorrelator() {
	c := &sigma.Collection{}
	c.Parse("guessing.yml", []byte(`
title: Sign-in failed
name: failed
logsource: {category: authentication}
detection: {selection: {outcome: failure}, condition: selection}
---
title: Password guessing
id: 11111111-0000-4000-8000-000000000003
correlation:
  type: event_count
  rules: [failed]
  group-by: [user]
  timespan: 1m
  condition: {gte: 3}
`))
	names := &sigma.Names{}
	engine, _ := sigma.Compile(c, sigma.Options{Schema: names})
	user, _ := names.Key("user")
	outcome, _ := names.Key("outcome")
	set := engine.Set(sigma.Source{LogSource: sigma.LogSource{Category: "authentication"}})
	correlator := sigma.NewCorrelator(engine, sigma.CorrelatorOptions{})
	var matcher sigma.Matcher
	var record sigma.Record
	began := time.Date(2026, 1, 2, 3, 4, 0, 0, time.UTC)
	for i := range 3 {
		at := began.Add(time.Duration(i) * 10 * time.Second).UnixNano()
		record.Reset()
		record.AddString(user, "ann")
		record.AddString(outcome, "failure")
		for _, hit := range correlator.Observe(matcher.Match(set, &record, nil), &record, at, at, 0, false, sigma.Ref{}, nil) {
			rule := engine.Correlations[hit.Correlation]
			fmt.Printf("%s: %s, %d times from %s to %s\n", rule.Title, hit.Group[0], hit.Count,
				time.Unix(0, hit.First).UTC().Format(time.TimeOnly), time.Unix(0, hit.Last).UTC().Format(time.TimeOnly))
		}
	}
	// Output: Password guessing: ann, 3 times from 03:04:00 to 03:04:20
}

// A pipeline gives rules the names of fields that events have.
func ExampleParsePipeline() {
	c := &sigma.Collection{}
	c.Parse("whoami.yml", []byte(exampleRules))
	p, err := sigma.ParsePipeline("ecs.yml", []byte(`
name: ECS
transformations:
  - type: field_name_mapping
    mapping: {Image: process.executable, User: user.name}
`))
	if err != nil {
		fmt.Println(err)
		return
	}
	mapped, errs := c.Apply(p)
	engine, _ := sigma.Compile(mapped, sigma.Options{Schema: &sigma.Names{}})
	fmt.Println(len(errs), engine.FieldNames())
	// Output: 0 [process.executable user.name]
}
