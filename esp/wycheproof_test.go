package esp

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/subtle"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io/fs"
	"testing"

	"github.com/c2sp/wycheproof"
	"golang.org/x/crypto/chacha20poly1305"

	"github.com/adit-ipsec/adit/internal/crypt"
)

// wycheproofGroup is what these tests need of a group; lengths in bits.
type wycheproofGroup struct {
	KeySize int `json:"keySize"`
	IVSize  int `json:"ivSize"`
	TagSize int `json:"tagSize"`
	Tests   []wycheproofTest
}

type wycheproofTest struct {
	ID      int `json:"tcId"`
	Comment string
	Key     hexBytes
	IV      hexBytes
	AAD     hexBytes
	Msg     hexBytes
	CT      hexBytes
	Tag     hexBytes
	Result  string
}

type hexBytes []byte

func (b *hexBytes) UnmarshalText(text []byte) (err error) {
	*b, err = hex.DecodeString(string(text))
	return err
}

// forEveryWycheproof runs f for the tests that take picks and fails unless f
// agrees with their result, and unless exactly so many of either ran.
func forEveryWycheproof(t *testing.T, file string, valid, invalid int, take func(*wycheproofGroup, *wycheproofTest) bool, f func(t *testing.T, g *wycheproofGroup, w *wycheproofTest) bool) {
	t.Helper()
	data, err := fs.ReadFile(wycheproof.TestVectors, file)
	if err != nil {
		t.Fatal(err)
	}
	var suite struct {
		TestGroups []wycheproofGroup `json:"testGroups"`
	}
	if err := json.Unmarshal(data, &suite); err != nil {
		t.Fatal(err)
	}
	ran := map[string]int{}
	for gi := range suite.TestGroups {
		g := &suite.TestGroups[gi]
		for wi := range g.Tests {
			w := &g.Tests[wi]
			if !take(g, w) {
				continue
			}
			ran[w.Result]++
			if got := f(t, g, w); got != (w.Result == "valid") {
				t.Errorf("%s test %d (%s): expected %s, saw accepted %t", file, w.ID, w.Comment, w.Result, got)
			}
		}
	}
	if ran["valid"] != valid || ran["invalid"] != invalid || len(ran) > 2 {
		t.Errorf("%s: expected %d valid and %d invalid tests, ran %v", file, valid, invalid, ran)
	}
}

func nonce96(g *wycheproofGroup, _ *wycheproofTest) bool { return g.IVSize == 96 }

// wycheproofAEAD opens a test with an AEAD, and seals it where it is valid.
func wycheproofAEAD(t *testing.T, aead cipher.AEAD, w *wycheproofTest) bool {
	t.Helper()
	sealed := append(bytes.Clone(w.CT), w.Tag...)
	got, err := aead.Open(nil, w.IV, sealed, w.AAD)
	if err != nil {
		return false
	}
	if !bytes.Equal(got, w.Msg) {
		t.Errorf("test %d: expected %x, saw %x", w.ID, w.Msg, got)
	}
	if got := aead.Seal(nil, w.IV, w.Msg, w.AAD); !bytes.Equal(got, sealed) {
		t.Errorf("test %d: expected %x, saw %x", w.ID, sealed, got)
	}
	return true
}

func wycheproofBlock(t *testing.T, key []byte) cipher.Block {
	t.Helper()
	block, err := aes.NewCipher(key)
	if err != nil {
		t.Fatal(err)
	}
	return block
}

func TestWycheproof_AESGCM(t *testing.T) {
	forEveryWycheproof(t, "aes_gcm_test.json", 116, 81, nonce96, func(t *testing.T, _ *wycheproofGroup, w *wycheproofTest) bool {
		gcm, err := crypt.NewGCM(w.Key, 16)
		if err != nil {
			t.Fatal(err)
		}
		return wycheproofAEAD(t, gcm, w)
	})
}

// The same tests, their tags cut to 8 bytes, through the own way of opening. A
// tag that was changed behind the eighth byte is then a right one.
func TestWycheproof_AESGCMWithTagsOf8Bytes(t *testing.T) {
	sc := NewScratch()
	behind := 0
	forEveryWycheproof(t, "aes_gcm_test.json", 116, 81, nonce96, func(t *testing.T, _ *wycheproofGroup, w *wycheproofTest) bool {
		gcm, err := crypt.NewGCM(w.Key, 16)
		if err != nil {
			t.Fatal(err)
		}
		text := bytes.Clone(w.CT)
		ok := openGCM8(gcm, sc, w.IV, text, w.Tag[:gcm8ICVLen], w.AAD)
		if ok && !bytes.Equal(text, w.Msg) {
			t.Errorf("test %d: expected %x, saw %x", w.ID, w.Msg, text)
		}
		if !ok && !bytes.Equal(text, w.CT) {
			t.Errorf("test %d: refused, yet the text was changed to %x", w.ID, text)
		}
		right := gcm.Seal(nil, w.IV, w.Msg, w.AAD)
		if w.Result == "invalid" && bytes.HasPrefix(right[len(w.CT):], w.Tag[:gcm8ICVLen]) {
			behind++
			if !ok {
				t.Errorf("test %d: tag right in its first 8 bytes, expected it accepted", w.ID)
			}
			return false
		}
		return ok
	})
	if behind == 0 || behind == 81 {
		t.Errorf("expected some of 81 tags changed behind the eighth byte, saw %d", behind)
	}
}

