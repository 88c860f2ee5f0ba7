package keys

import (
	"bytes"
	"crypto/mlkem"
	"encoding/hex"
	"encoding/json"
	"io/fs"
	"maps"
	"testing"

	"github.com/c2sp/wycheproof"

	"github.com/adit-ipsec/adit/ike/proposal"
	"github.com/adit-ipsec/adit/internal/crypt"
)

// wycheproofTest is one test of a file of Wycheproof; each file has its fields.
type wycheproofTest struct {
	ID      int `json:"tcId"`
	Comment string
	Flags   []string
	Result  string

	Public, Private, Shared hexBytes // ECDH and XDH
	Seed, Ek, C, K          hexBytes // ML-KEM
	Key, IV, AAD, Msg, CT   hexBytes // AEAD
	Tag                     hexBytes

	ivSize, tagSize int // of the group
}

type hexBytes []byte

func (b *hexBytes) UnmarshalText(text []byte) (err error) {
	if len(text)%2 == 1 { // ASN.1's private values are numbers
		text = append([]byte{'0'}, text...)
	}
	*b, err = hex.DecodeString(string(text))
	return err
}

// forEveryWycheproof runs f for every test of a file, counts what it says, and fails
// unless the counts are as expected; under the race detector for some of them.
func forEveryWycheproof(t *testing.T, file string, want map[string]int, f func(t *testing.T, w *wycheproofTest) string) {
	t.Helper()
	data, err := fs.ReadFile(wycheproof.TestVectors, file)
	if err != nil {
		t.Fatal(err)
	}
	var suite struct {
		TestGroups []struct {
			IVSize, TagSize int
			Tests           []wycheproofTest
		}
	}
	if err := json.Unmarshal(data, &suite); err != nil {
		t.Fatal(err)
	}
	got := map[string]int{}
	for _, g := range suite.TestGroups {
		for i := 0; i < len(g.Tests); i += sweep {
			w := &g.Tests[i]
			w.ivSize, w.tagSize = g.IVSize, g.TagSize
			if said := f(t, w); said != "" {
				got[w.Result+" "+said]++
			}
		}
	}
	if sweep == 1 && !maps.Equal(got, want) {
		t.Errorf("%s: expected %v, saw %v", file, want, got)
	}
}

// agreed finishes an exchange with a test's private and public value: "agreed",
// "refused", or an error where the secret is another one.
func agreed(t *testing.T, method proposal.KE, w *wycheproofTest, private, peer []byte) string {
	t.Helper()
	x, err := Begin(method, bytes.NewReader(private))
	if err != nil {
		t.Errorf("test %d: %v", w.ID, err)
		return ""
	}
	secret, err := x.Finish(peer)
	switch {
	case isRefused(err, method):
		return "refused"
	case err != nil || !bytes.Equal(secret, w.Shared):
		t.Errorf("%s test %d (%s): expected %x, saw %x, %v", method, w.ID, w.Comment, w.Shared, secret, err)
	}
	return "agreed"
}

// "acceptable" are twists, which agree, values that are not reduced, which RFC 7748 5
// wants accepted, and values of low order, of which all give zeros and are refused.
func TestWycheproof_X25519AndX448(t *testing.T) {
	for _, c := range []struct {
		file   string
		method proposal.KE
		want   map[string]int
	}{
		{"x25519_test.json", proposal.KEX25519, map[string]int{"valid agreed": 264, "acceptable agreed": 223, "acceptable refused": 31}},
		{"x448_test.json", proposal.KEX448, map[string]int{"valid agreed": 253, "acceptable agreed": 234, "acceptable refused": 11, "invalid refused": 12}},
	} {
		forEveryWycheproof(t, c.file, c.want, func(t *testing.T, w *wycheproofTest) string {
			said := agreed(t, c.method, w, w.Private, w.Public)
			if zero := len(w.Shared) > 0 && bytes.Equal(w.Shared, make([]byte, len(w.Shared))); zero && said != "refused" {
				t.Errorf("%s test %d: a secret of zeros was not refused", c.method, w.ID)
			}
			return said
		})
	}
}

// The wire has x and y without the octet 4 in front: a point in another form has
// another length.
func TestWycheproof_NISTCurves(t *testing.T) {
	for _, c := range []struct {
		file   string
		method proposal.KE
		size   int
		want   map[string]int
	}{
		{"ecdh_secp256r1_ecpoint_test.json", proposal.KEECP256, 32, map[string]int{"valid agreed": 330, "acceptable refused": 1, "invalid refused": 24}},
		{"ecdh_secp384r1_ecpoint_test.json", proposal.KEECP384, 48, map[string]int{"valid agreed": 771, "acceptable refused": 1, "invalid refused": 18}},
		{"ecdh_secp521r1_ecpoint_test.json", proposal.KEECP521, 66, map[string]int{"valid agreed": 632, "acceptable refused": 1, "invalid refused": 28}},
	} {
		forEveryWycheproof(t, c.file, c.want, func(t *testing.T, w *wycheproofTest) string {
			private := bytes.TrimLeft(w.Private, "\x00")
			private = append(make([]byte, c.size-len(private)), private...)
			peer := w.Public
			if len(peer) == 2*c.size+1 && peer[0] == 4 {
				peer = peer[1:]
			}
			return agreed(t, c.method, w, private, peer)
		})
	}
}

