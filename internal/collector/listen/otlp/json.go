package otlp

import (
	"encoding/json"
	"fmt"
	"strconv"
)

type jsonRequest struct {
	ResourceLogs []struct {
		Resource struct {
			Attributes []jsonPair `json:"attributes"`
		} `json:"resource"`
		ScopeLogs []struct {
			Scope struct {
				Name string `json:"name"`
			} `json:"scope"`
			LogRecords []struct {
				Time         jsonUint   `json:"timeUnixNano"`
				Observed     jsonUint   `json:"observedTimeUnixNano"`
				Severity     int64      `json:"severityNumber"`
				SeverityText string     `json:"severityText"`
				Body         *jsonAny   `json:"body"`
				Attributes   []jsonPair `json:"attributes"`
				Trace        string     `json:"traceId"`
				Span         string     `json:"spanId"`
			} `json:"logRecords"`
		} `json:"scopeLogs"`
	} `json:"resourceLogs"`
}

type jsonPair struct {
	Key   string  `json:"key"`
	Value jsonAny `json:"value"`
}

type jsonAny struct {
	String *string      `json:"stringValue"`
	Bool   *bool        `json:"boolValue"`
	Int    *json.Number `json:"intValue"` // a number, or a string with one
	Double *json.Number `json:"doubleValue"`
	Array  *struct {
		Values []jsonAny `json:"values"`
	} `json:"arrayValue"`
	List *struct {
		Values []jsonPair `json:"values"`
	} `json:"kvlistValue"`
	Bytes *string `json:"bytesValue"`
}

// jsonUint is a number, or a string with one; null is as if it were not there.
type jsonUint uint64

// UnmarshalJSON is json.Unmarshaler.
func (u *jsonUint) UnmarshalJSON(b []byte) error {
	if string(b) == "null" {
		return nil
	}
	if len(b) > 1 && b[0] == '"' {
		b = b[1 : len(b)-1]
	}
	n, err := strconv.ParseUint(string(b), 10, 64)
	*u = jsonUint(n)
	return err
}

// maxValues bounds what a request of a few MiB, all of empty objects, would take in memory.
const maxValues = 300_000

// values is about how many values a JSON text has: the braces and commas outside its strings.
func values(b []byte) (n int) {
	quoted := false
	for i := 0; i < len(b); i++ {
		switch c := b[i]; {
		case c == '"':
			quoted = !quoted
		case quoted && c == '\\':
			i++
		case !quoted && (c == '{' || c == ','):
			n++
		}
	}
	return n
}

// readJSON makes lines of an ExportLogsServiceRequest.
func readJSON(b []byte, out *lines) error {
	if n := values(b); n > maxValues {
		return tooMuch(fmt.Sprintf("This request has %d objects and values, at most %d are taken.", n, maxValues))
	}
	var q jsonRequest
	if err := json.Unmarshal(b, &q); err != nil { // its depth is bounded by encoding/json
		return fmt.Errorf("not an OTLP logs request in JSON: %w", err)
	}
	for _, rl := range q.ResourceLogs {
		resource, err := jsonPairs(nil, rl.Resource.Attributes, 0)
		if err != nil {
			return err
		}
		for _, sl := range rl.ScopeLogs {
			for i := range sl.LogRecords {
				x := &sl.LogRecords[i]
				r := record{time: uint64(x.Time), observed: uint64(x.Observed), severity: x.Severity, severityText: x.SeverityText, trace: x.Trace, span: x.Span}
				if x.Body != nil {
					if r.body, err = x.Body.append(nil, 0); err != nil {
						return err
					}
					r.bodyText = r.body[0] == '"'
				}
				if r.attributes, err = jsonPairs(nil, x.Attributes, 0); err != nil {
					return err
				}
				if err := out.add(&r, resource, sl.Scope.Name); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

func jsonPairs(dst []byte, pairs []jsonPair, depth int) ([]byte, error) {
	dst = append(dst, '{')
	seen := map[string]bool{}
	for i := range pairs {
		p := &pairs[i]
		if p.Key == "" || seen[p.Key] {
			continue
		}
		seen[p.Key] = true
		if dst[len(dst)-1] != '{' {
			dst = append(dst, ',')
		}
		dst = append(appendString(dst, p.Key), ':')
		var err error
		if dst, err = p.Value.append(dst, depth+1); err != nil {
			return dst, err
		}
	}
	return append(dst, '}'), nil
}

func (v *jsonAny) append(dst []byte, depth int) ([]byte, error) {
	if depth > maxDepth {
		return dst, fmt.Errorf("values are nested more than %d deep", maxDepth)
	}
	switch {
	case v.String != nil:
		return appendString(dst, *v.String), nil
	case v.Bool != nil:
		return strconv.AppendBool(dst, *v.Bool), nil
	case v.Int != nil:
		n, err := v.Int.Int64()
		return strconv.AppendInt(dst, n, 10), err
	case v.Double != nil:
		f, err := v.Double.Float64()
		return appendFloat(dst, f), err
	case v.Array != nil:
		dst = append(dst, '[')
		for i := range v.Array.Values {
			if i > 0 {
				dst = append(dst, ',')
			}
			var err error
			if dst, err = v.Array.Values[i].append(dst, depth+1); err != nil {
				return dst, err
			}
		}
		return append(dst, ']'), nil
	case v.List != nil:
		return jsonPairs(dst, v.List.Values, depth+1)
	case v.Bytes != nil:
		return appendString(dst, *v.Bytes), nil
	}
	return append(dst, "null"...), nil
}
