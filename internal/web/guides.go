package web

import (
	"tocsin/internal/access"
	"tocsin/internal/alert"
	"tocsin/internal/steps"
)

// guides are what to do about an alert on the products that its member has, as far as there are steps for them. Members without one of these
// products read the general advice alone.
func (s *server) guides(a *alert.Alert) []steps.Guide {
	if s.o.Products == nil || a.Tenant == access.Centre {
		return nil
	}
	book, err := steps.Default()
	if err != nil {
		s.o.Logger.Error("the steps for products cannot be read; alerts are shown without", "error", err)
		return nil
	}
	var out []steps.Guide
	for _, p := range s.o.Products(a.Tenant) {
		if g, ok := book.Guide(a.Family, p); ok {
			out = append(out, g)
		}
	}
	return out
}
