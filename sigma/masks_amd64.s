#include "textflag.h"

// func masksAVX2(p *byte, blocks int, out *blockMasks) (high uint32)
TEXT ·masksAVX2(SB), NOSPLIT, $0-28
	MOVQ p+0(FP), SI
	MOVQ blocks+8(FP), CX
	MOVQ out+16(FP), DI
	MOVL $0x22222222, AX
	VMOVD AX, X0
	VPBROADCASTD X0, Y0 // quotes
	MOVL $0x5c5c5c5c, AX
	VMOVD AX, X1
	VPBROADCASTD X1, Y1 // backslashes
	MOVL $0x1f1f1f1f, AX
	VMOVD AX, X2
	VPBROADCASTD X2, Y2 // the last control character
	VPXOR Y3, Y3, Y3    // all bytes so far

loop:
	VMOVDQU (SI), Y4
	VMOVDQU 32(SI), Y5
	VPOR Y4, Y3, Y3
	VPOR Y5, Y3, Y3
	VPCMPEQB Y4, Y0, Y6
	VPCMPEQB Y5, Y0, Y7
	VPMOVMSKB Y6, AX
	VPMOVMSKB Y7, BX
	SHLQ $32, BX
	ORQ BX, AX
	MOVQ AX, (DI)
	VPCMPEQB Y4, Y1, Y6
	VPCMPEQB Y5, Y1, Y7
	VPMOVMSKB Y6, AX
	VPMOVMSKB Y7, BX
	SHLQ $32, BX
	ORQ BX, AX
	MOVQ AX, 8(DI)
	VPMINUB Y4, Y2, Y6
	VPMINUB Y5, Y2, Y7
	VPCMPEQB Y4, Y6, Y6
	VPCMPEQB Y5, Y7, Y7
	VPMOVMSKB Y6, AX
	VPMOVMSKB Y7, BX
	SHLQ $32, BX
	ORQ BX, AX
	MOVQ AX, 16(DI)
	ADDQ $64, SI
	ADDQ $24, DI
	DECQ CX
	JNZ loop

	VPMOVMSKB Y3, AX
	VZEROUPPER
	MOVL AX, high+24(FP)
	RET

// func pairsAVX2(p *byte, blocks int, pairs *[8]byte) (at int)
TEXT ·pairsAVX2(SB), NOSPLIT, $0-32
	MOVQ p+0(FP), SI
	MOVQ blocks+8(FP), CX
	MOVQ pairs+16(FP), DX
	VPBROADCASTB 0(DX), Y0
	VPBROADCASTB 1(DX), Y1
	VPBROADCASTB 2(DX), Y2
	VPBROADCASTB 3(DX), Y3
	VPBROADCASTB 4(DX), Y4
	VPBROADCASTB 5(DX), Y5
	VPBROADCASTB 6(DX), Y6
	VPBROADCASTB 7(DX), Y7
	MOVL $0x20202020, AX
	VMOVD AX, X8
	VPBROADCASTD X8, Y8
	XORQ BX, BX

pairloop:
	VPOR (SI), Y8, Y9
	VPOR 1(SI), Y8, Y10
	VPCMPEQB Y9, Y0, Y11
	VPCMPEQB Y10, Y1, Y12
	VPAND Y11, Y12, Y13
	VPCMPEQB Y9, Y2, Y11
	VPCMPEQB Y10, Y3, Y12
	VPAND Y11, Y12, Y14
	VPOR Y13, Y14, Y13
	VPCMPEQB Y9, Y4, Y11
	VPCMPEQB Y10, Y5, Y12
	VPAND Y11, Y12, Y14
	VPOR Y13, Y14, Y13
	VPCMPEQB Y9, Y6, Y11
	VPCMPEQB Y10, Y7, Y12
	VPAND Y11, Y12, Y14
	VPOR Y13, Y14, Y13
	VPTEST Y13, Y13
	JNZ pairfound
	ADDQ $32, SI
	INCQ BX
	CMPQ BX, CX
	JLT pairloop

pairfound:
	VZEROUPPER
	MOVQ BX, at+24(FP)
	RET

