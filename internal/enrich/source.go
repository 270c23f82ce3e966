package enrich

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
	"unsafe"

	"github.com/oschwald/maxminddb-golang/v2"
	"golang.org/x/sync/errgroup"
)

// Source describes one file of place data, as pages and `tocsin admin doctor` show it.
type Source struct {
	Role    string // "country", "network" or "overlay"
	Name    string // the data set's own name, or the file's
	Version string
	Path    string
	Date    time.Time // when the data were made; the file's own time when the data do not say
	Records int       // prefixes or ranges as published
	Missing bool      // no such file: this knowledge is absent
	Next    string    // what to do about it, when Missing
	Licence string
	Credits []Credit // attribution that must be shown where results are shown
	Caution string   // what its users should know about its quality
}

// Credit is an attribution the licence asks for.
type Credit struct{ Text, URL string }

// Age is how old the data are at now.
func (s Source) Age(now time.Time) time.Duration { return now.Sub(s.Date) }

// known holds what the licences of the bundled data sets ask to be shown.
var known = map[string]Source{
	"@ip-location-db/geo-whois-asn-country-mmdb": {
		Licence: "CC0-1.0; underlying statistics CC-BY-4.0",
		Credits: []Credit{{"Number Resource Organization", "https://www.nro.net"}},
		Caution: frozen,
	},
	"@ip-location-db/asn": {
		Licence: "CC-BY-4.0",
		Credits: []Credit{{"RouteViews", "https://www.routeviews.org"}, {"Number Resource Organization", "https://www.nro.net"}, {"IP Geolocation by DB-IP", "https://db-ip.com"}},
		Caution: frozen,
	},
}

const frozen = "Its publisher stopped updating this package in June 2026 and warns of errors in it. Drop a newer country.mmdb, asn.mmdb or asn-ipv4.csv and asn-ipv6.csv into the place data folder to replace it."

const bring = "Run scripts/fetch-data.sh, or drop a country.mmdb, asn.mmdb or asn-ipv4.csv and asn-ipv6.csv into the place data folder. Until then countries and networks stay empty."

// Limits that stop a wrong file from filling the memory.
const (
	maxFileBytes  = 512 << 20
	maxCSVColumns = 4
)

// load reads all sources, taking from old what has not changed on disk.
func (e *Enricher) load(old *tables) (*tables, error) {
	t := &tables{files: map[string][]file{}}
	var versions [][]byte

	// The two big files are read side by side: together they are most of the hub's start.
	var country, net part
	var g errgroup.Group
	g.Go(func() (err error) {
		t.country, country, err = role(e, old, "country", [][]string{{"country.mmdb"}, {"country.csv"}}, func(old *tables) *ranges[string] { return old.country }, countryOf, func(columns []string) (string, error) {
			if len(columns) != 3 || !isCountry(columns[2]) {
				return "", errors.New("want start,end,country with the two letters of ISO 3166")
			}
			return strings.Clone(columns[2]), nil // not a piece of the whole file
		})
		return err
	})
	g.Go(func() (err error) {
		t.network, net, err = role(e, old, "network", [][]string{{"asn.mmdb"}, {"asn-ipv4.csv", "asn-ipv6.csv"}}, func(old *tables) *ranges[network] { return old.network }, networkOf, networkOfColumns)
		return err
	})
	if err := g.Wait(); err != nil {
		return nil, err
	}
	for _, p := range []part{country, net} {
		t.sources = append(t.sources, p.source)
		t.files[p.source.Role] = p.files
		versions = append(versions, []byte(p.source.Version))
	}

	if e.opt.Overlay != "" {
		f, err := stat(e.opt.Overlay)
		if err != nil {
			return nil, fmt.Errorf("overlay of places and networks: %w", err)
		}
		if same(old, "overlay", []file{f}) {
			t.overlay = old.overlay
			t.sources = append(t.sources, old.source("overlay"))
		} else {
			b, err := os.ReadFile(f.path)
			if err != nil {
				return nil, fmt.Errorf("overlay of places and networks: %w", err)
			}
			entries, err := ParseOverlay(bytes.NewReader(b))
			if err != nil {
				return nil, fmt.Errorf("overlay of places and networks %s: %w", f.path, err)
			}
			t.overlay = newOverlay(entries)
			t.sources = append(t.sources, Source{Role: "overlay", Name: filepath.Base(f.path), Path: f.path, Version: digest(b), Date: f.mod, Records: len(entries), Licence: "the operator's own"})
		}
		versions = append(versions, []byte(t.source("overlay").Version))
		t.files["overlay"] = []file{f}
	}
	t.version = digest(versions...)
	return t, nil
}

