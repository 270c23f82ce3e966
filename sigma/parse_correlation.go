package sigma

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

var correlationTypes = []string{"event_count", "value_count", "temporal", "temporal_ordered", "value_sum", "value_avg", "value_percentile", "value_median"}

func (p *parser) correlation(n *yaml.Node, c *Correlation) error {
	c.line = n.Line
	pairs, err := p.entries(n, "correlation")
	if err != nil {
		return err
	}
	var fields []string
	for _, kv := range pairs {
		k, v := kv[0].Value, kv[1]
		switch k {
		case "type":
			if c.Type, err = p.text(v, k); err == nil && !slices.Contains(correlationTypes, c.Type) {
				err = errAt(v, "unknown correlation type %q (known are %s)", c.Type, strings.Join(correlationTypes, ", "))
			}
		case "rules":
			c.Rules, err = p.stringList(v)
		case "group-by":
			c.GroupBy, err = p.stringList(v)
		case "timespan":
			var t string
			if t, err = p.text(v, k); err == nil {
				if c.Timespan, err = parseTimespan(t); err != nil {
					err = errAt(v, "%v", err)
				}
			}
		case "generate":
			var t string
			if t, err = p.text(v, k); err == nil {
				if c.Generate, err = parseBool(t); err != nil {
					err = errAt(v, "generate: %v", err)
				}
			}
		case "aliases":
			err = p.aliases(v, c)
		case "condition":
			fields, err = p.correlationCondition(v, c)
		default:
			err = errAt(kv[0], "unknown key %q in correlation", k)
		}
		if err != nil {
			return err
		}
	}
	temporal := strings.HasPrefix(c.Type, "temporal")
	if c.Expression != "" {
		if err := c.extended(); err != nil {
			return errAt(n, "condition %q: %v", c.Expression, err)
		}
	}
	switch {
	case c.Type == "":
		return errAt(n, "the correlation has no type")
	case len(c.Rules) == 0:
		return errAt(n, "the correlation names no rules")
	case len(c.Rules) > 64:
		return errAt(n, "a correlation can name at most 64 rules")
	case len(c.GroupBy) > 16:
		return errAt(n, "a correlation can group by at most 16 fields")
	case c.Timespan == 0:
		return errAt(n, "the correlation has no timespan")
	case !temporal && len(c.Bounds) == 0 && c.Expression == "":
		return errAt(n, "the correlation needs a condition such as gte: 10")
	case strings.HasPrefix(c.Type, "value_") && (len(fields) == 0 || slices.Contains(fields, "")):
		return errAt(n, "%s needs the name of a field in its condition", c.Type)
	case len(fields) > 1 && c.Type != "value_count" || len(fields) > 16:
		return errAt(n, "%s takes the values of one field (value_count of up to 16)", c.Type)
	}
	c.valueFields = fields
	return nil
}

func (p *parser) aliases(n *yaml.Node, c *Correlation) error {
	pairs, err := p.entries(n, "aliases")
	if err != nil {
		return err
	}
	c.Aliases = map[string]map[string]string{}
	for _, kv := range pairs {
		inner, err := p.entries(kv[1], "alias "+kv[0].Value)
		if err != nil {
			return err
		}
		m := map[string]string{}
		for _, e := range inner {
			if m[e[0].Value], err = p.text(e[1], "an alias"); err != nil {
				return err
			}
		}
		c.Aliases[kv[0].Value] = m
	}
	return nil
}

func (p *parser) correlationCondition(n *yaml.Node, c *Correlation) (fields []string, err error) {
	if n = follow(n); n != nil && n.Kind == yaml.ScalarNode {
		if c.Expression = strings.TrimSpace(n.Value); c.Expression == "" {
			return nil, errAt(n, "the condition is empty")
		}
		return nil, nil
	}
	pairs, err := p.entries(n, "condition")
	if err != nil {
		return nil, err
	}
	c.Percentile = 50
	for _, kv := range pairs {
		k := kv[0].Value
		if k == "field" {
			if fields, err = p.stringList(kv[1]); err != nil {
				return nil, err
			}
			continue
		}
		t, err := p.text(kv[1], k)
		if err != nil {
			return nil, err
		}
		switch k {
		case "percentile":
			f, err := strconv.ParseFloat(t, 64)
			if err != nil || !(f >= 0 && f <= 100) {
				return nil, errAt(kv[1], "percentile must be a number between 0 and 100")
			}
			c.Percentile = f
		case "gt", "gte", "lt", "lte", "eq", "neq":
			f, ok := parseNumber(t)
			if !ok {
				return nil, errAt(kv[1], "%s: %q is not a number", k, t)
			}
			c.Bounds = append(c.Bounds, Bound{k, f})
		default:
			return nil, errAt(kv[0], "unknown key %q in condition", k)
		}
	}
	return fields, nil
}

// month and year are the mean ones of the calendar, as in pySigma.
const (
	month = 2_629_746 * time.Second
	year  = 12 * month
)

// parseTimespan reads a number and a unit.
func parseTimespan(t string) (time.Duration, error) {
	units := map[byte]time.Duration{'s': time.Second, 'm': time.Minute, 'h': time.Hour, 'd': 24 * time.Hour, 'w': 7 * 24 * time.Hour, 'M': month, 'y': year}
	if len(t) >= 2 {
		n, err := strconv.ParseUint(t[:len(t)-1], 10, 32)
		if u := units[t[len(t)-1]]; err == nil && u > 0 && n > 0 && time.Duration(n) <= 10*year/u {
			return time.Duration(n) * u, nil
		}
	}
	return 0, fmt.Errorf("timespan %q: want a number and one of s, m, h, d, w, M, y, at most ten years", t)
}
