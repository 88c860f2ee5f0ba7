package esp

import (
	"crypto/aes"
	"crypto/cipher"
	"encoding/binary"
	"fmt"
	"io"
	"unsafe"

	"golang.org/x/crypto/chacha20poly1305"

	"github.com/adit-ipsec/adit/internal/crypt"
)

// Transform protects the packets of one security association in one direction.
// It is immutable and safe for concurrent use, each worker with its own
// Scratch. It never prints its keys.
type Transform struct {
	suite Suite
	d     description // a copy: one cache line less far
	esn   bool
	codec codec
}

// codec is what differs between suites. It is handed runs of packets, so that
// one with a multi-buffer kernel may work on several at once.
//
// seal: the header is written and text holds payload, padding and trailer,
// either at its place in wire or outside wire. It writes IV, encrypted text and
// ICV.
//
// open: text is the encrypted text at its place in wire, a positive multiple of
// the alignment. It decrypts in place and sets ok where the ICV is right; where
// it is not, no decrypted byte may be left in wire.
type codec interface {
	seal(sc *Scratch, run []job)
	open(sc *Scratch, run []job)
}

// job is one packet inside a codec.
type job struct {
	packet *Packet
	seq    uint64
	wire   []byte
	text   []byte
	ok     bool
}

// begin sets a job's fields one by one: a struct literal would be made on the
// stack first, and copied from there while its words are still being written.
func (j *job) begin(p *Packet, text []byte) {
	j.packet = p
	j.seq = p.Seq
	j.wire = p.Wire
	j.text = text
	j.ok = false
}

// New returns the transform of a suite with its keys. Their lengths must be
// exactly those of Suite.KeyLen; a suite without an integrity key takes an
// empty one. The keys are copied or turned into schedules: the caller may wipe
// the slices as soon as New returns. esn: extended (64-bit) sequence numbers.
func New(s Suite, encryptionKey, integrityKey []byte, esn bool) (*Transform, error) {
	if !s.Valid() {
		return nil, fmt.Errorf("esp: %s: take one from Suites or ParseSuite", s)
	}
	encryption, integrity := s.KeyLen()
	if len(encryptionKey) != encryption {
		return nil, fmt.Errorf("esp: %s takes an encryption key of %d bytes%s, not %d", s, encryption, s.row().keyParts(), len(encryptionKey))
	}
	if len(integrityKey) != integrity {
		return nil, fmt.Errorf("esp: %s takes an integrity key of %d bytes, not %d", s, integrity, len(integrityKey))
	}
	t := &Transform{suite: s, d: *s.row(), esn: esn}
	var err error
	t.codec, err = newCodec(&t.d, encryptionKey, integrityKey, esn)
	if err != nil {
		return nil, fmt.Errorf("esp: %s: %w", s, err)
	}
	return t, nil
}

// keyParts explains an encryption key that is more than a cipher key.
func (d *description) keyParts() string {
	switch {
	case d.saltLen == 0:
		return ""
	case d.mode == modeCTR:
		return fmt.Sprintf(" (%d of key, then %d of nonce)", d.keyLen, d.saltLen)
	}
	return fmt.Sprintf(" (%d of key, then %d of salt)", d.keyLen, d.saltLen)
}

// newCodec builds the codec of a row; the key lengths are validated.
func newCodec(d *description, encryptionKey, integrityKey []byte, esn bool) (codec, error) {
	key, salt := encryptionKey[:d.keyLen], encryptionKey[d.keyLen:]
	switch d.mode {
	case modeChaCha20:
		aead, err := chacha20poly1305.New(key)
		return newAEADCodec(aead, salt, esn), err
	case modeGCM:
		aead, err := crypt.NewGCM(key, d.icvLen)
		return newAEADCodec(aead, salt, esn), err
	case modeGCM8:
		aead, err := crypt.NewGCM(key, aes.BlockSize)
		return newGCM8Codec(aead, salt, esn), err
	case modeGMAC:
		aead, err := crypt.NewGCM(key, d.icvLen)
		return newGMACCodec(aead, salt, esn), err
	}
	var block cipher.Block
	var err error
	if d.mode != modeNull {
		if block, err = aes.NewCipher(key); err != nil {
			return nil, err
		}
	}
	if d.mode == modeCCM {
		return newCCMCodec(block, salt, d.icvLen, esn)
	}
	return newHMACCodec(d, block, salt, integrityKey, esn)
}

// Suite is what New was given.
func (t *Transform) Suite() Suite { return t.suite }

// ESN tells whether sequence numbers are extended.
func (t *Transform) ESN() bool { return t.esn }

// Format prints the suite's name for every verb: key schedules never reach a
// log.
func (t *Transform) Format(f fmt.State, _ rune) {
	_, _ = io.WriteString(f, "esp.Transform("+t.suite.String()+")")
}