// part is what reading one role gave beside its table.
type part struct {
	source Source
	files  []file
}

// role reads the files of one role, or takes over the table made of them before. A nil table: there are none.
func role[V comparable](e *Enricher, old *tables, name string, groups [][]string, had func(*tables) *ranges[V], ofRecord func(maxminddb.Result) (V, error), ofColumns func([]string) (V, error)) (*ranges[V], part, error) {
	dir, files, err := e.find(groups)
	if err != nil {
		return nil, part{}, err
	}
	if files == nil {
		return nil, part{source: Source{Role: name, Missing: true, Next: bring}}, nil
	}
	if same(old, name, files) {
		return had(old), part{old.source(name), files}, nil
	}
	b := newBuilder[V]()
	src, err := read(b, dir, files, ofRecord, ofColumns)
	if err != nil {
		return nil, part{}, err
	}
	src.Role = name
	return b.table(), part{src, files}, nil
}

// networkOfColumns reads start,end,as_number,as_name.
func networkOfColumns(columns []string) (network, error) {
	if len(columns) < 3 {
		return network{}, errors.New("want start,end,as_number,as_name")
	}
	n, err := strconv.ParseUint(columns[2], 10, 32)
	if err != nil {
		return network{}, fmt.Errorf("AS number %q is not a number", columns[2])
	}
	v := network{number: uint32(n)}
	if len(columns) > 3 {
		v.name = tidy(columns[3])
	}
	return v, nil
}

// source returns the description with that role, the zero Source when there is none.
func (t *tables) source(role string) Source {
	for _, s := range t.sources {
		if s.Role == role {
			return s
		}
	}
	return Source{}
}

// file is a file as it looked when it was read.
type file struct {
	path string
	size int64
	mod  time.Time
}

func stat(path string) (file, error) {
	info, err := os.Stat(path)
	if err != nil {
		return file{}, err
	}
	if !info.Mode().IsRegular() {
		return file{}, fmt.Errorf("%s is not a file", path)
	}
	if info.Size() > maxFileBytes {
		return file{}, fmt.Errorf("%s has %d MB, at most %d are read", path, info.Size()>>20, maxFileBytes>>20)
	}
	return file{path, info.Size(), info.ModTime()}, nil
}

// find returns the first group of files of which at least one is there, folder by folder: the folder and the files.
func (e *Enricher) find(groups [][]string) (dir string, files []file, err error) {
	for _, dir := range e.opt.Dirs {
		for _, names := range groups {
			for _, name := range names {
				f, err := stat(filepath.Join(dir, name))
				if errors.Is(err, fs.ErrNotExist) {
					continue
				}
				if err != nil {
					return "", nil, fmt.Errorf("place data: %w", err)
				}
				files = append(files, f)
			}
			if files != nil {
				return dir, files, nil
			}
		}
	}
	return "", nil, nil
}

// same says whether exactly these files were read before for the role, and have not changed since.
func same(old *tables, role string, files []file) bool {
	return old != nil && slices.EqualFunc(old.files[role], files, func(a, b file) bool {
		return a.path == b.path && a.size == b.size && a.mod.Equal(b.mod)
	})
}

