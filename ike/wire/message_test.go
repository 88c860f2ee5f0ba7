package wire_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/adit-ipsec/adit/ike/wire"
)

// TestRFC7634_B_Message reads the example message of RFC 7634 appendix B, and what
// its SK payload holds, and writes both again, byte for byte.
func TestRFC7634_B_Message(t *testing.T) {
	b := unhex(t, "c0c1c2c3c4c5c6c7d0d1d2d3d4d5d6d72e2025000000000900000045290000291011121314151617610394701f8d017f7c129248896b71bfe25236efd7cdc67066906315b2")
	m, err := wire.Parse(b)
	if err != nil {
		t.Fatal(err)
	}
	want := wire.Header{Initiator: 0xc0c1c2c3c4c5c6c7, Responder: 0xd0d1d2d3d4d5d6d7, Next: wire.PayloadSK, Major: 2, Exchange: wire.Informational, MessageID: 9, Length: 69}
	if m.Header != want || len(m.Payloads) != 0 || m.Response() || m.FromInitiator() {
		t.Errorf("header %+v, payloads %v; want %+v and none", m.Header, m.Payloads, want)
	}
	p := m.Protected
	if p == nil || p.First != wire.PayloadN || p.Total != 0 || p.AAD != 32 || !bytes.Equal(p.Body, b[32:]) {
		t.Fatalf("protected %+v, want an SK payload with 32 bytes of associated data", p)
	}
	if got, want := m.Summary(), "INFORMATIONAL request 9 [SK]"; got != want {
		t.Errorf("summary %q, want %q", got, want)
	}
	if err := wire.CheckOuter(m); err != nil {
		t.Error(err)
	}

	plain := unhex(t, "0000000c000040010000000a")
	inside, err := wire.ParsePayloads(p.First, plain)
	if d := cmp.Diff(payloads(notify(wire.NotifySetWindowSize, 0, 0, 0, 10)), inside, equalPayloads); d != "" || err != nil {
		t.Fatalf("inside: %v\n%s", err, d)
	}
	if err := wire.Check(m.Exchange, m.Response(), inside); err != nil {
		t.Error(err)
	}
	first, again := wire.AppendPayloads(nil, inside...)
	begin := wire.BeginProtected(m.Header, nil, wire.Protected{First: first}, len(p.Body))
	if first != wire.PayloadN || !bytes.Equal(again, plain) || !bytes.Equal(begin, b[:32]) {
		t.Errorf("written again: %v %x, %x", first, again, begin)
	}
}

// TestRFC7383_2_5_Fragments: SKF messages both ways, and what C-K07 finds already in
// one fragment.
func TestRFC7383_2_5_Fragments(t *testing.T) {
	h := wire.Header{Initiator: 1, Responder: 2, Exchange: wire.IKEAuth, Flags: wire.FlagInitiator, MessageID: 1}
	body := fill(40)
	b := append(wire.BeginProtected(h, nil, wire.Protected{Fragment: 2, Total: 3}, len(body)), body...)
	want := unhex(t, "0000000000000001 0000000000000002 35 20 23 08 00000001 0000004c 00 00 0030 0002 0003")
	if !bytes.Equal(b, append(want, body...)) {
		t.Fatalf("written\n%x, want\n%x and the body", b, want)
	}
	m, err := wire.Parse(b)
	if err != nil {
		t.Fatal(err)
	}
	if p := m.Protected; p.Fragment != 2 || p.Total != 3 || p.AAD != 36 || !bytes.Equal(p.Body, body) || p.Type() != wire.PayloadSKF {
		t.Errorf("read %+v", p)
	}
	if got, want := m.Summary(), "IKE_AUTH request 1 [SKF(2/3)]"; got != want {
		t.Errorf("summary %q, want %q", got, want)
	}
	for name, numbers := range map[string][2]uint16{"total 0": {1, 0}, "number 0": {0, 3}, "both 0": {0, 0}, "number beyond the total": {4, 3}, "the last of 16 bits": {65535, 65534}} {
		binary.BigEndian.PutUint16(b[32:], numbers[0])
		binary.BigEndian.PutUint16(b[34:], numbers[1])
		if _, err := wire.Parse(b); err == nil {
			t.Errorf("C-K07 %s: no error", name)
		}
	}
	binary.BigEndian.PutUint32(b[32:], 65535<<16|65535)
	if _, err := wire.Parse(b); err != nil {
		t.Errorf("fragment 65535 of 65535: %v; who puts them together bounds that", err)
	}
}

// TestProtectedIsTheLastPayload: clear payloads may be in front of SK, nothing may be
// behind it.
func TestProtectedIsTheLastPayload(t *testing.T) {
	h := wire.Header{Initiator: 1, Responder: 2, Exchange: wire.Informational}
	b := append(wire.BeginProtected(h, payloads(vendor, &wire.Unknown{Kind: 77}), wire.Protected{First: wire.PayloadD}, 3), 1, 2, 3)
	m, err := wire.Parse(b)
	if err != nil {
		t.Fatal(err)
	}
	if p := m.Protected; len(m.Payloads) != 2 || p.First != wire.PayloadD || p.AAD != len(b)-3 || !bytes.Equal(m.Raw[p.AAD:], p.Body) {
		t.Errorf("read %+v %+v", m.Payloads, p)
	}
	if got, want := m.Summary(), "INFORMATIONAL request 0 [V payload 77 SK]"; got != want {
		t.Errorf("summary %q, want %q", got, want)
	}
	longer := append(bytes.Clone(b), 0, 0, 0, 4)
	binary.BigEndian.PutUint32(longer[24:], uint32(len(longer)))
	if _, err := wire.Parse(longer); err == nil || !strings.Contains(err.Error(), "behind the encrypted payload") {
		t.Errorf("bytes behind SK: %v", err)
	}
}