// func masksAVX512(p *byte, blocks int, out *blockMasks) (high uint64)
TEXT ·masksAVX512(SB), NOSPLIT, $0-32
	MOVQ p+0(FP), SI
	MOVQ blocks+8(FP), CX
	MOVQ out+16(FP), DI
	MOVL $0x22, AX
	VPBROADCASTB AX, Z0 // quotes
	MOVL $0x5c, AX
	VPBROADCASTB AX, Z1 // backslashes
	MOVL $0x20, AX
	VPBROADCASTB AX, Z2 // the first that is no control character
	VPXORQ Z3, Z3, Z3   // all bytes so far

loop512:
	VMOVDQU64 (SI), Z4
	VPORQ Z4, Z3, Z3
	VPCMPEQB Z4, Z0, K1
	VPCMPEQB Z4, Z1, K2
	VPCMPUB $1, Z2, Z4, K3
	KMOVQ K1, (DI)
	KMOVQ K2, 8(DI)
	KMOVQ K3, 16(DI)
	ADDQ $64, SI
	ADDQ $24, DI
	DECQ CX
	JNZ loop512

	VPMOVB2M Z3, K1
	KMOVQ K1, AX
	VZEROUPPER
	MOVQ AX, high+24(FP)
	RET

// func lowerAVX2(dst, src *byte, blocks int) (n int)
TEXT ·lowerAVX2(SB), NOSPLIT, $0-32
	MOVQ dst+0(FP), DI
	MOVQ src+8(FP), SI
	MOVQ blocks+16(FP), CX
	MOVL $0x5c5c5c5c, AX
	VMOVD AX, X0
	VPBROADCASTD X0, Y0 // backslashes
	MOVL $0x40404040, AX
	VMOVD AX, X1
	VPBROADCASTD X1, Y1 // what comes before A
	MOVL $0x5b5b5b5b, AX
	VMOVD AX, X2
	VPBROADCASTD X2, Y2 // what comes behind Z
	MOVL $0x20202020, AX
	VMOVD AX, X3
	VPBROADCASTD X3, Y3
	XORQ BX, BX

lowerloop:
	VMOVDQU (SI)(BX*1), Y4
	VPCMPGTB Y1, Y4, Y5 // signed: bytes above 0x7f are no capitals
	VPCMPGTB Y4, Y2, Y6
	VPAND Y5, Y6, Y5
	VPAND Y3, Y5, Y5
	VPCMPEQB Y4, Y0, Y7
	VPOR Y4, Y7, Y7
	VPOR Y4, Y5, Y5
	VPMOVMSKB Y7, AX
	VMOVDQU Y5, (DI)(BX*1)
	TESTL AX, AX
	JNZ lowerstop
	ADDQ $32, BX
	DECQ CX
	JNZ lowerloop
	JMP lowerend

lowerstop:
	BSFL AX, AX
	ADDQ AX, BX

lowerend:
	VZEROUPPER
	MOVQ BX, n+24(FP)
	RET

DATA places<>+0(SB)/8, $0x0706050403020100
DATA places<>+8(SB)/8, $0x0f0e0d0c0b0a0908
DATA places<>+16(SB)/8, $0x1716151413121110
DATA places<>+24(SB)/8, $0x1f1e1d1c1b1a1918
DATA places<>+32(SB)/8, $0x2726252423222120
DATA places<>+40(SB)/8, $0x2f2e2d2c2b2a2928
DATA places<>+48(SB)/8, $0x3736353433323130
DATA places<>+56(SB)/8, $0x3f3e3d3c3b3a3938
GLOBL places<>(SB), RODATA|NOPTR, $64

