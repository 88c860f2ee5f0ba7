package keys

import (
	"encoding/hex"
	"fmt"
	"io"
	"sync"

	"filippo.io/bigmod"

	"github.com/adit-ipsec/adit/ike/proposal"
)

// modp is a MODP group of RFC 3526. All of them have the generator 2 and a safe
// prime p, p = 7 mod 8, so that 2 generates the subgroup of prime order (p-1)/2.
type modp struct {
	method   proposal.KE
	modulus  func() *bigmod.Modulus // made when it is first asked for: a millisecond
	exponent int                    // bytes of a private value
}

// newMODP makes a group of its prime. Private values have exponentBits: RFC 3526 8
// estimates each group's strength twice, and says that an exponent of twice the
// strength is enough. The bits are twice the larger estimate (2048: 160, 3072: 210,
// 4096: 240, 6144: 270, 8192: 310 bits), in whole bytes; more than RFC 7919 asks of
// groups of these sizes. Each value is drawn for one exchange and never used again.
func newMODP(method proposal.KE, prime string, exponentBits int) *modp {
	return &modp{method, sync.OnceValue(func() *bigmod.Modulus { return mustModulus(prime) }), exponentBits / 8}
}

func mustModulus(prime string) *bigmod.Modulus {
	b, err := hex.DecodeString(prime)
	if err == nil {
		var p *bigmod.Modulus
		if p, err = bigmod.NewModulus(b); err == nil {
			return p
		}
	}
	panic(fmt.Sprintf("ike/keys: a prime of RFC 3526: %v", err)) //nolint:forbidigo // a constant of this package, which a test asks for
}

type modpScheme struct{ group *modp }

type modpExchange struct {
	group   *modp
	private []byte
	public  []byte
}

func (s modpScheme) begin(rand io.Reader) (Exchange, error) {
	g := s.group
	private, err := draw(rand, g.exponent)
	if err != nil {
		return nil, err
	}
	p := g.modulus()
	two := bigmod.NewNat().SetUint(2).ExpandFor(p)
	// RFC 7296 3.4: the length of the public value "MUST be equal to the length
	// of the prime modulus over which the exponentiation was performed,
	// prepending zero bits to the value if necessary": Bytes does.
	public := bigmod.NewNat().Exp(two, private, p).Bytes(p)
	return &modpExchange{group: g, private: private, public: public}, nil
}

func (s modpScheme) respond(rand io.Reader, peer []byte) (public, secret []byte, err error) {
	// The check is cheap and the power is not: a stranger pays first.
	if _, err := s.group.check(peer); err != nil {
		return nil, nil, err
	}
	x, err := s.begin(rand)
	if err != nil {
		return nil, nil, err
	}
	return both(x, peer)
}

// check is RFC 6989 2.1: with a safe prime it is enough that the peer's public
// value r is in the legal range, 1 < r < p-1. The secret then has one of two large
// orders, and no private value is used for a second one.
func (g *modp) check(peer []byte) (*bigmod.Nat, error) {
	p := g.modulus()
	if len(peer) != p.Size() {
		return nil, wrongLength(g.method, len(peer), p.Size(), "RFC 7296 3.4")
	}
	y, err := bigmod.NewNat().SetBytes(peer, p)
	if err != nil {
		return nil, &PeerValueError{g.method, "it is not below the prime (RFC 6989 2.1)"}
	}
	if y.IsZero() == 1 || y.IsOne() == 1 || y.IsMinusOne(p) == 1 {
		return nil, &PeerValueError{g.method, "it is 0, 1 or p-1 (RFC 6989 2.1)"}
	}
	return y, nil
}

func (x *modpExchange) Public() []byte { return x.public }

func (x *modpExchange) Discard() {
	clear(x.private)
	x.private = nil
}

func (x *modpExchange) Finish(peer []byte) ([]byte, error) {
	if x.private == nil {
		return nil, ErrSpent
	}
	y, err := x.group.check(peer)
	if err != nil {
		return nil, err
	}
	// RFC 7296 2.14: g^ir is "padded with zeros if necessary to make it the
	// length of the modulus".
	p := x.group.modulus()
	n := bigmod.NewNat().Exp(y, x.private, p)
	secret := n.Bytes(p)
	clear(n.Bits())
	x.Discard()
	return secret, nil
}
