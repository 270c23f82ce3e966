// Package config reads settings: defaults, then a YAML file, then the environment, then flags, each over the one before.
//
// It is strict: a key that no one knows is an error that names its line. It remembers where each value came from, and prints the result
// with secrets masked, so that "which setting is in force, and why" has an answer. It writes nothing and counts nothing.
package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// maxFile bounds a settings file, in bytes.
const maxFile = 1 << 20

// Origins says for each dotted key where its value came from: "default", "file:LINE", "environment NAME" or "flag".
type Origins map[string]string

// Options says where Load looks besides the defaults.
type Options struct {
	File      string            // a YAML file; none when empty
	EnvPrefix string            // "TOCSIN": gate.listen is TOCSIN_GATE_LISTEN; none when empty
	Environ   []string          // as os.Environ gives it
	Flags     map[string]string // dotted key to text; what the command line set
}

// Load fills dst, a pointer to a struct that holds the defaults. Fields are named by their yaml tags; the environment and flags reach
// every field that is a string, a number, a truth value, a time.Duration or a list of strings (comma-separated).
func Load(dst any, o Options) (Origins, error) {
	origins := Origins{}
	leaves := map[string]reflect.Value{}
	walk(reflect.ValueOf(dst).Elem(), "", func(path string, v reflect.Value, _ reflect.StructField) {
		leaves[path] = v
		origins[path] = "default"
	})
	if o.File != "" {
		if err := loadFile(dst, o.File, origins); err != nil {
			return nil, err
		}
	}
	if o.EnvPrefix != "" {
		env := map[string]string{}
		for _, kv := range o.Environ {
			if name, value, ok := strings.Cut(kv, "="); ok && strings.HasPrefix(name, o.EnvPrefix+"_") {
				env[name] = value
			}
		}
		for path, v := range leaves {
			name := EnvName(o.EnvPrefix, path)
			text, ok := env[name]
			if !ok {
				continue
			}
			if err := set(v, text); err != nil {
				return nil, fmt.Errorf("environment variable %s: %w", name, err)
			}
			origins[path] = "environment " + name
		}
	}
	for path, text := range o.Flags {
		v, ok := leaves[path]
		if !ok {
			return nil, fmt.Errorf("flag for %s: there is no such setting", path)
		}
		if err := set(v, text); err != nil {
			return nil, fmt.Errorf("flag for %s: %w", path, err)
		}
		origins[path] = "flag"
	}
	return origins, nil
}

// Unknown lists the environment variables that begin with the prefix and name no setting of v, a pointer to a struct: most likely typing
// errors. Those that begin with the prefix and one of others belong to somebody else.
func Unknown(v any, o Options, others ...string) []string {
	known := map[string]bool{}
	walk(reflect.ValueOf(v).Elem(), "", func(path string, _ reflect.Value, _ reflect.StructField) { known[EnvName(o.EnvPrefix, path)] = true })
	var out []string
	for _, kv := range o.Environ {
		name, _, _ := strings.Cut(kv, "=")
		rest, ours := strings.CutPrefix(name, o.EnvPrefix+"_")
		if ours && !known[name] && !slices.ContainsFunc(others, func(p string) bool { return rest == p || strings.HasPrefix(rest, p+"_") }) {
			out = append(out, name)
		}
	}
	slices.Sort(out)
	return out
}

// EnvName is the environment variable of a dotted key.
func EnvName(prefix, path string) string {
	return prefix + "_" + strings.ToUpper(strings.NewReplacer(".", "_", "-", "_").Replace(path))
}

func loadFile(dst any, name string, origins Origins) error {
	f, err := os.Open(name)
	if err != nil {
		return fmt.Errorf("settings: %w", err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return fmt.Errorf("settings %s: %w", name, err)
	}
	if len(b) > maxFile {
		return fmt.Errorf("settings %s: larger than 1 MiB, so surely not a settings file", name)
	}
	dec := yaml.NewDecoder(bytes.NewReader(b))
	dec.KnownFields(true)
	if err := dec.Decode(dst); err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("settings %s: %s", name, plainYAML(err))
	}
	if err := dec.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		return fmt.Errorf("settings %s: has more than one document; keep only one", name)
	}
	var doc yaml.Node
	if err := yaml.Unmarshal(b, &doc); err != nil {
		return fmt.Errorf("settings %s: %s", name, plainYAML(err))
	}
	if len(doc.Content) > 0 {
		mark(doc.Content[0], "", origins)
	}
	return nil
}

