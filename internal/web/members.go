package web

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"tocsin/internal/access"
	"tocsin/internal/event"
	"tocsin/internal/member"
	"tocsin/internal/people"
)

// membersPerPage is also the most that the alerts count at once by member.
const membersPerPage = 50

func (s *server) members(w http.ResponseWriter, r *request) error {
	orgs, err := s.o.Members.Organisations(r.Context(), r.scope)
	if err != nil {
		return err
	}
	v := membersView{CanAdd: r.principal.Role == access.Operator, Text: strings.TrimSpace(r.FormValue("q")), All: int64(len(orgs))}
	if v.Text != "" {
		want := strings.ToLower(v.Text)
		orgs = slices.DeleteFunc(orgs, func(o member.Organisation) bool {
			return !strings.Contains(strings.ToLower(o.Name+"\n"+o.Sector+"\n"+o.Area), want)
		})
	}
	v.Found = int64(len(orgs))
	from, err := strconv.Atoi(r.FormValue("from"))
	if err != nil || from < 0 || from > len(orgs) {
		from = 0
	}
	orgs = orgs[from:]
	if len(orgs) > membersPerPage {
		orgs = orgs[:membersPerPage]
		v.NextHref = href("/members", url.Values{"q": {v.Text}, "from": {strconv.Itoa(from + membersPerPage)}})
	}
	if from > 0 {
		v.FirstHref = href("/members", url.Values{"q": {v.Text}})
	}
	// What each of them needs is asked for those that are shown only.
	shown := make([]event.TenantID, len(orgs))
	for i, o := range orgs {
		shown[i] = o.ID
	}
	scope := r.scope.Narrow(shown...)
	collectors, err := s.o.Members.Collectors(r.Context(), scope)
	if err != nil {
		return err
	}
	open, err := s.openByMember(r.Context(), scope)
	if err != nil {
		return err
	}
	for _, o := range orgs {
		v.Members = append(v.Members, s.memberRow(r, o, collectors, open))
	}
	return s.show(w, r, "members", s.page(r, "Members", "/members", v))
}

func (s *server) memberRow(r *request, o member.Organisation, collectors []member.Collector, open map[string]severityCounts) memberRow {
	row := memberRow{Tenant: uint32(o.ID), Name: o.Name, Sector: sentence(o.Sector), Area: o.Area, Joined: instant(o.CreatedNS), Tone: "good"}
	well, bad := 0, ""
	for i := range collectors {
		if collectors[i].Tenant != o.ID || collectors[i].State == member.Revoked {
			continue
		}
		c := s.collectorView(&collectors[i], r)
		row.Collectors++
		if c.LastData.After(row.LastData) {
			row.LastData = c.LastData
		}
		if c.Tone == "good" {
			well++
			continue
		}
		if row.Tone != "bad" {
			row.Tone, bad = c.Tone, c.Status
		}
	}
	row.CollectorText = fmt.Sprintf("%d healthy", well)
	if bad != "" {
		row.CollectorText = bad
		if row.Collectors > 1 {
			row.CollectorText = fmt.Sprintf("%s (%d of %d healthy)", bad, well, row.Collectors)
		}
	}
	n := open[fmt.Sprint(o.ID)]
	row.Open, row.Critical, row.High = n.all, n.critical, n.high
	return row
}

func (s *server) member(w http.ResponseWriter, r *request) error {
	return s.showMember(w, r, http.StatusOK, nil, nil, nil)
}

func (s *server) showMember(w http.ResponseWriter, r *request, status int, problems []problem, token *tokenView, invitation *newInvitation) error {
	tenant, err := tenantOf(r)
	if err != nil {
		return err
	}
	ctx, scope := r.Context(), r.scope.Narrow(tenant)
	org, err := s.o.Members.Organisation(ctx, scope, tenant)
	if err != nil {
		return err
	}
	collectors, err := s.o.Members.Collectors(ctx, scope)
	if err != nil {
		return err
	}
	open, err := s.openByMember(ctx, scope)
	if err != nil {
		return err
	}
	sites, err := s.o.Members.Sites(ctx, scope)
	if err != nil {
		return err
	}
	v := memberView{memberRow: s.memberRow(r, org, collectors, open), CanAdd: r.principal.Role == access.Operator, NewToken: token, NewInvitation: invitation}
	for i := range collectors {
		v.Collectors = append(v.Collectors, s.collectorView(&collectors[i], r))
	}
	names := map[string]string{}
	for _, site := range sites {
		v.Sites = append(v.Sites, siteOption{site.ID, site.Name})
		names[site.ID] = site.Name
	}
	if v.CanAdd {
		tokens, err := s.o.Members.Tokens(ctx, scope)
		if err != nil {
			return err
		}
		for _, t := range tokens {
			v.Tokens = append(v.Tokens, openToken{ID: t.ID, Site: names[t.Site], By: s.personName(ctx, t.CreatedBy), Made: instant(t.CreatedNS), Expires: instant(t.ExpiresNS)})
		}
		if v.People, err = s.peopleOf(ctx, r, scope); err != nil {
			return err
		}
	}
	p := s.page(r, org.Name, "/members", v)
	p.Problem = problems
	return s.showStatus(w, r, status, "member", p)
}

