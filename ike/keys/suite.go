package keys

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/subtle"

	"golang.org/x/crypto/chacha20poly1305"

	"github.com/adit-ipsec/adit/ike/proposal"
	"github.com/adit-ipsec/adit/internal/crypt"
)

// suite is how an IKE SA protects messages; lengths in bytes.
type suite struct {
	keyLen, saltLen int // saltLen: behind the key, a salt or CTR's nonce
	integLen        int
	ivLen, icvLen   int
	block           int // of CBC; else 1
	key             func(encr, integ []byte) (protector, error)
}

// encLen is the length of SK_ei and SK_er. RFC 5282 7.1, RFC 7634 2, RFC 5930 2.2:
// what the nonce starts with is taken with the key, behind it.
func (s *suite) encLen() int { return s.keyLen + s.saltLen }

// padLen is the shortest padding, without the pad length byte.
func (s *suite) padLen(inner int) int { return (s.block - (inner+1)%s.block) % s.block }

// suiteOf is the suite of a choice, or nil.
func suiteOf(c proposal.Choice) *suite {
	encr, bits := c.Encr()
	if bits != 128 && bits != 192 && bits != 256 {
		return nil
	}
	s := &suite{keyLen: bits / 8, saltLen: 4, ivLen: 8, block: 1}
	switch encr {
	case proposal.EncrAESGCM16, proposal.EncrAESGCM12, proposal.EncrAESGCM8:
		s.icvLen = 16 - 4*int(proposal.EncrAESGCM16-encr)
	case proposal.EncrAESCCM16, proposal.EncrAESCCM12, proposal.EncrAESCCM8:
		// RFC 5282 7.1: CCM's salt has three octets.
		s.icvLen, s.saltLen = 16-4*int(proposal.EncrAESCCM16-encr), 3
	case proposal.EncrChaCha20:
		s.icvLen = chacha20poly1305.Overhead
	case proposal.EncrAESCBC:
		return s.separate(c.Integ(), aes.BlockSize)
	case proposal.EncrAESCTR:
		return s.separate(c.Integ(), 1)
	default:
		return nil
	}
	// RFC 7296 3.3: a combined mode has its integrity in itself, and no other.
	if c.Integ() != proposal.IntegNone {
		return nil
	}
	s.key = func(encr, _ []byte) (protector, error) { return s.combined(encr, c) }
	return s
}

// combined keys a combined mode.
func (s *suite) combined(key []byte, c proposal.Choice) (protector, error) {
	encr, _ := c.Encr()
	key, salt := key[:s.keyLen], key[s.keyLen:]
	var aead cipher.AEAD
	var err error
	switch encr {
	case proposal.EncrAESGCM8:
		var gcm cipher.AEAD
		gcm, err = crypt.NewGCM(key, 16)
		aead = gcm8{gcm}
	case proposal.EncrAESGCM16, proposal.EncrAESGCM12:
		aead, err = crypt.NewGCM(key, s.icvLen)
	case proposal.EncrChaCha20:
		aead, err = chacha20poly1305.New(key)
	default:
		aead, err = newCCM(key, s.icvLen)
	}
	return &combined{aead, append([]byte(nil), salt...)}, err
}

// separate completes the suite of a cipher that needs an integrity algorithm.
func (s *suite) separate(integ proposal.Integ, block int) *suite {
	h := integHash(integ)
	if h == crypt.NoHash {
		return nil
	}
	s.integLen, s.icvLen, s.block = h.Params().KeyLen, h.Params().ICVLen, block
	if block > 1 {
		s.ivLen, s.saltLen = block, 0
	}
	s.key = func(encr, integ []byte) (protector, error) {
		b, err := aes.NewCipher(encr[:s.keyLen])
		if err != nil {
			return nil, err
		}
		mac, err := crypt.NewHMAC(h, integ)
		if err != nil {
			return nil, err
		}
		return &encryptThenMAC{b, append([]byte(nil), encr[s.keyLen:]...), mac, crypt.NewDigests()}, nil
	}
	return s
}

// integHash is the hash of an integrity algorithm of RFC 4868, or of RFC 2404
// for legacy peers, or none.
func integHash(i proposal.Integ) crypt.HMACHash {
	switch i {
	case proposal.IntegSHA256:
		return crypt.SHA256
	case proposal.IntegSHA384:
		return crypt.SHA384
	case proposal.IntegSHA512:
		return crypt.SHA512
	case proposal.IntegSHA1:
		return crypt.SHA1
	}
	return crypt.NoHash
}

// encryptThenMAC is AES-CBC, or with a nonce AES-CTR (RFC 5930), and an HMAC over
// the whole message up to the ICV (RFC 7296 3.14).
type encryptThenMAC struct {
	block   cipher.Block
	nonce   []byte // CTR's, of four bytes; none: CBC
	mac     crypt.HMAC
	digests *crypt.Digests
}

// ctr is the key stream of a message. RFC 5930 2: the counter block is the nonce,
// the IV, and a block number that starts at one.
func (e *encryptThenMAC) ctr(iv []byte) cipher.Stream {
	return cipher.NewCTR(e.block, join(e.nonce, iv, []byte{0, 0, 0, 1}))
}

func (e *encryptThenMAC) seal(dst, aad, iv, text []byte) []byte {
	encrypted := make([]byte, len(text))
	if len(e.nonce) > 0 {
		e.ctr(iv).XORKeyStream(encrypted, text)
	} else {
		cipher.NewCBCEncrypter(e.block, iv).CryptBlocks(encrypted, text)
	}
	dst = append(dst, encrypted...)
	return append(dst, e.mac.Sum(e.digests, aad, iv, encrypted)...)
}

func (e *encryptThenMAC) open(aad, iv, sealed []byte) ([]byte, bool) {
	encrypted, icv := sealed[:len(sealed)-e.mac.ICVLen], sealed[len(sealed)-e.mac.ICVLen:]
	if subtle.ConstantTimeCompare(e.mac.Sum(e.digests, aad, iv, encrypted), icv) != 1 {
		return nil, false
	}
	text := make([]byte, len(encrypted))
	if len(e.nonce) > 0 {
		e.ctr(iv).XORKeyStream(text, encrypted)
	} else {
		cipher.NewCBCDecrypter(e.block, iv).CryptBlocks(text, encrypted)
	}
	return text, true
}

// gcm8 is AES-GCM with an ICV of 8 bytes, which crypto/cipher does not offer, over
// one with 16. Only what combined needs of a cipher.AEAD is there.
//
// Sealing cuts the tag. To open, GCM's encryption being a XOR with a key stream,
// Seal of the encrypted text gives the cleartext, and Seal of that the true tag.
type gcm8 struct{ cipher.AEAD }

const gcm8ICVLen = 8

func (g gcm8) Seal(dst, nonce, text, aad []byte) []byte {
	sealed := g.AEAD.Seal(nil, nonce, text, aad)
	return append(dst, sealed[:len(text)+gcm8ICVLen]...)
}

func (g gcm8) Open(dst, nonce, sealed, aad []byte) ([]byte, error) {
	if len(sealed) < gcm8ICVLen {
		return nil, ErrOpen
	}
	n := len(sealed) - gcm8ICVLen
	text := g.AEAD.Seal(nil, nonce, sealed[:n], aad)[:n]
	again := g.AEAD.Seal(nil, nonce, text, aad)
	if subtle.ConstantTimeCompare(again[n:n+gcm8ICVLen], sealed[n:]) != 1 {
		clear(text)
		return nil, ErrOpen
	}
	return append(dst, text...), nil
}

func (g gcm8) Overhead() int { return gcm8ICVLen }
