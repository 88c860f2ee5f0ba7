package auth_test

import (
	"bytes"
	"encoding/hex"
	"strings"
	"testing"
	"unicode"

	"github.com/adit-ipsec/adit/ike/auth"
	"github.com/adit-ipsec/adit/ike/wire"
)

// TestParseIdentity: swanctl's rules, and the text that comes back.
func TestParseIdentity(t *testing.T) {
	for _, c := range []struct {
		text string
		kind wire.IDType
		data string // as it is, or "#" and hexadecimal
		back string // "": the same
	}{
		{"", 0, "", "%any"},
		{"%any", 0, "", ""},
		{"a.example.net", wire.IDFQDN, "a.example.net", ""},
		{" hub_1 ", wire.IDFQDN, "hub_1", "hub_1"},
		{"@a.example.net", wire.IDFQDN, "a.example.net", "a.example.net"},
		{"fqdn:a.example.net", wire.IDFQDN, "a.example.net", "a.example.net"},
		{"fqdn:10.0.0.1", wire.IDFQDN, "10.0.0.1", ""},
		{"fqdn:branch 7", wire.IDFQDN, "branch 7", ""},
		{"@#0a0B", wire.IDKeyID, "#0a0b", "keyid:0a0b"},
		{"keyid:0102", wire.IDKeyID, "#0102", ""},
		{"keyid:#0102", wire.IDKeyID, "#0102", "keyid:0102"},
		{"{11}:#0102", wire.IDKeyID, "#0102", "keyid:0102"},
		{"user@example.net", wire.IDRFC822Addr, "user@example.net", ""},
		{"@@user@example.net", wire.IDRFC822Addr, "user@example.net", "user@example.net"},
		{"email:a=b@example.net", wire.IDRFC822Addr, "a=b@example.net", ""},
		{"192.0.2.1", wire.IDIPv4Addr, "#c0000201", ""},
		{"ipv4:192.0.2.1", wire.IDIPv4Addr, "#c0000201", "192.0.2.1"},
		{"2001:DB8::1", wire.IDIPv6Addr, "#20010db8000000000000000000000001", "2001:db8::1"},
		{"::ffff:192.0.2.1", wire.IDIPv6Addr, "#00000000000000000000ffffc0000201", ""},
		{"C=CH, CN=a", wire.IDDERASN1DN, "#3019310b3009060355040613024348310a300806035504030c0161", ""},
		{"/C=CH/CN=a", wire.IDDERASN1DN, "#3019310b3009060355040613024348310a300806035504030c0161", "C=CH, CN=a"},
		{"asn1dn:c=CH,cn=a", wire.IDDERASN1DN, "#3019310b3009060355040613024348310a300806035504030c0161", "C=CH, CN=a"},
		{"asn1dn:#3019310b3009060355040613024348310a300806035504030c0161", wire.IDDERASN1DN, "#3019310b3009060355040613024348310a300806035504030c0161", "C=CH, CN=a"},
		{"2.5.4.3=a", wire.IDDERASN1DN, "#300c310a300806035504030c0161", "CN=a"},
		{"CN=#0c0161", wire.IDDERASN1DN, "#300c310a300806035504030c0161", "CN=a"},
		{"CN=#040161", wire.IDDERASN1DN, "#300c310a30080603550403040161", "CN=#040161"},
		{`O="a, b"`, wire.IDDERASN1DN, "#300f310d300b060355040a0c04612c2062", `O=a\, b`},
		{`O=a\, b`, wire.IDDERASN1DN, "#300f310d300b060355040a0c04612c2062", ""},
		{"CN=a+E=b", wire.IDDERASN1DN, "#301c311a300806035504030c0161300e06092a864886f70d010901160162", ""},
		{"E=b+CN=a", wire.IDDERASN1DN, "#301c311a300806035504030c0161300e06092a864886f70d010901160162", "CN=a+E=b"}, // DER sorts sets
		{"DC=a, SN=b", wire.IDDERASN1DN, "#301f3111300f060a0992268993f22c640119160161310a300806035504040c0162", ""},
	} {
		id, err := auth.ParseIdentity(c.text)
		if err != nil {
			t.Errorf("%q: %v", c.text, err)
			continue
		}
		data := []byte(c.data)
		if digits, ok := strings.CutPrefix(c.data, "#"); ok {
			data = must[[]byte](t)(hex.DecodeString(digits))
		}
		if id.Kind != c.kind || !bytes.Equal(id.Data, data) {
			t.Errorf("%q: %v %x, want %v %x", c.text, id.Kind, id.Data, c.kind, data)
		}
		if c.back == "" {
			c.back = strings.TrimSpace(c.text)
		}
		if id.String() != c.back {
			t.Errorf("%q: written as %q, want %q", c.text, id.String(), c.back)
		}
		if w := id.Wire(true); !w.Responder || w.Kind != c.kind || !bytes.Equal(w.Data, data) {
			t.Errorf("%q: on the wire %v", c.text, w)
		}
	}
}

