package web

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/dom"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/input"
	cdppage "github.com/chromedp/cdproto/page"
	"github.com/chromedp/chromedp"
)

// plain drives a page whose scripts are switched off: by the protocol's own
// commands, since what chromedp does to find and click an element is itself a
// script.
type plain struct {
	t   testing.TB
	ctx context.Context
}

// find gives the browser's own number of an element. chromedp follows the
// document too, and each time it reads it anew the short numbers change hands; so
// it is asked again until the numbers stood still.
func (p plain) find(selector string) cdp.BackendNodeID {
	p.t.Helper()
	var last error
	for range 50 {
		doc, err := chromedp.Call(p.ctx, dom.GetDocument, dom.GetDocumentParams{})
		if err != nil {
			p.t.Fatal(err)
		}
		node, err := chromedp.Call(p.ctx, dom.QuerySelector, dom.QuerySelectorParams{NodeID: doc.Root.NodeID, Selector: selector})
		if err != nil {
			last = err
			continue
		}
		if node.NodeID == 0 {
			break
		}
		found, err := chromedp.Call(p.ctx, dom.DescribeNode, dom.DescribeNodeParams{NodeID: node.NodeID})
		if err != nil {
			last = err
			continue
		}
		return found.Node.BackendNodeID
	}
	p.t.Fatalf("%s is not on the page: %v\n%s", selector, last, trim(p.html()))
	return 0
}

func (p plain) html() string {
	p.t.Helper()
	var last error
	for range 50 {
		doc, err := chromedp.Call(p.ctx, dom.GetDocument, dom.GetDocumentParams{})
		if err != nil {
			p.t.Fatal(err)
		}
		out, err := chromedp.Call(p.ctx, dom.GetOuterHTML, dom.GetOuterHTMLParams{BackendNodeID: doc.Root.BackendNodeID})
		if err == nil {
			return out.OuterHTML
		}
		last = err
	}
	p.t.Fatal(last)
	return ""
}

func (p plain) write(selector, text string) {
	p.t.Helper()
	if _, err := chromedp.Call(p.ctx, dom.Focus, dom.FocusParams{BackendNodeID: p.find(selector)}); err != nil {
		p.t.Fatalf("%s: %v", selector, err)
	}
	if _, err := chromedp.Call(p.ctx, input.InsertText, input.InsertTextParams{Text: text}); err != nil {
		p.t.Fatal(err)
	}
}

// choose takes the next option of a list.
func (p plain) choose(selector string) {
	p.t.Helper()
	if _, err := chromedp.Call(p.ctx, dom.Focus, dom.FocusParams{BackendNodeID: p.find(selector)}); err != nil {
		p.t.Fatalf("%s: %v", selector, err)
	}
	for _, kind := range []input.DispatchKeyEventType{input.DispatchKeyEventTypeRawKeyDown, input.DispatchKeyEventTypeKeyUp} {
		if _, err := chromedp.Call(p.ctx, input.DispatchKeyEvent, input.DispatchKeyEventParams{Type: kind, Key: "ArrowDown", Code: "ArrowDown", WindowsVirtualKeyCode: 40}); err != nil {
			p.t.Fatal(err)
		}
	}
}

func (p plain) click(selector string) {
	p.t.Helper()
	node := p.find(selector)
	if _, err := chromedp.Call(p.ctx, dom.ScrollIntoViewIfNeeded, dom.ScrollIntoViewIfNeededParams{BackendNodeID: node}); err != nil {
		p.t.Fatalf("%s: %v", selector, err)
	}
	box, err := chromedp.Call(p.ctx, dom.GetBoxModel, dom.GetBoxModelParams{BackendNodeID: node})
	if err != nil {
		p.t.Fatalf("%s: %v", selector, err)
	}
	q := box.Model.Content
	at := input.DispatchMouseEventParams{Type: input.DispatchMouseEventTypeMousePressed, X: (q[0] + q[4]) / 2, Y: (q[1] + q[5]) / 2, Button: input.MouseButtonLeft, Buttons: 1, ClickCount: 1}
	for _, at.Type = range []input.DispatchMouseEventType{input.DispatchMouseEventTypeMousePressed, input.DispatchMouseEventTypeMouseReleased} {
		if _, err := chromedp.Call(p.ctx, input.DispatchMouseEvent, at); err != nil {
			p.t.Fatal(err)
		}
	}
}

// load does something that leads to another page and waits for it; a form that the browser holds back leads nowhere.
func (p plain) load(what string, act func()) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.ctx, 2*time.Minute)
	defer cancel()
	loaded := chromedp.Events(ctx, cdppage.LoadEventFired)
	act()
	for _, err := range loaded {
		if err != nil {
			p.t.Fatalf("%s: %v", what, err)
		}
		return
	}
}

func (p plain) follow(selector string) {
	p.t.Helper()
	p.load(selector, func() { p.click(selector) })
}

// TestWithoutScript uses the pages with JavaScript switched off.
func TestWithoutScript(t *testing.T) {
	t.Parallel()
	ctx := browser(t)
	w := newWorld(t, false)
	setScreen(t, ctx, screens[0])
	if _, err := chromedp.Call(ctx, emulation.SetScriptExecutionDisabled, emulation.SetScriptExecutionDisabledParams{Value: true}); err != nil {
		t.Fatal(err)
	}
	p := plain{t, ctx}
	visit := func(path string) {
		t.Helper()
		p.load(path, func() {
			if _, err := chromedp.Call(ctx, cdppage.Navigate, cdppage.NavigateParams{URL: w.server.URL + path}); err != nil {
				t.Fatal(err)
			}
		})
	}
	signIn := func(name string) {
		t.Helper()
		visit("/sign-in")
		p.write("#email", w.users[name].Email)
		p.write("#password", w.users[name].password)
		p.follow("main form > .govuk-button")
		p.write("#code", w.code(name))
		p.follow("main form > .govuk-button")
	}
	signIn("analyst")
	contains(t, "queue", p.html(), "unassigned alerts", "Why it fired", "Vpn success after failures")
	lacks(t, "queue", p.html(), "js-enabled")
	// Filter by a GET form, then act on the alert in the pane.
	p.click(`input[name="severity"][value="medium"]`)
	p.follow(".apply .btn")
	contains(t, "filtered", p.html(), `data-count="total">2</span> <span`, "unassigned alerts", "Port scan")
	p.follow(`#detail [data-key="a"]`)
	contains(t, "taken", p.html(), `data-count="total">1</span> <span`, ">unassigned alert<", "The alert is yours.")
	p.follow(`#rows .title`)
	contains(t, "the alert's page", p.html(), "What was done", "raised this alert")
	p.click(`.acts details:nth-of-type(1) summary`)
	p.choose(`.acts details[open] select`) // nothing is chosen for anybody
	p.follow(`.acts details[open] .btn-primary`)
	contains(t, "closed", p.html(), "The alert is closed.", "Closed: a real attack")
	p.click(".account summary")
	p.follow(`.account button[value="dark"]`)
	contains(t, "colours", p.html(), `data-theme="dark"`)
	p.click(".account summary")
	p.follow(`.account form[action="/sign-out"] button`)
	contains(t, "signed out", p.html(), "You are signed out.")

	signIn("member1")
	contains(t, "picture", p.html(), "Not quite", "Show these figures as a table")
	visit("/picture?days=30")
	contains(t, "30 days", p.html(), `value="30" selected`)
	visit(fmt.Sprintf("/alerts/%s", w.alertID(0, "vpn_sign_in")))
	p.follow(`form[action$="/acknowledge"] button`)
	contains(t, "acknowledged", p.html(), "You have dealt with it")
}
