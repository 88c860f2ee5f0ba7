package keys

import (
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/adit-ipsec/adit/ike/proposal"
	"github.com/adit-ipsec/adit/ike/wire"
	"github.com/adit-ipsec/adit/sad"
)

// SK is the seven keys of an IKE SA and the ciphers made of them, by Derive,
// Rekeyed, Mixed or WithPPK. "Initiator" is the end that sent the first message of
// this IKE SA: after a rekey, the one that started the rekey. However an SK is
// printed, it shows nothing. The zero value, and nil, are as if wiped. It is not safe
// for concurrent use.
type SK struct {
	redacted
	keys func() *secrets // see veil
}

type secrets struct {
	choice    proposal.Choice
	prf       proposal.PRF
	d, pi, pr sad.Key
	messages  *messages
}

// live is the keys, or nil if they were wiped.
func (k *SK) live() *secrets {
	if k == nil || k.keys == nil || k.keys().d == nil {
		return nil
	}
	return k.keys()
}

// protection is what protects messages, or nil if it was wiped.
func (k *SK) protection() *messages {
	if s := k.live(); s != nil {
		return s.messages
	}
	return nil
}

// Derive makes the keys of a new IKE SA. RFC 7296 2.14:
//
//	SKEYSEED = prf(Ni | Nr, g^ir)
//	{SK_d | SK_ai | SK_ar | SK_ei | SK_er | SK_pi | SK_pr}
//	                = prf+ (SKEYSEED, Ni | Nr | SPIi | SPIr)
//
// shared is wiped by its owner. The error is an *UnsupportedError, or a nonce's.
func Derive(c proposal.Choice, shared, ni, nr []byte, spii, spir wire.SPI) (*SK, error) {
	if err := checkChoice(c, ni, nr); err != nil {
		return nil, err
	}
	nonces := join(ni, nr)
	skeyseed, err := extract(c.PRF(), nonces, shared)
	if err != nil {
		return nil, err
	}
	return spread(c, skeyseed, ni, nr, spii, spir)
}

// Rekeyed makes the keys of the IKE SA that replaces this one. RFC 7296 2.18:
//
//	SKEYSEED = prf(SK_d (old), g^ir (new) | Ni | Nr)
//
// "it is the old IKE SA's PRF that is used to generate SKEYSEED"; the rest is by
// the new one. c, nonces and SPIs are those of the new SA. more are the secrets of
// additional key exchanges in their order, RFC 9370 2.2.4:
//
//	SKEYSEED = prf(SK_d, SK(0) | Ni | Nr | SK(1) | ... SK(n))
func (k *SK) Rekeyed(c proposal.Choice, shared, ni, nr []byte, spii, spir wire.SPI, more ...[]byte) (*SK, error) {
	s := k.live()
	if s == nil {
		return nil, errWiped
	}
	if err := checkChoice(c, ni, nr); err != nil {
		return nil, err
	}
	parts := append([][]byte{shared, ni, nr}, more...)
	return spread(c, PRF(s.prf, s.d, parts...), ni, nr, spii, spir)
}

// Mixed makes the keys that an IKE_INTERMEDIATE exchange with a key exchange
// leaves, secret being what that key exchange gave. RFC 9370 2.2.2:
//
//	SKEYSEED(n) = prf(SK_d(n-1), SK(n) | Ni | Nr)
//	{SK_d(n) | SK_ai(n) | SK_ar(n) | SK_ei(n) | SK_er(n) | SK_pi(n) | SK_pr(n)}
//	                = prf+ (SKEYSEED(n), Ni | Nr | SPIi | SPIr)
//
// Nonces and SPIs are those of IKE_SA_INIT. The old keys are still needed for
// IntAuth of this exchange; then their owner wipes them.
func (k *SK) Mixed(secret, ni, nr []byte, spii, spir wire.SPI) (*SK, error) {
	s := k.live()
	if s == nil {
		return nil, errWiped
	}
	if err := checkChoice(s.choice, ni, nr); err != nil {
		return nil, err
	}
	return spread(s.choice, PRF(s.prf, s.d, secret, ni, nr), ni, nr, spii, spir)
}

