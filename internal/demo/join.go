package demo

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/pquerna/otp/totp"
	"golang.org/x/sync/errgroup"

	"tocsin/internal/app/status"
	"tocsin/internal/load/local"
)

// people makes the members and the sign-ins, those that are not there yet.
func (d *demo) people(ctx context.Context) error {
	have, err := d.centre.Members(ctx)
	if err != nil {
		return fmt.Errorf("list the members: %w", err)
	}
	for _, m := range d.members {
		for _, h := range have {
			if h.Name == m.name {
				m.tenant = h.Tenant
			}
		}
		if m.tenant == 0 {
			if m.tenant, err = d.centre.AddMember(ctx, m.name, m.sector, m.region); err != nil {
				return fmt.Errorf("add the member %s: %w", m.name, err)
			}
		}
		d.tenants[m.tenant] = m.name
	}
	type person struct {
		email, who, role string
		tenant           uint32
	}
	all := []person{{"operator@demo.example", "Olive Operator", "operator", 0}, {"analyst@demo.example", "Anil Analyst", "analyst", 0}}
	for _, m := range d.members {
		all = append(all, person{m.contact, m.person, "member", m.tenant})
	}
	for _, p := range all {
		if slices.ContainsFunc(d.state.SignIns, func(s local.SignIn) bool { return s.Email == p.email }) {
			continue
		}
		s, err := d.centre.AddUser(ctx, p.email, p.who, p.role, p.tenant)
		var refused *local.Problem
		if errors.As(err, &refused) && refused.Status == http.StatusConflict {
			return fmt.Errorf("the hub in %s knows %s, but the demo's own record of the password is gone: remove the folder to begin anew", d.opt.Dir, p.email)
		}
		if err != nil {
			return fmt.Errorf("add the sign-in %s: %w", p.email, err)
		}
		d.state.SignIns = append(d.state.SignIns, s)
		if err := d.state.save(); err != nil { // each at once: the hub does not tell a password twice
			return err
		}
	}
	return nil
}

// join gives the hub its indicators, enrols the collectors that are not enrolled, confirms their check words and starts all.
func (d *demo) join(ctx, life context.Context) error {
	if _, err := d.centre.ImportIndicators(ctx, "Demonstration list", indicators()); err != nil {
		return fmt.Errorf("import the indicator list: %w", err)
	}
	g, gctx := errgroup.WithContext(ctx)
	for _, m := range d.members {
		g.Go(func() error {
			s := d.state.Collectors[m.key]
			if !s.Enrolled {
				s.CheckWords = earlierWords(m.dir) // a start that was cut short here has enrolled it already
				s.Enrolled = s.CheckWords != ""
			}
			if !s.Enrolled {
				token, err := d.centre.AddToken(gctx, m.tenant, m.site)
				if err != nil {
					return fmt.Errorf("make an enrolment token for %s: %w", m.name, err)
				}
				if s.CheckWords, err = d.enrol(gctx, m, token); err != nil {
					return fmt.Errorf("enrol the collector of %s: %w", m.name, err)
				}
				s.Enrolled = true
			}
			if err := d.confirm(gctx, m); err != nil {
				return fmt.Errorf("confirm the collector of %s: %w", m.name, err)
			}
			m.child.Start(life)
			return nil
		})
	}
	if err := errors.Join(g.Wait(), d.state.save()); err != nil {
		return err
	}
	for _, m := range d.members {
		err := d.await(ctx, collectorStart, "starting the collector of "+m.name, func(ctx context.Context) error {
			site, err := local.SiteStatus(ctx, &m.socket)
			switch {
			case err != nil:
				return err
			case site.State != "live":
				return fmt.Errorf("the hub has not told it that it is live (%q) %s", site.State, site.HubTrouble)
			case site.Indicators == "":
				return errors.New("it has no indicator set yet")
			}
			return nil
		})
		if err != nil {
			return withTail(err, m.child)
		}
	}
	return nil
}

