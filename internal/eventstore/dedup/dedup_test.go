package dedup

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestRepair(t *testing.T) {
	dir := t.TempDir()
	table := filepath.Join(dir, "store", "abc", "abcdef")
	log := filepath.Join(table, "deduplication_logs")
	for _, p := range []string{"20260101_1_1_0", "20260101_2_9_2", "20260102_3_3_0_11", "tmp_insert_20260103_4_4_0", "delete_tmp_20260104_5_5_0", "detached/20260105_6_6_0"} {
		if err := os.MkdirAll(filepath.Join(table, p), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.MkdirAll(log, 0o755); err != nil {
		t.Fatal(err)
	}
	one := "1\t20260101_1_1_0\ta\n1\t20260101_5_5_0\tb\n1\t20260101_10_10_0\tlost\n1\t20260103_4_4_0\tlost too\n2\t20260101_1_1_0\ta\n1\t20260105_6_6_0\tdetached is not there\n"
	two := "1\t20260102_3_3_0\tc\n1\t20260102_4"
	good := "1\t20260102_3_3_0\tc\n"
	write := func(name, s string) {
		if err := os.WriteFile(filepath.Join(log, name), []byte(s), 0o640); err != nil {
			t.Fatal(err)
		}
	}
	write("deduplication_log_1.txt", one)
	write("deduplication_log_2.txt", two)
	write("deduplication_log_3.txt", good)
	for round := range 2 {
		r, err := Repair(dir)
		if err != nil {
			t.Fatal(err)
		}
		if round == 0 && (r.Logs != 3 || r.Dropped != 3 || r.Torn != 1) || round == 1 && (r.Dropped != 0 || r.Torn != 0) {
			t.Errorf("round %d: %+v", round, r)
		}
		for name, want := range map[string]string{
			"deduplication_log_1.txt": "1\t20260101_1_1_0\ta\n1\t20260101_5_5_0\tb\n2\t20260101_1_1_0\ta\n",
			"deduplication_log_2.txt": good, "deduplication_log_3.txt": good,
		} {
			b, err := os.ReadFile(filepath.Join(log, name))
			if err != nil || string(b) != want {
				t.Errorf("round %d: %s is %q, %v", round, name, b, err)
			}
		}
	}
	if r, err := Repair(filepath.Join(dir, "nothing")); err != nil || r.Logs != 0 {
		t.Errorf("an empty folder: %+v, %v", r, err)
	}
}

// FuzzRepairLines: what is kept is whole lines of the input, in order, each readable and covered; a second pass changes nothing.
func FuzzRepairLines(f *testing.F) {
	f.Add([]byte("1\t20260101_1_1_0\ta\n2\tx\ty\n1\tall_3_3_0\tz"))
	f.Add([]byte("1\t20260101_7_7_0\ta\n"))
	f.Add([]byte("\n\n\t\t\n"))
	have := []part{{"20260101", 1, 5}, {"all", 0, 0}}
	f.Fuzz(func(t *testing.T, b []byte) {
		var r Report
		out, changed := repairLines(b, have, &r)
		if !changed && !bytes.Equal(out, b) || changed && r.Dropped+r.Torn == 0 {
			t.Fatalf("changed %v, report %+v", changed, r)
		}
		rest := string(b)
		for line := range strings.Lines(string(out)) {
			i := strings.Index(rest, line)
			if i < 0 {
				t.Fatalf("line %q is not of the input", line)
			}
			rest = rest[i+len(line):]
			if f := strings.Split(strings.TrimSuffix(line, "\n"), "\t"); f[0] == "1" {
				if p, ok := parsePart(f[1]); !ok || !covered(p, have) {
					t.Fatalf("kept %q", line)
				}
			}
		}
		var again Report
		if out2, changed := repairLines(out, have, &again); changed || !bytes.Equal(out, out2) {
			t.Fatal("a second pass changed something")
		}
	})
}
