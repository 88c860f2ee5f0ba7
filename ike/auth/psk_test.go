package auth_test

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"math/big"
	"strings"
	"testing"

	"github.com/adit-ipsec/adit/ike/auth"
)

// TestRandomPSKsPass: what generators of at least 128 bits print is not refused:
// a few of those between 190 and 210 bits, which may look like words,
// and none of what the error recommends.
func TestRandomPSKsPass(t *testing.T) {
	random := func(n int) []byte {
		b := make([]byte, n)
		_, _ = rand.Read(b)
		return b
	}
	drawn := func(alphabet string, n int) []byte {
		b := make([]byte, n)
		for i := range b {
			k := must[*big.Int](t)(rand.Int(rand.Reader, big.NewInt(int64(len(alphabet)))))
			b[i] = alphabet[k.Int64()]
		}
		return b
	}
	for name, c := range map[string]struct {
		make  func() []byte
		tries int
		may   int
	}{
		"openssl rand -base64 32": {func() []byte { return []byte(base64.StdEncoding.EncodeToString(random(32))) }, 1000, 0},
		"openssl rand -base64 24": {func() []byte { return []byte(base64.StdEncoding.EncodeToString(random(24))) }, 1000, 30},
		"openssl rand -hex 32":    {func() []byte { return []byte(hex.EncodeToString(random(32))) }, 1000, 0},
		"32 bytes":                {func() []byte { return random(32) }, 1000, 0},
		"40 lower and digits":     {func() []byte { return drawn("abcdefghijklmnopqrstuvwxyz0123456789", 40) }, 1000, 30},
		"30 printable": {func() []byte {
			return drawn("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789!#$%&()*+,-./:;<=>?@", 30)
		}, 1000, 30},
	} {
		t.Run(name, func(t *testing.T) {
			refused := 0
			for range c.tries {
				if auth.CheckPSK(c.make()) != nil {
					refused++
				}
			}
			if refused > c.may {
				t.Errorf("%d of %d are refused", refused, c.tries)
			}
		})
	}
}

// TestGuessablePSKsAreRefused: short ones, words, repeats and sequences, long as
// they may be.
func TestGuessablePSKsAreRefused(t *testing.T) {
	for _, text := range []string{
		"", "a", "secret", "password", "P4ssw0rd!2024", "vpnkey123", strings.Repeat("a", 200), strings.Repeat("ab", 100),
		strings.Repeat("0123456789abcdef", 4), "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789",
		"qwertyuiopasdfghjklzxcvbnm1234567890", strings.Repeat("P4ssw0rd!", 10), "correct horse battery staple",
		"CorrectHorseBatteryStaple-CorrectHorseBatteryStaple", "this is the pre shared key of the site to site tunnel",
		"deadbeefdeadbeefdeadbeefdeadbeef", "00000000000000000000000000000000", "passwordPASSWORDpasswordPASSWORD", "1234567890123456789012345678901234567890",
		"iUnW0SLXZQ9wkT", "3f9a1c", "The-Tunnel-Between-Zurich-And-Geneva-Is-Secret!", "\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00",
	} {
		err := auth.CheckPSK([]byte(text))
		if err == nil {
			t.Errorf("%q passes", text)
			continue
		}
		e := wantReason(t, err, auth.WeakKey)
		if text != "" && len(text) > 6 && strings.Contains(e.Error(), text) {
			t.Errorf("the error holds the key: %s", e.Error())
		}
		if !strings.Contains(e.Fix, "openssl rand -base64 32") {
			t.Errorf("%s does not say what to do", e.Error())
		}
	}
}
