//go:build !amd64

package parse

func tread(r *treads, t string, at int, x *place, bare bool) (y *place, i int, done bool) {
	return treadPlain(r, t, at, x, bare)
}
