package event

import "golang.org/x/sys/cpu"

// plainAVX2 gives the index of the first of n bytes, a multiple of 32, that is a quote, a backslash, a control or beyond ASCII; n when none is.
//
//go:noescape
func plainAVX2(p *byte, n int) int

var wide = cpu.X86.HasAVX2
