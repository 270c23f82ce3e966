package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"text/tabwriter"
	"time"

	"tocsin/internal/access"
	"tocsin/internal/app"
	"tocsin/internal/intel"
	"tocsin/internal/keys"
	"tocsin/internal/member"
	"tocsin/internal/people"
)

const adminHelp = `Usage: tocsin admin [--config FILE | --data DIR] [--json] ACTION [OPTIONS]

  init --offline DIR [--name NAME]               make the keys of a new scheme, once
  member add --name NAME [--sector S] [--area A] [--contact NAME] [--contact-email ADDRESS]
                                                 add a member; prints the enrolment token of its first site
  member list
  token --member NAME [--site NAME]              make another enrolment token; a new site is made if there is none of that name
  collector list
  collector confirm ID WORD WORD WORD WORD       end a collector's quarantine, with the words that it shows
  collector revoke ID --why TEXT
  user add --email ADDRESS --name NAME --role operator|analyst|member [--member NAME]
  user list
  user reset ID                                  new password and second factor; ends all sessions
  indicator import FILE --source TEXT [--tlp clear|green|amber|amber+strict|red] [--push] [--days N]
  indicator list [--text TEXT]
  pack publish rules|parsers FOLDER --offline DIR [--collector ID] [--days N]
                                                 sign a pack of rules or parsers for collectors
  look-back ask --offline DIR --by NAME --purpose TEXT --regime uk-gdpr|dpa2018-part3 --basis TEXT --reference TEXT --approver NAME
                (--indicator VALUE... | --rule FILE) [--from TIME] [--to TIME] [--max N] [--collector ID] [--days N]
                                                 ask collectors about the past; each member consents, only hits leave
  look-back list                                 the questions that are open
  report --member NAME --out FILE.pdf|FILE.html [--week 2026-W47]
                                                 a member's weekly report, from the running hub; without --week the last whole week
  dead-letters list [--limit N]                  what the hub could not process and put aside, with the reason
  dead-letters retry --all|NAME... [--wait 1m]   have it tried again, when what the reason names is mended
  outbox list [--state dead|waiting|running|done|any] [--limit N]
                                                 mails and webhooks; of themselves those that could not be delivered
  outbox retry --all|ID...                       try those again, when relay or receiver is mended
  backup FILE                                    a consistent copy of the database, while the hub runs
  doctor                                         look for what is wrong, and say what to do

It works on the data folder, beside a running hub or without one, and may do what an operator may.
Exit codes: 0 done, 1 it failed, 2 the arguments are wrong, 3 doctor found something.

`

// errUsage marks wrong arguments: exit code 2.
var errUsage = errors.New("wrong arguments")

// admin is one call of `tocsin admin`.
type admin struct {
	config string
	set    settings
	json   bool
	stdout io.Writer
	stderr io.Writer
}

func runAdmin(ctx context.Context, args []string, _ io.Reader, stdout, stderr io.Writer) int {
	a := &admin{set: settings{}, stdout: stdout, stderr: stderr}
	flags := flag.NewFlagSet("tocsin admin", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.StringVar(&a.config, "config", "", "the hub's settings `file`")
	data := flags.String("data", "", "the hub's data `folder`, when there is no settings file")
	flags.Var(a.set, "set", "`key=value` over the settings file")
	flags.BoolVar(&a.json, "json", false, "print JSON")
	flags.Usage = func() { fmt.Fprint(stderr, adminHelp) }
	switch err := flags.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		return 0
	case err != nil:
		return 2
	}
	if *data != "" {
		a.set["data_dir"] = *data
	}
	args = flags.Args()
	for _, word := range args { // help needs no folder
		if word == "-h" || word == "-help" || word == "--help" {
			fmt.Fprint(stdout, adminHelp)
			return 0
		}
	}
	if len(args) == 0 {
		flags.Usage()
		return 2
	}
	code, err := a.run(ctx, args)
	if err != nil {
		if a.json {
			a.print(map[string]string{"error": err.Error()})
		}
		fmt.Fprintf(stderr, "tocsin admin: %v\n", err)
		if errors.Is(err, errUsage) || errors.Is(err, member.ErrInvalid) || errors.Is(err, people.ErrInvalid) || errors.Is(err, intel.ErrInvalid) {
			return 2
		}
		return 1
	}
	return code
}

