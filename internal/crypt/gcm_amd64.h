	// The walk: constants, additional data, then groups of 256 bytes and a
	// last one of 1 to 256. The keystream begins with the block that hides the
	// tag, the hash with the additional data: in the first group, lane 0 is
	// theirs, and the text begins behind it.
	VBROADCASTI32X4 gcmSwap<>(SB), Z19
	VPBROADCASTQ    gcmPoly<>(SB), Z20
	MOVQ            KEYFIRST, DX

	// SP 800-38D 7.1, step 5: "[len(A)]64 || [len(C)]64", in bits.
	VPSLLQ $3, X27, X27

	// Nonce and additional data were just written, most often, by words of four
	// and eight bytes. Loads across these would have to wait.
	MOVL            $0x8888, AX
	KMOVW           AX, K1
	VPBROADCASTQ    4(BX), Z17
	VPBROADCASTD    (BX), K1, Z17
	VBROADCASTI32X4 gcmNonce<>(SB), Z15
	VPSHUFB         Z15, Z17, Z17

	CMPQ    R10, $8
	JNE     not8
	VMOVD   (R9), X21
	VPINSRD $1, 4(R9), X21, X21
	VPSHUFB X19, X21, X21
	JMP     text

not8:
	CMPQ    R10, $12
	JNE     not12
	VMOVD   (R9), X21
	VPINSRD $1, 4(R9), X21, X21
	VPINSRD $2, 8(R9), X21, X21
	VPSHUFB X19, X21, X21
	JMP     text

not12:
	VPXORQ X21, X21, X21
	TESTQ  R10, R10
	JZ     text
	CMPQ   R10, $16
	JA     data

lastdata:
	// The last 1 to 16 bytes of the additional data.
	MOVQ       $-1, AX
	BZHIQ      R10, AX, AX
	KMOVW      AX, K1
	VMOVDQU8.Z (R9), K1, X15
	VPSHUFB    X19, X15, X15
	VPXORQ     X15, X21, X21

text:
	SUBQ      $16, SI
	SUBQ      $16, DI
	ADDQ      $16, CX
	MOVL      $16, R9
	MOVQ      $~0xffff, R10
	VPORQ     gcmFirst<>+0(SB), Z17, Z0
	VPORQ     gcmFirst<>+64(SB), Z17, Z1
	VPORQ     gcmFirst<>+128(SB), Z17, Z2
	VPORQ     gcmFirst<>+192(SB), Z17, Z3
	VMOVDQU64 gcmTurn<>+0(SB), Z28
	VMOVDQU64 gcmTurn<>+32(SB), Z29
	CMPQ      CX, $256
	JBE       tail

	BEGIN(ON4, first12, first10)
	ROUNDS(ON4)
	FIRSTMASKS(R10)
	GETTURNED
	GET(64, Z9)
	GET(128, Z10)
	GET(192, Z11)
	LASTKEY
	LAST(Z8, Z0)
	LAST(Z9, Z1)
	LAST(Z10, Z2)
	LAST(Z11, Z3)
	VMOVDQA64 Z0, Z22
	PUTTURNED
	PUT(Z1, 64)
	PUT(Z2, 128)
	PUT(Z3, 192)
	SWAPMASKED(Z8, Z0, K6, Z4)
	SWAP(Z9, Z1, Z5)
	SWAP(Z10, Z2, Z6)
	SWAP(Z11, Z3, Z7)
	XORL            R9, R9
	MOVQ            $-1, R10
	VMOVDQU64       gcmTurn<>+16(SB), Z28
	VMOVDQA64       Z28, Z29
	VPSHUFB         Z19, Z17, Z17
	VPADDD          gcmThen<>(SB), Z17, Z17
	VBROADCASTI32X4 gcmNext<>(SB), Z18
	ADDQ            $256, SI
	ADDQ            $256, DI
	SUBQ            $256, CX
	CMPQ            CX, $256
	JBE             pending

group:
	// A group is encrypted while the one before it is hashed: HASH, spread.
	ON4(COUNT)
	BEGIN(ON4, group12, group10)
	VPXORQ Z21, Z4, Z4
	ROUND(ON4, 5)
	FIRST(Z4, POWER(16))
	ROUND(ON4, 6)
	NEXT(Z5, POWER(12))
	ROUND(ON4, 7)
	NEXT(Z6, POWER(8))
	ROUND(ON4, 8)
	NEXT(Z7, POWER(4))
	ROUND(ON4, 9)
	FOLD(Z12, Z13)
	ROUND(ON4, 10)
	FOLD(Z13, Z14)
	ROUND(ON4, 11)
	LANES
	ROUND(ON4, 12)
	ROUND(ON4, 13)
	GET(0, Z8)
	GET(64, Z9)
	GET(128, Z10)
	GET(192, Z11)
	LASTKEY
	LAST(Z8, Z0)
	LAST(Z9, Z1)
	LAST(Z10, Z2)
	LAST(Z11, Z3)
	PUT(Z0, 0)
	PUT(Z1, 64)
	PUT(Z2, 128)
	PUT(Z3, 192)
	SWAP(Z8, Z0, Z4)
	SWAP(Z9, Z1, Z5)
	SWAP(Z10, Z2, Z6)
	SWAP(Z11, Z3, Z7)
	ADDQ $256, SI
	ADDQ $256, DI
	SUBQ $256, CX
	CMPQ CX, $256
	JA   group

pending:
	ON4(COUNT)
	HASH