// The initiator's half: decapsulation from the seed. An "invalid" seed of another
// length is nothing that a peer can send.
func TestWycheproof_MLKEMDecapsulation(t *testing.T) {
	for _, c := range []struct {
		file   string
		method proposal.KE
		want   map[string]int
	}{
		{"mlkem_768_test.json", proposal.KEMLKEM768, map[string]int{"valid agreed": 161, "invalid refused": 20}},
		{"mlkem_1024_test.json", proposal.KEMLKEM1024, map[string]int{"valid agreed": 162, "invalid refused": 20}},
	} {
		forEveryWycheproof(t, c.file, c.want, func(t *testing.T, w *wycheproofTest) string {
			if len(w.Seed) != mlkem.SeedSize {
				return ""
			}
			x, err := Begin(c.method, bytes.NewReader(w.Seed))
			if err != nil {
				t.Fatal(err)
			}
			if len(w.Ek) > 0 && !bytes.Equal(x.Public(), w.Ek) {
				t.Errorf("%s test %d: expected another encapsulation key", c.method, w.ID)
			}
			secret, err := x.Finish(w.C)
			if isRefused(err, c.method) {
				return "refused"
			}
			if err != nil || !bytes.Equal(secret, w.K) {
				t.Errorf("%s test %d: expected %x, saw %x, %v", c.method, w.ID, w.K, secret, err)
			}
			return "agreed"
		})
	}
}

// The responder's half: FIPS 203 7.2's checks of the encapsulation key.
func TestWycheproof_MLKEMEncapsulation(t *testing.T) {
	for file, c := range map[string]struct {
		method proposal.KE
		want   map[string]int
	}{
		"mlkem_768_encaps_test.json":  {proposal.KEMLKEM768, map[string]int{"valid taken": 133, "invalid refused": 132}},
		"mlkem_1024_encaps_test.json": {proposal.KEMLKEM1024, map[string]int{"valid taken": 133, "invalid refused": 136}},
	} {
		forEveryWycheproof(t, file, c.want, func(t *testing.T, w *wycheproofTest) string {
			public, secret, err := Respond(c.method, nil, w.Ek)
			if isRefused(err, c.method) {
				return "refused"
			}
			if err != nil || len(public) != wireLen[c.method].answer || len(secret) != 32 {
				t.Errorf("%s test %d: %d and %d bytes, %v", c.method, w.ID, len(public), len(secret), err)
			}
			return "taken"
		})
	}
}

// CCM with the nonce of RFC 5282's length, 11 bytes.
func TestWycheproof_AESCCM(t *testing.T) {
	forEveryWycheproof(t, "aes_ccm_test.json", map[string]int{"valid opened": 18}, func(t *testing.T, w *wycheproofTest) string {
		if w.ivSize != 8*ccmNonceLen {
			return ""
		}
		c, err := newCCM(w.Key, w.tagSize/8)
		if err != nil {
			t.Fatal(err)
		}
		sealed := join(w.CT, w.Tag)
		if got := c.Seal(nil, w.IV, w.Msg, w.AAD); !bytes.Equal(got, sealed) {
			t.Errorf("test %d: expected %x, saw %x", w.ID, sealed, got)
		}
		got, err := c.Open(nil, w.IV, sealed, w.AAD)
		if err != nil || !bytes.Equal(got, w.Msg) {
			t.Errorf("test %d: expected %x, saw %x, %v", w.ID, w.Msg, got, err)
		}
		return "opened"
	})
}

// GCM's tags cut to 8 bytes. A tag that was changed behind its eighth byte is then
// a right one.
func TestWycheproof_AESGCMWithTagsOf8Bytes(t *testing.T) {
	want := map[string]int{"valid opened": 116, "invalid refused": 48, "invalid right so far": 33}
	forEveryWycheproof(t, "aes_gcm_test.json", want, func(t *testing.T, w *wycheproofTest) string {
		if w.ivSize != 96 {
			return ""
		}
		gcm, err := crypt.NewGCM(w.Key, 16)
		if err != nil {
			t.Fatal(err)
		}
		right := gcm.Seal(nil, w.IV, w.Msg, w.AAD)[:len(w.Msg)+gcm8ICVLen]
		sealed := join(w.CT, w.Tag[:gcm8ICVLen])
		got, err := gcm8{gcm}.Open(nil, w.IV, sealed, w.AAD)
		switch {
		case bytes.Equal(right, sealed) != (err == nil):
			t.Errorf("test %d: saw %v", w.ID, err)
		case err != nil:
			return "refused"
		case !bytes.Equal(got, w.Msg):
			t.Errorf("test %d: expected %x, saw %x", w.ID, w.Msg, got)
		case w.Result == "invalid":
			return "right so far"
		}
		return "opened"
	})
}
