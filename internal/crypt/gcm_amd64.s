#include "textflag.h"

// The byte order of a 16-byte block turned round, in each lane.
DATA gcmSwap<>+0x00(SB)/8, $0x08090a0b0c0d0e0f
DATA gcmSwap<>+0x08(SB)/8, $0x0001020304050607
GLOBL gcmSwap<>(SB), RODATA|NOPTR, $16

// How the last eight of a nonce's bytes, then the same up to its first four,
// become the nonce with a counter of 0 behind it.
DATA gcmNonce<>+0x00(SB)/8, $0x030201000f0e0d0c
DATA gcmNonce<>+0x08(SB)/8, $0xffffffff07060504
GLOBL gcmNonce<>(SB), RODATA|NOPTR, $16

// The counters of the first 16 blocks, as they stand in the block.
#define COUNTER(N) \
	DATA gcmFirst<>+(16*(N)-16)(SB)/8, $0; \
	DATA gcmFirst<>+(16*(N)-8)(SB)/8, $((N)<<56)
COUNTER(1)
COUNTER(2)
COUNTER(3)
COUNTER(4)
COUNTER(5)
COUNTER(6)
COUNTER(7)
COUNTER(8)
COUNTER(9)
COUNTER(10)
COUNTER(11)
COUNTER(12)
COUNTER(13)
COUNTER(14)
COUNTER(15)
COUNTER(16)
GLOBL gcmFirst<>(SB), RODATA|NOPTR, $256

// The counters of blocks 17 to 20, and what is added to each of the four, in
// the processor's byte order.
DATA gcmThen<>+0x00(SB)/8, $17
DATA gcmThen<>+0x08(SB)/8, $0
DATA gcmThen<>+0x10(SB)/8, $18
DATA gcmThen<>+0x18(SB)/8, $0
DATA gcmThen<>+0x20(SB)/8, $19
DATA gcmThen<>+0x28(SB)/8, $0
DATA gcmThen<>+0x30(SB)/8, $20
DATA gcmThen<>+0x38(SB)/8, $0
GLOBL gcmThen<>(SB), RODATA|NOPTR, $64
DATA gcmNext<>+0x00(SB)/8, $4
DATA gcmNext<>+0x08(SB)/8, $0
GLOBL gcmNext<>(SB), RODATA|NOPTR, $16

// The lower half of GCM's polynomial but for its last bit.
DATA gcmPoly<>+0x00(SB)/8, $0xc200000000000000
GLOBL gcmPoly<>(SB), RODATA|NOPTR, $8

// Places of eight words: what turns a vector by a lane begins at byte 0, what
// leaves it as it is at 16, what turns it back at 32.
DATA gcmTurn<>+0x00(SB)/8, $6
DATA gcmTurn<>+0x08(SB)/8, $7
DATA gcmTurn<>+0x10(SB)/8, $0
DATA gcmTurn<>+0x18(SB)/8, $1
DATA gcmTurn<>+0x20(SB)/8, $2
DATA gcmTurn<>+0x28(SB)/8, $3
DATA gcmTurn<>+0x30(SB)/8, $4
DATA gcmTurn<>+0x38(SB)/8, $5
DATA gcmTurn<>+0x40(SB)/8, $6
DATA gcmTurn<>+0x48(SB)/8, $7
DATA gcmTurn<>+0x50(SB)/8, $0
DATA gcmTurn<>+0x58(SB)/8, $1
GLOBL gcmTurn<>(SB), RODATA|NOPTR, $96

// What the registers hold:
//
//	R8 key; SI, DI source and destination of the next group, less 16; CX bytes
//	left, and 16; R9, R10 additional data and its length, then as below
//	DX key.first; R12 tag; R13 powers for the tail
//	Z0-Z3 the group's counters, its keystream, its output; Z8-Z11 its input
//	Z4-Z7 what is hashed of the group before
//	Z12-Z14 low, middle and high part of the hash's products; Z15, Z16, Z23-Z25
//	for a moment
//	Z17 the nonce, then the next counters, turned round; Z18 gcmNext
//	Z19 gcmSwap; Z20 gcmPoly; Z21 hash, in lane 0; Z22 the keystream's first
//	block, in lane 0; X27 length block
//
// and, in the first group and then in others, of its first vector:
//
//	R10 bytes of the text         all but lane 0    all
//	R9 bytes before them          16                0
//	Z28, Z29 places               a lane on, back   as it is
//
// which K6, and K4 where the text lies, are set from; K1 is its last vector's.

