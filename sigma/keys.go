package sigma

import "slices"

// Keys gives the keys of the fields that rules of s look at, in ascending order: a record that has those, and all values if Keywords says so,
// gives the same matches as one with more. Correlations can need others.
func (s *Set) Keys() []Key {
	var keys []Key
	for _, p := range s.preds {
		if !p.keyword {
			keys = append(keys, p.key)
		}
		if p.op == opRef {
			keys = append(keys, p.ref)
		}
	}
	slices.Sort(keys)
	return slices.Compact(keys)
}