// WithPPK mixes a post-quantum preshared key in. RFC 8784 3, the primes marking
// what was before:
//
//	SK_d  = prf+ (PPK, SK_d')
//	SK_pi = prf+ (PPK, SK_pi')
//	SK_pr = prf+ (PPK, SK_pr')
//
// What protects messages stays, so that the two SKs share it, and its counters with
// it: messages may be sealed by either. Both are to be wiped; the shared keys go
// with the last. A wiped SK gives a wiped one.
func (k *SK) WithPPK(ppk []byte) *SK {
	old := k.live()
	if old == nil {
		return &SK{}
	}
	s := *old
	for _, key := range []*sad.Key{&s.d, &s.pi, &s.pr} {
		*key = mustExpand(s.prf, len(*key), ppk, *key)
	}
	s.messages.users++
	return &SK{keys: veil(&s)}
}

// ChildKeys are the keys of one direction of a pair of Child SAs, in the form of
// sad.Params: the encryption key has its salt behind it.
type ChildKeys struct{ Encryption, Integrity sad.Key }

// Wipe overwrites both keys.
func (c ChildKeys) Wipe() {
	c.Encryption.Wipe()
	c.Integrity.Wipe()
}

// ChildKeys makes the keys of a pair of Child SAs; lengths in bytes. RFC 7296 2.17:
//
//	KEYMAT = prf+(SK_d, Ni | Nr)
//	KEYMAT = prf+(SK_d, g^ir (new) | Ni | Nr)
//
// and with additional key exchanges, RFC 9370 2.2.4:
//
//	KEYMAT = prf+ (SK_d, SK(0) | Ni | Nr | SK(1) | ... SK(n))
//
// secrets are SK(0), SK(1)...; none where the exchange had none. "All keys for SAs
// carrying data from the initiator to the responder are taken before SAs going from
// the responder to the initiator", and "the encryption key (if any) MUST be taken
// from the first bits and the integrity key (if any) MUST be taken from the
// remaining bits". Initiator
// is the end that started the exchange that makes the Child SA. A wiped SK gives
// nothing: keys of length zero, which no SA takes.
func (k *SK) ChildKeys(encLen, integLen int, ni, nr []byte, secrets ...[]byte) (initiator, responder ChildKeys) {
	s := k.live()
	if s == nil {
		return ChildKeys{}, ChildKeys{}
	}
	base := min(len(secrets), 1)
	parts := slices.Concat(secrets[:base], [][]byte{ni, nr}, secrets[base:])
	keymat := mustExpand(s.prf, 2*(encLen+integLen), s.d, parts...)
	defer clear(keymat)
	take := taker(keymat)
	initiator = ChildKeys{take(encLen), take(integLen)}
	responder = ChildKeys{take(encLen), take(integLen)}
	return initiator, responder
}

// IntAuth goes on with the chain that authenticates IKE_INTERMEDIATE: previous is
// its last value for messages of this end, nil before the first. RFC 9242 3.3.2:
//
//	IntAuth_i1 = prf(SK_pi1,              IntAuth_i1A [| IntAuth_i1P])
//	IntAuth_i2 = prf(SK_pi2, IntAuth_i1 | IntAuth_i2A [| IntAuth_i2P])
//
// and so for the responder with SK_pr, by the keys that protect the message. A is
// the message as far as the generic header of the Encrypted payload, both lengths
// set as if the content were in clear and without IV, padding and ICV, and as if it
// had not been fragmented; P is that content. h and before are the header and the
// payloads in front of the Encrypted payload, first and inner what is in it. A
// wiped SK gives nil.
func (k *SK) IntAuth(initiator bool, previous []byte, h wire.Header, before []wire.Payload, first wire.PayloadType, inner []byte) []byte {
	s, key := k.live(), k.AuthKey(initiator)
	if key == nil {
		return nil
	}
	a := wire.BeginProtected(h, before, wire.Protected{First: first}, len(inner))
	return PRF(s.prf, key, previous, a, inner)
}

