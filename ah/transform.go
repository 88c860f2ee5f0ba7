package ah

import (
	"crypto/cipher"
	"crypto/subtle"
	"encoding/binary"
	"fmt"
	"io"
	"unsafe"

	"github.com/adit-ipsec/adit/internal/crypt"
)

// Transform protects the packets of one security association in one direction.
// It is immutable and safe for concurrent use, each worker with its own
// Scratch. It never prints its keys.
type Transform struct {
	suite Suite
	d     description // a copy: one cache line less far
	esn   bool
	mac   crypt.HMAC
	gmac  cipher.AEAD // nil: mac
	salt  [4]byte
}

// New returns the transform of a suite with its key, whose length must be
// exactly Suite.KeyLen. The key is turned into a schedule: the caller may wipe
// the slice as soon as New returns. esn: extended (64-bit) sequence numbers.
func New(s Suite, integrityKey []byte, esn bool) (*Transform, error) {
	if !s.Valid() {
		return nil, fmt.Errorf("ah: %s: take one from Suites or ParseSuite", s)
	}
	t := &Transform{suite: s, d: *s.row(), esn: esn}
	if len(integrityKey) != s.KeyLen() {
		parts := ""
		if t.d.saltLen > 0 {
			parts = fmt.Sprintf(" (%d of key, then %d of salt)", t.d.keyLen, t.d.saltLen)
		}
		return nil, fmt.Errorf("ah: %s takes an integrity key of %d bytes%s, not %d", s, s.KeyLen(), parts, len(integrityKey))
	}
	var err error
	if t.d.mac != crypt.NoHash {
		t.mac, err = crypt.NewHMAC(t.d.mac, integrityKey)
	} else {
		copy(t.salt[:], integrityKey[t.d.keyLen:])
		t.gmac, err = crypt.NewGCM(integrityKey[:t.d.keyLen], t.d.icvLen)
	}
	if err != nil {
		return nil, fmt.Errorf("ah: %s: %w", s, err)
	}
	return t, nil
}

// Suite is what New was given.
func (t *Transform) Suite() Suite { return t.suite }

// ESN tells whether sequence numbers are extended.
func (t *Transform) ESN() bool { return t.esn }

// Format prints the suite's name for every verb: key schedules never reach a
// log.
func (t *Transform) Format(f fmt.State, _ rune) {
	_, _ = io.WriteString(f, "ah.Transform("+t.suite.String()+")")
}

// Sign protects a batch of packets of this SA in order: it writes AH into each
// and nothing else but a payload that was not in place. Each packet's Err says
// what became of it; after an error its Wire is empty.
//
// RFC 4302 3.3.2 and RFC 4543 2: the caller never hands the same Seq to a
// transform twice, nor to another one with the same key: with GMAC that would
// let anyone forge packets.
func (t *Transform) Sign(sc *Scratch, spi uint32, batch []Packet) {
	for i := range batch {
		p := &batch[i]
		p.Err = t.sign(sc, spi, p)
		if p.Err != nil {
			p.Wire = p.Wire[:0]
		}
	}
}

func (t *Transform) sign(sc *Scratch, spi uint32, p *Packet) error {
	// RFC 4302 3.3.2: the first packet has number 1, and "the sender MUST
	// NOT send a packet on an SA if doing so would cause the sequence number
	// to cycle".
	if p.Seq == 0 || !t.esn && p.Seq>>32 != 0 {
		return ErrSequence
	}
	at, start, err := t.room(p)
	if err != nil {
		return err
	}
	if place := p.Wire[start:]; !samePlace(p.Payload, place) {
		copy(place, p.Payload)
	}
	header := p.Wire[at.ah:start]
	clear(header)
	header[0] = p.NextHeader
	// RFC 4302 2.2: "the length of AH in 32-bit words (4-byte units), minus
	// '2'"; 2.3: the reserved field "MUST be set to 'zero' by the sender".
	header[atLength] = byte(len(header)/4 - 2)
	binary.BigEndian.PutUint32(header[atSPI:], spi)
	binary.BigEndian.PutUint32(header[atSeq:], uint32(p.Seq))
	if t.gmac != nil {
		// RFC 4543 2: "for a given key, the IV MUST NOT repeat"; the SA
		// never gives a number out twice.
		binary.BigEndian.PutUint64(header[fixedLen:], p.Seq)
	}
	icv, err := t.icv(sc, p, &at, start)
	if err != nil {
		return err
	}
	copy(header[fixedLen+t.d.ivLen:], icv)
	return nil
}

