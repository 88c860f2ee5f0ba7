package sad

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
)

// Key is secret key material. However it is printed or marshaled, it shows its
// length and nothing else; who needs the bytes takes the slice.
type Key []byte

// String returns "[redacted n bytes]".
func (k Key) String() string { return fmt.Sprintf("[redacted %d bytes]", len(k)) }

// GoString is String, for %#v.
func (k Key) GoString() string { return k.String() }

// Format prints String for every verb, %x and %q and wrong ones too.
func (k Key) Format(s fmt.State, _ rune) { _, _ = io.WriteString(s, k.String()) }

// MarshalText returns String: encoders of text, YAML and logs end here.
func (k Key) MarshalText() ([]byte, error) { return []byte(k.String()), nil }

// MarshalJSON returns String as a JSON string.
func (k Key) MarshalJSON() ([]byte, error) { return []byte(`"` + k.String() + `"`), nil }

// MarshalBinary returns String: encoding/gob ends here.
func (k Key) MarshalBinary() ([]byte, error) { return k.MarshalText() }

// Wipe overwrites the slice with zeros. It does not reach copies that were made
// of it, nor what a Transform derived from it.
func (k Key) Wipe() { clear(k) }

// KeyID names a key without telling it: the same key gives the same KeyID,
// whatever the SPI, the peer, the ICV length or the mode it is used in. It
// names the number space in which a counter must never repeat.
type KeyID [sha256.Size]byte

// String is the KeyID in hexadecimal, 64 digits.
func (id KeyID) String() string { return hex.EncodeToString(id[:]) }

// The domains keep KeyIDs apart from other hashes of keys, and encryption keys
// apart from integrity keys.
const (
	domainEncryption = "adit key id 1: encryption\x00"
	domainIntegrity  = "adit key id 1: integrity\x00"
)

// keyID names the encryption key with its salt; a suite without encryption (NULL
// with an integrity algorithm) is named by its integrity key. The suite's name
// is left out on purpose: GCM, CTR and GMAC under one AES key and salt draw their
// counter blocks from one space. CCM, with its salt of three bytes, never has the
// KeyID of those; its counter blocks start with a byte of flags, 3, and meet
// theirs only under the same AES key with a salt of that byte and its own.
func keyID(encryption, integrity Key) KeyID {
	h := sha256.New()
	if len(encryption) > 0 {
		h.Write([]byte(domainEncryption))
		h.Write(encryption)
	} else {
		h.Write([]byte(domainIntegrity))
		h.Write(integrity)
	}
	return KeyID(h.Sum(nil))
}