func (a *admin) run(ctx context.Context, args []string) (int, error) {
	action, rest := args[0], args[1:]
	if len(rest) > 0 && (action == "member" || action == "collector" || action == "user" || action == "indicator" || action == "dead-letters" || action == "outbox" || action == "pack" || action == "look-back") {
		action, rest = action+" "+rest[0], rest[1:]
	}
	if action == "init" {
		return 0, a.init(rest)
	}
	if action == "doctor" {
		return a.doctor(ctx)
	}
	table := map[string]func(context.Context, *app.Office, []string) error{
		"member add": a.memberAdd, "member list": a.memberList, "token": a.token, "collector list": a.collectorList, "collector confirm": a.collectorConfirm, "collector revoke": a.collectorRevoke,
		"user add": a.userAdd, "user list": a.userList, "user reset": a.userReset, "indicator import": a.indicatorImport, "indicator list": a.indicatorList, "backup": a.backup, "report": a.report,
		"outbox list": a.outboxList, "outbox retry": a.outboxRetry, "dead-letters list": a.deadLetterList, "dead-letters retry": a.deadLetterRetry,
		"pack publish": a.packPublish, "look-back ask": a.lookBackAsk, "look-back list": a.lookBackList,
	}
	f, ok := table[action]
	if !ok {
		var second []string
		for n := range table {
			if first, word, two := strings.Cut(n, " "); two && first == args[0] {
				second = append(second, word)
			}
		}
		if len(second) > 0 {
			sort.Strings(second)
			return 0, fmt.Errorf("%w: %s wants a second word: %s", errUsage, args[0], strings.Join(second, ", "))
		}
		names := []string{"init", "doctor"}
		for n := range table {
			names = append(names, n)
		}
		sort.Strings(names)
		return 0, fmt.Errorf("%w: there is no action %q; there are: %s", errUsage, action, strings.Join(names, ", "))
	}
	office, err := a.office(ctx)
	if err != nil {
		return 0, err
	}
	return 0, errors.Join(f(ctx, office, rest), office.Close())
}

func (a *admin) office(ctx context.Context) (*app.Office, error) {
	h, origins, err := loadHub(a.config, a.set)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errUsage, err)
	}
	if noted := app.NotedAddress(h.DataDir); noted != "" && origins["gate.address"] == "default" && origins["gate.listen"] == "default" {
		h.Gate.Address = noted // no settings were given here: what the hub itself was started with
	}
	// The hub publishes indicators: this process need not open its keys.
	return app.OpenOffice(ctx, h, nil, slog.New(slog.DiscardHandler))
}

// anyWords parses an action's own flags; what is left are words, however many.
func (a *admin) anyWords(name string, args []string, define func(*flag.FlagSet)) ([]string, error) {
	set := flag.NewFlagSet("tocsin admin "+name, flag.ContinueOnError)
	set.SetOutput(io.Discard)
	define(set)
	var words []string
	for { // flags may stand before, between and after the words
		if err := set.Parse(args); err != nil {
			return nil, fmt.Errorf("%w: %s: %w", errUsage, name, err)
		}
		if set.NArg() == 0 {
			break
		}
		words = append(words, set.Arg(0))
		args = set.Args()[1:]
	}
	return words, nil
}

// flags parses an action's own flags; what is left must be as many words as names says.
func (a *admin) flags(name string, args []string, define func(*flag.FlagSet), names ...string) ([]string, error) {
	words, err := a.anyWords(name, args, define)
	if err != nil {
		return nil, err
	}
	if len(words) > len(names) {
		return nil, fmt.Errorf("%w: %q is not an option of %s", errUsage, words[len(names)], name)
	}
	if len(words) < len(names) {
		return nil, fmt.Errorf("%w: %s wants %d words (%s), got %d", errUsage, name, len(names), strings.Join(names, " "), len(words))
	}
	return words, nil
}

func (a *admin) print(v any) {
	b, err := json.Marshal(v)
	if err != nil {
		fmt.Fprintln(a.stderr, "tocsin admin:", err)
		return
	}
	a.stdout.Write(append(b, '\n')) // nobody to tell when the terminal is gone
}

// say prints text for people, or the value for programs.
func (a *admin) say(v any, format string, args ...any) {
	if a.json {
		a.print(v)
		return
	}
	fmt.Fprintf(a.stdout, format, args...)
}

