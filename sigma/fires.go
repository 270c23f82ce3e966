package sigma

import "slices"

// CanMatch says whether a rule could match events that have only some fields: has answers for a field as the rule names it. Where it could not,
// missing names the fewest fields whose presence would change that. What must not be there (not, exists: false, null) can always be so. It looks at
// names only: a value that never comes it does not know.
func (r *Rule) CanMatch(has func(field string) bool) (can bool, missing []string) {
	for i, c := range r.conditions {
		ok, m := r.canMatch(c, has)
		if ok {
			return true, nil
		}
		if i == 0 || len(m) < len(missing) {
			missing = m
		}
	}
	slices.Sort(missing)
	return false, slices.Compact(missing)
}

func (r *Rule) canMatch(x *expr, has func(string) bool) (bool, []string) {
	switch x.op {
	case exprName:
		return r.searches[x.name].canMatch(has)
	case exprNot:
		return true, nil
	}
	return combine(x.op == exprOr, len(x.kids), func(i int) (bool, []string) { return r.canMatch(x.kids[i], has) })
}

func (s *search) canMatch(has func(string) bool) (bool, []string) {
	if s == nil {
		return true, nil
	}
	if s.item == nil {
		return combine(s.any, len(s.kids), func(i int) (bool, []string) { return s.kids[i].canMatch(has) })
	}
	it := s.item
	absent := slices.Contains(it.mods, "exists") && len(it.values) == 1 && it.values[0].text == "false" || slices.Contains(it.mods, "neq") ||
		slices.ContainsFunc(it.values, func(v value) bool { return v.kind == valueNull })
	if it.field == "" || absent || has(it.field) {
		return true, nil
	}
	return false, []string{it.field}
}

// combine joins what parts say: of alternatives one is enough, else all are needed.
func combine(any bool, n int, part func(int) (bool, []string)) (bool, []string) {
	var missing []string
	for i := range n {
		ok, m := part(i)
		switch {
		case any && ok:
			return true, nil
		case any && (i == 0 || len(m) < len(missing)):
			missing = m
		case !any && !ok:
			missing = append(missing, m...)
		}
	}
	return n == 0 || !any && len(missing) == 0, missing
}