// func quotesAVX512(p *byte, n int, base uint32, carry uint32, out *uint32) (count int, odd uint64, high uint64, over uint64)
TEXT ·quotesAVX512(SB), NOSPLIT, $0-64
	MOVQ p+0(FP), SI
	MOVQ n+8(FP), CX
	MOVL base+16(FP), AX
	MOVL carry+20(FP), DX
	MOVQ out+24(FP), DI
	VPBROADCASTD AX, Z8 // place of the block
	MOVL $64, AX
	VPBROADCASTD AX, Z9
	MOVL $0x22, AX
	VPBROADCASTB AX, Z0 // quotes
	MOVL $0x5c, AX
	VPBROADCASTB AX, Z1 // backslashes
	MOVL $0x20, AX
	VPBROADCASTB AX, Z2 // the first that is no control character
	VPXORQ Z3, Z3, Z3   // all bytes so far
	VMOVDQU64 places<>(SB), Z5
	MOVL $0x6e, AX
	VPBROADCASTB AX, Z10 // what may be behind a backslash often: n, r, t
	MOVL $0x72, AX
	VPBROADCASTB AX, Z11
	MOVL $0x74, AX
	VPBROADCASTB AX, Z12
	KXORQ K6, K6, K6    // controls so far
	XORQ R8, R8         // other escapes so far
	MOVQ $0x5555555555555555, R13
	MOVQ DI, R14

quotesblock:
	CMPQ CX, $64
	JLT quotestail
	VMOVDQU64 (SI), Z4

quotesbody:
	VPCMPEQB Z4, Z0, K1
	VPCMPEQB Z4, Z1, K2
	VPCMPUB $1, Z2, Z4, K3
	VPORQ Z4, Z3, Z3
	KORQ K3, K6, K6
	KMOVQ K1, AX
	KMOVQ K2, BX
	MOVQ BX, R9
	ORQ DX, R9
	JNZ quotesescapes

quotesgather:
	VPCOMPRESSB Z5, K1, Z6
	VPMOVZXBD X6, Z7
	VPADDD Z8, Z7, Z7
	VMOVDQU32 Z7, (DI)
	POPCNTQ AX, R10
	CMPQ R10, $16
	JHI quotesmany

quotesnext:
	LEAQ (DI)(R10*4), DI
	VPADDD Z9, Z8, Z8
	ADDQ $64, SI
	SUBQ $64, CX
	JG quotesblock
	JMP quotesend

quotestail:
	TESTQ CX, CX
	JLE quotesend
	MOVQ $1, AX
	SHLQ CX, AX
	DECQ AX
	KMOVQ AX, K4
	VMOVDQA64 Z2, Z4 // blanks behind the end
	VMOVDQU8 (SI), K4, Z4
	JMP quotesbody

quotesmany:
	VEXTRACTI32X4 $1, Z6, X13
	VPMOVZXBD X13, Z7
	VPADDD Z8, Z7, Z7
	VMOVDQU32 Z7, 64(DI)
	VEXTRACTI32X4 $2, Z6, X13
	VPMOVZXBD X13, Z7
	VPADDD Z8, Z7, Z7
	VMOVDQU32 Z7, 128(DI)
	VEXTRACTI32X4 $3, Z6, X13
	VPMOVZXBD X13, Z7
	VPADDD Z8, Z7, Z7
	VMOVDQU32 Z7, 192(DI)
	JMP quotesnext

quotesescapes:
	// as in index, in Go
	MOVQ AX, R15
	ORQ BX, R15        // quotes and backslashes
	MOVQ DX, R9
	NOTQ R9
	ANDQ BX, R9        // backslashes that are not escaped by the block before
	LEAQ (DX)(R9*2), R10 // what follows them
	MOVQ R13, R11
	ORQ R10, R11
	NOTQ R11
	ANDQ R9, R11       // beginnings of runs at odd places
	XORQ DX, DX
	ADDQ R9, R11
	ADCQ $0, DX        // the last byte escapes the first of the next block
	SHLQ $1, R11
	XORQ R13, R11
	ANDQ R10, R11      // escaped
	MOVQ R11, R10
	NOTQ R10
	ANDQ R10, AX
	KMOVQ AX, K1
	NOTQ R15
	ANDQ R15, R11      // what else is escaped
	JZ quotesgather
	VPCMPEQB Z4, Z10, K2
	VPCMPEQB Z4, Z11, K3
	VPCMPEQB Z4, Z12, K4
	KORQ K2, K3, K3
	KORQ K3, K4, K4
	KMOVQ K4, R10
	NOTQ R10
	ANDQ R10, R11
	ORQ R11, R8
	JMP quotesgather

