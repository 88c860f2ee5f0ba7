package keys

import (
	"bytes"
	"math/big"
	"testing"

	"github.com/adit-ipsec/adit/ike/proposal"
)

// formula is the prime of RFC 3526 of that many bits:
//
//	2^n - 2^(n-64) - 1 + 2^64 * { [2^(n-130) pi] + addend }
func formula(bits uint, addend int64) *big.Int {
	power := func(n uint) *big.Int { return new(big.Int).Lsh(big.NewInt(1), n) }
	middle := new(big.Int).Add(piTimes2To(bits-130), big.NewInt(addend))
	p := new(big.Int).Sub(power(bits), power(bits-64))
	p.Sub(p, big.NewInt(1))
	return p.Add(p, middle.Lsh(middle, 64))
}

// piTimes2To is [2^n pi], by Machin: pi = 16 arctan(1/5) - 4 arctan(1/239).
func piTimes2To(n uint) *big.Int {
	const guard = 64
	one := new(big.Int).Lsh(big.NewInt(1), n+guard)
	arctan := func(x int64) *big.Int {
		sum, term := new(big.Int), new(big.Int).Div(one, big.NewInt(x))
		for k := int64(1); term.Sign() != 0; k += 2 {
			part := new(big.Int).Div(term, big.NewInt(k))
			if k%4 == 3 {
				part.Neg(part)
			}
			sum.Add(sum, part)
			term.Div(term, big.NewInt(x*x))
		}
		return sum
	}
	pi := new(big.Int).Mul(big.NewInt(16), arctan(5))
	pi.Sub(pi, new(big.Int).Mul(big.NewInt(4), arctan(239)))
	return pi.Rsh(pi, guard)
}

var rfc3526 = []struct {
	method   proposal.KE
	bits     uint
	addend   int64
	strength int // the larger of RFC 3526 8's two estimates, in bits
}{
	{proposal.KEModp2048, 2048, 124476, 160}, {proposal.KEModp3072, 3072, 1690314, 210}, {proposal.KEModp4096, 4096, 240904, 240},
	{proposal.KEModp6144, 6144, 929484, 270}, {proposal.KEModp8192, 8192, 4743158, 310},
}

// A digit that is wrong anywhere would be another number than the formula's. That
// they are safe primes is asked of those for which it takes less than a second.
func TestRFC3526_PrimesAreTheFormulas(t *testing.T) {
	for _, c := range rfc3526 {
		m := schemes[c.method].(modpScheme).group.modulus()
		p := new(big.Int).SetBytes(m.Nat().Bytes(m))
		if want := formula(c.bits, c.addend); p.Cmp(want) != 0 {
			t.Errorf("%s: expected\n%x, saw\n%x", c.method, want, p)
		}
		if p.Bit(0)+2*p.Bit(1)+4*p.Bit(2) != 7 {
			t.Errorf("%s: p mod 8 is not 7: 2 would be no square", c.method)
		}
		if c.bits <= 4096 && (!p.ProbablyPrime(0) || !new(big.Int).Rsh(p, 1).ProbablyPrime(0)) {
			t.Errorf("%s is no safe prime", c.method)
		}
	}
}

func TestRFC3526_8_ExponentsAreTwiceTheStrength(t *testing.T) {
	for _, c := range rfc3526 {
		if got := 8 * schemes[c.method].(modpScheme).group.exponent; got < 2*c.strength {
			t.Errorf("%s: an exponent of %d bits for a strength of %d", c.method, got, c.strength)
		}
	}
}

// Public value and secret against math/big, left-padded.
func TestMODPAgreesWithMathBig(t *testing.T) {
	for _, c := range rfc3526 {
		g := schemes[c.method].(modpScheme).group
		m := g.modulus()
		p := new(big.Int).SetBytes(m.Nat().Bytes(m))
		private := make([]byte, g.exponent)
		if _, err := seeded(byte(c.bits >> 8)).Read(private); err != nil {
			t.Fatal(err)
		}
		y := new(big.Int).Sub(p, big.NewInt(12345))
		small := append(make([]byte, g.exponent-1), 3)
		for n, private := range [][]byte{private, small} {
			x := begin(t, c.method, bytes.NewReader(private))
			e := new(big.Int).SetBytes(private)
			same(t, "public", x.Public(), new(big.Int).Exp(big.NewInt(2), e, p).FillBytes(make([]byte, c.bits/8)))
			r := []*big.Int{y, big.NewInt(2)}[n]
			secret, err := x.Finish(r.FillBytes(make([]byte, c.bits/8)))
			if err != nil {
				t.Fatal(err)
			}
			same(t, "secret", secret, new(big.Int).Exp(r, e, p).FillBytes(make([]byte, c.bits/8)))
		}
	}
}
