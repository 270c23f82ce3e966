package otlp

import (
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"strconv"
)

var errProto = errors.New("not an OTLP logs request in protobuf")

// walk calls f for each field of a message: number, and the value as bytes (type 2) or as a number (types 0, 1, 5).
func walk(b []byte, f func(n int, v []byte, x uint64, isBytes bool) error) error {
	for len(b) > 0 {
		tag, k := varint(b)
		if k == 0 || tag>>3 == 0 || tag>>3 > 1<<29 {
			return errProto
		}
		b = b[k:]
		var v []byte
		var x uint64
		isBytes := false
		switch tag & 7 {
		case 0:
			if x, k = varint(b); k == 0 {
				return errProto
			}
			b = b[k:]
		case 1:
			if len(b) < 8 {
				return errProto
			}
			x = uint64(b[0]) | uint64(b[1])<<8 | uint64(b[2])<<16 | uint64(b[3])<<24 | uint64(b[4])<<32 | uint64(b[5])<<40 | uint64(b[6])<<48 | uint64(b[7])<<56
			b = b[8:]
		case 2:
			n, k := varint(b)
			if k == 0 || n > uint64(len(b)-k) {
				return errProto
			}
			v, isBytes = b[k:k+int(n)], true
			b = b[k+int(n):]
		case 5:
			if len(b) < 4 {
				return errProto
			}
			x = uint64(b[0]) | uint64(b[1])<<8 | uint64(b[2])<<16 | uint64(b[3])<<24
			b = b[4:]
		default:
			return errProto
		}
		if err := f(int(tag>>3), v, x, isBytes); err != nil {
			return err
		}
	}
	return nil
}

func varint(b []byte) (x uint64, n int) {
	for i := 0; i < len(b) && i < 10; i++ {
		x |= uint64(b[i]&0x7f) << (7 * i)
		if b[i] < 0x80 {
			return x, i + 1
		}
	}
	return 0, 0
}

// readProto makes lines of an ExportLogsServiceRequest.
func readProto(b []byte, out *lines) error {
	return walk(b, func(n int, resourceLogs []byte, _ uint64, is bool) error {
		if n != 1 || !is {
			return nil
		}
		var resource []byte
		// The resource may come behind its logs: first it, then them.
		if err := walk(resourceLogs, func(n int, v []byte, _ uint64, is bool) error {
			if n != 1 || !is {
				return nil
			}
			attributes, err := protoAttributes(v, 1)
			resource = attributes
			return err
		}); err != nil {
			return err
		}
		return walk(resourceLogs, func(n int, scopeLogs []byte, _ uint64, is bool) error {
			if n != 2 || !is {
				return nil
			}
			scope := ""
			if err := walk(scopeLogs, func(n int, v []byte, _ uint64, is bool) error {
				if n != 1 || !is {
					return nil
				}
				return walk(v, func(n int, v []byte, _ uint64, is bool) error {
					if n == 1 && is {
						scope = string(v)
					}
					return nil
				})
			}); err != nil {
				return err
			}
			return walk(scopeLogs, func(n int, v []byte, _ uint64, is bool) error {
				if n != 2 || !is {
					return nil
				}
				var r record
				if err := r.proto(v); err != nil {
					return err
				}
				return out.add(&r, resource, scope)
			})
		})
	})
}

func (r *record) proto(b []byte) error {
	if err := walk(b, func(n int, v []byte, x uint64, is bool) (err error) {
		switch {
		case n == 1 && !is:
			r.time = x
		case n == 2 && !is:
			r.severity = int64(int32(x))
		case n == 3 && is:
			r.severityText = string(v)
		case n == 5 && is:
			r.body, err = appendAny(nil, v, 0)
			r.bodyText = len(r.body) > 0 && r.body[0] == '"'
		case n == 9 && is:
			r.trace = hex.EncodeToString(v)
		case n == 10 && is:
			r.span = hex.EncodeToString(v)
		case n == 11 && !is:
			r.observed = x
		}
		return err
	}); err != nil {
		return err
	}
	var err error
	r.attributes, err = protoAttributes(b, 6)
	return err
}

// protoAttributes writes the KeyValues in field number of a message as a JSON object. Of equal keys the first wins.
func protoAttributes(b []byte, number int) ([]byte, error) { return appendPairs(nil, b, number, 0) }

func appendPairs(dst, b []byte, number, depth int) ([]byte, error) {
	if depth > maxDepth {
		return nil, fmt.Errorf("%w: values are nested more than %d deep", errProto, maxDepth)
	}
	dst = append(dst, '{')
	seen := map[string]bool{}
	err := walk(b, func(n int, v []byte, _ uint64, is bool) error {
		if n != number || !is {
			return nil
		}
		key, value := "", []byte(nil)
		if err := walk(v, func(n int, v []byte, _ uint64, is bool) error {
			switch {
			case n == 1 && is:
				key = string(v)
			case n == 2 && is:
				value = v
			}
			return nil
		}); err != nil {
			return err
		}
		if key == "" || seen[key] {
			return nil
		}
		seen[key] = true
		if dst[len(dst)-1] != '{' {
			dst = append(dst, ',')
		}
		dst = append(appendString(dst, key), ':')
		var err error
		dst, err = appendAny(dst, value, depth+1)
		return err
	})
	return append(dst, '}'), err
}

// appendAny writes an AnyValue.
func appendAny(dst, b []byte, depth int) ([]byte, error) {
	if depth > maxDepth {
		return dst, fmt.Errorf("%w: values are nested more than %d deep", errProto, maxDepth)
	}
	start := len(dst)
	err := walk(b, func(n int, v []byte, x uint64, is bool) (err error) {
		dst = dst[:start] // of a oneof the last one counts
		switch {
		case n == 1 && is:
			dst = appendString(dst, string(v))
		case n == 2 && !is:
			dst = strconv.AppendBool(dst, x != 0)
		case n == 3 && !is:
			dst = strconv.AppendInt(dst, int64(x), 10)
		case n == 4 && !is:
			dst = appendFloat(dst, math.Float64frombits(x))
		case n == 5 && is:
			dst = append(dst, '[')
			err = walk(v, func(n int, v []byte, _ uint64, is bool) (err error) {
				if n == 1 && is {
					if dst[len(dst)-1] != '[' {
						dst = append(dst, ',')
					}
					dst, err = appendAny(dst, v, depth+1)
				}
				return err
			})
			dst = append(dst, ']')
		case n == 6 && is:
			dst, err = appendPairs(dst, v, 1, depth+1)
		case n == 7 && is:
			dst = appendString(dst, base64.StdEncoding.EncodeToString(v))
		}
		return err
	})
	if len(dst) == start {
		dst = append(dst, "null"...)
	}
	return dst, err
}