// read fills the builder from an MMDB or CSV files and describes what it read.
func read[V comparable](b *builder[V], dir string, files []file, ofRecord func(maxminddb.Result) (V, error), ofColumns func([]string) (V, error)) (Source, error) {
	src := Source{Path: files[0].path, Name: filepath.Base(files[0].path), Date: files[0].mod}
	var contents [][]byte
	for _, f := range files {
		content, err := os.ReadFile(f.path)
		if err != nil {
			return src, fmt.Errorf("place data: %w", err)
		}
		contents = append(contents, content)
		if strings.HasSuffix(f.path, ".mmdb") {
			built, err := readMMDB(b, content, ofRecord)
			if err != nil {
				return src, fmt.Errorf("place data %s: %w", f.path, err)
			}
			src.Date = built
		} else if err := readCSV(b, content, ofColumns); err != nil {
			return src, fmt.Errorf("place data %s: %w", f.path, err)
		}
	}
	if b.added == 0 {
		return src, fmt.Errorf("place data %s: no record in it", files[0].path)
	}
	src.Records = b.added
	src.Version = digest(contents...)
	describe(&src, dir)
	return src, nil
}

// describe adds what the small files beside the data say: NAME.json (name and version of the package the data came
// in) and NAME.NOTICE* (the licence's words).
func describe(src *Source, dir string) {
	role, _, _ := strings.Cut(strings.TrimSuffix(filepath.Base(src.Path), filepath.Ext(src.Path)), "-")
	var pkg struct{ Name, Version string }
	if b, err := os.ReadFile(filepath.Join(dir, role+".json")); err == nil && json.Unmarshal(b, &pkg) == nil && pkg.Name != "" {
		src.Name = pkg.Name + " " + pkg.Version
		if k, ok := known[pkg.Name]; ok {
			src.Licence, src.Credits, src.Caution = k.Licence, k.Credits, k.Caution
		}
		// Versions of these packages end in the hour the data were made: 2.3.2026061719.
		if at, err := time.Parse("2006010215", pkg.Version[strings.LastIndexByte(pkg.Version, '.')+1:]); err == nil {
			src.Date = at
		}
	}
	if len(src.Credits) > 0 {
		return
	}
	notices, _ := filepath.Glob(filepath.Join(dir, role+".NOTICE*")) // the pattern is well formed
	for _, path := range notices {
		if b, err := os.ReadFile(path); err == nil && len(b) < 4096 {
			src.Credits = append(src.Credits, Credit{Text: tidy(string(b))})
		}
	}
}

// readMMDB walks a MaxMind-format database. It returns the time the database says it was built.
func readMMDB[V comparable](b *builder[V], content []byte, of func(maxminddb.Result) (V, error)) (time.Time, error) {
	r, err := maxminddb.OpenBytes(content)
	if err != nil {
		return time.Time{}, fmt.Errorf("not a MaxMind-format database: %w", err)
	}
	values := map[uintptr]uint32{} // databases share their records: a quarter of a thousand countries for a million prefixes
	for res := range r.Networks() {
		if err := res.Err(); err != nil {
			return time.Time{}, fmt.Errorf("damaged database: %w", err)
		}
		v, ok := values[res.Offset()]
		if !ok {
			value, err := of(res)
			if err != nil {
				return time.Time{}, fmt.Errorf("record of %s: %w", res.Prefix(), err)
			}
			v = b.intern(value)
			values[res.Offset()] = v
		}
		if v != 0 {
			b.addPrefix(res.Prefix(), v)
		}
	}
	return r.Metadata.BuildTime().UTC(), nil
}

// countryOf reads both layouts in use: {"country_code": "GB"} and {"country": {"iso_code": "GB"}}.
func countryOf(r maxminddb.Result) (string, error) {
	var rec struct {
		Code    string `maxminddb:"country_code"`
		Country struct {
			ISO string `maxminddb:"iso_code"`
		} `maxminddb:"country"`
	}
	if err := r.Decode(&rec); err != nil {
		return "", err
	}
	code := strings.ToUpper(rec.Code)
	if code == "" {
		code = strings.ToUpper(rec.Country.ISO)
	}
	if code != "" && !isCountry(code) {
		return "", fmt.Errorf("country %q is not two letters", code)
	}
	return code, nil
}