// room finds AH and the payload's start in a packet to be signed and cuts Wire
// to its length. It writes nothing.
func (t *Transform) room(p *Packet) (at place, start int, err error) {
	at, err = locate(p.Wire)
	switch {
	case err != nil && at.total > len(p.Wire):
		return at, 0, ErrRoom
	case err != nil:
		return at, 0, err
	case at.atomic != 0:
		return at, 0, ErrFragment
	}
	start = at.ah + t.suite.HeaderLen(at.version)
	if at.total != start+len(p.Payload) {
		return at, 0, ErrMalformed
	}
	p.Wire = p.Wire[:at.total]
	if len(p.Payload) > 0 && !samePlace(p.Payload, p.Wire[start:]) && overlap(p.Payload, p.Wire) {
		return at, 0, ErrRoom
	}
	return at, start, nil
}

// Verify checks a batch of packets of this SA. Packets whose Err is set are
// skipped. Each packet's Err says what became of it; Payload,
// NextHeader and Header are set only where it is nil.
func (t *Transform) Verify(sc *Scratch, batch []Packet) {
	for i := range batch {
		p := &batch[i]
		if p.Err == nil {
			p.Payload = nil
			p.Err = t.verify(sc, p)
		}
	}
}

func (t *Transform) verify(sc *Scratch, p *Packet) error {
	at, err := locate(p.Wire)
	if err != nil {
		return err
	}
	p.Wire = p.Wire[:at.total]
	header := p.Wire[at.ah:]
	if len(header) < fixedLen {
		return ErrMalformed
	}
	n := (int(header[atLength]) + 2) * 4
	if n > len(header) || !t.suite.takes(at.version, n) {
		return ErrMalformed
	}
	// What is authenticated is what the window will mark.
	if binary.BigEndian.Uint32(header[atSeq:]) != uint32(p.Seq) || !t.esn && p.Seq>>32 != 0 {
		return ErrAuth
	}
	start := at.ah + n
	icv, err := t.icv(sc, p, &at, start)
	if err != nil {
		return err
	}
	if subtle.ConstantTimeCompare(icv, header[fixedLen+t.d.ivLen:][:t.d.icvLen]) != 1 {
		return ErrAuth
	}
	p.NextHeader, p.Header = header[0], at.ah
	p.Payload = p.Wire[start:]
	return nil
}

// icv is the packet's integrity check value, in sc until its next use. RFC
// 4302 3.3.3.1: it covers the IP header as cover makes it, AH with the ICV
// as zero and the rest as it stands (reserved field, padding, GMAC's IV), the
// payload, and with ESN the sequence number's high half (3.3.3.2.2), which is
// not sent.
func (t *Transform) icv(sc *Scratch, p *Packet, at *place, start int) ([]byte, error) {
	copy(sc.covered, p.Wire[:at.ah])
	n, err := cover(sc.covered[:at.ah], at)
	if err != nil {
		return nil, err
	}
	header := sc.covered[:n+copy(sc.covered[n:], p.Wire[at.ah:start])]
	clear(header[n+fixedLen+t.d.ivLen:][:t.d.icvLen])
	var high []byte
	if t.esn {
		high = sc.high[:]
		binary.BigEndian.PutUint32(high, uint32(p.Seq>>32))
	}
	if t.gmac == nil {
		return t.mac.Sum(sc.digests, header, p.Wire[start:], high), nil
	}
	end := len(header)
	end += copy(sc.covered[end:], p.Wire[start:])
	end += copy(sc.covered[end:], high)
	return t.tag(sc, header[n+fixedLen:], sc.covered[:end]), nil
}

// tag is the GMAC of data (RFC 4543 4): the tag of AES-GCM with no text and
// data as associated data. The nonce is the salt, then the IV. RFC 4302 zeroes
// the ICV; that the IV in front of it stays in data is read as in ESP (RFC 4543
// 3.3), and no other implementation was there to compare with: Linux has no
// GMAC for AH.
func (t *Transform) tag(sc *Scratch, iv, data []byte) []byte {
	copy(sc.nonce[:], t.salt[:])
	copy(sc.nonce[len(t.salt):], iv[:t.d.ivLen])
	none := sc.mac[:0] // at a place: a kernel loads slowly from nowhere
	return t.gmac.Seal(none, sc.nonce[:], none, data)
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