// IntAuthOctets is what the octets that AUTH signs end in. RFC 9242 3.3.2:
//
//	IntAuth = IntAuth_iN | IntAuth_rN | IKE_AUTH_MID
//
// id being the Message ID of the first IKE_AUTH request. Without IKE_INTERMEDIATE
// (both nil) there is nothing to add: nil.
func IntAuthOctets(initiator, responder []byte, id uint32) []byte {
	if initiator == nil && responder == nil {
		return nil
	}
	return binary.BigEndian.AppendUint32(join(initiator, responder), id)
}

// AuthKey is SK_pi or SK_pr, for AUTH payloads. It is the SK's, and goes with Wipe.
func (k *SK) AuthKey(initiator bool) sad.Key {
	s := k.live()
	switch {
	case s == nil:
		return nil
	case initiator:
		return s.pi
	}
	return s.pr
}

// Choice is what was negotiated for the IKE SA; the zero value after Wipe.
func (k *SK) Choice() proposal.Choice {
	if s := k.live(); s != nil {
		return s.choice
	}
	return proposal.Choice{}
}

// PRF is the negotiated PRF; 0 after Wipe.
func (k *SK) PRF() proposal.PRF { return k.Choice().PRF() }

// Wipe overwrites the keys and lets go of the ciphers. After it Seal returns nil and
// Open an error. It may be called again.
func (k *SK) Wipe() {
	s := k.live()
	if s == nil {
		return
	}
	for _, key := range []sad.Key{s.d, s.pi, s.pr} {
		key.Wipe()
	}
	s.messages.release()
	*s = secrets{}
}

// spread is the second half of Derive. It wipes skeyseed.
func spread(c proposal.Choice, skeyseed, ni, nr []byte, spii, spir wire.SPI) (*SK, error) {
	defer clear(skeyseed)
	p, suite := c.PRF(), suiteOf(c)
	n := PRFLen(p)
	var spis [16]byte
	binary.BigEndian.PutUint64(spis[:], uint64(spii))
	binary.BigEndian.PutUint64(spis[8:], uint64(spir))
	all, err := PRFPlus(p, 3*n+2*(suite.integLen+suite.encLen()), skeyseed, ni, nr, spis[:])
	if err != nil {
		return nil, err
	}
	defer clear(all)
	take := taker(all)
	s := &secrets{choice: c, prf: p, d: take(n)}
	ai, ar := take(suite.integLen), take(suite.integLen)
	ei, er := take(suite.encLen()), take(suite.encLen())
	s.pi, s.pr = take(n), take(n)
	s.messages, err = newMessages(suite, ei, ai, er, ar)
	if err != nil {
		return nil, err
	}
	return &SK{keys: veil(s)}, nil
}

// checkChoice refuses what Derive cannot do.
func checkChoice(c proposal.Choice, ni, nr []byte) error {
	if PRFLen(c.PRF()) == 0 {
		return &UnsupportedError{"PRF " + c.PRF().String()}
	}
	if suiteOf(c) == nil {
		encr, bits := c.Encr()
		return &UnsupportedError{fmt.Sprintf("encryption %s of %d bits with integrity %s", encr, bits, c.Integ())}
	}
	for _, nonce := range [][]byte{ni, nr} {
		if err := CheckNonce(c.PRF(), nonce); err != nil {
			return err
		}
	}
	return nil
}

// taker cuts keys off the front of b, each in memory of its own.
func taker(b []byte) func(n int) sad.Key {
	return func(n int) sad.Key {
		key := make(sad.Key, n)
		b = b[copy(key, b):]
		return key
	}
}