// Seal protects a batch of packets of this SA in order. Each packet's Err says
// what became of it; after an error its Wire is empty.
//
// RFC 4303 3.3.3 and RFC 4106 3.1: the caller never hands the same Seq to a
// transform twice, nor to another one with the same key: in the counter modes
// that would give the key away.
func (t *Transform) Seal(sc *Scratch, spi uint32, batch []Packet) {
	for len(batch) > 0 {
		n := min(len(batch), runLen)
		run := sc.jobs[:0]
		for i := range batch[:n] {
			p := &batch[i]
			text, err := t.frame(spi, p)
			p.Err = err
			if err != nil {
				p.Wire = p.Wire[:0]
				continue
			}
			run = run[:len(run)+1]
			run[len(run)-1].begin(p, text)
		}
		t.codec.seal(sc, run)
		batch = batch[n:]
	}
}

// frame cuts Wire, writes the header into it and the trailer behind the
// payload, and returns the text to be encrypted where it lies.
func (t *Transform) frame(spi uint32, p *Packet) (text []byte, err error) {
	// RFC 4303 3.3.3: the first packet has number 1, and "the sender MUST
	// NOT send a packet on an SA if doing so would cause the sequence number
	// to cycle".
	if p.Seq == 0 || !t.esn && p.Seq>>32 != 0 {
		return nil, ErrSequence
	}
	n := len(p.Payload)
	pad := t.d.padLen(n)
	textLen := n + pad + trailerLen
	start := HeaderLen + t.d.ivLen
	total := start + textLen + t.d.icvLen
	if len(p.Wire) < total {
		return nil, ErrRoom
	}
	text = p.Wire[start : start+textLen]
	if !samePlace(p.Payload, text) && cap(p.Payload) > 0 {
		reach := n + pad + trailerLen + t.d.icvLen
		if cap(p.Payload) < reach || overlap(p.Payload[:reach], p.Wire) {
			return nil, ErrRoom
		}
		text = p.Payload[:textLen]
	}
	p.Wire = p.Wire[:total]
	binary.BigEndian.PutUint32(p.Wire, spi)
	binary.BigEndian.PutUint32(p.Wire[4:], uint32(p.Seq))
	copy(text[n:], padding[:pad])
	text[textLen-2] = byte(pad)
	text[textLen-1] = p.NextHeader
	return text, nil
}

// Open verifies and decrypts a batch of packets of this SA, in place. Packets
// whose Err is set are skipped. Each packet's Err says what became of it;
// Payload and NextHeader are set only where it is nil.
func (t *Transform) Open(sc *Scratch, batch []Packet) {
	for len(batch) > 0 {
		n := min(len(batch), runLen)
		run := sc.jobs[:0]
		for i := range batch[:n] {
			p := &batch[i]
			if p.Err != nil {
				continue
			}
			p.Payload = nil
			text, err := t.unframe(p)
			if err != nil {
				p.Err = err
				continue
			}
			run = run[:len(run)+1]
			run[len(run)-1].begin(p, text)
		}
		t.codec.open(sc, run)
		for i := range run {
			run[i].finish()
		}
		batch = batch[n:]
	}
}

// unframe checks what can be checked without a key and returns the encrypted
// text at its place in Wire.
func (t *Transform) unframe(p *Packet) (text []byte, err error) {
	start := HeaderLen + t.d.ivLen
	n := len(p.Wire) - start - t.d.icvLen
	// RFC 4303 2.4: padding makes the text a multiple of the cipher's block
	// and right-aligns the trailer "within a 4-byte word".
	if n < t.d.align || n&(t.d.align-1) != 0 {
		return nil, ErrMalformed
	}
	// What is authenticated is what the window will mark.
	if binary.BigEndian.Uint32(p.Wire[4:]) != uint32(p.Seq) || !t.esn && p.Seq>>32 != 0 {
		return nil, ErrAuth
	}
	return p.Wire[start : start+n], nil
}

// finish takes the trailer off an opened packet. RFC 4303 2.4: "When
// this padding scheme is employed, the receiver SHOULD inspect the Padding
// field." This one always does.
func (j *job) finish() {
	p := j.packet
	if !j.ok {
		p.Err = ErrAuth
		return
	}
	end := len(j.text) - trailerLen
	pad := int(j.text[end])
	if pad > end || string(j.text[end-pad:end]) != string(padding[:pad]) {
		p.Err = ErrPadding
		return
	}
	p.NextHeader = j.text[end+1]
	p.Payload = j.text[:end-pad]
}

// samePlace tells whether a's memory, of whatever length, starts where b does.
func samePlace(a, b []byte) bool {
	return cap(a) > 0 && len(b) > 0 && &a[:1][0] == &b[0]
}

// overlap tells whether a and b, neither empty, share a byte.
func overlap(a, b []byte) bool {
	return uintptr(unsafe.Pointer(&a[0])) <= uintptr(unsafe.Pointer(&b[len(b)-1])) &&
		uintptr(unsafe.Pointer(&b[0])) <= uintptr(unsafe.Pointer(&a[len(a)-1]))
}