// TestParseHeaderRefuses what is not as long as it says, and Parse another version.
func TestParseHeaderRefuses(t *testing.T) {
	b := messages()[0].bytes()
	for n := range b {
		if _, err := wire.ParseHeader(b[:n]); err == nil {
			t.Fatalf("the first %d bytes of %d are a message", n, len(b))
		}
	}
	if _, err := wire.ParseHeader(append(bytes.Clone(b), 0)); err == nil {
		t.Error("a byte behind the message is no error")
	}
	for _, version := range []byte{0x00, 0x10, 0x30, 0xf0} {
		b[17] = version
		h, err := wire.ParseHeader(b)
		if err != nil || h.Major != version>>4 {
			t.Errorf("version %#x: ParseHeader gives %d, %v; it has to give the version, for INVALID_MAJOR_VERSION", version, h.Major, err)
		}
		var parse *wire.ParseError
		if _, err := wire.Parse(b); !errors.As(err, &parse) || parse.Offset != 17 {
			t.Errorf("version %#x: Parse gives %v, want an error at byte 17", version, err)
		}
	}
	b[17] = 0x2f
	if _, err := wire.Parse(b); err != nil {
		t.Errorf("minor version 15: %v; RFC 7296 2.5: it MUST be ignored", err)
	}
}

// TestCaps: each bound of a message is reached and not passed (F1, F7).
func TestCaps(t *testing.T) {
	repeat := func(n int, p wire.Payload) (all []wire.Payload) {
		for range n {
			all = append(all, p)
		}
		return all
	}
	sa := func(proposals, transforms int) wire.Payload {
		p := &wire.SA{}
		for i := range proposals {
			p.Proposals = append(p.Proposals, wire.Proposal{Number: byte(i + 1), Protocol: wire.ProtocolIKE, Transforms: make([]wire.Transform, transforms)})
		}
		return p
	}
	ts := &wire.TS{Selectors: make([]wire.Selector, 255)}
	for i := range ts.Selectors {
		ts.Selectors[i] = tsi.Selectors[0]
	}
	more := &wire.TS{Selectors: append([]wire.Selector{tsi.Selectors[0]}, ts.Selectors...)}
	for name, c := range map[string]struct {
		payloads []wire.Payload
		want     string
	}{
		"64 payloads":                      {repeat(64, vendor), ""},
		"65 payloads":                      {repeat(65, vendor), "too many payloads"},
		"64 proposals":                     {payloads(sa(64, 1)), ""},
		"65 proposals":                     {payloads(sa(65, 1)), "too many proposals"},
		"65 proposals in two SA payloads":  {payloads(sa(64, 1), sa(1, 1)), "too many proposals"},
		"256 transforms":                   {payloads(sa(2, 128)), ""},
		"257 transforms":                   {payloads(sa(1, 255), sa(2, 1)), "too many transforms"},
		"255 selectors in each TS payload": {payloads(ts, ts), ""},
		"more selectors than can be said":  {payloads(more), ""},
		"the longest payload":              {payloads(&wire.Vendor{Data: make([]byte, 65531)}), ""},
		"a longer one, which is cut":       {payloads(&wire.Vendor{Data: make([]byte, 70000)}, vendor), ""},
	} {
		t.Run(name, func(t *testing.T) {
			m, err := wire.Parse(wire.Append(nil, wire.Header{}, c.payloads...))
			switch {
			case c.want != "":
				if err == nil || !strings.Contains(err.Error(), c.want) {
					t.Fatalf("got %v, want an error with %q", err, c.want)
				}
			case err != nil:
				t.Fatal(err)
			case len(m.Payloads) != len(c.payloads):
				t.Fatalf("%d payloads came back as %d", len(c.payloads), len(m.Payloads))
			}
			if ts := wire.All[*wire.TS](payloadsOf(m)); len(ts) > 0 && len(ts[0].Selectors) != wire.MaxSelectors {
				t.Errorf("%d selectors, want %d", len(ts[0].Selectors), wire.MaxSelectors)
			}
		})
	}
}

func payloadsOf(m *wire.Message) []wire.Payload {
	if m == nil {
		return nil
	}
	return m.Payloads
}

// TestFind holds the helpers: first, all, none.
func TestFind(t *testing.T) {
	other := &wire.KE{Method: 36}
	p := payloads(idr, ke, idi, other, tsr, linkData, notify(wire.NotifyCookie), tsi)
	if wire.First[*wire.KE](p) != ke || wire.First[*wire.SA](p) != nil || wire.First[*wire.SA](nil) != nil {
		t.Error("First is not the first")
	}
	if all := wire.All[*wire.KE](p); len(all) != 2 || all[0] != ke || all[1] != other || wire.All[*wire.SA](p) != nil {
		t.Error("All is not all")
	}
	if wire.FindNotify(p, wire.NotifyAdditionalKeyExchange) != linkData || wire.FindNotify(p, wire.NotifyRekeySA) != nil {
		t.Error("FindNotify finds another")
	}
	if wire.FindID(p, true) != idr || wire.FindID(p, false) != idi || wire.FindID(nil, true) != nil {
		t.Error("FindID finds another")
	}
	if wire.FindTS(p, true) != tsr || wire.FindTS(p, false) != tsi || wire.FindTS(nil, false) != nil {
		t.Error("FindTS finds another")
	}
	if got, want := idi.Body(), append([]byte{2, 0, 0, 0}, "a.example.net"...); !bytes.Equal(got, want) {
		t.Errorf("body of IDi %x, want %x", got, want)
	}
}
