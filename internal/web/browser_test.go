package web

import (
	"context"
	_ "embed"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	cdpnetwork "github.com/chromedp/cdproto/network"
	cdppage "github.com/chromedp/cdproto/page"
	"github.com/chromedp/chromedp"

	"tocsin/internal/access"
	"tocsin/internal/event"
)

//go:embed testdata/axe.min.js
var axeSource string

// chromium finds the browser, or skips the test and says how to get one.
func chromium(t testing.TB) string {
	t.Helper()
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome", "chrome"} {
		if p, err := exec.LookPath(name); err == nil {
			return p
		}
	}
	t.Skip("SKIPPED: no Chromium found; the pages were not looked at. On Debian: apt-get install chromium")
	return ""
}

// browser starts one Chromium for a test and returns the context of its first tab.
func browser(t testing.TB) context.Context {
	t.Helper()
	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(chromium(t)), chromedp.NoSandbox, chromedp.DisableGPU,
		chromedp.Flag("disable-quic", true), chromedp.Flag("disable-component-update", true), chromedp.UserDataDir(t.TempDir()))
	// Not by how long it takes, which other work on the machine decides: a browser that hangs is seen half a minute before go test gives up.
	ctx := t.Context()
	if tt, ok := t.(*testing.T); ok {
		if at, ok := tt.Deadline(); ok {
			var cancel context.CancelFunc
			ctx, cancel = context.WithDeadline(ctx, at.Add(-30*time.Second))
			t.Cleanup(cancel)
		}
	}
	ctx, stop := chromedp.NewExecAllocator(ctx, options...)
	t.Cleanup(stop)
	ctx, closeTab := chromedp.NewContext(ctx)
	t.Cleanup(closeTab)
	if err := chromedp.Do(ctx); err != nil {
		t.Fatalf("start Chromium: %v", err)
	}
	return ctx
}

// console collects what the browser complains about: script errors, refused
// styles, missing files.
type console struct {
	mu       sync.Mutex
	messages []string
}

func listen(t testing.TB, ctx context.Context) *console {
	t.Helper()
	c := &console{}
	messages := chromedp.Console(ctx)
	go func() {
		for m, err := range messages {
			if err != nil {
				return // the tab was closed
			}
			c.mu.Lock()
			c.messages = append(c.messages, m.String())
			c.mu.Unlock()
		}
	}()
	return c
}

func (c *console) take() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	m := c.messages
	c.messages = nil
	return m
}

type screen struct {
	width, height int
	theme         string
}

func (s screen) String() string { return fmt.Sprintf("%d-%s", s.width, s.theme) }

var screens = []screen{{1440, 900, "light"}, {1440, 900, "dark"}, {390, 844, "light"}, {390, 844, "dark"}}

func setScreen(t testing.TB, ctx context.Context, s screen) {
	t.Helper()
	if _, err := chromedp.Call(ctx, emulation.SetDeviceMetricsOverride, emulation.SetDeviceMetricsOverrideParams{Width: int64(s.width), Height: int64(s.height), DeviceScaleFactor: 1, Mobile: s.width < 600}); err != nil {
		t.Fatal(err)
	}
	if _, err := chromedp.Call(ctx, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: s.theme}, {Name: "prefers-reduced-motion", Value: "reduce"}}}); err != nil {
		t.Fatal(err)
	}
}

type axeViolation struct {
	ID, Help, Impact string
	Nodes            []struct {
		HTML           string
		FailureSummary string
	}
}

// axe runs the accessibility rules over the page as it stands. The rules are loaded once into a page; only those named in again are run when
// a page is looked at once more in other colours, where the others can find nothing new.
func axe(t testing.TB, ctx context.Context, again ...string) []axeViolation {
	t.Helper()
	if !evaluate[bool](t, ctx, `typeof axe === "object"`) {
		if err := chromedp.Do(ctx, chromedp.Evaluate[chromedp.Void](axeSource+`;undefined`)); err != nil {
			t.Fatalf("load axe: %v", err)
		}
	}
	only := `["wcag2a","wcag2aa","wcag21a","wcag21aa","wcag22aa","best-practice"]`
	if len(again) > 0 {
		b, err := json.Marshal(again)
		if err != nil {
			t.Fatal(err)
		}
		only = `{type: "rule", values: ` + string(b) + `}`
	}
	text, err := chromedp.Run(ctx, chromedp.Evaluate[string](`(async () => { const r = await axe.run(document, {resultTypes: ["violations"], runOnly: `+only+`}); return JSON.stringify(r.violations); })()`, chromedp.EvalAwaitPromise))
	if err != nil {
		t.Fatalf("run axe: %v", err)
	}
	var v []axeViolation
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		t.Fatal(err)
	}
	return v
}

// ofColours are the rules whose answer depends on the colours.
var ofColours = []string{"color-contrast", "link-in-text-block"}

