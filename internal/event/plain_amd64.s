#include "textflag.h"

// func plainAVX2(p *byte, n int) int
TEXT ·plainAVX2(SB), NOSPLIT, $0-24
	MOVQ p+0(FP), SI
	MOVQ n+8(FP), CX
	MOVQ $0x5c2022, AX // \ blank "
	VMOVQ AX, X0
	VPBROADCASTB X0, Y1
	SHRQ $8, AX
	VMOVQ AX, X0
	VPBROADCASTB X0, Y2
	SHRQ $8, AX
	VMOVQ AX, X0
	VPBROADCASTB X0, Y3
	XORQ DX, DX

next:
	CMPQ DX, CX
	JGE none
	VMOVDQU (SI)(DX*1), Y4
	VPCMPGTB Y4, Y2, Y5 // less than a blank, or beyond ASCII, which is below zero
	VPCMPEQB Y4, Y1, Y6
	VPCMPEQB Y4, Y3, Y4
	VPOR Y5, Y6, Y5
	VPOR Y4, Y5, Y4
	VPMOVMSKB Y4, AX
	ADDQ $32, DX
	TESTL AX, AX
	JZ next
	BSFL AX, AX
	LEAQ -32(DX)(AX*1), DX
	VZEROUPPER
	MOVQ DX, ret+16(FP)
	RET

none:
	VZEROUPPER
	MOVQ CX, ret+16(FP)
	RET