// earlierWords reads the check words that the collector keeps with its enrolment, "" when there is none.
func earlierWords(dir string) local.Words {
	var e struct {
		CheckWords local.Words `json:"check_words"`
	}
	b, err := os.ReadFile(filepath.Join(dir, "enrolment.json"))
	if err != nil || json.Unmarshal(b, &e) != nil {
		return ""
	}
	return e.CheckWords
}

// enrol runs `tocsin-collector enrol` as the member's IT lead would, and returns the check words it shows.
func (d *demo) enrol(ctx context.Context, m *running, token string) (local.Words, error) {
	cmd := exec.CommandContext(ctx, d.opt.Collector, "enrol", "--dir", m.dir, "--name", m.host, "--json")
	cmd.Stdin = strings.NewReader(token) // where no list of processes shows it
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%w: %s", err, strings.TrimSpace(stderr.String()))
	}
	var answer struct {
		CheckWords local.Words `json:"check_words"`
	}
	if err := json.Unmarshal(out, &answer); err != nil || answer.CheckWords == "" {
		return "", fmt.Errorf("no check words in its answer %q", out)
	}
	return answer.CheckWords, nil
}

// confirm does what the member does on the portal: compare the words shown there with those the collector showed, and say that they agree.
func (d *demo) confirm(ctx context.Context, m *running) error {
	s := d.state.Collectors[m.key]
	if s.Confirmed {
		return nil
	}
	all, err := d.centre.Collectors(ctx)
	if err != nil {
		return err
	}
	for _, c := range all {
		if c.Tenant != m.tenant || c.State != "quarantined" {
			continue
		}
		if c.CheckWords != s.CheckWords {
			return fmt.Errorf("the check words differ: the hub shows %q, the collector showed %q; somebody else may have used the token", c.CheckWords, s.CheckWords)
		}
		if err := d.centre.Confirm(ctx, c.ID, s.CheckWords); err != nil {
			return err
		}
		s.Confirmed = true
		d.say("%s has joined; its check words agree on both sides: %s.", m.name, s.CheckWords)
		return nil
	}
	return errors.New("the hub does not know it; remove the demo's folder to begin anew")
}

// baseline notes what the collectors had counted before this run's first line, once nothing of an earlier run waits any more.
func (d *demo) baseline(ctx context.Context) error {
	return d.await(ctx, balanceEnd, "sending what an earlier run left", func(ctx context.Context) error {
		st, err := d.centre.Status(ctx)
		if err != nil {
			return err
		}
		for _, a := range st.Alerts {
			d.before[a.ID] = a.Count
			d.shown[a.ID] = true
		}
		for _, m := range d.members {
			site, err := local.SiteStatus(ctx, &m.socket)
			if err != nil {
				return err
			}
			m.base, _ = collectorOf(st, m.tenant)
			if site.Waiting > 0 || m.base.Received != site.Counts["received"] || m.base.Stored+m.base.Dead < m.base.Acknowledged {
				return fmt.Errorf("%s has %d events to send", m.name, site.Waiting)
			}
		}
		return nil
	})
}

// collectorOf sums the collectors of a member (the demo has one each).
func collectorOf(st status.Status, tenant uint32) (status.Collector, bool) {
	for _, m := range st.Members {
		if m.Tenant == tenant && len(m.Collectors) > 0 {
			return m.Collectors[0], true
		}
	}
	return status.Collector{}, false
}

// Codes prints the present one-time codes of a demo's sign-ins.
func Codes(w io.Writer, dir string) error {
	b, err := os.ReadFile(filepath.Join(dir, "demo.json"))
	if err != nil {
		return fmt.Errorf("no demo in %s: start it with `tocsin demo`, or name its folder with --dir (%w)", dir, err)
	}
	var s state
	if err := json.Unmarshal(b, &s); err != nil {
		return fmt.Errorf("%s: %w", filepath.Join(dir, "demo.json"), err)
	}
	now := time.Now()
	for _, p := range s.SignIns {
		code, err := totp.GenerateCode(p.Secret, now)
		if err != nil {
			return fmt.Errorf("%s: %w", p.Email, err)
		}
		fmt.Fprintf(w, "%-28s %s\n", p.Email, code)
	}
	fmt.Fprintf(w, "valid for %d seconds more\n", 30-now.Unix()%30)
	return nil
}