func (a *admin) table(v any, header string, rows func(w io.Writer)) error {
	if a.json {
		a.print(v)
		return nil
	}
	w := tabwriter.NewWriter(a.stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, header)
	rows(w)
	return w.Flush()
}

func (a *admin) init(args []string) error {
	var offline, name string
	if _, err := a.flags("init", args, func(f *flag.FlagSet) {
		f.StringVar(&offline, "offline", "", "")
		f.StringVar(&name, "name", "Tocsin", "")
	}); err != nil {
		return err
	}
	if offline == "" {
		return fmt.Errorf("%w: init needs --offline FOLDER, on a medium that you take out and lock away: it gets the scheme's root key, which must not stay on the hub", errUsage)
	}
	h, _, err := loadHub(a.config, a.set)
	if err != nil {
		return fmt.Errorf("%w: %w", errUsage, err)
	}
	trust, err := app.CreateScheme(h.DataDir, offline, name, time.Now())
	if err != nil {
		return err
	}
	root := fmt.Sprintf("%x", trust.RootFingerprint())
	a.say(map[string]string{"root": root, "data_dir": h.DataDir, "offline": offline},
		"The scheme %q has been created in %s.\nRoot fingerprint: %s\n\nTake %s out of this machine now, make a second copy, and lock both away.\nWithout it there is no way to prove to your collectors that a new hub is yours.\n", name, h.DataDir, root, offline)
	return nil
}

func (a *admin) memberAdd(ctx context.Context, o *app.Office, args []string) error {
	var m member.Organisation
	if _, err := a.flags("member add", args, func(f *flag.FlagSet) {
		f.StringVar(&m.Name, "name", "", "")
		f.StringVar(&m.Sector, "sector", "", "")
		f.StringVar(&m.Area, "area", "", "")
		f.StringVar(&m.ContactName, "contact", "", "")
		f.StringVar(&m.ContactEmail, "contact-email", "", "")
	}); err != nil {
		return err
	}
	if m.Name == "" {
		return fmt.Errorf("%w: member add needs --name", errUsage)
	}
	m, err := o.AddMember(ctx, m)
	if err != nil {
		return err
	}
	token, until, err := o.Token(ctx, m, "")
	if err != nil {
		return err
	}
	a.say(map[string]any{"tenant": m.ID, "name": m.Name, "token": token.String(), "expires": until, "dials": token.Address},
		"%s is member number %d.\n\nEnrolment token for its first site, for one use until %s:\n\n%s\n\nAt the member's site:  tocsin-collector enrol TOKEN --dir DIR\n%s", m.Name, m.ID, until.Local().Format("2 January 15:04 MST"), token, dials(token))
	return nil
}

func (a *admin) memberList(ctx context.Context, o *app.Office, args []string) error {
	if _, err := a.flags("member list", args, func(*flag.FlagSet) {}); err != nil {
		return err
	}
	list, err := o.Members.Organisations(ctx, access.System("admin"))
	if err != nil {
		return err
	}
	return a.table(list, "NUMBER\tNAME\tSECTOR\tAREA", func(w io.Writer) {
		for _, m := range list {
			fmt.Fprintf(w, "%d\t%s\t%s\t%s\n", m.ID, m.Name, m.Sector, m.Area)
		}
	})
}

func (a *admin) find(ctx context.Context, o *app.Office, name string) (member.Organisation, error) {
	if name == "" {
		return member.Organisation{}, fmt.Errorf("%w: --member NAME is needed", errUsage)
	}
	return o.Members.FindOrganisation(ctx, access.System("admin"), name)
}

func (a *admin) token(ctx context.Context, o *app.Office, args []string) error {
	var name, site string
	if _, err := a.flags("token", args, func(f *flag.FlagSet) {
		f.StringVar(&name, "member", "", "")
		f.StringVar(&site, "site", "", "")
	}); err != nil {
		return err
	}
	m, err := a.find(ctx, o, name)
	if err != nil {
		return err
	}
	token, until, err := o.Token(ctx, m, site)
	if err != nil {
		return err
	}
	a.say(map[string]any{"tenant": m.ID, "token": token.String(), "expires": until, "dials": token.Address}, "%s\n\nFor one use until %s.\n%s", token, until.Local().Format("2 January 15:04 MST"), dials(token))
	return nil
}