tail:
	// The last 1 to 16 blocks meet the powers that end with the second; the
	// length block meets the first. What a vector takes of the table's other side
	// is multiplied by zeros.
	LEAQ       15(CX), AX
	ANDQ       $-16, AX
	LEAQ       POWER(1), R13
	SUBQ       AX, R13
	VMOVDQU64  POWER(1), X23
	VPCLMULQDQ $0x00, X23, X27, X12
	VPCLMULQDQ $0x01, X23, X27, X13
	VPCLMULQDQ $0x10, X23, X27, X15
	VPCLMULQDQ $0x11, X23, X27, X14
	VPXORQ     X15, X13, X13
	CMPQ       CX, $64
	JBE        tail1
	CMPQ       CX, $128
	JBE        tail2
	CMPQ       CX, $192
	JBE        tail3

	BEGIN(ON4, tail4x12, tail4x10)
	ROUNDS(ON4)
	REST(192)
	KMOVQ AX, K1
	FIRSTMASKS(R10)
	GETTURNED
	GET(64, Z9)
	GET(128, Z10)
	GETMASKED(192, Z11)
	LASTKEY
	LAST(Z8, Z0)
	LAST(Z9, Z1)
	LAST(Z10, Z2)
	LAST(Z11, Z3)
	PUTTURNED
	TAGBLOCK(tail4sum)
	PUT(Z1, 64)
	PUT(Z2, 128)
	PUTMASKED(Z3, 192)
	SWAPMASKED(Z8, Z0, K6, Z4)
	SWAP(Z9, Z1, Z5)
	SWAP(Z10, Z2, Z6)
	SWAPMASKED(Z11, Z3, K1, Z7)
	VPXORQ Z21, Z4, Z4
	NEXT(Z4, 0(R13))
	NEXT(Z5, 64(R13))
	NEXT(Z6, 128(R13))
	NEXT(Z7, 192(R13))
	JMP done

tail3:
	BEGIN(ON3, tail3x12, tail3x10)
	ROUNDS(ON3)
	REST(128)
	KMOVQ AX, K1
	FIRSTMASKS(R10)
	GETTURNED
	GET(64, Z9)
	GETMASKED(128, Z10)
	LASTKEY
	LAST(Z8, Z0)
	LAST(Z9, Z1)
	LAST(Z10, Z2)
	PUTTURNED
	TAGBLOCK(tail3sum)
	PUT(Z1, 64)
	PUTMASKED(Z2, 128)
	SWAPMASKED(Z8, Z0, K6, Z4)
	SWAP(Z9, Z1, Z5)
	SWAPMASKED(Z10, Z2, K1, Z6)
	VPXORQ Z21, Z4, Z4
	NEXT(Z4, 0(R13))
	NEXT(Z5, 64(R13))
	NEXT(Z6, 128(R13))
	JMP done

tail2:
	BEGIN(ON2, tail2x12, tail2x10)
	ROUNDS(ON2)
	REST(64)
	KMOVQ AX, K1
	FIRSTMASKS(R10)
	GETTURNED
	GETMASKED(64, Z9)
	LASTKEY
	LAST(Z8, Z0)
	LAST(Z9, Z1)
	PUTTURNED
	TAGBLOCK(tail2sum)
	PUTMASKED(Z1, 64)
	SWAPMASKED(Z8, Z0, K6, Z4)
	SWAPMASKED(Z9, Z1, K1, Z5)
	VPXORQ Z21, Z4, Z4
	NEXT(Z4, 0(R13))
	NEXT(Z5, 64(R13))
	JMP done

tail1:
	BEGIN(ON1, tail1x12, tail1x10)
	ROUNDS(ON1)
	// The one vector is the first and the last: both masks hold.
	REST(0)
	ANDQ R10, AX
	FIRSTMASKS(AX)
	GETTURNED
	LASTKEY
	LAST(Z8, Z0)
	PUTTURNED
	TAGBLOCK(tail1sum)
	SWAPMASKED(Z8, Z0, K6, Z4)
	VPXORQ Z21, Z4, Z4
	NEXT(Z4, 0(R13))
	JMP done

data:
	// More than 16 bytes of additional data: all but the last 1 to 16. First
	// in groups, then up to four blocks at a time.
	CMPQ      R10, $256
	JBE       data4
	VMOVDQU64 (R9), Z4
	VMOVDQU64 64(R9), Z5
	VMOVDQU64 128(R9), Z6
	VMOVDQU64 192(R9), Z7
	VPSHUFB   Z19, Z4, Z4
	VPSHUFB   Z19, Z5, Z5
	VPSHUFB   Z19, Z6, Z6
	VPSHUFB   Z19, Z7, Z7
	HASH
	ADDQ $256, R9
	SUBQ $256, R10
	JMP  data

data4:
	CMPQ       R10, $16
	JBE        lastdata
	LEAQ       -1(R10), AX
	ANDQ       $-16, AX
	MOVL       $64, BX
	CMPQ       AX, BX
	CMOVQHI    BX, AX
	MOVQ       $-1, BX
	BZHIQ      AX, BX, BX
	KMOVQ      BX, K1
	VMOVDQU8.Z (R9), K1, Z4
	VPSHUFB    Z19, Z4, Z4
	VPXORQ     Z21, Z4, Z4
	LEAQ       POWER(0), R13
	SUBQ       AX, R13
	FIRST(Z4, (R13))
	REDUCE
	ADDQ AX, R9
	SUBQ AX, R10
	JMP  data4

done:
	REDUCE
	VPSHUFB X19, X21, X21
	VPXORQ  X22, X21, X0
