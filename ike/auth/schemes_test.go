package auth

import (
	"encoding/asn1"
	"encoding/hex"
	"testing"
)

// TestRFC7427_AppendixA: the AlgorithmIdentifiers are the RFC's bytes, copied here a
// second time from its appendix A and from RFC 8420 appendix A.
func TestRFC7427_AppendixA(t *testing.T) {
	want := map[string]string{
		"rsa-sha256":     "300d06092a864886f70d01010b0500",                                                                                                         // A.1.2
		"rsa-sha384":     "300d06092a864886f70d01010c0500",                                                                                                         // A.1.3
		"rsa-sha512":     "300d06092a864886f70d01010d0500",                                                                                                         // A.1.4
		"ecdsa-sha256":   "300a06082a8648ce3d040302",                                                                                                               // A.3.2
		"ecdsa-sha384":   "300a06082a8648ce3d040303",                                                                                                               // A.3.3
		"ecdsa-sha512":   "300a06082a8648ce3d040304",                                                                                                               // A.3.4
		"rsa-pss-sha256": "304106092a864886f70d01010a3034a00f300d06096086480165030402010500a11c301a06092a864886f70d010108300d06096086480165030402010500a203020120", // A.4.3
		"ed25519":        "300506032b6570",                                                                                                                         // RFC 8420 A.1
	}
	seen := map[string]string{}
	for _, s := range schemes {
		if w, ok := want[s.name]; ok && w != hex.EncodeToString([]byte(s.encodings[0])) {
			t.Errorf("%s: %x", s.name, s.encodings[0])
		}
		delete(want, s.name)
		for _, e := range s.encodings {
			if other := seen[e]; other != "" {
				t.Errorf("%s and %s have one encoding", s.name, other)
			}
			seen[e] = s.name
			var any asn1.RawValue
			if rest, err := asn1.Unmarshal([]byte(e), &any); err != nil || len(rest) > 0 {
				t.Errorf("%s: %x is no DER", s.name, e)
			}
			if back, ok := schemeOf([]byte(e)); !ok || back.name != s.name {
				t.Errorf("%s is found as %s", s.name, back.name)
			}
		}
	}
	for name := range want {
		t.Errorf("%s is missing", name)
	}
}

// TestAlgorithmsNextToTheList: the list is compared byte by byte, so that other
// salts, other hashes, other masks and trailing bytes are other algorithms.
func TestAlgorithmsNextToTheList(t *testing.T) {
	for name, text := range map[string]string{
		"nothing":                  "",
		"PSS by default, SHA-1":    "300d06092a864886f70d01010a3000",
		"PSS with salt 0":          "304106092a864886f70d01010a3034a00f300d06096086480165030402010500a11c301a06092a864886f70d010108300d06096086480165030402010500a203020100",
		"PSS with salt 222":        "304206092a864886f70d01010a3035a00f300d06096086480165030402010500a11c301a06092a864886f70d010108300d06096086480165030402010500a204020200de",
		"PSS with a mask of SHA-1": "303d06092a864886f70d01010a3030a00f300d06096086480165030402010500a118301606092a864886f70d010108300906052b0e03021a0500a203020120",
		"PSS, SHA-512 mask":        "304106092a864886f70d01010a3034a00f300d06096086480165030402010500a11c301a06092a864886f70d010108300d06096086480165030402030500a203020120",
		"a byte behind":            "300a06082a8648ce3d04030200",
		"a length in long form":    "30810a06082a8648ce3d040302",
		"SHA-224":                  "300d06092a864886f70d01010e0500",
		"Ed448":                    "300506032b6571",
	} {
		b, err := hex.DecodeString(text)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if s, ok := schemeOf(b); ok {
			t.Errorf("%s is taken for %s", name, s.name)
		}
	}
}
