package web

import (
	"bytes"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// TestAssetsAreOurs: what only GOV.UK may use is not in what we serve, and
// nothing is fetched from elsewhere.
func TestAssetsAreOurs(t *testing.T) {
	outside := regexp.MustCompile(`(?:https?:)?//[a-z0-9.-]+\.[a-z]{2,}`)
	names := map[string]bool{}
	err := fs.WalkDir(assetFiles, "assets", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		names[filepath.Base(name)] = true
		b, err := assetFiles.ReadFile(name)
		if err != nil {
			return err
		}
		for _, word := range []string{"GDS Transport", "crest", "crown-"} {
			if bytes.Contains(b, []byte(word)) {
				t.Errorf("%s names %q, which only GOV.UK may use", name, word)
			}
		}
		switch filepath.Ext(name) {
		case ".css":
			for _, m := range regexp.MustCompile(`url\(([^)]*)\)`).FindAllSubmatch(b, -1) {
				ref := strings.Trim(string(m[1]), `"'`)
				if _, err := fs.Stat(assetFiles, "assets/"+ref); err != nil && !strings.HasPrefix(ref, "data:") {
					t.Errorf("%s wants %s, which is not there", name, ref)
				}
			}
			fallthrough
		case ".js":
			for _, m := range outside.FindAll(b, -1) {
				if !bytes.HasSuffix(m, []byte("www.w3.org")) {
					t.Errorf("%s names the address %s", name, m)
				}
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"portal.css", "console.css", "portal.js", "console.js", "inter-latin.woff2", "inter-latin-ext.woff2", "world.svg", "icon.svg"} {
		if !names[want] {
			t.Errorf("%s is missing", want)
		}
	}
}

// TestGenerated makes the assets again and finds no difference.
func TestGenerated(t *testing.T) {
	if _, err := exec.LookPath("node"); err != nil {
		t.Skip("SKIPPED: no Node here; whether the compiled assets fit their sources was not checked")
	}
	if _, err := os.Stat("assets-src/node_modules"); err != nil {
		t.Skip("SKIPPED: the packages are not there (npm ci --ignore-scripts in internal/web/assets-src); whether the compiled assets fit their sources was not checked")
	}
	dir := t.TempDir()
	if out, err := exec.Command("go", "run", "./gen", "-out", dir).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	same := func(made, committed string) {
		t.Helper()
		a, err := os.ReadFile(filepath.Join(dir, made))
		if err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(committed)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(a, b) {
			t.Errorf("%s is not what its sources give: run go generate ./internal/web and commit", committed)
		}
	}
	made, err := os.ReadDir(filepath.Join(dir, "web", "assets"))
	if err != nil || len(made) == 0 {
		t.Fatal(made, err)
	}
	for _, f := range made {
		same("web/assets/"+f.Name(), "assets/"+f.Name())
	}
	same("web/testdata/axe.min.js", "testdata/axe.min.js")
	same("chart/countries_gen.go", "../chart/countries_gen.go")
}

var (
	inlineStyle  = regexp.MustCompile(`(?i)<style|\sstyle\s*=`)
	inlineScript = regexp.MustCompile(`(?i)<script(?:\s[^>]*)?>[^<]|\son[a-z]+\s*=\s*"|javascript:`)
	elsewhere    = regexp.MustCompile(`(?i)(?:src|href|action)\s*=\s*"(?:https?:)?//`)
)

// TestExamples executes every template with examples and finds nothing that the
// policy forbids.
func TestExamples(t *testing.T) {
	h := exampleServer(t)
	shown := map[string]bool{}
	for _, e := range examples(time.Now()) {
		shown[e.page] = true
		for _, theme := range []string{"", "light", "dark"} {
			w := httptest.NewRecorder()
			h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/example/"+e.name+"?theme="+theme, nil))
			body := w.Body.String()
			if w.Code != http.StatusOK {
				t.Fatalf("%s: %d %s", e.name, w.Code, body)
			}
			for what, re := range map[string]*regexp.Regexp{"inline style": inlineStyle, "inline script": inlineScript, "another host": elsewhere} {
				if m := re.FindString(body); m != "" {
					t.Errorf("%s has %s: %q", e.name, what, m)
				}
			}
			if strings.Contains(body, "ZgotmplZ") || strings.Contains(body, "%!") || strings.Contains(body, "<no value>") {
				t.Errorf("%s: a value was not fit for its place", e.name)
			}
			if got := w.Header().Get("Content-Security-Policy"); got != contentSecurityPolicy || !strings.HasPrefix(got, "default-src 'none'; script-src 'self'") {
				t.Errorf("%s: policy %q", e.name, got)
			}
		}
	}
	r, err := newRenderer(time.Now)
	if err != nil {
		t.Fatal(err)
	}
	for name := range r.pages {
		if !shown[name] {
			t.Errorf("the page %s has no example", name)
		}
	}
}

func TestAssets(t *testing.T) {
	r, err := newRenderer(time.Now)
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /assets/{name}", r.serveAsset)
	get := func(path string, header ...string) *httptest.ResponseRecorder {
		req := httptest.NewRequest(http.MethodGet, path, nil)
		for i := 0; i+1 < len(header); i += 2 {
			req.Header.Set(header[i], header[i+1])
		}
		w := httptest.NewRecorder()
		mux.ServeHTTP(w, req)
		return w
	}
	w := get(r.href("portal.css"))
	if w.Code != 200 || !strings.Contains(w.Header().Get("Cache-Control"), "immutable") || w.Header().Get("Content-Type") != "text/css; charset=utf-8" {
		t.Errorf("%d %v", w.Code, w.Header())
	}
	plain := w.Body.Len()
	if w := get(r.href("portal.css"), "Accept-Encoding", "gzip, br"); w.Header().Get("Content-Encoding") != "gzip" || w.Body.Len()*3 > plain {
		t.Errorf("gzip: %d of %d bytes", w.Body.Len(), plain)
	}
	if w := get("/assets/world.svg", "If-None-Match", `"`+r.assets["world.svg"].etag+`"`); w.Code != http.StatusNotModified || w.Body.Len() != 0 {
		t.Errorf("asked again: %d", w.Code)
	}
	if w := get("/assets/portal.css?v=old"); strings.Contains(w.Header().Get("Cache-Control"), "immutable") {
		t.Error("an old address is kept for good")
	}
	for _, path := range []string{"/assets/..%2fweb.go", "/assets/nothing.css", "/assets/"} {
		if w := get(path); w.Code != http.StatusNotFound {
			t.Errorf("%s: %d", path, w.Code)
		}
	}
}

func TestNew(t *testing.T) {
	if _, err := New(Options{}); err == nil || !strings.Contains(err.Error(), "need Members") {
		t.Errorf("nothing given: %v", err)
	}
	w := newWorld(t, false)
	for _, bad := range []string{"", "tocsin.example", "ftp://x", "https://x/path", "https://"} {
		o := w.s.o
		o.PublicURL = bad
		if _, err := New(o); err == nil || !strings.Contains(err.Error(), "must be like") {
			t.Errorf("public address %q: %v", bad, err)
		}
	}
	o := w.s.o
	o.PublicURL = "https://tocsin.example/"
	h, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	rec := httptest.NewRecorder()
	h.ServeHTTP(rec, httptest.NewRequest(http.MethodGet, "/sign-in", nil))
	if rec.Header().Get("Strict-Transport-Security") == "" || rec.Header().Get("Cache-Control") != "no-store" || rec.Header().Get("X-Content-Type-Options") != "nosniff" {
		t.Errorf("headers %v", rec.Header())
	}
}

func TestTimes(t *testing.T) {
	now := time.Date(2026, 7, 1, 12, 0, 0, 0, time.UTC)
	r := &renderer{now: func() time.Time { return now }}
	for _, tc := range []struct {
		at   time.Time
		want string
	}{
		{now.Add(-10 * time.Minute), ">12:50 BST<"},
		{now.AddDate(0, 0, -1), ">30 Jun, 13:00 BST<"},
		{now.AddDate(0, -6, 0), ">1 Jan, 12:00 GMT<"},
		{now.AddDate(-1, 0, 0), ">1 Jul 2025, 13:00 BST<"},
		{time.Time{}, "never"},
	} {
		if got := string(r.when(tc.at)); !strings.Contains(got, tc.want) {
			t.Errorf("%v: %s, want %s", tc.at, got, tc.want)
		}
	}
	for d, want := range map[time.Duration]string{0: "just now", 59 * time.Second: "59 seconds ago", time.Minute: "1 minute ago", 90 * time.Minute: "1 hour ago", 49 * time.Hour: "2 days ago", -2 * time.Hour: "in 2 hours"} {
		if got := relative(d); got != want {
			t.Errorf("%v: %q, want %q", d, got, want)
		}
	}
	// A column of times: never the day without the time, while the day is of this year.
	for _, tc := range []struct {
		at           time.Time
		layout, want string
	}{
		{now, "15:04:05", "13:00:00"},
		{now.AddDate(0, 0, -1), "15:04:05", "30 Jun 13:00"},
		{now.AddDate(0, 0, -1), "15:04:05.000", "30 Jun 13:00:00.000"},
		{now.AddDate(-1, 0, 0), "15:04:05", "1 Jul 2025"},
		{time.Time{}, "15:04:05", "–"},
	} {
		if got := r.clock(tc.at, tc.layout); got != tc.want {
			t.Errorf("%v as %s: %q, want %q", tc.at, tc.layout, got, tc.want)
		}
	}
}

func TestCode(t *testing.T) {
	for text, want := range map[string]string{"plain <b>": "plain &lt;b&gt;", "type `a <b>` and go": `type <code class="mono">a &lt;b&gt;</code> and go`, "one ` alone": "one ` alone"} {
		if got := string(code(text)); got != want {
			t.Errorf("%q: %s, want %s", text, got, want)
		}
	}
}

func TestLocal(t *testing.T) {
	for path, want := range map[string]string{"/queue?x=1": "/queue?x=1", "": "-", "queue": "-", "//evil.example": "-", "/\\evil.example": "-", "https://evil.example": "-", "/a\r\nSet-Cookie: x": "-", "/%zz": "-"} {
		if got := local(path, "-"); got != want {
			t.Errorf("%q leads to %q, want %q", path, got, want)
		}
	}
}

// TestDays adds hours to London's days over the end of summer time.
func TestDays(t *testing.T) {
	now := time.Date(2026, 10, 26, 9, 30, 0, 0, time.UTC)
	from, before := span(7, now)
	if got := from.Format(time.RFC3339); got != "2026-10-20T00:00:00+01:00" {
		t.Errorf("from %s", got)
	}
	if got := before.Format(time.RFC3339); got != "2026-10-13T00:00:00+01:00" {
		t.Errorf("before %s", got)
	}
	cols := columns(nil, from, now, 7)
	if len(cols) != 7 || cols[6].Label != "26 Oct" || cols[5].Title != "Sunday 25 October" {
		t.Errorf("%d columns: %+v", len(cols), cols)
	}
}