// look checks the page that is open on each screen: axe, the console, nothing wider than the screen; and keeps pictures when TOCSIN_SHOTS
// names a folder.
func look(t *testing.T, ctx context.Context, c *console, name string) {
	t.Helper()
	wide := map[int]bool{}
	for _, s := range screens {
		setScreen(t, ctx, s)
		var again []string
		if wide[s.width] {
			again = ofColours
		}
		wide[s.width] = true
		lookAt(t, ctx, c, name, s, again)
	}
}

func lookAt(t *testing.T, ctx context.Context, c *console, name string, s screen, again []string) {
	t.Helper()
	for _, v := range axe(t, ctx, again...) {
		var where []string
		for _, n := range v.Nodes {
			where = append(where, n.HTML+"\n      "+strings.ReplaceAll(n.FailureSummary, "\n", "\n      "))
		}
		t.Errorf("%s at %s: %s (%s): %s\n    %s", name, s, v.ID, v.Impact, v.Help, strings.Join(where, "\n    "))
	}
	if wide := evaluate[int](t, ctx, `document.documentElement.scrollWidth`); wide > s.width {
		t.Errorf("%s at %s: the page is %d px wide and has to be scrolled sideways", name, s, wide)
	}
	for _, m := range c.take() {
		t.Errorf("%s at %s: the browser says: %s", name, s, m)
	}
	if dir := os.Getenv("TOCSIN_SHOTS"); dir != "" {
		shot(t, ctx, filepath.Join(dir, name+"-"+s.String()+".png"))
	}
}

func shot(t testing.TB, ctx context.Context, file string) {
	t.Helper()
	size, err := chromedp.Run(ctx, chromedp.Evaluate[[]float64](`[document.documentElement.clientWidth, Math.min(4000, document.documentElement.scrollHeight)]`))
	if err != nil {
		t.Fatal(err)
	}
	res, err := chromedp.Call(ctx, cdppage.CaptureScreenshot, cdppage.CaptureScreenshotParams{Format: cdppage.CaptureScreenshotFormatPng, CaptureBeyondViewport: new(true), Clip: &cdppage.Viewport{Width: size[0], Height: size[1], Scale: 1}})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, res.Data, 0o644); err != nil {
		t.Fatal(err)
	}
}

// TestPagesInBrowser shows every page with examples at two widths in two themes.
func TestPagesInBrowser(t *testing.T) {
	t.Parallel()
	ctx := browser(t)
	server := httptest.NewServer(exampleServer(t))
	defer server.Close()
	c := listen(t, ctx)
	only := os.Getenv("TOCSIN_PAGES")
	for _, e := range examples(time.Now()) {
		if only != "" && !strings.Contains(","+only+",", ","+e.name+",") {
			continue
		}
		if err := chromedp.Do(ctx, chromedp.Navigate(server.URL+"/example/"+e.name)); err != nil {
			t.Fatal(err)
		}
		look(t, ctx, c, e.name)
	}
}

// TestAxeBites says that the rules find what they should, also when only those of colours are run.
func TestAxeBites(t *testing.T) {
	t.Parallel()
	ctx := browser(t)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		io.WriteString(w, `<!doctype html><html lang="en"><title>Bad</title><main><h1>Bad</h1><input type="text"><p style="color:#ccc;background:#fff">pale</p></main></html>`)
	}))
	defer server.Close()
	if err := chromedp.Do(ctx, chromedp.Navigate(server.URL)); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct{ again, want []string }{{nil, []string{"color-contrast", "label"}}, {ofColours, []string{"color-contrast"}}} {
		var got []string
		for _, v := range axe(t, ctx, tc.again...) {
			got = append(got, v.ID)
		}
		slices.Sort(got)
		if !slices.Equal(got, tc.want) {
			t.Errorf("rules %v found %v, want %v", tc.again, got, tc.want)
		}
	}
}

// signInByHand goes through the two steps as a person does.
func (w *world) signInByHand(ctx context.Context, name string) {
	w.t.Helper()
	u := w.users[name]
	steps := []chromedp.Action[chromedp.Void]{
		chromedp.Navigate(w.server.URL + "/sign-in"),
		chromedp.SendKeys(chromedp.ID("email"), u.Email), chromedp.SendKeys(chromedp.ID("password"), u.password),
	}
	if err := chromedp.Do(ctx, steps...); err != nil {
		w.t.Fatal(err)
	}
	if _, err := chromedp.RunResponse(ctx, chromedp.Submit(chromedp.ID("password"))); err != nil {
		w.t.Fatal(err)
	}
	if err := chromedp.Do(ctx, chromedp.SendKeys(chromedp.ID("code"), w.code(name))); err != nil {
		w.t.Fatal(err)
	}
	if _, err := chromedp.RunResponse(ctx, chromedp.Submit(chromedp.ID("code"))); err != nil {
		w.t.Fatal(err)
	}
}

func evaluate[T any](t testing.TB, ctx context.Context, js string) T {
	t.Helper()
	v, err := chromedp.Run(ctx, chromedp.Evaluate[T](js))
	if err != nil {
		t.Fatalf("%s: %v", js, err)
	}
	return v
}

