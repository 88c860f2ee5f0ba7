package keys

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"

	"github.com/adit-ipsec/adit/ike/proposal"
)

// Exchange is the initiator's half of a key exchange: made by Begin, good for one
// secret. It is not safe for concurrent use.
type Exchange interface {
	// Public is what the KE payload carries. The caller may keep it and must
	// not change it.
	Public() []byte

	// Finish returns the shared secret, which is the caller's, and wipes the
	// private half. peer is the Key Exchange Data of the answer; if it is one
	// that an RFC refuses, the error is a *PeerValueError and the private half
	// stays: anybody can forge an answer to IKE_SA_INIT, and the true one may
	// still come. After success, or Discard, the error is ErrSpent.
	Finish(peer []byte) (secret []byte, err error)

	// Discard wipes the private half of an exchange that came to nothing.
	Discard()
}

// ErrSpent is what Finish says of an exchange that was finished or discarded.
var ErrSpent = errors.New("ike/keys: the key exchange was finished before")

// PeerValueError says why a peer's public value is refused.
type PeerValueError struct {
	Method proposal.KE
	Why    string // what is wrong, and the RFC that says so; without the value
}

func (e *PeerValueError) Error() string {
	return fmt.Sprintf("ike/keys: the peer's %s public value is refused: %s", e.Method, e.Why)
}

// UnsupportedError is an algorithm that this package does not have. Whoever
// offers only what Methods lists, and suites that ike/proposal offers for IKE,
// never sees it.
type UnsupportedError struct{ What string }

func (e *UnsupportedError) Error() string { return "ike/keys: no " + e.What }

// scheme is a way to agree on a secret.
type scheme interface {
	begin(rand io.Reader) (Exchange, error)
	respond(rand io.Reader, peer []byte) (public, secret []byte, err error)
}

// schemes has the groups that RFC 8247 2.4 does not advise against, and what it says
// nothing of: the larger MODP groups, Curve448, ML-KEM. Nothing weaker is here for
// anybody to allow.
var schemes = map[proposal.KE]scheme{
	proposal.KEModp2048:  modpScheme{newMODP(proposal.KEModp2048, prime2048, 320)},
	proposal.KEModp3072:  modpScheme{newMODP(proposal.KEModp3072, prime3072, 424)},
	proposal.KEModp4096:  modpScheme{newMODP(proposal.KEModp4096, prime4096, 480)},
	proposal.KEModp6144:  modpScheme{newMODP(proposal.KEModp6144, prime6144, 544)},
	proposal.KEModp8192:  modpScheme{newMODP(proposal.KEModp8192, prime8192, 624)},
	proposal.KEECP256:    nist(proposal.KEECP256),
	proposal.KEECP384:    nist(proposal.KEECP384),
	proposal.KEECP521:    nist(proposal.KEECP521),
	proposal.KEX25519:    x25519Scheme{},
	proposal.KEX448:      x448Scheme{},
	proposal.KEMLKEM768:  mlkem768Scheme{},
	proposal.KEMLKEM1024: mlkem1024Scheme{},
}

// Methods lists the key exchange methods, by number.
func Methods() []proposal.KE { return slices.Sorted(maps.Keys(schemes)) }

// Begin makes the initiator's half: for a Diffie-Hellman group a private and a
// public value, for ML-KEM a decapsulation and an encapsulation key. The error is
// an *UnsupportedError or what rand said.
func Begin(method proposal.KE, rand io.Reader) (Exchange, error) {
	s := schemes[method]
	if s == nil {
		return nil, &UnsupportedError{"key exchange method " + method.String()}
	}
	x, err := s.begin(rand)
	if err != nil {
		return nil, err
	}
	return veiled{x: veil(x)}, nil
}

// Respond is the responder's half. peer is the initiator's Key Exchange Data; it
// is checked as its RFC wants, and the error is then a *PeerValueError. The secret
// is the caller's.
func Respond(method proposal.KE, rand io.Reader, peer []byte) (public, secret []byte, err error) {
	s := schemes[method]
	if s == nil {
		return nil, nil, &UnsupportedError{"key exchange method " + method.String()}
	}
	return s.respond(rand, peer)
}

// draw takes n bytes from the reader; nil is crypto/rand.
func draw(r io.Reader, n int) ([]byte, error) {
	if r == nil {
		r = rand.Reader
	}
	b := make([]byte, n)
	if _, err := io.ReadFull(r, b); err != nil {
		clear(b)
		return nil, fmt.Errorf("ike/keys: no randomness: %w", err)
	}
	return b, nil
}

// wrongLength is what a peer's value of another length than it must have is.
func wrongLength(method proposal.KE, got, want int, rfc string) error {
	return &PeerValueError{method, fmt.Sprintf("it has %d bytes, not %d (%s)", got, want, rfc)}
}

// both is the responder's half where it is made as the initiator's is: in every
// Diffie-Hellman group.
func both(x Exchange, peer []byte) (public, secret []byte, err error) {
	defer x.Discard()
	secret, err = x.Finish(peer)
	if err != nil {
		return nil, nil, err
	}
	return x.Public(), secret, nil
}