#define KEY(I)    (320+16*(I))(R8)
#define POWER(I)  (320-16*(I))(R8)
#define KEYFIRST  560(R8)
#define TAGMASK   572(R8)

// One round, or what else takes a round key, on one to four vectors.
#define ON1(OP) OP(Z0)
#define ON2(OP) OP(Z0); OP(Z1)
#define ON3(OP) OP(Z0); OP(Z1); OP(Z2)
#define ON4(OP) OP(Z0); OP(Z1); OP(Z2); OP(Z3)

#define COUNT(V)  VPSHUFB Z19, Z17, V; VPADDD Z18, Z17, Z17
#define WHITEN(V) VPXORQ Z23, V, V
#define ENC(V)    VAESENC Z23, V, V

#define ROUND(ON, I) VBROADCASTI32X4 KEY(I), Z23; ON(ENC)

// BEGIN goes through the rounds that AES-192 and AES-256 have more than
// AES-128.
#define BEGIN(ON, L12, L10) \
	VBROADCASTI32X4 KEY(4)(DX*1), Z23; \
	ON(WHITEN);                        \
	CMPQ DX, $-32;                     \
	JG   L10;                          \
	JE   L12;                          \
	ROUND(ON, 1);                      \
	ROUND(ON, 2);                      \
L12: ROUND(ON, 3);                     \
	ROUND(ON, 4);                      \
L10:

#define ROUNDS(ON) \
	ROUND(ON, 5);  \
	ROUND(ON, 6);  \
	ROUND(ON, 7);  \
	ROUND(ON, 8);  \
	ROUND(ON, 9);  \
	ROUND(ON, 10); \
	ROUND(ON, 11); \
	ROUND(ON, 12); \
	ROUND(ON, 13)

// LAST is the last round, its key in Z23, and the XOR with the input in one.
#define LAST(IN, V) \
	VPXORQ      Z23, IN, Z15; \
	VAESENCLAST Z15, V, V

#define LASTKEY VBROADCASTI32X4 KEY(14), Z23

// FIRST multiplies X by P into the three sums, NEXT adds another product.
#define FIRST(X, P) \
	VPCLMULQDQ $0x00, P, X, Z12; \
	VPCLMULQDQ $0x01, P, X, Z13; \
	VPCLMULQDQ $0x10, P, X, Z15; \
	VPCLMULQDQ $0x11, P, X, Z14; \
	VPXORQ     Z15, Z13, Z13

#define NEXT(X, P) \
	VPCLMULQDQ $0x00, P, X, Z15;    \
	VPCLMULQDQ $0x01, P, X, Z16;    \
	VPCLMULQDQ $0x10, P, X, Z24;    \
	VPCLMULQDQ $0x11, P, X, Z25;    \
	VPXORQ     Z15, Z12, Z12;       \
	VPTERNLOGQ $0x96, Z16, Z24, Z13; \
	VPXORQ     Z25, Z14, Z14

// FOLD takes the lower 64 bits of sum LOW off and adds to HIGH, 64 bits above
// it, what they are modulo GCM's polynomial: 2^64 times LOW's lower half is the
// half itself and its product with 0xc2<<56.
#define FOLD(LOW, HIGH) \
	VPCLMULQDQ $0x00, Z20, LOW, Z15; \
	VPSHUFD    $0x4e, LOW, LOW;      \
	VPTERNLOGQ $0x96, Z15, LOW, HIGH

// LANES adds up the lanes of the reduced sum in Z14 into Z21.
#define LANES \
	VEXTRACTI64X4 $1, Z14, Y15;  \
	VPXORQ        Y15, Y14, Y14; \
	VEXTRACTI32X4 $1, Y14, X15;  \
	VPXORQ        X15, X14, X21

#define REDUCE \
	FOLD(Z12, Z13); \
	FOLD(Z13, Z14); \
	LANES

// HASH adds a group to the hash, Z4 to Z7 being of 16 blocks.
#define HASH \
	VPXORQ Z21, Z4, Z4;   \
	FIRST(Z4, POWER(16)); \
	NEXT(Z5, POWER(12));  \
	NEXT(Z6, POWER(8));   \
	NEXT(Z7, POWER(4));   \
	REDUCE

