package esp

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/subtle"
	"encoding/binary"
	"fmt"

	"github.com/adit-ipsec/adit/internal/crypt"
)

// hmacCodec encrypts, then authenticates header, IV and encrypted text with an
// HMAC (RFC 4303 3.3.2.1), and verifies before it decrypts (3.4.4.1).
type hmacCodec struct {
	text textCipher
	mac  crypt.HMAC
	esn  bool
}

// textCipher encrypts without authenticating. Both take whole runs.
//
// encrypt writes the IV and the encrypted text; decrypt works in place and
// leaves jobs that are not ok alone.
type textCipher interface {
	encrypt(sc *Scratch, run []job)
	decrypt(sc *Scratch, run []job)
}

func newHMACCodec(d *description, block cipher.Block, nonce, integrityKey []byte, esn bool) (*hmacCodec, error) {
	m, err := crypt.NewHMAC(d.mac, integrityKey)
	if err != nil {
		return nil, err
	}
	c := &hmacCodec{mac: m, esn: esn}
	switch d.mode {
	case modeNull:
		c.text = nullCipher{}
	case modeCTR:
		s, err := newCTRStream(block)
		if err != nil {
			return nil, err
		}
		c.text = &ctrCipher{s, salt(nonce)}
	case modeCBC:
		c.text, err = newCBCCipher(block)
		if err != nil {
			return nil, err
		}
	default:
		return nil, fmt.Errorf("mode %d has no codec", d.mode)
	}
	return c, nil
}

func (c *hmacCodec) seal(sc *Scratch, run []job) {
	c.text.encrypt(sc, run)
	for i := range run {
		j := &run[i]
		end := len(j.wire) - c.mac.ICVLen
		copy(j.wire[end:], c.sum(sc, j, end))
	}
}

// sum is the ICV of a packet's bytes up to end. RFC 4303 2.2.1: "If a separate
// integrity algorithm is employed, the high order bits are included in the
// implicit ESP trailer, but are not transmitted".
func (c *hmacCodec) sum(sc *Scratch, j *job, end int) []byte {
	var high []byte
	if c.esn {
		high = sc.putHigh(j.seq)
	}
	return c.mac.Sum(sc.digests, j.wire[:end], high, nil)
}

func (c *hmacCodec) open(sc *Scratch, run []job) {
	for i := range run {
		j := &run[i]
		end := len(j.wire) - c.mac.ICVLen
		j.ok = subtle.ConstantTimeCompare(c.sum(sc, j, end), j.wire[end:]) == 1
	}
	c.text.decrypt(sc, run)
}

// nullCipher is ENCR_NULL (RFC 2410): no IV, the text in clear.
type nullCipher struct{}

func (nullCipher) encrypt(_ *Scratch, run []job) {
	for i := range run {
		j := &run[i]
		copyText(j.wire[HeaderLen:HeaderLen+len(j.text)], j.text)
	}
}

func (nullCipher) decrypt(*Scratch, []job) {}

// cbcCipher is AES-CBC (RFC 3602). RFC 3602 3: "The IV MUST be chosen at random,
// and MUST be unpredictable", and implementations "MUST NOT use a counter or
// other low-Hamming distance source for IVs". Deviation: it is the sequence
// number, encrypted under a key of this transform's own that is drawn at random.
// That is a keyed permutation of numbers that never repeat: the IVs do not
// either, and nobody without that key can tell them from random ones (SP
// 800-38A appendix C does so with the packets' own key). It saves a call of the random generator for
// each packet.
type cbcCipher struct {
	block cipher.Block
	ivs   cipher.Block
}

const cbcStart = HeaderLen + blockLen

func newCBCCipher(block cipher.Block) (*cbcCipher, error) {
	var key [32]byte
	if _, err := rand.Read(key[:]); err != nil {
		return nil, fmt.Errorf("no randomness for IVs: %w", err)
	}
	ivs, err := aes.NewCipher(key[:])
	clear(key[:])
	return &cbcCipher{block, ivs}, err
}

func (c *cbcCipher) encrypt(_ *Scratch, run []job) {
	for i := range run {
		j := &run[i]
		iv := j.wire[HeaderLen:cbcStart]
		clear(iv[:8])
		binary.BigEndian.PutUint64(iv[8:], j.seq)
		c.ivs.Encrypt(iv, iv)
		encryptCBC(c.block, iv, j.wire[cbcStart:], j.text)
	}
}

func (c *cbcCipher) decrypt(sc *Scratch, run []job) {
	for i := range run {
		if j := &run[i]; j.ok {
			decryptCBC(c.block, sc.chain[:], j.wire[HeaderLen:cbcStart], j.text)
		}
	}
}

// encryptCBC encrypts src, whole blocks, to dst, which starts at the same byte
// or shares none.
func encryptCBC(b cipher.Block, iv, dst, src []byte) {
	for len(src) >= blockLen {
		out := dst[:blockLen]
		xorBlock(out, src, iv)
		b.Encrypt(out, out)
		iv, dst, src = out, dst[blockLen:], src[blockLen:]
	}
}

// decryptCBC decrypts text in place, from the last block to the first, so that
// the block before is still there to be XORed with.
func decryptCBC(b cipher.Block, block, iv, text []byte) {
	for at := len(text) - blockLen; at > 0; at -= blockLen {
		b.Decrypt(block, text[at:at+blockLen])
		xorBlock(text[at:], block, text[at-blockLen:])
	}
	b.Decrypt(block, text[:blockLen])
	xorBlock(text, block, iv)
}

// xorBlock sets dst to a XOR b, 16 bytes.
func xorBlock(dst, a, b []byte) {
	_, _, _ = dst[15], a[15], b[15]
	binary.NativeEndian.PutUint64(dst, binary.NativeEndian.Uint64(a)^binary.NativeEndian.Uint64(b))
	binary.NativeEndian.PutUint64(dst[8:], binary.NativeEndian.Uint64(a[8:])^binary.NativeEndian.Uint64(b[8:]))
}
