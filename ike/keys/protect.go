package keys

import (
	"crypto/cipher"
	"encoding/binary"
	"errors"
	"io"
	"math"

	"github.com/adit-ipsec/adit/ike/wire"
	"github.com/adit-ipsec/adit/sad"
)

// ErrOpen is all that Open says: what was wrong would help nobody but a forger.
var ErrOpen = errors.New("ike/keys: the message is not authentic")

var errWiped = errors.New("ike/keys: the keys were wiped")

// messages is what protects the messages of an IKE SA. Several SKs may share it.
type messages struct {
	suite *suite
	users int // SKs that have not been wiped

	initiator, responder direction // by who sends
}

// direction is what protects the messages of one end.
type direction struct {
	encr, integ sad.Key
	protector   protector
	counter     uint64 // the next IV, where IVs count
}

// protector is a keyed suite. iv has the suite's length and text is a multiple of
// its block.
type protector interface {
	// seal appends the encrypted text and the ICV over aad, iv and that to dst.
	seal(dst, aad, iv, text []byte) []byte
	// open returns the text in a buffer of its own, having compared the ICV first.
	open(aad, iv, sealed []byte) (text []byte, ok bool)
}

func newMessages(s *suite, ei, ai, er, ar sad.Key) (*messages, error) {
	m := &messages{suite: s, users: 1, initiator: direction{encr: ei, integ: ai}, responder: direction{encr: er, integ: ar}}
	for _, d := range []*direction{&m.initiator, &m.responder} {
		p, err := s.key(d.encr, d.integ)
		if err != nil {
			return nil, err
		}
		d.protector = p
	}
	return m, nil
}

// release is Wipe of one of the SKs that share m.
func (m *messages) release() {
	if m.users--; m.users > 0 {
		return
	}
	for _, d := range []*direction{&m.initiator, &m.responder} {
		d.encr.Wipe()
		d.integ.Wipe()
		*d = direction{}
	}
}

func (m *messages) of(initiator bool) *direction {
	if initiator {
		return &m.initiator
	}
	return &m.responder
}

// SealedLen is the length in bytes of what Seal appends for inner bytes: IV,
// encrypted text with padding and pad length, ICV. 0 after Wipe.
func (k *SK) SealedLen(inner int) int {
	m := k.protection()
	if m == nil {
		return 0
	}
	s := m.suite
	return s.ivLen + inner + s.padLen(inner) + 1 + s.icvLen
}

// MaxInner is the largest inner in bytes whose SealedLen is at most sealed, or -1
// if there is none: what fits into a fragment (RFC 7383 2.5).
func (k *SK) MaxInner(sealed int) int {
	m := k.protection()
	if m == nil {
		return -1
	}
	s := m.suite
	text := sealed - s.ivLen - s.icvLen
	if text < s.block {
		return -1
	}
	return text - text%s.block - 1
}

// Seal protects a message or a fragment of one, sent by the initiator or the
// responder. dst is wire.BeginProtected's: from the IKE header to the header of the
// SK or SKF payload. All of it is authenticated (RFC 7296 3.14, RFC 5282 5.1,
// RFC 7383 2.5), so its lengths must count SealedLen(len(inner))
// already. IV, encrypted text and ICV are appended, in dst's memory if there is
// room. inner, which may be empty, is only read and may lie anywhere.
//
// Each call draws an IV that was not used before: sealing the same message again
// gives other bytes, and a retransmission (RFC 7296 2.1) must be the bytes of the
// first time. nil, which must not be sent, says that rand failed or that the keys
// were wiped.
func (k *SK) Seal(initiator bool, dst, inner []byte, rand io.Reader) []byte {
	m := k.protection()
	if m == nil {
		return nil
	}
	d := m.of(initiator)
	iv, err := d.iv(m.suite, rand)
	if err != nil {
		return nil
	}
	// RFC 7296 3.14: "Padding MAY contain any value chosen by the sender": zeros.
	// "The sender SHOULD set the Pad Length to the minimum value that makes the
	// combination of the payloads, the Padding, and the Pad Length a multiple of
	// the block size". RFC 5282 3: with a counter mode there is no need of any.
	pad := m.suite.padLen(len(inner))
	text := make([]byte, len(inner)+pad+1)
	copy(text, inner)
	text[len(text)-1] = byte(pad)
	defer clear(text)
	header := dst[:len(dst):len(dst)]
	return d.protector.seal(append(dst, iv...), header, iv, text)
}

// errIVs ends a direction before its counter repeats; 2^64 messages are never
// sent, since a Message ID has 32 bits and a message at most 2^16 fragments.
var errIVs = errors.New("ike/keys: all IVs are used")

// iv is the IV of the next message. RFC 5282 3.1: it "MUST be chosen by the
// encryptor in a manner that ensures that the same IV value is used only once for a
// given key"; RFC 7634 and RFC 5930 want the same. So it counts, from 0. RFC 7296
// 3.14 of a block mode: "Senders MUST select a new unpredictable IV for every
// message"; it is random.
func (d *direction) iv(s *suite, rand io.Reader) ([]byte, error) {
	if s.block > 1 {
		return draw(rand, s.ivLen)
	}
	if d.counter == math.MaxUint64 {
		return nil, errIVs
	}
	d.counter++
	return binary.BigEndian.AppendUint64(nil, d.counter-1), nil
}

// Open returns the payloads inside a message or a fragment that the initiator or
// the responder sent, in a buffer of its own; the message is left as it is. The ICV
// comes first. The error is always ErrOpen, after Wipe too.
func (k *SK) Open(fromInitiator bool, m *wire.Message) ([]byte, error) {
	keyed := k.protection()
	if keyed == nil || m == nil || m.Protected == nil {
		return nil, ErrOpen
	}
	s, p := keyed.suite, m.Protected
	if p.AAD < 0 || p.AAD > len(m.Raw) {
		return nil, ErrOpen
	}
	text := len(p.Body) - s.ivLen - s.icvLen
	if text < s.block || text%s.block != 0 {
		return nil, ErrOpen
	}
	clear, ok := keyed.of(fromInitiator).protector.open(m.Raw[:p.AAD], p.Body[:s.ivLen], p.Body[s.ivLen:])
	if !ok {
		return nil, ErrOpen
	}
	// RFC 7296 3.14: "the recipient MUST accept any length that results in proper
	// alignment", and any padding bytes.
	pad := int(clear[len(clear)-1])
	if pad+1 > len(clear) {
		return nil, ErrOpen
	}
	return clear[:len(clear)-1-pad], nil
}

// combined is an AEAD of RFC 5282 or RFC 7634: the nonce is the salt, then the IV.
type combined struct {
	aead cipher.AEAD
	salt []byte
}

func (c *combined) nonce(iv []byte) []byte { return join(c.salt, iv) }

func (c *combined) seal(dst, aad, iv, text []byte) []byte {
	return c.aead.Seal(dst, c.nonce(iv), text, aad)
}

func (c *combined) open(aad, iv, sealed []byte) ([]byte, bool) {
	text, err := c.aead.Open(nil, c.nonce(iv), sealed, aad)
	return text, err == nil
}