func networkOf(r maxminddb.Result) (network, error) {
	var rec struct {
		Number uint32 `maxminddb:"autonomous_system_number"`
		Name   string `maxminddb:"autonomous_system_organization"`
	}
	if err := r.Decode(&rec); err != nil {
		return network{}, err
	}
	return network{rec.Number, tidy(rec.Name)}, nil
}

// readCSV reads lines of start,end,... (inclusive, one family per line). It is written out rather than left to
// encoding/csv because half a million lines are read at every start; the quoting rules are those of RFC 4180 except
// that a value cannot hold a line break.
func readCSV[V comparable](b *builder[V], content []byte, of func([]string) (V, error)) error {
	columns := make([]string, 0, maxCSVColumns)
	known := map[string]uint32{}                                   // by the line's rest: ten times fewer than lines
	text := unsafe.String(unsafe.SliceData(content), len(content)) // content is not changed, and values are copies
	for line := 1; len(text) > 0; line++ {
		var row string
		row, text, _ = strings.Cut(text, "\n")
		row = strings.TrimSuffix(row, "\r")
		if row == "" || row[0] == '#' {
			continue
		}
		from, rest, ok := strings.Cut(row, ",")
		to, tail, ok2 := strings.Cut(rest, ",")
		if !ok || !ok2 {
			return fmt.Errorf("line %d: want start,end and a value", line)
		}
		first, err := netip.ParseAddr(from)
		if err != nil {
			return fmt.Errorf("line %d: start: %w", line, err)
		}
		end, err := netip.ParseAddr(to)
		if err != nil {
			return fmt.Errorf("line %d: end: %w", line, err)
		}
		if first.BitLen() != end.BitLen() || end.Less(first) || first.Zone() != "" || end.Zone() != "" {
			return fmt.Errorf("line %d: %s to %s is not a range", line, first, end)
		}
		v, ok := known[tail]
		if !ok {
			if columns, err = splitCSV(append(columns[:0], from, to), tail); err != nil {
				return fmt.Errorf("line %d: %w", line, err)
			}
			value, err := of(columns)
			if err != nil {
				return fmt.Errorf("line %d: %w", line, err)
			}
			v = b.intern(value)
			known[tail] = v
		}
		b.add(first, end, v)
	}
	return nil
}

// splitCSV appends the columns of a line's rest.
func splitCSV(columns []string, s string) ([]string, error) {
	for {
		if len(columns) == maxCSVColumns {
			return nil, fmt.Errorf("more than %d columns", maxCSVColumns)
		}
		if !strings.HasPrefix(s, `"`) {
			value, rest, more := strings.Cut(s, ",")
			columns = append(columns, value)
			if !more {
				return columns, nil
			}
			s = rest
			continue
		}
		end := 1
		for {
			i := strings.IndexByte(s[end:], '"')
			if i < 0 {
				return nil, errors.New("a quote is not closed")
			}
			end += i + 1
			if end < len(s) && s[end] == '"' { // a doubled quote stands for one
				end++
				continue
			}
			break
		}
		columns = append(columns, strings.ReplaceAll(s[1:end-1], `""`, `"`))
		if end == len(s) {
			return columns, nil
		}
		if s[end] != ',' {
			return nil, errors.New("text after a closing quote")
		}
		s = s[end+1:]
	}
}

// tidy makes a name fit for a page: valid UTF-8, no control characters, at most maxOverlayText bytes. It copies, so
// that a short name does not hold a whole file in memory.
func tidy(s string) string {
	if !clean(s) {
		s = strings.Map(func(r rune) rune {
			if unicode.IsControl(r) {
				return ' '
			}
			return r
		}, strings.ToValidUTF8(s, "\uFFFD"))
	}
	s = strings.TrimSpace(s)
	for len(s) > maxOverlayText {
		_, size := utf8.DecodeLastRuneInString(s)
		s = s[:len(s)-size]
	}
	return strings.Clone(s)
}

func clean(s string) bool {
	for _, r := range s {
		if r == utf8.RuneError || unicode.IsControl(r) {
			return false
		}
	}
	return true
}
