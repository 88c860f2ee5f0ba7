package keys

import (
	"crypto/mlkem"
	"io"

	"github.com/adit-ipsec/adit/ike/proposal"
)

// ML-KEM (FIPS 203) in IKEv2: the initiator sends an encapsulation key, the
// responder a ciphertext; both have a secret of 32 bytes
// (draft-ietf-ipsecme-ikev2-mlkem). The two sizes are the standard library's two sets of types.
type (
	mlkem768Scheme  struct{}
	mlkem1024Scheme struct{}
)

// rfcMLKEM is what the errors name.
const rfcMLKEM = "FIPS 203 7"

// decapsulator is what the two sizes of decapsulation key have in common.
type decapsulator interface {
	Decapsulate(ciphertext []byte) (sharedKey []byte, err error)
}

type mlkemExchange struct {
	method     proposal.KE
	private    decapsulator
	public     []byte
	ciphertext int // bytes of the answer
}

func (mlkem768Scheme) begin(rand io.Reader) (Exchange, error) {
	seed, err := draw(rand, mlkem.SeedSize)
	if err != nil {
		return nil, err
	}
	defer clear(seed)
	key, err := mlkem.NewDecapsulationKey768(seed)
	if err != nil {
		return nil, err
	}
	return &mlkemExchange{method: proposal.KEMLKEM768, private: key, public: key.EncapsulationKey().Bytes(), ciphertext: mlkem.CiphertextSize768}, nil
}

func (mlkem1024Scheme) begin(rand io.Reader) (Exchange, error) {
	seed, err := draw(rand, mlkem.SeedSize)
	if err != nil {
		return nil, err
	}
	defer clear(seed)
	key, err := mlkem.NewDecapsulationKey1024(seed)
	if err != nil {
		return nil, err
	}
	return &mlkemExchange{method: proposal.KEMLKEM1024, private: key, public: key.EncapsulationKey().Bytes(), ciphertext: mlkem.CiphertextSize1024}, nil
}

func (x *mlkemExchange) Public() []byte { return x.public }

func (x *mlkemExchange) Discard() { x.private = nil }

// Finish takes every ciphertext of the right length: FIPS 203 6.3 rejects
// implicitly, a wrong one gives a secret that the peer does not have.
func (x *mlkemExchange) Finish(peer []byte) ([]byte, error) {
	if x.private == nil {
		return nil, ErrSpent
	}
	if len(peer) != x.ciphertext {
		return nil, wrongLength(x.method, len(peer), x.ciphertext, rfcMLKEM+".3")
	}
	secret, err := x.private.Decapsulate(peer)
	if err != nil {
		return nil, &PeerValueError{x.method, "it is no ciphertext (" + rfcMLKEM + ".3)"}
	}
	x.private = nil
	return secret, nil
}

// The responder's random bytes are crypto/rand's: crypto/mlkem takes no reader.

func (mlkem768Scheme) respond(_ io.Reader, peer []byte) (public, secret []byte, err error) {
	if len(peer) != mlkem.EncapsulationKeySize768 {
		return nil, nil, wrongLength(proposal.KEMLKEM768, len(peer), mlkem.EncapsulationKeySize768, rfcMLKEM+".2")
	}
	key, err := mlkem.NewEncapsulationKey768(peer)
	if err != nil {
		return nil, nil, notReduced(proposal.KEMLKEM768)
	}
	secret, public = key.Encapsulate()
	return public, secret, nil
}

func (mlkem1024Scheme) respond(_ io.Reader, peer []byte) (public, secret []byte, err error) {
	if len(peer) != mlkem.EncapsulationKeySize1024 {
		return nil, nil, wrongLength(proposal.KEMLKEM1024, len(peer), mlkem.EncapsulationKeySize1024, rfcMLKEM+".2")
	}
	key, err := mlkem.NewEncapsulationKey1024(peer)
	if err != nil {
		return nil, nil, notReduced(proposal.KEMLKEM1024)
	}
	secret, public = key.Encapsulate()
	return public, secret, nil
}

// notReduced is the modulus check of FIPS 203 7.2.
func notReduced(method proposal.KE) error {
	return &PeerValueError{method, "a coefficient is not below q (" + rfcMLKEM + ".2, modulus check)"}
}
