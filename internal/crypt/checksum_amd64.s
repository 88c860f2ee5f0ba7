#include "textflag.h"

// The kernels add up 32-bit words. A vector's 64-bit lanes x go into two sums:
// of x itself, modulo 2^64, and of x>>32. What is wanted is
//
//	sum(x mod 2^32) + sum(x>>32), where
//	sum(x mod 2^32) = sum(x) - 2^32*sum(x>>32)   modulo 2^64,
//
// exact for less than 2^32 words a lane. So a vector costs a shift and two
// additions, and no carry is looked for until the end. Even and odd vectors have
// sums of their own (0, 1 and 2, 3), so that additions overlap.

// LANES makes of the two sums the wanted one, in SUM.
#define LANES(SUM, HIGH, T) \
	VPSLLQ $32, HIGH, T; \
	VPSUBQ T, SUM, SUM;  \
	VPADDQ HIGH, SUM, SUM

// ACROSS adds up the four lanes of Y0 into AX.
#define ACROSS \
	VEXTRACTI128 $1, Y0, X1; \
	VPADDQ       X1, X0, X0; \
	VPSRLDQ      $8, X0, X1; \
	VPADDQ       X1, X0, X0; \
	VMOVQ        X0, AX

// ADD takes 32 bytes of b, ADDZ 64.
#define ADD(OFF, X, T, SUM, HIGH) \
	VMOVDQU OFF(SI), X;    \
	VPSRLQ  $32, X, T;     \
	VPADDQ  X, SUM, SUM;   \
	VPADDQ  T, HIGH, HIGH

#define ADDZ(OFF, X, T, SUM, HIGH) \
	VMOVDQU64 OFF(SI), X;  \
	VPSRLQ    $32, X, T;   \
	VPADDQ    X, SUM, SUM; \
	VPADDQ    T, HIGH, HIGH

// 32 bytes of zeros, then 32 of ones: what begins at byte r masks all but the
// last r bytes of a vector.
DATA last<>+0x00(SB)/8, $0
DATA last<>+0x08(SB)/8, $0
DATA last<>+0x10(SB)/8, $0
DATA last<>+0x18(SB)/8, $0
DATA last<>+0x20(SB)/8, $-1
DATA last<>+0x28(SB)/8, $-1
DATA last<>+0x30(SB)/8, $-1
DATA last<>+0x38(SB)/8, $-1
GLOBL last<>(SB), RODATA|NOPTR, $64

// func sumAVX2(b []byte) uint64
TEXT ·sumAVX2(SB), NOSPLIT, $0-32
	MOVQ  b_base+0(FP), SI
	MOVQ  b_len+8(FP), CX
	VPXOR Y0, Y0, Y0
	VPXOR Y1, Y1, Y1
	VPXOR Y2, Y2, Y2
	VPXOR Y3, Y3, Y3
	XORL  DX, DX

	// An odd last byte is added alone: the last vector then begins at an even
	// place, as the others do.
	TESTQ $1, CX
	JZ    even
	MOVBLZX -1(SI)(CX*1), DX
	DECQ  CX

even:
	SUBQ $128, CX
	JB   under128

loop128:
	ADD(0, Y4, Y5, Y0, Y1)
	ADD(32, Y6, Y7, Y2, Y3)
	ADD(64, Y8, Y9, Y0, Y1)
	ADD(96, Y10, Y11, Y2, Y3)
	ADDQ $128, SI
	SUBQ $128, CX
	JAE  loop128

under128:
	ADDQ $96, CX
	JNC  rest

loop32:
	ADD(0, Y4, Y5, Y0, Y1)
	ADDQ $32, SI
	SUBQ $32, CX
	JAE  loop32

rest:
	// CX+32 bytes are left, an even number below 32. The vector that ends with
	// them is within b; the mask takes out what was added before.
	ADDQ    $32, CX
	JZ      done
	LEAQ    last<>(SB), AX
	VMOVDQU (AX)(CX*1), Y5
	VPAND   -32(SI)(CX*1), Y5, Y4
	VPSRLQ  $32, Y4, Y5
	VPADDQ  Y4, Y0, Y0
	VPADDQ  Y5, Y1, Y1

done:
	VPADDQ Y2, Y0, Y0
	VPADDQ Y3, Y1, Y1
	LANES(Y0, Y1, Y2)
	ACROSS
	VZEROUPPER
	ADDQ   DX, AX
	MOVQ   AX, ret+24(FP)
	RET

// func sumAVX512(b []byte) uint64
TEXT ·sumAVX512(SB), NOSPLIT, $0-32
	MOVQ   b_base+0(FP), SI
	MOVQ   b_len+8(FP), CX
	VPXORQ Z0, Z0, Z0
	VPXORQ Z1, Z1, Z1
	VPXORQ Z2, Z2, Z2
	VPXORQ Z3, Z3, Z3
	SUBQ   $256, CX
	JB     under256

loop256:
	ADDZ(0, Z4, Z5, Z0, Z1)
	ADDZ(64, Z6, Z7, Z2, Z3)
	ADDZ(128, Z8, Z9, Z0, Z1)
	ADDZ(192, Z10, Z11, Z2, Z3)
	ADDQ $256, SI
	SUBQ $256, CX
	JAE  loop256

under256:
	ADDQ $192, CX
	JNC  rest

loop64:
	ADDZ(0, Z4, Z5, Z0, Z1)
	ADDQ $64, SI
	SUBQ $64, CX
	JAE  loop64

