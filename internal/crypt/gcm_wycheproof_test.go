package crypt

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"io/fs"
	"testing"

	"github.com/c2sp/wycheproof"
)

type hexBytes []byte

func (b *hexBytes) UnmarshalText(text []byte) (err error) {
	*b, err = hex.DecodeString(string(text))
	return err
}

type wycheproofTest struct {
	ID                         int `json:"tcId"`
	Key, IV, AAD, Msg, CT, Tag hexBytes
	Result                     string
}

// forEveryWycheproof runs f for the tests with nonces of 12 bytes and fails
// unless it agrees with their result, and unless exactly so many ran.
func forEveryWycheproof(t *testing.T, file string, valid, invalid int, f func(w *wycheproofTest) bool) {
	t.Helper()
	data, err := fs.ReadFile(wycheproof.TestVectors, file)
	if err != nil {
		t.Fatal(err)
	}
	var suite struct {
		TestGroups []struct {
			IVSize int `json:"ivSize"`
			Tests  []wycheproofTest
		} `json:"testGroups"`
	}
	if err := json.Unmarshal(data, &suite); err != nil {
		t.Fatal(err)
	}
	ran := map[string]int{}
	for _, g := range suite.TestGroups {
		if g.IVSize != 8*gcmNonceLen {
			continue
		}
		for i := range g.Tests {
			w := &g.Tests[i]
			ran[w.Result]++
			if got := f(w); got != (w.Result == "valid") {
				t.Errorf("%s test %d: expected %s, saw accepted %t", file, w.ID, w.Result, got)
			}
		}
	}
	if ran["valid"] != valid || ran["invalid"] != invalid || len(ran) > 2 {
		t.Errorf("%s: expected %d valid and %d invalid tests, ran %v", file, valid, invalid, ran)
	}
}

func TestWycheproof_AESGCMKernels(t *testing.T) {
	for _, k := range GCMKernels() {
		forEveryWycheproof(t, "aes_gcm_test.json", 116, 81, func(w *wycheproofTest) bool {
			aead := gcm(t, k, w.Key, 16)
			sealed := append(bytes.Clone(w.CT), w.Tag...)
			got, err := aead.Open(nil, w.IV, sealed, w.AAD)
			if err != nil {
				return false
			}
			if !bytes.Equal(got, w.Msg) {
				t.Errorf("%v: test %d: opened %x, want %x", k, w.ID, got, w.Msg)
			}
			if got := aead.Seal(nil, w.IV, w.Msg, w.AAD); !bytes.Equal(got, sealed) {
				t.Errorf("%v: test %d: sealed %x, want %x", k, w.ID, got, sealed)
			}
			return true
		})
	}
}

func TestWycheproof_AESGMACKernels(t *testing.T) {
	for _, k := range GCMKernels() {
		forEveryWycheproof(t, "aes_gmac_test.json", 45, 162, func(w *wycheproofTest) bool {
			_, err := gcm(t, k, w.Key, 16).Open(nil, w.IV, w.Tag, w.Msg)
			return err == nil
		})
	}
}
