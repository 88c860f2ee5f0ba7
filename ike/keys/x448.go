package keys

import (
	"io"

	"github.com/cloudflare/circl/dh/x448"

	"github.com/adit-ipsec/adit/ike/proposal"
)

// x448Scheme is Curve448 (RFC 8031 3.1): 56 bytes either way.
type x448Scheme struct{}

type x448Exchange struct {
	private, public x448.Key
	spent           bool
}

func (x448Scheme) begin(rand io.Reader) (Exchange, error) {
	seed, err := draw(rand, x448.Size)
	if err != nil {
		return nil, err
	}
	defer clear(seed)
	x := &x448Exchange{private: x448.Key(seed)}
	x448.KeyGen(&x.public, &x.private)
	return x, nil
}

func (s x448Scheme) respond(rand io.Reader, peer []byte) (public, secret []byte, err error) {
	if len(peer) != x448.Size {
		return nil, nil, wrongLength(proposal.KEX448, len(peer), x448.Size, "RFC 8031 3.1")
	}
	x, err := s.begin(rand)
	if err != nil {
		return nil, nil, err
	}
	return both(x, peer)
}

func (x *x448Exchange) Public() []byte { return x.public[:] }

func (x *x448Exchange) Discard() {
	clear(x.private[:])
	x.spent = true
}

func (x *x448Exchange) Finish(peer []byte) ([]byte, error) {
	if x.spent {
		return nil, ErrSpent
	}
	if len(peer) != x448.Size {
		return nil, wrongLength(proposal.KEX448, len(peer), x448.Size, "RFC 8031 3.1")
	}
	theirs := x448.Key(peer)
	var secret x448.Key
	if !x448.Shared(&secret, &x.private, &theirs) {
		return nil, &PeerValueError{proposal.KEX448, "it is of low order: the secret would be zero (RFC 7748 6.2)"}
	}
	x.Discard()
	return secret[:], nil
}