// dials says where a token leads its collector, and warns when that is this machine alone.
func dials(t keys.Token) string {
	host, _, err := net.SplitHostPort(t.Address)
	ip := net.ParseIP(host)
	if err == nil && (host == "localhost" || ip != nil && ip.IsLoopback()) {
		return fmt.Sprintf("\nThe collector will dial %s, which is this machine alone. For collectors elsewhere set gate.address in the hub's settings to a name that they reach, start the hub with it, and make another token.\n", t.Address)
	}
	return fmt.Sprintf("\nThe collector will dial %s.\n", t.Address)
}

func (a *admin) collectorList(ctx context.Context, o *app.Office, args []string) error {
	if _, err := a.flags("collector list", args, func(*flag.FlagSet) {}); err != nil {
		return err
	}
	list, err := o.Members.Collectors(ctx, access.System("admin"))
	if err != nil {
		return err
	}
	return a.table(list, "ID\tMEMBER\tSITE\tNAME\tSTATE\tLAST SEEN\tRECEIVED\tSENT\tCHECK WORDS", func(w io.Writer) {
		for _, c := range list {
			seen := "never"
			if c.LastSeenNS > 0 {
				seen = time.Unix(0, c.LastSeenNS).Local().Format("2 Jan 15:04:05")
			}
			words := ""
			if c.State == member.Quarantined {
				words = c.Words
			}
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%d\t%d\t%s\n", c.ID, c.Organisation, c.Site, c.Name, c.State, seen, c.Balance.Received, c.Balance.Sent, words)
		}
	})
}

func (a *admin) collectorConfirm(ctx context.Context, o *app.Office, args []string) error {
	if len(args) > 2 { // four words, or one text of four
		args = []string{args[0], strings.Join(args[1:], " ")}
	}
	w, err := a.flags("collector confirm", args, func(*flag.FlagSet) {}, "ID", "WORDS")
	if err != nil {
		return err
	}
	if err := o.Members.ConfirmWords(ctx, access.System("admin"), app.Operator.UserID, w[0], w[1]); err != nil {
		return err
	}
	a.say(map[string]string{"collector": w[0], "state": member.Live}, "The words are right: the collector is live.\n")
	return nil
}

func (a *admin) collectorRevoke(ctx context.Context, o *app.Office, args []string) error {
	var why string
	w, err := a.flags("collector revoke", args, func(f *flag.FlagSet) { f.StringVar(&why, "why", "", "") }, "ID")
	if err != nil {
		return err
	}
	if why == "" {
		return fmt.Errorf("%w: --why TEXT is needed: it stands in the register for ever", errUsage)
	}
	if err := o.Members.Revoke(ctx, access.System("admin"), app.Operator.UserID, w[0], why); err != nil {
		return err
	}
	a.say(map[string]string{"collector": w[0], "state": member.Revoked}, "Revoked: its next request is refused.\n")
	return nil
}

func (a *admin) userAdd(ctx context.Context, o *app.Office, args []string) error {
	var role, of string
	var i people.Invitation
	if _, err := a.flags("user add", args, func(f *flag.FlagSet) {
		f.StringVar(&i.Email, "email", "", "")
		f.StringVar(&i.Name, "name", "", "")
		f.StringVar(&role, "role", "", "")
		f.StringVar(&of, "member", "", "")
	}); err != nil {
		return err
	}
	var err error
	if i.Role, err = access.ParseRole(role); err != nil {
		return fmt.Errorf("%w: --role: %w", errUsage, err)
	}
	if i.Role == access.Member {
		m, err := a.find(ctx, o, of)
		if err != nil {
			return err
		}
		i.Tenant = m.ID
	}
	c, err := o.People.Create(ctx, app.Operator, i)
	if err != nil {
		return err
	}
	a.credentials(c)
	return nil
}

func (a *admin) credentials(c people.Credentials) {
	a.say(c, "Sign-in:      %s\nPassword:     %s\nTOTP secret:  %s\nFor an app:   %s\n\nThis is shown once. Hand it over in person or by telephone, not by mail.\n", c.Email, c.Password, c.TOTPSecret, c.OTPAuthURL)
}

