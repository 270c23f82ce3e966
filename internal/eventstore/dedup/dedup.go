// Package dedup mends the engine's deduplication logs before the engine opens its data folder.
//
// ClickHouse writes "block B was inserted as part P" to a table's deduplication log before it renames P into place. A kill
// between the two leaves a record without a part: the replay of that insert is then answered as a repeat and its rows are
// lost in silence. Repair drops each record whose part no directory of the table covers, so that the replay stores the
// rows. The log is never synced by the engine either; a torn last line is dropped, too.
//
// It reads and writes store/*/*/deduplication_logs/deduplication_log_*.txt below the engine's path: lines of operation
// (1 add, 2 drop), part name and block id, separated by tabs. This is an internal format, so the engine's version is
// pinned (package library) and the crash-point test is rerun on each upgrade. The caller must be sure that no engine runs.
package dedup

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// Report says what a repair found.
type Report struct {
	Logs     int      // log files read
	Records  int      // add records read
	Dropped  int      // records without a part, removed
	Torn     int      // lines that could not be read, removed
	Examples []string // names of parts that were missing, at most 10
}

// part is a part's name taken apart: PARTITION_MIN_MAX_LEVEL or PARTITION_MIN_MAX_LEVEL_MUTATION.
type part struct {
	partition string
	min, max  int64
}

func parsePart(name string) (part, bool) {
	f := strings.Split(name, "_")
	if len(f) < 4 || len(f) > 5 || f[0] == "" {
		return part{}, false
	}
	var n [4]int64
	for i, s := range f[1:] {
		v, err := strconv.ParseInt(s, 10, 64)
		if err != nil || v < 0 {
			return part{}, false
		}
		n[i] = v
	}
	if n[0] > n[1] {
		return part{}, false
	}
	return part{f[0], n[0], n[1]}, true
}

func (p part) covers(q part) bool {
	return p.partition == q.partition && p.min <= q.min && p.max >= q.max
}

// Repair mends every table below the engine's path. A folder that does not exist yet needs nothing.
func Repair(path string) (Report, error) {
	var r Report
	logs, err := filepath.Glob(filepath.Join(path, "store", "*", "*", "deduplication_logs", "deduplication_log_*.txt"))
	if err != nil {
		return r, err
	}
	parts := map[string][]part{} // by table folder
	for _, log := range logs {
		table := filepath.Dir(filepath.Dir(log))
		have, ok := parts[table]
		if !ok {
			if have, err = tableParts(table); err != nil {
				return r, err
			}
			parts[table] = have
		}
		if err := repairLog(log, have, &r); err != nil {
			return r, err
		}
	}
	return r, nil
}

func tableParts(table string) ([]part, error) {
	entries, err := os.ReadDir(table)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("list parts: %w", err)
	}
	var ps []part
	for _, e := range entries {
		if !e.IsDir() {
			continue
		}
		if p, ok := parsePart(e.Name()); ok { // tmp_insert_..., delete_tmp_..., detached do not parse
			ps = append(ps, p)
		}
	}
	return ps, nil
}

func repairLog(path string, have []part, r *Report) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("read the deduplication log: %w", err)
	}
	out, changed := repairLines(b, have, r)
	r.Logs++
	if !changed {
		return nil
	}
	// Whole file beside, synced, then renamed: a crash here leaves the old log or the new one.
	tmp := path + ".tocsin"
	f, err := os.OpenFile(tmp, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o640)
	if err != nil {
		return fmt.Errorf("write the deduplication log: %w", err)
	}
	_, err = f.Write(out)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(tmp, path)
	}
	if err != nil {
		os.Remove(tmp)
		return fmt.Errorf("write the deduplication log: %w", err)
	}
	d, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// repairLines returns the log's text without the records to drop, and whether any was dropped.
func repairLines(b []byte, have []part, r *Report) (out []byte, changed bool) {
	for len(b) > 0 {
		line, rest, whole := bytes.Cut(b, []byte{'\n'})
		b = rest
		f := strings.Split(string(line), "\t")
		if !whole || len(f) != 3 || f[0] != "1" && f[0] != "2" || f[2] == "" {
			r.Torn++
			changed = true
			continue
		}
		if f[0] == "1" {
			r.Records++
			p, ok := parsePart(f[1])
			if !ok {
				r.Torn++
				changed = true
				continue
			}
			if !covered(p, have) {
				r.Dropped++
				changed = true
				if len(r.Examples) < 10 {
					r.Examples = append(r.Examples, f[1])
				}
				continue
			}
		}
		out = append(out, line...)
		out = append(out, '\n')
	}
	return out, changed
}

func covered(p part, have []part) bool {
	for _, h := range have {
		if h.covers(p) {
			return true
		}
	}
	return false
}