var sectors = []string{"Education", "Health", "Local government", "Policing", "Manufacturing", "Retail", "Finance", "Legal", "Charity", "Housing", "Transport", "Utilities", "Technology", "Hospitality", "Construction", "Agriculture", "Other"}

func (s *server) memberNew(w http.ResponseWriter, r *request) error {
	return s.showMemberNew(w, r, http.StatusOK, nil)
}

func (s *server) showMemberNew(w http.ResponseWriter, r *request, status int, problems []problem) error {
	var options []option
	for _, name := range sectors {
		options = append(options, option{Value: name, Text: name})
	}
	value := func(name string) string { return strings.TrimSpace(r.PostFormValue(name)) }
	v := memberNewView{Fields: []formField{
		{Name: "name", Label: "Name of the organisation", Value: value("name")},
		{Name: "sector", Label: "Sector", Value: value("sector"), Options: options},
		{Name: "area", Label: "Police force area", Hint: "For example: Northshire Police", Value: value("area")},
		{Name: "contact_name", Label: "Name of their contact", Hint: "Who should be called when something happens", Value: value("contact_name")},
		{Name: "contact_email", Label: "Email address of their contact", Type: "email", Value: value("contact_email")},
		{Name: "contact_phone", Label: "Telephone number of their contact", Type: "tel", Value: value("contact_phone")},
	}}
	p := s.page(r, "Add a member", "/members", v)
	p.Problem = problems
	return s.showStatus(w, r, status, "member_new", p)
}

func (s *server) addMember(w http.ResponseWriter, r *request) error {
	value := func(name string) string { return strings.TrimSpace(r.PostFormValue(name)) }
	var missing []problem
	if value("name") == "" {
		missing = append(missing, problem{"name", "Enter the name of the organisation"})
	}
	if value("sector") == "" {
		missing = append(missing, problem{"sector", "Choose the sector; Other will do"})
	}
	if len(missing) > 0 {
		return s.showMemberNew(w, r, http.StatusUnprocessableEntity, missing)
	}
	org, err := s.o.Members.AddOrganisation(r.Context(), r.principal.UserID, member.Organisation{Name: value("name"), Sector: value("sector"), Area: value("area"),
		ContactName: value("contact_name"), ContactEmail: value("contact_email"), ContactPhone: value("contact_phone")})
	switch {
	case errors.Is(err, member.ErrExists):
		return s.showMemberNew(w, r, http.StatusUnprocessableEntity, []problem{{"name", "There is a member of this name already"}})
	case errors.Is(err, member.ErrInvalid):
		return s.showMemberNew(w, r, http.StatusUnprocessableEntity, memberProblems(err))
	case err != nil:
		return err
	}
	s.flash(r, org.Name+" is a member. Next: make an enrolment token for its collector, and invite a person.")
	return redirect(w, r, fmt.Sprintf("/members/%d", org.ID))
}

// memberProblems puts each line of a joined error to the field it speaks of.
func memberProblems(err error) []problem {
	fields := []struct{ word, field string }{{"e-mail", "contact_email"}, {"telephone", "contact_phone"}, {"contact's name", "contact_name"}, {"sector", "sector"}, {"area", "area"}, {"name", "name"}}
	var out []problem
	for line := range strings.Lines(err.Error()) {
		line = strings.TrimSpace(line)
		p := problem{Field: "name", Text: plainError(fmt.Errorf("%s", line))}
		p.Text = sentence(strings.TrimPrefix(line, member.ErrInvalid.Error()+": "))
		for _, f := range fields {
			if strings.Contains(line, f.word) {
				p.Field = f.field
				break
			}
		}
		out = append(out, p)
	}
	return out
}