// until waits for something to become true in the page.
func until(t testing.TB, ctx context.Context, what, js string) {
	t.Helper()
	deadline := time.Now().Add(2 * time.Minute) // on a busy machine a page takes long
	for !evaluate[bool](t, ctx, js) {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within two minutes; the page is now:\n%s", what, trim(evaluate[string](t, ctx, `document.body.outerHTML`)))
		}
		select {
		case <-time.After(30 * time.Millisecond): // the browser has no way to tell us
		case <-ctx.Done():
			t.Fatal(ctx.Err())
		}
	}
}

// TestRealPagesInBrowser signs in with a real browser and looks at the real pages
// on the real records and, where it is installed, the real event store.
func TestRealPagesInBrowser(t *testing.T) {
	t.Parallel()
	ctx := browser(t)
	w := newWorld(t, hasEngine())
	c := listen(t, ctx)
	visit := func(name, path string) {
		t.Helper()
		if err := chromedp.Do(ctx, chromedp.Navigate(w.server.URL+path)); err != nil {
			t.Fatal(err)
		}
		look(t, ctx, c, "real-"+name)
	}
	setScreen(t, ctx, screens[0])
	w.signInByHand(ctx, "analyst")
	if got := evaluate[string](t, ctx, `location.pathname`); got != "/queue" {
		t.Fatalf("signed in at %s", got)
	}
	until(t, ctx, "the live dot", `document.querySelector("#live").textContent.trim() === "Live"`)

	// Keys: the next alert stands in the pane, and a takes it.
	first := evaluate[string](t, ctx, `document.querySelector("tr[aria-current]").dataset.alert`)
	press := func(key string) {
		t.Helper()
		if err := chromedp.Do(ctx, chromedp.KeyEvent(key)); err != nil {
			t.Fatal(err)
		}
	}
	press("j")
	until(t, ctx, "the next alert", `document.querySelector("tr[aria-current]").dataset.alert !== "`+first+`" && document.querySelector('#detail h2 a').getAttribute("href") === "/alerts/" + document.querySelector("tr[aria-current]").dataset.alert`)
	press("k")
	until(t, ctx, "the first alert again", `document.querySelector('#detail h2 a').getAttribute("href") === "/alerts/`+first+`"`)
	press("a")
	until(t, ctx, "the alert taken", `document.querySelector("#detail").textContent.includes("Give back")`)
	until(t, ctx, "the row gone", `!document.getElementById("alert-`+first+`")`)
	until(t, ctx, "the count", `document.querySelector('[data-count="view-mine"]').textContent === "1"`)
	press("c")
	until(t, ctx, "the closing form", `document.activeElement && document.activeElement.name === "verdict"`)
	if a, err := w.alerts.Get(t.Context(), access.System("test"), first); err != nil || a.Assignee != w.users["analyst"].UserID {
		t.Errorf("assigned to %q, %v", a.Assignee, err)
	}

	// A new alert appears in its place without a reload.
	d := w.detection(1, "ids-high", "ids", "high", 1, 2)
	if _, err := w.alerts.Apply(t.Context(), "browser", []event.Detection{d}); err != nil {
		t.Fatal(err)
	}
	until(t, ctx, "the live row", `Array.from(document.querySelectorAll("#rows tr.fresh")).some(r => r.textContent.includes("Ids high") && r.cells.length >= 9)`)
	if got := evaluate[bool](t, ctx, `Array.from(document.querySelectorAll("#rows tr")).map(r => r.dataset.sort).every((v, i, a) => i === 0 || a[i-1] >= v)`); !got {
		t.Error("the live row is out of order")
	}
	visit("queue", "/queue?view=open")
	visit("alert", "/alerts/"+w.alertID(0, "vpn_sign_in"))
	visit("members", "/members")
	visit("their-picture", fmt.Sprintf("/members/%d/picture?days=1", w.tenants[0]))

	if err := chromedp.Do(ctx, chromedp.Func(func(ctx context.Context, _ *chromedp.Target) error {
		_, err := chromedp.Call(ctx, cdpnetwork.ClearBrowserCookies, cdp.Empty{})
		return err
	})); err != nil {
		t.Fatal(err)
	}
	w.signInByHand(ctx, "member1")
	if got := evaluate[string](t, ctx, `location.pathname`); got != "/picture" {
		t.Fatalf("signed in at %s", got)
	}
	visit("picture", "/picture?days=1")
	visit("member-alert", "/alerts/"+w.alertID(0, "vpn_sign_in"))
	visit("member-collector", "/collectors/"+w.collectors[0])
	visit("member-authenticator", "/account/authenticator")
	if err := chromedp.Do(ctx, chromedp.Navigate(w.server.URL+"/alerts/"+w.alertID(1, "scan"))); err != nil {
		t.Fatal(err)
	}
	if got := evaluate[string](t, ctx, `document.querySelector("h1").textContent`); got != "Page not found" {
		t.Errorf("another member's alert: %q", got)
	}
	for line := range strings.Lines(w.log.String()) {
		if !strings.Contains(line, errAway.Error()) {
			t.Errorf("logged: %s", line)
		}
	}
}
