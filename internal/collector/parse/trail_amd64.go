package parse

import (
	"unsafe"

	"golang.org/x/sys/cpu"
)

// wide says whether treadAVX2 may be asked.
var wide = cpu.X86.HasAVX2 && cpu.X86.HasBMI1

// treadAVX2 is treadPlain for a text of n bytes at p, which must be at least 64.
//
//go:noescape
func treadAVX2(r *treads, p *byte, n, at int, x *place, bare bool) (y *place, i int, done bool)

func tread(r *treads, t string, at int, x *place, bare bool) (y *place, i int, done bool) {
	if !wide || len(t) < 64 {
		return treadPlain(r, t, at, x, bare)
	}
	return treadAVX2(r, unsafe.StringData(t), len(t), at, x, bare)
}
