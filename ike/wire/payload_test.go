package wire_test

import (
	"bytes"
	"encoding/hex"
	"errors"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/adit-ipsec/adit/ike/wire"
)

var equalPayloads = cmp.Options{cmpopts.EquateEmpty(), cmp.Comparer(func(a, b netip.Addr) bool { return a == b })}

func unhex(t *testing.T, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestRFC7296_3_PayloadsBothWays has each payload's bytes, written down from the
// figures of the RFC, without the generic header.
func TestRFC7296_3_PayloadsBothWays(t *testing.T) {
	v4 := func(s string) netip.Addr { return netip.MustParseAddr(s) }
	for _, c := range []struct {
		name string
		p    wire.Payload
		want string
	}{
		{"3.3 SA", espSA, "00 00 0020 01 03 04 02 c0010203 03 00 000c 01 00 0014 800e 0080 00 00 0008 05 00 0000"},
		{"3.3 SA of two proposals", &wire.SA{Proposals: []wire.Proposal{
			{Number: 1, Protocol: wire.ProtocolAH, SPI: []byte{1, 2, 3, 4}, Transforms: []wire.Transform{{Type: wire.INTEG, ID: 13}}},
			{Number: 2, Protocol: wire.ProtocolIKE, Transforms: []wire.Transform{{Type: wire.ADDKE7, ID: 0x1234}}}}},
			"02 00 0014 01 02 04 01 01020304 00 00 0008 03 00 000d  00 00 0010 02 01 00 01 00 00 0008 0c 00 1234"},
		{"3.4 KE", &wire.KE{Method: 19, Data: []byte{9, 8}}, "0013 0000 0908"},
		{"3.5 IDi", &wire.ID{Kind: wire.IDRFC822Addr, Data: []byte("a@b")}, "03 000000 614062"},
		{"3.5 IDr", &wire.ID{Responder: true, Kind: wire.IDIPv6Addr, Data: v4("2001:db8::1").AsSlice()}, "05 000000 20010db8 00000000 00000000 00000001"},
		{"3.5 ID_NULL", &wire.ID{Kind: wire.IDNull}, "0d 000000"},
		{"3.6 CERT", &wire.Cert{Encoding: wire.CertRawPublicKey, Data: []byte{0x30}}, "0f 30"},
		{"3.7 CERTREQ", &wire.CertReq{Encoding: wire.CertX509Signature}, "04"},
		{"3.8 AUTH", &wire.Auth{Method: wire.AuthDigitalSignature, Data: []byte{1}}, "0e 000000 01"},
		{"3.9 Nonce", &wire.Nonce{Data: fill(16)}, "0102030405060708090a0b0c0d0e0f10"},
		{"3.10 N", &wire.Notify{Protocol: wire.ProtocolESP, SPI: []byte{1, 2, 3, 4}, Kind: wire.NotifyRekeySA}, "03 04 4009 01020304"},
		{"3.10 N without SPI", notify(wire.NotifyInvalidKEPayload, 0, 31), "00 00 0011 001f"},
		{"3.11 D of IKE", &wire.Delete{Protocol: wire.ProtocolIKE}, "01 00 0000"},
		{"3.11 D of ESP", &wire.Delete{Protocol: wire.ProtocolESP, SPIs: []uint32{0xc0000001, 256}}, "03 04 0002 c0000001 00000100"},
		{"3.12 V", &wire.Vendor{Data: []byte("x")}, "78"},
		{"3.13 TSi", &wire.TS{Selectors: []wire.Selector{selector(6, [2]uint16{80, 443}, "192.0.2.0", "192.0.2.255")}}, "01 000000 07 06 0010 0050 01bb c0000200 c00002ff"},
		{"3.13 TSr", &wire.TS{Responder: true, Selectors: []wire.Selector{selector(58, opaque, "::", "::1"), selector(0, anyPort, "0.0.0.0", "255.255.255.255")}},
			"02 000000 08 3a 0028 ffff 0000 00000000000000000000000000000000 00000000000000000000000000000001 07 00 0010 0000 ffff 00000000 ffffffff"},
		{"3.15 CP", &wire.CP{Kind: wire.CFGReply, Attributes: []wire.CPAttribute{{Kind: wire.CPInternalIP4Address, Data: []byte{10, 0, 0, 1}}, {Kind: 0x7fff}}}, "02 000000 0001 0004 0a000001 7fff 0000"},
		{"3.16 EAP", &wire.EAP{Data: []byte{1, 7, 0, 5, 1}}, "01 07 0005 01"},
		{"2.5 a payload of the future", &wire.Unknown{Kind: 99, Critical: true, Data: []byte{5}}, "05"},
	} {
		t.Run(c.name, func(t *testing.T) {
			want := unhex(t, c.want)
			first, got := wire.AppendPayloads([]byte("in front"), c.p)
			if first != c.p.Type() {
				t.Errorf("first payload %v, want %v", first, c.p.Type())
			}
			generic := []byte{0, 0, 0, byte(len(want) + 4)}
			if u, ok := c.p.(*wire.Unknown); ok && u.Critical {
				generic[1] = 0x80
			}
			if whole := append([]byte("in front"), append(generic, want...)...); !bytes.Equal(got, whole) {
				t.Fatalf("written\n%x, want\n%x", got, whole)
			}
			back, err := wire.ParsePayloads(first, got[len("in front"):])
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(payloads(c.p), back, equalPayloads); d != "" {
				t.Errorf("read back (-want +got):\n%s", d)
			}
		})
	}
}

// TestRFC7296_2_5_ReservedFieldsAreIgnored sets every reserved field, the critical
// bit of known payloads, and the header's reserved flags.
func TestRFC7296_2_5_ReservedFieldsAreIgnored(t *testing.T) {
	for _, c := range []struct {
		first wire.PayloadType
		b     string
		want  wire.Payload
	}{
		{wire.PayloadSA, "00ff0024 00 ff 0020 01 03 04 02 c0010203 03 ff 000c 01 ff 0014 800e 0080 00 ff 0008 05 ff 0000", espSA},
		{wire.PayloadKE, "0080000a 0013 ffff 0908", &wire.KE{Method: 19, Data: []byte{9, 8}}},
		// AUTH covers the ID payload as it was sent (2.15): its reserved bytes are kept.
		{wire.PayloadIDi, "00ff000b 03 ffffff 614062", &wire.ID{Kind: wire.IDRFC822Addr, Reserved: [3]byte{0xff, 0xff, 0xff}, Data: []byte("a@b")}},
		{wire.PayloadAUTH, "00ff0009 0e ffffff 01", &wire.Auth{Method: wire.AuthDigitalSignature, Data: []byte{1}}},
		{wire.PayloadN, "00ff0008 03 00 4004", notify(wire.NotifyNATDetectionSourceIP)},
		{wire.PayloadTSi, "00ff0018 01 ffffff 07 06 0010 0050 01bb c0000200 c00002ff", &wire.TS{Selectors: []wire.Selector{selector(6, [2]uint16{80, 443}, "192.0.2.0", "192.0.2.255")}}},
		{wire.PayloadCP, "00ff000c 02 ffffff ffff 0000", &wire.CP{Kind: wire.CFGReply, Attributes: []wire.CPAttribute{{Kind: 0x7fff}}}},
		{200, "007f0004", &wire.Unknown{Kind: 200}},
	} {
		got, err := wire.ParsePayloads(c.first, unhex(t, c.b))
		if err != nil {
			t.Fatalf("%v: %v", c.first, err)
		}
		if d := cmp.Diff(payloads(c.want), got, equalPayloads); d != "" {
			t.Errorf("%v (-want +got):\n%s", c.first, d)
		}
	}
	b := wire.Append(nil, wire.Header{Exchange: wire.Informational, Minor: 7})
	b[19] = 0xff
	h, err := wire.ParseHeader(b)
	if want := wire.FlagInitiator | wire.FlagVersion | wire.FlagResponse; err != nil || h.Flags != want || h.Major != 2 || h.Minor != 7 {
		t.Errorf("header %+v, %v; want flags %v of version 2.7", h, err, want)
	}
}

// TestRFC7296_3_3_6_TransformsNobodyUnderstands marks transforms with an attribute
// that is unknown, twice there, of the wrong format or zero, and those only.
func TestRFC7296_3_3_6_TransformsNobodyUnderstands(t *testing.T) {
	for name, c := range map[string]struct {
		attributes string
		want       wire.Transform
	}{
		"key length":                {"800e 0100", wire.Transform{Type: wire.ENCR, ID: 20, KeyBits: 256}},
		"key length zero":           {"800e 0000", wire.Transform{Type: wire.ENCR, ID: 20, Unknown: true}},
		"key length twice":          {"800e 0100 800e 0080", wire.Transform{Type: wire.ENCR, ID: 20, KeyBits: 256, Unknown: true}},
		"key length in long format": {"000e 0002 0100", wire.Transform{Type: wire.ENCR, ID: 20, Unknown: true}},
		"short":                     {"8012 0001", wire.Transform{Type: wire.ENCR, ID: 20, Unknown: true}},
		"long and key length":       {"4000 0003 010203 800e 0080", wire.Transform{Type: wire.ENCR, ID: 20, KeyBits: 128, Unknown: true}},
	} {
		t.Run(name, func(t *testing.T) {
			attributes := unhex(t, c.attributes)
			n := byte(len(attributes))
			b := append([]byte{0, 0, 0, 20 + n, 0, 0, 0, 16 + n, 1, 1, 0, 1, 0, 0, 0, 8 + n, 1, 0, 0, 20}, attributes...)
			got, err := wire.ParsePayloads(wire.PayloadSA, b)
			if err != nil {
				t.Fatal(err)
			}
			if tr := wire.First[*wire.SA](got).Proposals[0].Transforms[0]; tr != c.want {
				t.Errorf("got %+v, want %+v", tr, c.want)
			}
			_, again := wire.AppendPayloads(nil, got...)
			back, err := wire.ParsePayloads(wire.PayloadSA, again)
			if d := cmp.Diff(got, back, equalPayloads); d != "" || err != nil {
				t.Errorf("written and read again: %v\n%s", err, d)
			}
		})
	}
}

// TestSelectorsNobodyUnderstands: types of selectors other than 7 and 8 are kept as
// unknown ones, whatever they hold, and are still unknown when written.
func TestSelectorsNobodyUnderstands(t *testing.T) {
	b := unhex(t, "0000 0020 02 000000 0a 00 0008 01020304 07 06 0010 0050 01bb c0000200 c00002ff")
	got, err := wire.ParsePayloads(wire.PayloadTSr, b)
	if err != nil {
		t.Fatal(err)
	}
	want := payloads(&wire.TS{Responder: true, Selectors: []wire.Selector{{Unknown: true}, selector(6, [2]uint16{80, 443}, "192.0.2.0", "192.0.2.255")}})
	if d := cmp.Diff(want, got, equalPayloads); d != "" {
		t.Fatalf("(-want +got):\n%s", d)
	}
	mixed := &wire.TS{Selectors: []wire.Selector{{From: netip.MustParseAddr("10.0.0.0"), To: netip.MustParseAddr("::1")}, {}}}
	for _, p := range []wire.Payload{got[0], mixed} {
		first, again := wire.AppendPayloads(nil, p)
		back, err := wire.ParsePayloads(first, again)
		if err != nil || !wire.First[*wire.TS](back).Selectors[0].Unknown {
			t.Errorf("%+v came back as %+v, %v: want an unknown selector", p, back, err)
		}
	}
}

// TestMalformedPayloads has one row for each way in which a payload can be wrong
// inside (C-K04, F1, F2).
func TestMalformedPayloads(t *testing.T) {
	for name, c := range map[string]struct {
		first wire.PayloadType
		b     string
		want  string
	}{
		"payload length below 4":          {wire.PayloadV, "00000003", "payload does not fit"},
		"payload length 0":                {wire.PayloadV, "00000000", "payload does not fit"},
		"payload beyond the message":      {wire.PayloadV, "00000005", "payload does not fit"},
		"half a generic header":           {wire.PayloadV, "0000", "payload does not fit"},
		"another payload that is missing": {wire.PayloadV, "2b000004", "payload does not fit"},
		"bytes behind the last":           {wire.PayloadV, "00000004 00", "bytes behind the last payload"},
		"bytes and no payload":            {wire.PayloadNone, "00", "bytes behind the last payload"},
		"SK inside":                       {wire.PayloadSK, "00000008 00000000", "encrypted payload inside"},
		"SKF inside":                      {wire.PayloadV, "35000004 00000008 00010001", "encrypted payload inside"},
		"SA without proposals":            {wire.PayloadSA, "00000004", "proposal does not fit"},
		"proposal mark":                   {wire.PayloadSA, "00000014 03 00 0010 01 01 00 01 00 00 0008 03 00 000d", "proposal does not fit"},
		"proposal beyond the SA":          {wire.PayloadSA, "00000014 00 00 0011 01 01 00 01 00 00 0008 03 00 000d", "proposal does not fit"},
		"proposal length below 4":         {wire.PayloadSA, "00000014 00 00 0003 01 01 00 01 00 00 0008 03 00 000d", "proposal does not fit"},
		"proposal too short":              {wire.PayloadSA, "0000000b 00 00 0007 01 01 00", "proposal is cut short"},
		"last proposal says more":         {wire.PayloadSA, "00000014 02 00 0010 01 01 00 01 00 00 0008 03 00 000d", "proposal does not fit"},
		"proposal behind the last":        {wire.PayloadSA, "00000015 00 00 0010 01 01 00 01 00 00 0008 03 00 000d 00", "bytes behind the last proposal"},
		"SPI beyond the proposal":         {wire.PayloadSA, "00000014 00 00 0010 01 ff 09 01 00 00 0008 03 00 000d", "proposal is cut short"},
		"SPI of ESP too long":             {wire.PayloadSA, "00000019 00 00 0015 01 03 05 01 0102030405 00 00 0008 03 00 000d", "SPI is not as long"},
		"SPI of ESP missing":              {wire.PayloadSA, "00000014 00 00 0010 01 03 00 01 00 00 0008 03 00 000d", "SPI is not as long"},
		"SPI of IKE too short":            {wire.PayloadSA, "00000018 00 00 0014 01 01 04 01 01020304 00 00 0008 03 00 000d", "SPI is not as long"},
		"no transforms":                   {wire.PayloadSA, "0000000c 00 00 0008 01 01 00 00", "without transforms"},
		"fewer transforms than said":      {wire.PayloadSA, "00000014 00 00 0010 01 01 00 02 00 00 0008 03 00 000d", "transform does not fit"},
		"more transforms than said":       {wire.PayloadSA, "0000001c 00 00 0018 01 01 00 01 03 00 0008 03 00 000d 00 00 0008 03 00 000d", "transform does not fit"},
		"bytes behind the last transform": {wire.PayloadSA, "00000015 00 00 0011 01 01 00 01 00 00 0008 03 00 000d 00", "bytes behind the last transform"},
		"transform mark":                  {wire.PayloadSA, "00000014 00 00 0010 01 01 00 01 02 00 0008 03 00 000d", "transform does not fit"},
		"transform too short":             {wire.PayloadSA, "00000013 00 00 000f 01 01 00 01 00 00 0007 03 00 00", "transform is cut short"},
		"attribute cut":                   {wire.PayloadSA, "00000017 00 00 0013 01 01 00 01 00 00 000b 01 00 000d 800e 01", "attribute is cut short"},
		"attribute beyond the transform":  {wire.PayloadSA, "00000018 00 00 0014 01 01 00 01 00 00 000c 01 00 000d 4000 0001", "attribute does not fit"},
		"KE without data":                 {wire.PayloadKE, "00000008 0013 0000", "KE payload is cut short"},
		"ID cut":                          {wire.PayloadIDi, "00000007 020000", "ID payload is cut short"},
		"ID of an IPv4 address":           {wire.PayloadIDi, "0000000b 01000000 010203", "address of another length"},
		"ID of an IPv6 address":           {wire.PayloadIDr, "0000000c 05000000 01020304", "address of another length"},
		"CERT of nothing":                 {wire.PayloadCERT, "00000005 04", "without a certificate"},
		"CERTREQ cut":                     {wire.PayloadCERTREQ, "00000004", "cut short"},
		"AUTH without data":               {wire.PayloadAUTH, "00000008 02000000", "AUTH payload is cut short"},
		"nonce of 15 bytes":               {wire.PayloadNonce, "00000013" + strings.Repeat("00", 15), "16 to 256"},
		"nonce of 257 bytes":              {wire.PayloadNonce, "00000105" + strings.Repeat("00", 257), "16 to 256"},
		"N cut":                           {wire.PayloadN, "00000007 000040", "notification is cut short"},
		"SPI beyond N":                    {wire.PayloadN, "0000000a 03 04 4009 0102", "notification is cut short"},
		"SPI of ESP of 8 bytes in N":      {wire.PayloadN, "00000010 03 08 4009 0102030405060708", "SPI is not as long"},
		"D cut":                           {wire.PayloadD, "00000007 010000", "delete payload is cut short"},
		"D of IKE with a size":            {wire.PayloadD, "00000008 01 08 0000", "in the header"},
		"D of IKE with SPIs":              {wire.PayloadD, "00000010 01 08 0001 0102030405060708", "in the header"},
		"D of fewer SPIs than said":       {wire.PayloadD, "0000000c 03 04 0002 01020304", "SPIs do not fit"},
		"D of more SPIs than said":        {wire.PayloadD, "0000000c 03 04 0000 01020304", "SPIs do not fit"},
		"D of ESP with another size":      {wire.PayloadD, "0000000c 03 02 0002 01020304", "SPIs do not fit"},
		"D of another protocol":           {wire.PayloadD, "00000008 04 04 0000", "unknown protocol"},
		"TS of no selectors":              {wire.PayloadTSi, "00000008 00000000", "cut short"},
		"fewer selectors than said":       {wire.PayloadTSi, "00000018 02 000000 07 06 0010 0050 01bb c0000200 c00002ff", "selector does not fit"},
		"more selectors than said":        {wire.PayloadTSi, "0000001c 01 000000 07 06 0010 0050 01bb c0000200 c00002ff 0a000004", "bytes behind the last traffic selector"},
		"selector length below 4":         {wire.PayloadTSi, "00000018 01 000000 07 06 0003 0050 01bb c0000200 c00002ff", "selector does not fit"},
		"IPv6 selector of IPv4's length":  {wire.PayloadTSi, "00000018 01 000000 08 06 0010 0050 01bb c0000200 c00002ff", "not as long as its type's"},
		"addresses the wrong way round":   {wire.PayloadTSi, "00000018 01 000000 07 06 0010 0050 01bb c0000201 c0000200", "ends before it starts"},
		"ports the wrong way round":       {wire.PayloadTSi, "00000018 01 000000 07 06 0010 0051 0050 c0000200 c00002ff", "ends before it starts"},
		"CP cut":                          {wire.PayloadCP, "00000007 010000", "cut short"},
		"attribute of CP beyond it":       {wire.PayloadCP, "0000000d 01000000 0001 0002 05", "configuration attribute does not fit"},
		"EAP length":                      {wire.PayloadEAP, "00000008 01 01 0005", "not as long as it says"},
		"EAP cut":                         {wire.PayloadEAP, "00000007 01 01 00", "not as long as it says"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := wire.ParsePayloads(c.first, unhex(t, c.b))
			var parse *wire.ParseError
			if !errors.As(err, &parse) || !strings.Contains(parse.What, c.want) {
				t.Fatalf("got %+v, %v; want a *ParseError with %q", got, err, c.want)
			}
			if !strings.Contains(err.Error(), "IKE message, byte ") {
				t.Errorf("%q does not say where", err)
			}
		})
	}
}