rest:
	// CX+64 bytes are left, below 64. What the mask leaves out is not read.
	ADDQ   $64, CX
	JZ     done
	MOVQ   $-1, AX
	BZHIQ  CX, AX, AX
	KMOVQ  AX, K1
	VMOVDQU8.Z (SI), K1, Z4
	VPSRLQ $32, Z4, Z5
	VPADDQ Z4, Z2, Z2
	VPADDQ Z5, Z3, Z3

done:
	VPADDQ Z2, Z0, Z0
	VPADDQ Z3, Z1, Z1
	LANES(Z0, Z1, Z2)
	VEXTRACTI64X4 $1, Z0, Y1
	VPADDQ Y1, Y0, Y0
	ACROSS
	VZEROUPPER
	MOVQ   AX, ret+24(FP)
	RET

// func copyAVX2(dst, src []byte) uint64
TEXT ·copyAVX2(SB), NOSPLIT, $0-56
	MOVQ   dst_base+0(FP), DI
	MOVQ  src_base+24(FP), SI
	MOVQ  src_len+32(FP), CX
	VPXOR Y0, Y0, Y0
	VPXOR Y1, Y1, Y1
	VPXOR Y2, Y2, Y2
	VPXOR Y3, Y3, Y3
	XORL  DX, DX

	// As in sumAVX2.
	TESTQ $1, CX
	JZ    even
	MOVBLZX -1(SI)(CX*1), DX
	MOVB  DX, -1(DI)(CX*1)
	DECQ  CX

even:
	SUBQ $128, CX
	JB   under128

loop128:
	ADD(0, Y4, Y5, Y0, Y1)
	VMOVDQU Y4, 0(DI)
	ADD(32, Y6, Y7, Y2, Y3)
	VMOVDQU Y6, 32(DI)
	ADD(64, Y8, Y9, Y0, Y1)
	VMOVDQU Y8, 64(DI)
	ADD(96, Y10, Y11, Y2, Y3)
	VMOVDQU Y10, 96(DI)
	ADDQ $128, SI
	ADDQ $128, DI
	SUBQ $128, CX
	JAE  loop128

under128:
	ADDQ $96, CX
	JNC  rest

loop32:
	ADD(0, Y4, Y5, Y0, Y1)
	VMOVDQU Y4, 0(DI)
	ADDQ $32, SI
	ADDQ $32, DI
	SUBQ $32, CX
	JAE  loop32

rest:
	// As in sumAVX2. What was copied before is copied again.
	ADDQ    $32, CX
	JZ      done
	LEAQ    last<>(SB), AX
	VMOVDQU (AX)(CX*1), Y5
	VMOVDQU -32(SI)(CX*1), Y4
	VMOVDQU Y4, -32(DI)(CX*1)
	VPAND   Y4, Y5, Y4
	VPSRLQ  $32, Y4, Y5
	VPADDQ  Y4, Y0, Y0
	VPADDQ  Y5, Y1, Y1

done:
	VPADDQ Y2, Y0, Y0
	VPADDQ Y3, Y1, Y1
	LANES(Y0, Y1, Y2)
	ACROSS
	VZEROUPPER
	ADDQ   DX, AX
	MOVQ   AX, ret+48(FP)
	RET

// func copyAVX512(dst, src []byte) uint64
TEXT ·copyAVX512(SB), NOSPLIT, $0-56
	MOVQ   dst_base+0(FP), DI
	MOVQ   src_base+24(FP), SI
	MOVQ   src_len+32(FP), CX
	VPXORQ Z0, Z0, Z0
	VPXORQ Z1, Z1, Z1
	VPXORQ Z2, Z2, Z2
	VPXORQ Z3, Z3, Z3
	SUBQ   $256, CX
	JB     under256

loop256:
	ADDZ(0, Z4, Z5, Z0, Z1)
	VMOVDQU64 Z4, 0(DI)
	ADDZ(64, Z6, Z7, Z2, Z3)
	VMOVDQU64 Z6, 64(DI)
	ADDZ(128, Z8, Z9, Z0, Z1)
	VMOVDQU64 Z8, 128(DI)
	ADDZ(192, Z10, Z11, Z2, Z3)
	VMOVDQU64 Z10, 192(DI)
	ADDQ $256, SI
	ADDQ $256, DI
	SUBQ $256, CX
	JAE  loop256

under256:
	ADDQ $192, CX
	JNC  rest

loop64:
	ADDZ(0, Z4, Z5, Z0, Z1)
	VMOVDQU64 Z4, 0(DI)
	ADDQ $64, SI
	ADDQ $64, DI
	SUBQ $64, CX
	JAE  loop64

rest:
	// CX+64 bytes are left, below 64. What the mask leaves out is neither read
	// nor written.
	ADDQ   $64, CX
	JZ     done
	MOVQ   $-1, AX
	BZHIQ  CX, AX, AX
	KMOVQ  AX, K1
	VMOVDQU8.Z (SI), K1, Z4
	VMOVDQU8   Z4, K1, (DI)
	VPSRLQ $32, Z4, Z5
	VPADDQ Z4, Z2, Z2
	VPADDQ Z5, Z3, Z3

done:
	VPADDQ Z2, Z0, Z0
	VPADDQ Z3, Z1, Z1
	LANES(Z0, Z1, Z2)
	VEXTRACTI64X4 $1, Z0, Y1
	VPADDQ Y1, Y0, Y0
	ACROSS
	VZEROUPPER
	MOVQ   AX, ret+48(FP)
	RET
