package main

import (
	"strings"
	"testing"
)

func TestVerb(t *testing.T) {
	for sql, want := range map[string]string{
		"SELECT 1": "SELECT", " \n with x as (select 1) select * from x": "WITH", "(SELECT 1)": "(", "-- note\ninsert into t": "INSERT", "/* a */ /* b */DROP TABLE t": "DROP",
		"": "", "   ": "", "-- only a note": "", "/* open": "", ";;SELECT 1": "SELECT", "123": "",
	} {
		if got := verb(sql); got != want {
			t.Errorf("verb(%q) = %q, want %q", sql, got, want)
		}
	}
}

func TestSplitInsert(t *testing.T) {
	st, f, ok := splitInsert("INSERT INTO a.b (x, y)\n FORMAT Native ;")
	if !ok || st != "INSERT INTO a.b (x, y)" || f != "Native" {
		t.Errorf("%q %q %v", st, f, ok)
	}
	for _, sql := range []string{"INSERT INTO t SELECT 1", "INSERT INTO t VALUES (1)", "INSERT INTO t FORMAT Native SETTINGS x=1"} {
		if _, _, ok := splitInsert(sql); ok {
			t.Errorf("%q was taken for an insert with data", sql)
		}
	}
}

func TestSetStatement(t *testing.T) {
	got, err := setStatement(map[string]string{"readonly": "1", "max_threads": `1', readonly='0`, "log_comment": "mine", "async_insert": "1"})
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasSuffix(got, ", readonly='1'") || strings.Contains(got, "mine") || !strings.Contains(got, `max_threads='1\', readonly=\'0'`) || !strings.Contains(got, "async_insert=0") || strings.Contains(got, "async_insert='1'") {
		t.Error(got)
	}
	for _, bad := range []map[string]string{{"readonly": "2"}, {"readonly": "x"}, {"allow_ddl": "1"}, {"a=1, b": "2"}} {
		if got, err := setStatement(bad); err == nil {
			t.Errorf("%v became %s", bad, got)
		}
	}
}

// FuzzQuote: between the quotes nothing ends the string, and unescaping gives the input back.
func FuzzQuote(f *testing.F) {
	for _, s := range []string{"", "'", `\`, `\'`, "a'; DROP TABLE t --", "\x00\xff"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		q := quote(s)
		in := q[1 : len(q)-1]
		var back []byte
		for i := 0; i < len(in); i++ {
			switch in[i] {
			case '\'':
				t.Fatalf("%q ends early", q)
			case '\\':
				i++
				if i == len(in) {
					t.Fatalf("%q escapes its own end", q)
				}
			}
			back = append(back, in[i])
		}
		if string(back) != s {
			t.Fatalf("%q came back as %q", s, back)
		}
		verb(s)
		splitInsert(s)
	})
}
