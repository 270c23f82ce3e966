package web

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"tocsin/internal/intel"
)

const importPattern = "POST /indicators/import"

// indicatorsPerPage of the list; refusedShown of an import's refused lines.
const (
	indicatorsPerPage = 100
	refusedShown      = 50
)

var (
	indicatorKinds = []option{{Value: "", Text: "All kinds"}, {Value: "ip", Text: "Address"}, {Value: "cidr", Text: "Network"}, {Value: "domain", Text: "Domain"}, {Value: "url", Text: "Web address"}, {Value: "file", Text: "File hash"}}
	tlpOptions     = []option{{Value: "clear", Text: "CLEAR: anybody may know"}, {Value: "green", Text: "GREEN: the community"}, {Value: "amber", Text: "AMBER: those who need it"}, {Value: "amber+strict", Text: "AMBER+STRICT: this organisation only"}, {Value: "red", Text: "RED: named people only"}}
	lifetimes      = []option{{Value: "7", Text: "7 days"}, {Value: "30", Text: "30 days"}, {Value: "90", Text: "90 days"}, {Value: "365", Text: "1 year"}}
)

// chosen marks one option of a list.
func chosen(list []option, value string) []option {
	out := append([]option(nil), list...)
	for i := range out {
		out[i].On = out[i].Value == value
	}
	return out
}

func optionText(list []option, value string) string {
	for _, o := range list {
		if o.Value == value {
			return o.Text
		}
	}
	return sentence(value)
}

func (s *server) indicators(w http.ResponseWriter, r *request) error {
	return s.showIndicators(w, r, http.StatusOK, nil, nil)
}

func (s *server) showIndicators(w http.ResponseWriter, r *request, status int, problems []problem, result *importResult) error {
	q := r.URL.Query()
	f := intel.Filter{Kind: q.Get("kind"), Text: strings.TrimSpace(q.Get("q")), After: q.Get("after"), Limit: indicatorsPerPage}
	list, err := s.o.Indicators.List(r.Context(), r.scope, f)
	if err != nil {
		return err
	}
	v := indicatorsView{Text: f.Text, Kind: f.Kind, Kinds: chosen(indicatorKinds, f.Kind), Total: list.Total, Pushed: list.Pushed, CanChange: true, Result: result,
		TLPs: chosen(tlpOptions, r.PostFormValue("tlp")), Lifetimes: chosen(lifetimes, wordOr(r.PostFormValue("days"), "90")),
		Form: importForm{Source: r.PostFormValue("source"), Push: r.PostFormValue("push") == "1"}}
	if result == nil {
		v.Form.List = r.PostFormValue("list")
	} else {
		v.Form.Source = ""
	}
	if r.Method == http.MethodGet {
		v.Form.Push = true
	}
	for i := range list.Indicators {
		x := &list.Indicators[i]
		v.Rows = append(v.Rows, indicatorRow{ID: x.ID, Kind: optionText(indicatorKinds, x.Kind), Value: x.Value, Source: x.Source, TLP: strings.ToUpper(x.TLP), Push: x.Push, Added: instant(x.AddedNS), Expires: instant(x.ValidUntilNS), Hits: x.Hits})
	}
	if set, ok := s.o.Indicators.Published(); ok {
		v.SetText = fmt.Sprintf("collectors get set %d, made %s", set.Version, relative(s.o.Now().Sub(set.Created)))
	}
	if list.Next != "" {
		next := url.Values{"after": {list.Next}}
		if f.Kind != "" {
			next.Set("kind", f.Kind)
		}
		if f.Text != "" {
			next.Set("q", f.Text)
		}
		v.NextHref = href("/indicators", next)
	}
	p := s.page(r, "Indicators", "/indicators", v)
	p.Problem, p.Path = problems, "/indicators"
	return s.showStatus(w, r, status, "indicators", p)
}

// importIndicators takes a list from the text box or a file. Lines that cannot be
// taken are shown with why; the others are in.
func (s *server) importIndicators(w http.ResponseWriter, r *request) error {
	list := r.PostFormValue("list")
	if file, header, err := r.FormFile("file"); err == nil {
		defer file.Close()
		b, err := io.ReadAll(file)
		if err != nil {
			return fmt.Errorf("%w: %w", errForm, err)
		}
		// The script shows a small file in the box before it is sent: once is
		// enough.
		if text := string(b); header.Size > 0 && strings.TrimSpace(list) == "" {
			list = text
		}
	} else if !errors.Is(err, http.ErrMissingFile) && !errors.Is(err, http.ErrNotMultipart) {
		return fmt.Errorf("%w: %w", errForm, err)
	}
	source := strings.TrimSpace(r.PostFormValue("source"))
	var problems []problem
	if strings.TrimSpace(list) == "" {
		problems = append(problems, problem{"list", "Paste a list, or choose a file"})
	}
	if source == "" {
		problems = append(problems, problem{"source", "Say where the list comes from, so that people can judge it"})
	}
	if r.PostFormValue("tlp") == "" {
		problems = append(problems, problem{"tlp", "Choose who may know it"})
	}
	days, err := strconv.Atoi(r.PostFormValue("days"))
	if err != nil || days < 1 || days > 3650 {
		problems = append(problems, problem{"days", "Choose for how long to keep them"})
	}
	if len(problems) > 0 {
		return s.showIndicators(w, r, http.StatusUnprocessableEntity, problems, nil)
	}
	done, err := s.o.Indicators.Import(r.Context(), r.principal, strings.NewReader(list), intel.ImportOptions{Source: source, TLP: r.PostFormValue("tlp"), Push: r.PostFormValue("push") == "1", ValidUntil: s.o.Now().AddDate(0, 0, days)})
	if errors.Is(err, intel.ErrInvalid) {
		return s.showIndicators(w, r, http.StatusUnprocessableEntity, []problem{{"list", plainError(err)}}, nil)
	}
	if err != nil {
		return err
	}
	result := importResult{Added: int64(done.Added), Updated: int64(done.Updated), RefusedCount: int64(done.RefusedCount), NotPushed: int64(done.NotPushed)}
	for _, x := range done.Refused[:min(refusedShown, len(done.Refused))] {
		result.Refused = append(result.Refused, refusedLine{x.Line, x.Text, x.Why})
	}
	return s.showIndicators(w, r, http.StatusOK, nil, &result)
}

func (s *server) removeIndicator(w http.ResponseWriter, r *request) error {
	if err := s.o.Indicators.Remove(r.Context(), r.principal, r.PathValue("id")); err != nil {
		return err
	}
	s.flash(r, "Removed. Collectors get the new set with their next request.")
	return redirect(w, r, "/indicators")
}
