package parse

import (
	"cmp"
	"slices"
	"strings"
)

// FormatHint says, for somebody who wrote a format's name that does not exist, which ones were probably meant: a sentence. names are those
// to choose from.
func FormatHint(wrong string, names []string) string {
	type near struct {
		name string
		far  int
	}
	w := strings.ToLower(strings.TrimSpace(wrong))
	var list []near
	for _, n := range names {
		d := distance(w, n)
		if len(w) > 2 && (strings.Contains(n, w) || strings.Contains(w, n)) {
			d = 0
		}
		if d <= max(1, min(len(w), len(n))/3) {
			list = append(list, near{n, d})
		}
	}
	slices.SortStableFunc(list, func(a, b near) int { return cmp.Compare(a.far, b.far) })
	var out []string
	for _, n := range list[:min(len(list), 3)] {
		out = append(out, n.name)
	}
	if len(out) == 0 {
		return "Formats are called fortigate, asa, netfilter and so on."
	}
	return "Did you mean " + strings.Join(out, " or ") + "?"
}

// distance is how many letters must be put in, left out or exchanged to make b of a (Levenshtein).
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			d := diagonal
			if a[i] != b[j] {
				d++
			}
			diagonal = row[j+1]
			row[j+1] = min(d, row[j]+1, diagonal+1)
		}
	}
	return row[len(b)]
}