// TestIdentitiesThatAreNone: each with a sentence, and without a panic.
func TestIdentitiesThatAreNone(t *testing.T) {
	for _, text := range []string{
		"*.example.net", "a b", "ex\x00ample", "fqdn:", "@", "user@", "email:nobody", "fqdn:a\nb", "{", "{x}:#00", "{300}:#00", "{13}:#00",
		"keyid:", "keyid:xyz", "keyid:012", "ipv4:2001:db8::1", "ipv6:192.0.2.1", "ipv4:x", "fe80::1%eth0", "ipv4:#0102", "asn1dn:#00", "asn1dn:#3000",
		"CN=", "CN=a,", "CN=a, b", "XX=a", "1.2.x=a", "9.9.9=a", "CN=#zz", "CN=#0c01", `CN="a`, `CN=a\`, "=a", "CN=a\x07", "/", "keyid:" + strings.Repeat("00", 1025),
	} {
		id, err := auth.ParseIdentity(text)
		if err == nil {
			t.Errorf("%q is %v", text, id)
			continue
		}
		wantReason(t, err, auth.BadIdentity)
	}
}

// TestIdentityFromWire: what RFC 7296 3.5 says of each type, and no text of a peer
// that could end a line of the log.
func TestIdentityFromWire(t *testing.T) {
	for _, p := range []*wire.ID{
		nil, {Kind: wire.IDIPv4Addr, Data: []byte{1, 2, 3}}, {Kind: wire.IDIPv6Addr, Data: make([]byte, 17)}, {Kind: wire.IDFQDN},
		{Kind: wire.IDFQDN, Data: []byte("a\x00b")}, {Kind: wire.IDFQDN, Data: []byte("a\r\nb")}, {Kind: wire.IDRFC822Addr, Data: []byte("a")},
		{Kind: wire.IDDERASN1DN, Data: []byte{0x30, 1}}, {Kind: wire.IDDERASN1GN, Data: []byte{0x82, 1, 'a'}}, {Kind: wire.IDKeyID},
		{Kind: wire.IDNull}, {Kind: 99, Data: []byte("a")}, {Kind: wire.IDKeyID, Data: make([]byte, 1025)},
	} {
		_, err := auth.FromWire(p)
		e := wantReason(t, err, auth.BadIdentity)
		if strings.ContainsFunc(e.Error(), unicode.IsControl) {
			t.Errorf("%q has control characters", e.Error())
		}
	}
	data := []byte("a.example.net")
	id := must[auth.Identity](t)(auth.FromWire(&wire.ID{Kind: wire.IDFQDN, Data: data}))
	if clear(data); id.String() != "a.example.net" {
		t.Errorf("%v is borrowed from the message", id)
	}
}

// TestEqualIdentities: case of host names and string types of names do not count;
// everything else does.
func TestEqualIdentities(t *testing.T) {
	for _, c := range []struct {
		a, b string
		same bool
	}{
		{"a.example.net", "A.EXAMPLE.net", true},
		{"a.example.net", "b.example.net", false},
		{"a.example.net", "keyid:612e6578616d706c652e6e6574", false},
		{"user@example.net", "USER@example.net", false},
		{"192.0.2.1", "::ffff:192.0.2.1", false},
		{"CN=a, O=b", "CN=a,O=b", true},
		{"CN=a, O=b", "O=b, CN=a", false},
		{"CN=a, O=b", "CN=A, O=b", false},
		{"CN=a, O=b", "CN=a+O=b", false},
		{"CN=a", "CN=a, CN=a", false},
		{"CN=a", "CN=#130161", true},
		{"CN=a", "CN=#160161", true},
		{"CN=a", "CN=#040161", false},
		{"CN=ä", "CN=#0c02c3a4", true},
		{"CN=ä", "CN=#1302c3a4", true},
		{"CN=ä", "CN=#1301e4", false},
		{"%any", "%any", true},
		{"%any", "a", false},
	} {
		a, b := identity(t, c.a), identity(t, c.b)
		if a.Equal(b) != c.same || b.Equal(a) != c.same {
			t.Errorf("%s and %s: %v", c.a, c.b, !c.same)
		}
	}
}
