package keys

import (
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"testing"

	"github.com/adit-ipsec/adit/ike/proposal"
	"github.com/adit-ipsec/adit/ike/wire"
	"github.com/adit-ipsec/adit/internal/vectors"
)

// choice is what Choose makes of one transform of every type.
func choice(prf proposal.PRF, encr proposal.Encr, bits int, integ proposal.Integ) proposal.Choice {
	c := proposal.Choice{Protocol: wire.ProtocolIKE, Number: 1, Transforms: []wire.Transform{
		{Type: wire.ENCR, ID: uint16(encr), KeyBits: uint16(bits)},
		{Type: wire.PRF, ID: uint16(prf)},
		{Type: wire.KEX, ID: uint16(proposal.KEX25519)},
	}}
	if integ != proposal.IntegNone {
		c.Transforms = append(c.Transforms, wire.Transform{Type: wire.INTEG, ID: uint16(integ)})
	}
	return c
}

// choices has every suite.
func choices() (all []proposal.Choice) {
	combined := []proposal.Encr{proposal.EncrAESGCM16, proposal.EncrAESGCM12, proposal.EncrAESGCM8, proposal.EncrAESCCM16, proposal.EncrAESCCM12, proposal.EncrAESCCM8}
	for _, bits := range []int{128, 192, 256} {
		for _, e := range combined {
			all = append(all, choice(proposal.PRFSHA256, e, bits, 0))
		}
		for _, i := range []proposal.Integ{proposal.IntegSHA1, proposal.IntegSHA256, proposal.IntegSHA384, proposal.IntegSHA512} {
			all = append(all, choice(proposal.PRFSHA384, proposal.EncrAESCBC, bits, i), choice(proposal.PRFSHA512, proposal.EncrAESCTR, bits, i))
		}
	}
	return append(all, choice(proposal.PRFSHA512, proposal.EncrChaCha20, 0, 0))
}

// suiteName names a choice in the output of a test.
func suiteName(c proposal.Choice) string {
	encr, bits := c.Encr()
	return fmt.Sprintf("%s-%d-%s", encr, bits, c.Integ())
}

func forEverySuite(t *testing.T, f func(t *testing.T, c proposal.Choice, k *SK)) {
	t.Helper()
	for _, c := range choices() {
		t.Run(suiteName(c), func(t *testing.T) { f(t, c, derived(t, c)) })
	}
}

// derived is an SK by fixed nonces and secret; made twice, it is both ends'.
func derived(t testing.TB, c proposal.Choice) *SK {
	t.Helper()
	k, err := Derive(c, count(1, 32), count(2, 32), count(3, 32), 0x1111, 0x2222)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// count is n bytes that count up from start.
func count(start byte, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = start + byte(i)
	}
	return b
}

// seeded is a reader that repeats itself.
func seeded(seed byte) *rand.ChaCha8 { return rand.NewChaCha8([32]byte{seed}) }

func unhex(t testing.TB, text string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.Join(strings.Fields(text), ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// forEveryVector runs f for each of exactly so many stanzas of a file.
func forEveryVector(t *testing.T, file string, n int, f func(t *testing.T, v *vectors.Stanza)) {
	t.Helper()
	stanzas, err := vectors.ReadFile(os.DirFS("testdata"), file)
	if err != nil {
		t.Fatal(err)
	}
	if len(stanzas) != n {
		t.Errorf("%s: expected %d vectors, saw %d", file, n, len(stanzas))
	}
	for _, v := range stanzas {
		t.Run(v.Name, func(t *testing.T) {
			f(t, v)
			if err := v.Done(); err != nil {
				t.Error(err)
			}
		})
	}
}
