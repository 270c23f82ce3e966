#include "go_asm.h"
#include "textflag.h"

// The bytes that end a value without quotes, each at the place of its low half: blank, tab, semicolon, comma.
DATA ends<>+0(SB)/8, $0xffffffffffffff20
DATA ends<>+8(SB)/8, $0xffffff2c3bff09ff
GLOBL ends<>(SB), RODATA|NOPTR, $16

// func treadAVX2(r *treads, p *byte, n, at int, x *place, bare bool) (y *place, i int, done bool)
//
// Besides, it says in r.pipes whether one stands where it looked; every byte of what it went along was looked at or is a name's.
//
// AX place in the text, BX the place on the trail, SI the text, R8 its length, R9 its end with blanks behind it as if all of it stood there, R10 up to
// where 32 bytes may be read from SI, R11 spans, R12 where the name of BX stands, R13 bare, R15 whether the value of BX may hold blanks.
TEXT ·treadAVX2(SB), NOSPLIT, $0-65
	MOVQ r+0(FP), DI
	MOVQ p+8(FP), SI
	MOVQ n+16(FP), R8
	MOVQ at+24(FP), AX
	MOVQ x+32(FP), BX
	MOVBLZX bare+40(FP), R13
	LEAQ treads_tail(DI), R9
	VMOVDQU -64(SI)(R8*1), Y0
	VMOVDQU -32(SI)(R8*1), Y1
	VMOVDQU Y0, (R9)
	VMOVDQU Y1, 32(R9)
	SUBQ R8, R9
	ADDQ $64, R9
	LEAQ -32(R8), R10
	LEAQ treads_spans(DI), R11
	VBROADCASTI128 ends<>(SB), Y14
	MOVL $0x22222222, DX
	VMOVD DX, X13
	VPBROADCASTB X13, Y13
	MOVL $0x7c7c7c7c, DX
	VMOVD DX, X12
	VPBROADCASTB X12, Y12
	VPXOR Y11, Y11, Y11
	MOVQ AX, R12
	XORL R15, R15

next:
	MOVQ place_next(BX), CX
	CMPQ AX, R10
	JHI farname

try:
	TESTQ CX, CX
	JEQ none
	VMOVDQU place_lit(CX), Y0
	VPXOR (SI)(AX*1), Y0, Y0
	VPTEST place_mask(CX), Y0
	JNE other
	MOVQ CX, BX
	MOVQ AX, R12
	ADDQ place_size(CX), AX
	MOVQ place_at(CX), CX
	CMPQ AX, R10
	JHI farvalue

value:
	VMOVDQU (SI)(AX*1), Y0
	VMOVD X0, DX
	CMPB DX, $0x22
	JEQ quoted
	CMPB DX, $0x27
	JEQ slow
	VPSHUFB Y0, Y14, Y1
	VPCMPEQB Y0, Y12, Y2
	VPCMPEQB Y0, Y1, Y1
	VPOR Y2, Y11, Y11
	VPMOVMSKB Y1, DX
	TZCNTL DX, DX
	JCS longer
	ADDQ AX, DX

ended:
	MOVL AX, (R11)(CX*8)
	MOVL DX, 4(R11)(CX*8)
	TESTB R13, R13
	JNE open

closed:
	CMPQ AX, DX
	MOVQ DX, AX
	JNE next
	JMP empty

quoted:
	INCQ AX
	MOVQ AX, R14
	CMPQ AX, R10
	JHI farquote

quote:
	VMOVDQU (SI)(R14*1), Y0
	VPCMPEQB Y0, Y13, Y1
	VPCMPEQB Y0, Y12, Y2
	VPMOVMSKB Y1, DX
	VPOR Y2, Y11, Y11
	TZCNTL DX, DX
	JCS morequote
	ADDQ R14, DX
	CMPB -1(SI)(DX*1), $0x5c
	JEQ slow
	MOVL AX, (R11)(CX*8)
	MOVL DX, 4(R11)(CX*8)
	XORL R15, R15
	CMPQ AX, DX
	LEAQ 1(DX), AX
	JNE next

empty:
	MOVQ treads_holes(DI), DX
	MOVW CX, treads_hollow(DI)(DX*2)
	INCQ DX
	MOVQ DX, treads_holes(DI)
	JMP next

other:
	MOVQ place_beside(CX), CX
	JMP try

farname:
	MOVQ R9, SI
	MOVQ $0x7fffffffffffffff, R10
	JMP try

farvalue:
	MOVQ R9, SI
	MOVQ $0x7fffffffffffffff, R10
	JMP value

farquote:
	MOVQ R9, SI
	MOVQ $0x7fffffffffffffff, R10
	JMP quote

morequote:
	ADDQ $32, R14
	CMPQ R14, R8
	JGE slow
	CMPQ R14, R10
	JHI farquote
	JMP quote

longer: // an unquoted value of 32 bytes or more; in the copy of the end a blank stands behind it
	MOVQ AX, R14

longerloop:
	ADDQ $32, R14
	CMPQ R14, R10
	JLS longerhere
	MOVQ R9, SI
	MOVQ $0x7fffffffffffffff, R10

longerhere:
	VMOVDQU (SI)(R14*1), Y0
	VPSHUFB Y0, Y14, Y1
	VPCMPEQB Y0, Y12, Y2
	VPCMPEQB Y0, Y1, Y1
	VPOR Y2, Y11, Y11
	VPMOVMSKB Y1, DX
	TZCNTL DX, DX
	JCS longerloop
	ADDQ R14, DX
	JMP ended

open: // without quotes where values may hold blanks: it ends here if a name that is known follows
	MOVL $1, R15
	CMPB (SI)(DX*1), $0x20
	JNE slow
	CMPQ AX, DX
	JEQ closed
	CMPB -1(SI)(DX*1), $0x20
	JLS slow
	JMP closed

none:
	TESTL R15, R15
	JEQ done
	CMPQ AX, R8
	JNE slow

done:
	VPTEST Y11, Y11
	SETNE DX
	ORB DX, treads_pipes(DI)
	VZEROUPPER
	MOVQ BX, y+48(FP)
	MOVQ AX, i+56(FP)
	MOVB $1, done+64(FP)
	RET

slow:
	MOVB $1, treads_pipes(DI)
	VZEROUPPER
	MOVQ BX, y+48(FP)
	MOVQ R12, i+56(FP)
	MOVB $0, done+64(FP)
	RET
