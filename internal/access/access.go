// Package access says who may see what. It reads and writes nothing; it is the
// only package that can make a [Scope], the value every store, query and report
// asks for after the context. A query without a scope does not compile, the
// zero Scope sees nothing, and no call means "all members" by leaving something
// empty.
package access

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"tocsin/internal/event"
)

// Role is what a person is in the scheme.
type Role string

// The roles of part 1.
const (
	Operator Role = "operator" // runs the platform: members, people, settings; sees every member
	Analyst  Role = "analyst"  // works the queue; sees every member
	Member   Role = "member"   // belongs to one member and sees that one only
)

// ParseRole reads a role's name.
func ParseRole(s string) (Role, error) {
	switch r := Role(s); r {
	case Operator, Analyst, Member:
		return r, nil
	}
	return "", fmt.Errorf("%q is not a role: use operator, analyst or member", s)
}

// Principal is who asks. It is made from the account on each request, so a
// change of role or a disabled account counts at once.
type Principal struct {
	UserID string // UUIDv7 of the account
	Name   string
	Email  string
	Role   Role
	Tenant event.TenantID // the member's own; 0 for people of the centre
}

// ErrDenied says that the asker's role does not allow it.
var ErrDenied = errors.New("not allowed")

// Centre is the tenant of what belongs to no single member: patterns across
// members. Only a national scope covers it.
const Centre event.TenantID = 0

// Scope is the set of tenants that a query may touch. Only this package makes
// one; the zero value covers nothing.
type Scope struct {
	all     bool
	tenants []event.TenantID
	who     string
}

// Only is the scope of one member. Only(Centre) covers nothing: what belongs
// to the centre may tell one member about another.
func Only(t event.TenantID) Scope {
	if t == Centre {
		return Scope{}
	}
	return Scope{tenants: []event.TenantID{t}}
}

// Of is the scope a person has: all members for operators and analysts, their
// own member for members' people. A principal that is neither gets ErrDenied.
func Of(p Principal) (Scope, error) {
	if p.UserID == "" {
		return Scope{}, fmt.Errorf("%w: nobody is signed in", ErrDenied)
	}
	switch {
	case p.Role == Operator, p.Role == Analyst:
		return Scope{all: true, who: p.UserID}, nil
	case p.Role == Member && p.Tenant != Centre:
		return Scope{tenants: []event.TenantID{p.Tenant}, who: p.UserID}, nil
	}
	return Scope{}, fmt.Errorf("%w: %s has no role that may see anything", ErrDenied, p.Name)
}

// National is the scope over all members and the centre. It fails with
// ErrDenied for everybody but operators and analysts.
func National(p Principal) (Scope, error) {
	if p.UserID == "" || p.Role != Operator && p.Role != Analyst {
		return Scope{}, fmt.Errorf("%w: this covers all members, and the role %q does not", ErrDenied, p.Role)
	}
	return Scope{all: true, who: p.UserID}, nil
}

// System is the national scope of a part of the program itself: the hub's own
// status page, a roll-up, the command line of the machine's administrator.
// Never use it to answer a request of a person.
func System(part string) Scope { return Scope{all: true, who: "system:" + part} }

// Tenants returns the tenants covered; all true means every tenant and the
// centre, with a nil list. Both empty: nothing is covered.
func (s Scope) Tenants() (tenants []event.TenantID, all bool) {
	return slices.Clone(s.tenants), s.all
}

// National says whether the scope covers all members and the centre.
func (s Scope) National() bool { return s.all }

// Covers says whether the scope covers a tenant.
func (s Scope) Covers(t event.TenantID) bool {
	return s.all || slices.Contains(s.tenants, t)
}

// Narrow is the part of the scope that lies in the given tenants: what a page's
// filter on members does. Tenants outside it are left out silently, so the
// answer does not tell whether they exist.
func (s Scope) Narrow(tenants ...event.TenantID) Scope {
	out := Scope{who: s.who}
	for _, t := range tenants {
		if s.Covers(t) && !slices.Contains(out.tenants, t) {
			out.tenants = append(out.tenants, t)
		}
	}
	return out
}

// Who names whoever the scope was made for, for audit entries: a user id,
// "system:part", or "" for a scope made by Only.
func (s Scope) Who() string { return s.who }

// String is for logs.
func (s Scope) String() string {
	switch {
	case s.all:
		return "national"
	case len(s.tenants) == 0:
		return "nothing"
	}
	return fmt.Sprintf("tenants %v", s.tenants)
}

// Figure is the one way by which a number over several members may be shown to
// one of them: others holds the count of each member that the number is made
// of. It is refused (ok false) with fewer than five members other than the
// viewer, or when one of them makes up more than half of it, and is rounded to
// five, so that neither subtracting two figures nor sham members single
// somebody out. People with a national scope do not need it.
func Figure(viewer event.TenantID, others map[event.TenantID]uint64) (rounded uint64, ok bool) {
	var sum, most uint64
	n := 0
	for t, c := range others {
		if t == viewer || t == Centre || c == 0 {
			continue
		}
		n++
		sum += c
		most = max(most, c)
	}
	if n < 5 || 2*most > sum {
		return 0, false
	}
	return (sum + 2) / 5 * 5, true
}

type principalKey struct{}

// WithPrincipal puts who asks into a request's context, for handlers and audit.
func WithPrincipal(ctx context.Context, p Principal) context.Context {
	return context.WithValue(ctx, principalKey{}, p)
}

// FromContext gives back what WithPrincipal put in.
func FromContext(ctx context.Context) (Principal, bool) {
	p, ok := ctx.Value(principalKey{}).(Principal)
	return p, ok
}
