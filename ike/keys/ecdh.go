package keys

import (
	"crypto/ecdh"
	"errors"
	"io"

	"github.com/adit-ipsec/adit/ike/proposal"
)

// ecdhExchange is the initiator's half in a group of crypto/ecdh. prefix stands in
// front of the library's form of a public value and not of the wire's.
type ecdhExchange struct {
	method  proposal.KE
	private *ecdh.PrivateKey
	public  []byte
	prefix  []byte
	rfc     string
}

func (x *ecdhExchange) Public() []byte { return x.public }

func (x *ecdhExchange) Discard() { x.private = nil }

func (x *ecdhExchange) Finish(peer []byte) ([]byte, error) {
	if x.private == nil {
		return nil, ErrSpent
	}
	theirs, err := x.point(x.private.Curve(), peer, len(x.public))
	if err != nil {
		return nil, err
	}
	secret, err := x.private.ECDH(theirs)
	if err != nil {
		// RFC 7748 6.1: both sides may check whether the secret is all zeros, and
		// abort if so. We do: such a secret has nothing of our private value.
		return nil, &PeerValueError{x.method, "it is of low order: the secret would be zero (RFC 7748 6.1)"}
	}
	x.private = nil
	return secret, nil
}

// point reads the peer's public value, of length bytes.
//
// RFC 6989 2.3: "A receiving peer MUST check that its peer's public value is valid;
// that is, the x and y parameters from the peer's public value satisfy the curve
// equation": NewPublicKey does. The u of RFC 7748 has no wrong form.
func (x *ecdhExchange) point(curve ecdh.Curve, peer []byte, length int) (*ecdh.PublicKey, error) {
	if len(peer) != length {
		return nil, wrongLength(x.method, len(peer), length, x.rfc)
	}
	theirs, err := curve.NewPublicKey(append(x.prefix[:len(x.prefix):len(x.prefix)], peer...))
	if err != nil {
		return nil, &PeerValueError{x.method, "it is no point of the curve (RFC 6989 2.3)"}
	}
	return theirs, nil
}

// x25519Scheme is Curve25519 (RFC 8031 3.1): 32 bytes either way.
type x25519Scheme struct{}

const (
	x25519Len = 32
	rfcX25519 = "RFC 8031 3.1"
)

func (x25519Scheme) begin(rand io.Reader) (Exchange, error) {
	seed, err := draw(rand, x25519Len)
	if err != nil {
		return nil, err
	}
	defer clear(seed)
	private, err := ecdh.X25519().NewPrivateKey(seed)
	if err != nil {
		return nil, err
	}
	return &ecdhExchange{method: proposal.KEX25519, private: private, public: private.PublicKey().Bytes(), rfc: rfcX25519}, nil
}

func (s x25519Scheme) respond(rand io.Reader, peer []byte) (public, secret []byte, err error) {
	if len(peer) != x25519Len {
		return nil, nil, wrongLength(proposal.KEX25519, len(peer), x25519Len, rfcX25519)
	}
	x, err := s.begin(rand)
	if err != nil {
		return nil, nil, err
	}
	return both(x, peer)
}

// nist is a curve of RFC 5903. RFC 5903 7: the public value is x, then y, each as
// long as the prime, and the secret is the x coordinate alone.
type nist proposal.KE

func (n nist) curve() (c ecdh.Curve, coordinate int, topByte byte) {
	switch proposal.KE(n) {
	case proposal.KEECP384:
		return ecdh.P384(), 48, 0xff
	case proposal.KEECP521:
		return ecdh.P521(), 66, 0x01
	default:
		return ecdh.P256(), 32, 0xff
	}
}

// uncompressed is what SEC 1 2.3.3 puts in front of x and y.
var uncompressed = []byte{4}

// draws bounds the search for a private value. One draw is refused with a
// probability below 2^-32, so this many say that the reader is broken.
const draws = 16

var errBrokenReader = errors.New("ike/keys: no private value in what the random reader gives")

// exchange is one without values.
func (n nist) exchange() *ecdhExchange {
	return &ecdhExchange{method: proposal.KE(n), prefix: uncompressed, rfc: "RFC 5903 7"}
}

func (n nist) begin(rand io.Reader) (Exchange, error) {
	curve, size, top := n.curve()
	for range draws {
		seed, err := draw(rand, size)
		if err != nil {
			return nil, err
		}
		seed[0] &= top
		// It refuses zero and the order and above: what is left is uniform.
		private, err := curve.NewPrivateKey(seed)
		clear(seed)
		if err != nil {
			continue
		}
		public := private.PublicKey().Bytes()[len(uncompressed):]
		x := n.exchange()
		x.private, x.public = private, public
		return x, nil
	}
	return nil, errBrokenReader
}

func (n nist) respond(rand io.Reader, peer []byte) (public, secret []byte, err error) {
	// The check is cheap and two multiplications are not: a stranger pays first.
	curve, size, _ := n.curve()
	if _, err := n.exchange().point(curve, peer, 2*size); err != nil {
		return nil, nil, err
	}
	x, err := n.begin(rand)
	if err != nil {
		return nil, nil, err
	}
	return both(x, peer)
}