func (a *admin) userList(ctx context.Context, o *app.Office, args []string) error {
	if _, err := a.flags("user list", args, func(*flag.FlagSet) {}); err != nil {
		return err
	}
	list, err := o.People.List(ctx, access.System("admin"))
	if err != nil {
		return err
	}
	return a.table(list, "ID\tNAME\tADDRESS\tROLE\tMEMBER", func(w io.Writer) {
		for _, p := range list {
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%d\n", p.ID, p.Name, p.Email, p.Role, p.Tenant)
		}
	})
}

func (a *admin) userReset(ctx context.Context, o *app.Office, args []string) error {
	w, err := a.flags("user reset", args, func(*flag.FlagSet) {}, "ID")
	if err != nil {
		return err
	}
	c, err := o.People.Reset(ctx, app.Operator, w[0])
	if err != nil {
		return err
	}
	a.credentials(c)
	return nil
}

func (a *admin) indicatorImport(ctx context.Context, o *app.Office, args []string) error {
	opts := intel.ImportOptions{}
	days := 0
	w, err := a.flags("indicator import", args, func(f *flag.FlagSet) {
		f.StringVar(&opts.Source, "source", "", "")
		f.StringVar(&opts.TLP, "tlp", "amber", "")
		f.BoolVar(&opts.Push, "push", false, "")
		f.IntVar(&days, "days", 90, "")
	}, "FILE")
	if err != nil {
		return err
	}
	if days > 0 {
		opts.ValidUntil = time.Now().AddDate(0, 0, days)
	}
	f, err := os.Open(w[0])
	if err != nil {
		return err
	}
	defer f.Close()
	res, err := o.Import(ctx, f, opts)
	if err != nil {
		return err
	}
	a.say(res, "%d added, %d brought up to date, %d refused. The hub publishes them within a second.\n", res.Added, res.Updated, res.RefusedCount)
	if !a.json {
		for _, r := range res.Refused {
			fmt.Fprintf(a.stderr, "line %d: %s: %s\n", r.Line, r.Text, r.Why)
		}
		if res.NotPushed > 0 {
			fmt.Fprintf(a.stderr, "%d are not given to collectors: their TLP does not allow it.\n", res.NotPushed)
		}
	}
	return nil
}

func (a *admin) indicatorList(ctx context.Context, o *app.Office, args []string) error {
	f := intel.Filter{Limit: 1000}
	if _, err := a.flags("indicator list", args, func(s *flag.FlagSet) { s.StringVar(&f.Text, "text", "", "") }); err != nil {
		return err
	}
	var all []intel.Indicator
	for {
		p, err := o.Intel.List(ctx, access.System("admin"), f)
		if err != nil {
			return err
		}
		all = append(all, p.Indicators...)
		if f.After = p.Next; f.After == "" {
			break
		}
	}
	return a.table(all, "KIND\tVALUE\tSOURCE\tTLP\tPUSHED\tSEEN", func(w io.Writer) {
		for _, i := range all {
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%v\t%d\n", i.Kind, i.Value, i.Source, i.TLP, i.Push, i.Hits)
		}
	})
}

func (a *admin) backup(ctx context.Context, o *app.Office, args []string) error {
	w, err := a.flags("backup", args, func(*flag.FlagSet) {}, "FILE")
	if err != nil {
		return err
	}
	to, err := filepath.Abs(w[0])
	if err != nil {
		return err
	}
	if err := o.DB.Backup(ctx, to); err != nil {
		return err
	}
	a.say(map[string]string{"file": to}, "The database is copied to %s. docs/backup.md says what else to keep.\n", to)
	return nil
}

func (a *admin) doctor(ctx context.Context) (int, error) {
	h, _, err := loadHub(a.config, a.set)
	if err != nil {
		return 0, fmt.Errorf("%w: %w", errUsage, err)
	}
	findings := app.Doctor(ctx, h)
	bad := 0
	for _, f := range findings {
		if !f.OK {
			bad++
		}
	}
	if a.json {
		a.print(findings)
	} else {
		for _, f := range findings {
			mark := "ok  "
			if !f.OK {
				mark = "LOOK"
			}
			fmt.Fprintf(a.stdout, "%s  %-16s %s\n", mark, f.Name, f.Text)
			if f.Next != "" {
				fmt.Fprintf(a.stdout, "      %-16s → %s\n", "", f.Next)
			}
		}
	}
	if bad > 0 {
		return 3, nil
	}
	return 0, nil
}