quotesend:
	KMOVQ K6, AX
	ORQ R8, AX
	MOVQ AX, odd+40(FP)
	VPMOVB2M Z3, K1
	KMOVQ K1, AX
	VZEROUPPER
	MOVQ AX, high+48(FP)
	MOVQ DX, over+56(FP)
	SUBQ R14, DI
	SHRQ $2, DI
	MOVQ DI, count+32(FP)
	RET

// func gramsAVX512(p *byte, blocks int, bitmap *uint64, shift, lanes uint32, step int) (block int, hits uint64)
TEXT ·gramsAVX512(SB), NOSPLIT, $0-56
	MOVQ p+0(FP), SI
	MOVQ blocks+8(FP), DX
	MOVQ bitmap+16(FP), BX
	MOVL shift+24(FP), AX
	VMOVD AX, X1
	MOVL lanes+28(FP), R8
	MOVQ step+32(FP), R11
	MOVL $0x9E3779B1, AX // gramMul
	VPBROADCASTD AX, Z0
	MOVL $31, AX
	VPBROADCASTD AX, Z2
	MOVL $1, AX
	VPBROADCASTD AX, Z3
	VPXORD Z6, Z6, Z6
	XORQ DI, DI

gramsblock:
	XORQ R10, R10
	XORQ R9, R9
	XORQ CX, CX

gramsplaces:
	VMOVDQU32 (SI)(R9*1), Z4
	VPMULLD Z0, Z4, Z4
	VPSRLD X1, Z4, Z4
	VPSRLD $5, Z4, Z5
	KMOVW R8, K1
	VPGATHERDD (BX)(Z5*4), K1, Z6
	VPANDD Z2, Z4, Z4
	VPSLLVD Z4, Z3, Z4
	KMOVW R8, K1
	VPTESTMD Z4, Z6, K1, K2
	KMOVW K2, AX
	SHLQ CX, AX
	ORQ AX, R10
	ADDQ $16, CX
	ADDQ R11, R9
	CMPQ R9, $4
	JLT gramsplaces
	TESTQ R10, R10
	JNZ gramsend
	ADDQ $64, SI
	INCQ DI
	CMPQ DI, DX
	JLT gramsblock

gramsend:
	VZEROUPPER
	MOVQ DI, block+40(FP)
	MOVQ R10, hits+48(FP)
	RET

// func eightAVX512(p *byte, blocks int, nibbles *[64]byte) (block int, hits uint64)
TEXT ·eightAVX512(SB), NOSPLIT, $0-40
	MOVQ p+0(FP), SI
	MOVQ blocks+8(FP), DX
	MOVQ nibbles+16(FP), BX
	VBROADCASTI32X4 (BX), Z0
	VBROADCASTI32X4 16(BX), Z1
	VBROADCASTI32X4 32(BX), Z2
	VBROADCASTI32X4 48(BX), Z3
	MOVL $0x20, AX
	VPBROADCASTB AX, Z4
	MOVL $0x0f, AX
	VPBROADCASTB AX, Z5
	XORQ DI, DI
	XORQ R8, R8

eightblock:
	VPORQ (SI), Z4, Z6
	VPORQ 1(SI), Z4, Z7
	VPSRLW $4, Z6, Z8
	VPSRLW $4, Z7, Z9
	VPANDQ Z5, Z6, Z6
	VPANDQ Z5, Z7, Z7
	VPANDQ Z5, Z8, Z8
	VPANDQ Z5, Z9, Z9
	VPSHUFB Z6, Z0, Z6
	VPSHUFB Z8, Z1, Z8
	VPSHUFB Z7, Z2, Z7
	VPSHUFB Z9, Z3, Z9
	VPANDQ Z6, Z8, Z6
	VPANDQ Z7, Z9, Z7
	VPTESTMB Z6, Z7, K1
	KORTESTQ K1, K1
	JNZ eightfound
	ADDQ $64, SI
	INCQ DI
	CMPQ DI, DX
	JLT eightblock
	JMP eightend

eightfound:
	KMOVQ K1, R8

eightend:
	VZEROUPPER
	MOVQ DI, block+24(FP)
	MOVQ R8, hits+32(FP)
	RET
