// Package distance says how far two countries are apart at least: between the nearest points of their borders and coasts, less a
// margin. It reads a table that gen.go (`go run gen.go countries-50m.json`, from the npm package world-atlas 2.0.2) made from Natural Earth's map (public domain) and keeps nothing.
package distance

import "strings"

// stepKM is the table's unit; margin is taken off each distance, since a map's coast is a line of points some tens of kilometres apart.
const (
	stepKM = 100
	margin = 100
)

// KM is the least distance between two countries, in kilometres, by their ISO 3166-1 alpha-2 codes. ok is false when one of them is not on
// the map; neighbours are 0 apart.
func KM(a, b string) (km int, ok bool) {
	i, j := index(a), index(b)
	if i < 0 || j < 0 {
		return 0, false
	}
	if i == j {
		return 0, true
	}
	if i < j {
		i, j = j, i
	}
	// The lower triangle, row by row; one character each, a space being 0.
	n := int(table[i*(i-1)/2+j]-first) * stepKM
	return max(n-margin, 0), true
}

const first = ' '

func index(code string) int {
	if len(code) != 2 {
		return -1
	}
	for at := 0; ; {
		i := strings.Index(codes[at:], code)
		if i < 0 {
			return -1
		}
		if (at+i)%2 == 0 {
			return (at + i) / 2
		}
		at += i + 1
	}
}
