//go:build !amd64

package event

const wide = false

func plainAVX2(*byte, int) int { panic("not reached") }