// GET takes a vector of input from memory, PUT takes its output back: all of
// it, or what the mask says, or the first vector. Where lane 0 of that is not
// the text's, it is turned by a lane: a mask that left out the bytes before the
// text would do, but costs hundreds of cycles where these cannot be touched.
#define GET(AT, V)         VMOVDQU64 AT(SI), V
#define PUT(V, AT)         VMOVDQU64 V, AT(DI)
#define GETMASKED(AT, V)   VMOVDQU8.Z AT(SI), K1, V
#define PUTMASKED(V, AT)   VMOVDQU8 V, K1, AT(DI)
#define GETTURNED \
	VMOVDQU8.Z (SI)(R9*1), K4, Z8; \
	VPERMQ     Z8, Z28, Z8
#define PUTTURNED \
	VPERMQ   Z0, Z29, Z15;      \
	VMOVDQU8 Z15, K4, (DI)(R9*1)

// TAGBLOCK keeps the block that hides the tag, if it is of this group.
#define TAGBLOCK(L) \
	TESTL     R9, R9;  \
	JZ        L;       \
	VMOVDQA64 X0, X22; \
L:

// SWAP makes what is hashed of input or output, HASHED naming one of the two;
// bytes outside a mask become zeros.
#define SWAP(IN, OUT, V)          VPSHUFB Z19, HASHED(IN, OUT), V
#define SWAPMASKED(IN, OUT, K, V) VMOVDQU8.Z HASHED(IN, OUT), K, V; VPSHUFB Z19, V, V

// REST is the CX-LESS bytes that are left for the last vector, as a mask in AX;
// FIRSTMASKS sets those of the first vector from R.
#define REST(LESS) \
	LEAQ  -(LESS)(CX), BX; \
	MOVQ  $-1, AX;         \
	BZHIQ BX, AX, AX

#define FIRSTMASKS(R) \
	KMOVQ R, K6;      \
	SHRXQ R9, R, AX;  \
	KMOVQ AX, K4

// Both functions are the same, gcm_amd64.h, but for which side of the XOR is
// hashed.
#define ARGUMENTS \
	MOVQ    key+0(FP), R8;            \
	MOVQ    dst+8(FP), DI;            \
	MOVQ    src+16(FP), SI;           \
	MOVQ    n+24(FP), CX;             \
	MOVQ    nonce+32(FP), BX;         \
	MOVQ    aad+40(FP), R9;           \
	MOVQ    aadLen+48(FP), R10;       \
	VMOVQ   n+24(FP), X27;            \
	VPINSRQ $1, aadLen+48(FP), X27, X27

// func sealVAES(key *gcmVAES, dst, src *byte, n int, nonce, aad *byte, aadLen int)
TEXT ·sealVAES(SB), NOSPLIT, $0-56
	ARGUMENTS
	MOVQ DI, R12
	ADDQ CX, R12 // where the tag goes
#define HASHED(IN, OUT) OUT
#include "gcm_amd64.h"
#undef HASHED
	KMOVW    TAGMASK, K1
	VMOVDQU8 X0, K1, (R12)
	VZEROUPPER
	RET

// func openVAES(key *gcmVAES, dst, src *byte, n int, nonce, aad *byte, aadLen int) bool
TEXT ·openVAES(SB), NOSPLIT, $0-57
	ARGUMENTS
	MOVQ SI, R12
	ADDQ CX, R12 // where the tag lies
#define HASHED(IN, OUT) IN
#include "gcm_amd64.h"
#undef HASHED
	KMOVW      TAGMASK, K1
	VMOVDQU8.Z (R12), K1, X1
	VPXORQ     X1, X0, X0
	VPTESTMB   X0, X0, K1, K1
	KMOVW      K1, AX
	TESTL      AX, AX
	SETEQ      ret+56(FP)
	VZEROUPPER
	RET

// func subWord(w uint32) uint32
TEXT ·subWord(SB), NOSPLIT, $0-12
	// All columns being equal, ShiftRows moves nothing that matters.
	MOVL        w+0(FP), AX
	VMOVD       AX, X0
	VPSHUFD     $0, X0, X0
	VPXOR       X1, X1, X1
	VAESENCLAST X1, X0, X0
	VMOVD       X0, AX
	MOVL        AX, ret+8(FP)
	RET