// makeToken answers with the page itself, not a redirect: the token is shown this
// once and must not be kept anywhere, a session included.
func (s *server) makeToken(w http.ResponseWriter, r *request) error {
	tenant, err := tenantOf(r)
	if err != nil {
		return err
	}
	ctx, scope := r.Context(), r.scope.Narrow(tenant)
	site := r.PostFormValue("site")
	if name := strings.TrimSpace(r.PostFormValue("new_site")); name != "" {
		added, err := s.o.Members.AddSite(ctx, scope, r.principal.UserID, tenant, name)
		switch {
		case errors.Is(err, member.ErrExists):
			return s.showMember(w, r, http.StatusUnprocessableEntity, []problem{{"new_site", "There is a site of this name already; choose it in the list"}}, nil, nil)
		case errors.Is(err, member.ErrInvalid):
			return s.showMember(w, r, http.StatusUnprocessableEntity, []problem{{"new_site", plainError(err)}}, nil, nil)
		case err != nil:
			return err
		}
		site = added.ID
	}
	if site == "" {
		return s.showMember(w, r, http.StatusUnprocessableEntity, []problem{{"new_site", "Choose a site, or name a new one"}}, nil, nil)
	}
	token, expires, err := s.o.Members.MakeToken(ctx, scope, r.principal.UserID, site)
	if err != nil {
		return err
	}
	return s.showMember(w, r, http.StatusOK, nil, &tokenView{Text: token.String(), Expires: expires}, nil)
}

func (s *server) cancelToken(w http.ResponseWriter, r *request) error {
	tenant, err := tenantOf(r)
	if err != nil {
		return err
	}
	if err := s.o.Members.CancelToken(r.Context(), r.scope.Narrow(tenant), r.principal.UserID, r.PathValue("token")); err != nil {
		return err
	}
	s.flash(r, "The token no longer works.")
	return redirect(w, r, fmt.Sprintf("/members/%d", tenant))
}

// invite makes an invitation and, like a token, shows it this once.
func (s *server) invite(w http.ResponseWriter, r *request) error {
	tenant, err := tenantOf(r)
	if err != nil {
		return err
	}
	if _, err := s.o.Members.Organisation(r.Context(), r.scope, tenant); err != nil {
		return err
	}
	name, email := strings.TrimSpace(r.PostFormValue("name")), strings.TrimSpace(r.PostFormValue("email"))
	var problems []problem
	if name == "" {
		problems = append(problems, problem{"name", "Enter the person's name"})
	}
	if email == "" {
		problems = append(problems, problem{"email", "Enter the person's email address"})
	}
	if len(problems) > 0 {
		return s.showMember(w, r, http.StatusUnprocessableEntity, problems, nil, nil)
	}
	secret, expires, err := s.o.People.Invite(r.Context(), r.principal, people.Invitation{Name: name, Email: email, Role: access.Member, Tenant: tenant})
	switch {
	case errors.Is(err, people.ErrExists):
		return s.showMember(w, r, http.StatusUnprocessableEntity, []problem{{"email", "Somebody signs in with this address already"}}, nil, nil)
	case errors.Is(err, people.ErrInvalid):
		return s.showMember(w, r, http.StatusUnprocessableEntity, []problem{{"email", plainError(err)}}, nil, nil)
	case err != nil:
		return err
	}
	return s.showMember(w, r, http.StatusOK, nil, nil, &newInvitation{Name: name, Email: email, URL: s.o.PublicURL + "/invitation/" + secret, Expires: expires})
}

// inviteAgain makes an invitation for somebody who lost their password or phone.
func (s *server) inviteAgain(w http.ResponseWriter, r *request) error {
	tenant, err := tenantOf(r)
	if err != nil {
		return err
	}
	i, secret, expires, err := s.o.People.Renew(r.Context(), r.principal, r.scope.Narrow(tenant), r.PathValue("person"))
	if err != nil {
		return err
	}
	return s.showMember(w, r, http.StatusOK, nil, nil, &newInvitation{Name: i.Name, Email: i.Email, URL: s.o.PublicURL + "/invitation/" + secret, Expires: expires, Again: true})
}

// peopleOf lists the accounts of a member.
func (s *server) peopleOf(ctx context.Context, r *request, scope access.Scope) ([]person, error) {
	list, err := s.o.People.List(ctx, scope)
	if err != nil {
		return nil, err
	}
	var out []person
	for _, p := range list {
		if p.Role != access.Member {
			continue
		}
		state := "active"
		if p.Disabled {
			state = "disabled"
		}
		out = append(out, person{ID: p.ID, Name: p.Name, Email: p.Email, State: state, LastSignIn: instant(p.LastSignInNS)})
	}
	return out, nil
}

// personName says who made something; an account that is gone has no name any
// more, and the command line never had one.
func (s *server) personName(ctx context.Context, id string) string {
	if name, err := s.o.People.Name(ctx, id); err == nil && name != "" {
		return name
	}
	if strings.Contains(id, "-") {
		return "someone who has left"
	}
	return id
}
