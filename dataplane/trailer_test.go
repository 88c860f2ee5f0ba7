package dataplane

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"testing"

	"golang.org/x/crypto/chacha20poly1305"

	"github.com/adit-ipsec/adit/internal/packet"
	"github.com/adit-ipsec/adit/sad"
)

// trailerSuites are those that sealTrailer speaks.
var trailerSuites = []string{"aes128gcm16", "chacha20poly1305", "aes128-sha256", "null-sha256"}

// sealTrailer is a second, plain implementation of RFC 4303 with ESN, which
// lets the caller choose padding, pad length and next header. What lacks to the
// alignment when pad is nil is filled with zeros in front.
func sealTrailer(t testing.TB, p sad.Params, seq uint64, payload, pad []byte, padLen, next uint8) []byte {
	t.Helper()
	align := p.Suite.BlockSize()
	text := append(append([]byte{}, payload...), pad...)
	for (len(text)+2)%align != 0 {
		if pad != nil {
			t.Fatalf("%d bytes of text do not align to %d", len(text)+2, align)
		}
		text = append(text, 0)
	}
	text = append(text, padLen, next)
	header := binary.BigEndian.AppendUint32(nil, inSPI)
	header = binary.BigEndian.AppendUint32(header, uint32(seq))
	high := binary.BigEndian.AppendUint32(nil, uint32(seq>>32))
	aad := append(append(append([]byte{}, header[:4]...), high...), header[4:]...)
	iv := []byte{1, 2, 3, 4, 5, 6, 7, 8}

	switch p.Suite.String() {
	case "aes128gcm16", "chacha20poly1305":
		n := len(p.EncryptionKey) - 4
		var aead cipher.AEAD
		if p.Suite.String() == "aes128gcm16" {
			block, err := aes.NewCipher(p.EncryptionKey[:n])
			if err != nil {
				t.Fatal(err)
			}
			if aead, err = cipher.NewGCM(block); err != nil {
				t.Fatal(err)
			}
		} else {
			var err error
			if aead, err = chacha20poly1305.New(p.EncryptionKey[:n]); err != nil {
				t.Fatal(err)
			}
		}
		nonce := append(append([]byte{}, p.EncryptionKey[n:]...), iv...)
		return aead.Seal(append(header, iv...), nonce, text, aad)
	case "aes128-sha256":
		block, err := aes.NewCipher(p.EncryptionKey)
		if err != nil {
			t.Fatal(err)
		}
		iv = append(iv, iv...)
		cipher.NewCBCEncrypter(block, iv).CryptBlocks(text, text)
		header = append(header, iv...)
	}
	out := append(header, text...)
	mac := hmac.New(sha256.New, p.IntegrityKey)
	mac.Write(out)
	mac.Write(high)
	return append(out, mac.Sum(nil)[:16]...)
}

func TestSealTrailerAgreesWithTheWalk(t *testing.T) {
	for _, suite := range trailerSuites {
		r := newRig(t, options{suite: suite})
		body := fromB("12345")
		p := r.sealTrailer(5, body, []byte{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13}, 13, packet.ProtoIPv4)
		r.counts(nil, func() { r.delivers(1, r.arrive(p)) })
	}
}