func TestWycheproof_AESGMAC(t *testing.T) {
	forEveryWycheproof(t, "aes_gmac_test.json", 45, 162, nonce96, func(t *testing.T, _ *wycheproofGroup, w *wycheproofTest) bool {
		gcm, err := crypt.NewGCM(w.Key, 16)
		if err != nil {
			t.Fatal(err)
		}
		_, err = gcm.Open(nil, w.IV, w.Tag, w.Msg)
		return err == nil
	})
}

func TestWycheproof_ChaCha20Poly1305(t *testing.T) {
	forEveryWycheproof(t, "chacha20_poly1305_test.json", 256, 60, nonce96, func(t *testing.T, _ *wycheproofGroup, w *wycheproofTest) bool {
		aead, err := chacha20poly1305.New(w.Key)
		if err != nil {
			t.Fatal(err)
		}
		return wycheproofAEAD(t, aead, w)
	})
}

// CCM with the nonce of RFC 4309's length, 11 bytes. The set has valid ones
// only; each is refused too with any bit of its tag flipped.
func TestWycheproof_AESCCM(t *testing.T) {
	sc := NewScratch()
	take := func(g *wycheproofGroup, _ *wycheproofTest) bool { return g.IVSize == 8*ccmNonceLen }
	forEveryWycheproof(t, "aes_ccm_test.json", 18, 0, take, func(t *testing.T, g *wycheproofGroup, w *wycheproofTest) bool {
		c, err := newCCM(wycheproofBlock(t, w.Key), g.TagSize/8)
		if err != nil {
			t.Fatal(err)
		}
		c.putNonce(sc, w.IV)
		got := make([]byte, len(w.Msg)+len(w.Tag))
		c.seal(sc, got, w.Msg, w.AAD)
		if want := append(bytes.Clone(w.CT), w.Tag...); !bytes.Equal(got, want) {
			t.Errorf("test %d: expected %x, saw %x", w.ID, want, got)
		}
		for bit := range g.TagSize {
			tag, text := bytes.Clone(w.Tag), bytes.Clone(w.CT)
			tag[bit/8] ^= 1 << (bit % 8)
			if c.open(sc, text, tag, w.AAD) || !bytes.Equal(text, make([]byte, len(text))) {
				t.Errorf("test %d: tag with bit %d flipped: expected it refused and cleared, saw %x", w.ID, bit, text)
			}
		}
		text := bytes.Clone(w.CT)
		return c.open(sc, text, w.Tag, w.AAD) && bytes.Equal(text, w.Msg)
	})
}

// The raw cipher under PKCS #5 padding, which is checked here: bad padding must
// decrypt to bad padding.
func TestWycheproof_AESCBC(t *testing.T) {
	unpad := func(b []byte) ([]byte, bool) {
		n := int(b[len(b)-1])
		if n == 0 || n > blockLen || !bytes.Equal(b[len(b)-n:], bytes.Repeat([]byte{byte(n)}, n)) {
			return nil, false
		}
		return b[:len(b)-n], true
	}
	whole := func(_ *wycheproofGroup, w *wycheproofTest) bool { return len(w.CT) > 0 && len(w.CT)%blockLen == 0 }
	forEveryWycheproof(t, "aes_cbc_pkcs5_test.json", 72, 141, whole, func(t *testing.T, _ *wycheproofGroup, w *wycheproofTest) bool {
		block := wycheproofBlock(t, w.Key)
		text := bytes.Clone(w.CT)
		decryptCBC(block, make([]byte, blockLen), w.IV, text)
		again := make([]byte, len(text))
		encryptCBC(block, w.IV, again, text)
		if !bytes.Equal(again, w.CT) {
			t.Errorf("test %d: expected %x again, saw %x", w.ID, w.CT, again)
		}
		msg, ok := unpad(text)
		return ok && bytes.Equal(msg, w.Msg)
	})
}

// HMAC with keys up to a block, whole and truncated.
func TestWycheproof_HMAC(t *testing.T) {
	digests := crypt.NewDigests()
	for k, counts := range map[crypt.HMACHash][2]int{crypt.SHA1: {60, 104}, crypt.SHA256: {60, 108}, crypt.SHA384: {66, 108}, crypt.SHA512: {66, 108}} {
		d := k.Params()
		fits := func(_ *wycheproofGroup, w *wycheproofTest) bool { return len(w.Key) <= d.BlockLen }
		forEveryWycheproof(t, fmt.Sprintf("hmac_%s_test.json", d.Name), counts[0], counts[1], fits, func(t *testing.T, g *wycheproofGroup, w *wycheproofTest) bool {
			m, err := crypt.NewHMAC(k, w.Key)
			if err != nil {
				t.Fatal(err)
			}
			m.ICVLen = g.TagSize / 8
			return subtle.ConstantTimeCompare(m.Sum(digests, w.Msg, nil, nil), w.Tag) == 1
		})
	}
}
