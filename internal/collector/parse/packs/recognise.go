package packs

import (
	"strings"

	"go.yaml.in/yaml/v3"
)

// recognise reads the ways to know a product's lines: a list of which one must hold; in each, all conditions must.
func (c *compiler) recognise(n *yaml.Node) {
	for _, item := range c.items(n) {
		c.way(item)
	}
	if k := len(c.pack.recognise); k == 0 || k > maxRecognise {
		c.fail(n, "recognise has %d ways; between 1 and %d are taken", k, maxRecognise)
	}
}

func (c *compiler) way(n *yaml.Node) {
	base := Ref{Pack: c.pack}
	programs, starts := []string{""}, []string{""}
	var vendors []string
	leef := false
	for _, kv := range c.pairs(n, "a way to recognise") {
		k, v := kv[0], kv[1]
		values := c.texts(v, k.Value)
		for _, s := range values {
			if s == "" || len(s) > maxLiteral {
				c.fail(v, "%s: a text must have 1 to %d bytes", k.Value, maxLiteral)
			}
		}
		if len(values) == 0 {
			c.fail(v, "%s: the list is empty", k.Value)
		}
		one := func() string {
			if len(values) != 1 {
				c.fail(v, "%s takes one value", k.Value)
			}
			return values[0]
		}
		switch k.Value {
		case "program":
			programs = values
		case "starts":
			starts = values
		case "contains":
			base.contains = append(base.contains, values...)
		case "lacks":
			base.lacks = values
		case "json":
			base.isJSON = true
			for _, s := range values {
				if i := strings.LastIndexByte(s, '.'); i >= 0 && i+1 < len(s) {
					s = s[i+1:]
				}
				base.json = append(base.json, `"`+s+`"`)
			}
		case "host":
			base.host, base.hostStart = star(one())
		case "id":
			base.id = one()
		case "cef", "leef":
			vendors, leef = values, k.Value == "leef"
		case "priority":
			base.priority = c.number(v, "priority")
			if base.priority < -100 || base.priority > 100 {
				c.fail(v, "priority must be between -100 and 100")
			}
		default:
			c.fail(k, "recognise: there is no %q; known are program, starts, contains, lacks, json, cef, leef, host, id, priority", k.Value)
		}
	}
	telling := base.isJSON || base.id != "" || len(vendors) > 0 || starts[0] != "" || programs[0] != ""
	for _, s := range base.contains {
		telling = telling || len(s) >= minTrigger
	}
	if !telling {
		c.fail(n, "recognise: too vague; name a program, a start, an id, JSON names, a CEF or LEEF vendor, or a text of at least %d bytes that only this product writes", minTrigger)
	}
	if base.priority == 0 {
		base.priority = min(len(base.contains)+len(base.lacks)+len(base.json), 20)
		if starts[0] != "" && programs[0] != "" {
			base.priority += 2
		}
	}
	add := func(f Ref) { c.pack.recognise = append(c.pack.recognise, &f) }
	for _, p := range programs {
		for _, s := range starts {
			f := base
			f.program, f.progStart = star(p)
			f.starts = s
			if len(vendors) == 0 {
				add(f)
			}
			for _, v := range vendors {
				g := f
				vendor, product, _ := strings.Cut(v, "/")
				vendor, g.vendStart = star(vendor)
				g.product, g.prodStart = star(product)
				if vendor == "" {
					c.fail(n, "cef and leef take VENDOR or VENDOR/PRODUCT, each with an optional * at the end")
				}
				if leef {
					g.leef = vendor
				} else {
					g.cef = vendor
				}
				if product != "" {
					g.priority++
				}
				add(g)
			}
		}
	}
	if len(c.pack.recognise) > 4*maxRecognise {
		c.fail(n, "recognise has too many combinations")
	}
}

// star cuts a * at the end, which means "starts with".
func star(s string) (string, bool) {
	if t, ok := strings.CutSuffix(s, "*"); ok {
		return t, true
	}
	return s, false
}