// plainYAML makes the decoder's message readable: "field x not found in type config.Hub" means nothing to an operator.
func plainYAML(err error) string {
	var t *yaml.TypeError
	if !errors.As(err, &t) {
		return err.Error()
	}
	lines := make([]string, len(t.Errors))
	for i, e := range t.Errors {
		if at := strings.Index(e, " not found in type "); at >= 0 {
			e = strings.Replace(e[:at], "field ", "unknown setting ", 1)
		}
		lines[i] = e
	}
	return strings.Join(lines, "; ")
}

func mark(n *yaml.Node, path string, origins Origins) {
	if n.Kind != yaml.MappingNode {
		if _, ok := origins[path]; ok {
			origins[path] = "file:" + strconv.Itoa(n.Line)
		}
		return
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		mark(n.Content[i+1], join(path, n.Content[i].Value), origins)
	}
}

func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}

// walk calls f for each leaf of a struct: everything that is not itself a struct.
func walk(v reflect.Value, path string, f func(path string, v reflect.Value, field reflect.StructField)) {
	for i := range v.NumField() {
		field := v.Type().Field(i)
		name, _, _ := strings.Cut(field.Tag.Get("yaml"), ",")
		if name == "-" || !field.IsExported() {
			continue
		}
		if name == "" {
			name = strings.ToLower(field.Name)
		}
		if fv := v.Field(i); fv.Kind() == reflect.Struct {
			walk(fv, join(path, name), f)
		} else {
			f(join(path, name), fv, field)
		}
	}
}

var durationType = reflect.TypeFor[time.Duration]()

func set(v reflect.Value, text string) error {
	switch {
	case v.Type() == durationType:
		d, err := time.ParseDuration(text)
		if err != nil {
			return fmt.Errorf("%q is not a duration; write it like 30s or 24h", text)
		}
		v.SetInt(int64(d))
	case v.Kind() == reflect.String:
		v.SetString(text)
	case v.Kind() == reflect.Bool:
		b, err := strconv.ParseBool(text)
		if err != nil {
			return fmt.Errorf("%q is neither true nor false", text)
		}
		v.SetBool(b)
	case v.CanInt():
		n, err := strconv.ParseInt(text, 10, v.Type().Bits())
		if err != nil {
			return fmt.Errorf("%q is not a whole number", text)
		}
		v.SetInt(n)
	case v.CanFloat():
		n, err := strconv.ParseFloat(text, 64)
		if err != nil {
			return fmt.Errorf("%q is not a number", text)
		}
		v.SetFloat(n)
	case v.Kind() == reflect.Slice && v.Type().Elem().Kind() == reflect.String:
		parts := strings.Split(text, ",")
		for i := range parts {
			parts[i] = strings.TrimSpace(parts[i])
		}
		v.Set(reflect.ValueOf(slices.DeleteFunc(parts, func(s string) bool { return s == "" })).Convert(v.Type()))
	default:
		return errors.New("can be set only in the settings file")
	}
	return nil
}

// Print writes each setting with its value and origin, one a line. Fields with the tag `secret:"true"` are masked.
func Print(w io.Writer, v any, origins Origins) error {
	var err error
	walk(reflect.Indirect(reflect.ValueOf(v)), "", func(path string, v reflect.Value, field reflect.StructField) {
		if err != nil {
			return
		}
		text := fmt.Sprint(v.Interface())
		if v.Kind() == reflect.String {
			text = strconv.Quote(v.String())
		}
		if field.Tag.Get("secret") == "true" && !v.IsZero() {
			text = "********"
		}
		_, err = fmt.Fprintf(w, "%-28s %-40s # %s\n", path+":", text, origins[path])
	})
	return err
}
