package wire_test

import (
	"encoding/hex"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/adit-ipsec/adit/ike/wire"
)

var update = flag.Bool("update", false, "write testdata/messages.txt anew")

// message is a valid message of an exchange. Those that belong into SK stand in
// clear here: what is tested is what comes out of SK.
type message struct {
	name     string
	exchange wire.ExchangeType
	response bool
	payloads []wire.Payload
}

func (m message) header() wire.Header {
	h := wire.Header{Initiator: 0x0102030405060708, Responder: 0x1112131415161718, Exchange: m.exchange, Flags: wire.FlagInitiator, MessageID: 5}
	if m.response {
		h.Flags = wire.FlagResponse
	}
	if m.exchange == wire.IKESAInit {
		h.MessageID = 0
		if !m.response {
			h.Responder = 0
		}
	}
	return h
}

func (m message) bytes() []byte { return wire.Append(nil, m.header(), m.payloads...) }

// fill is n bytes that are all different from their neighbours.
func fill(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i + 1)
	}
	return b
}

func notify(kind wire.NotifyType, data ...byte) *wire.Notify {
	return &wire.Notify{Kind: kind, Data: data}
}

func selector(protocol uint8, ports [2]uint16, from, to string) wire.Selector {
	return wire.Selector{Protocol: protocol, FromPort: ports[0], ToPort: ports[1], From: netip.MustParseAddr(from), To: netip.MustParseAddr(to)}
}

var (
	anyPort   = [2]uint16{0, 65535}
	opaque    = [2]uint16{65535, 0}
	ikeSuite  = []wire.Transform{{Type: wire.ENCR, ID: 20, KeyBits: 256}, {Type: wire.PRF, ID: 5}, {Type: wire.KEX, ID: 31}, {Type: wire.ADDKE1, ID: 36}}
	cbcSuite  = []wire.Transform{{Type: wire.ENCR, ID: 12, KeyBits: 128}, {Type: wire.INTEG, ID: 12}, {Type: wire.PRF, ID: 5}, {Type: wire.KEX, ID: 14}}
	espSuite  = []wire.Transform{{Type: wire.ENCR, ID: 20, KeyBits: 128}, {Type: wire.ESN, ID: 0}}
	ahSuite   = []wire.Transform{{Type: wire.INTEG, ID: 12}, {Type: wire.ESN, ID: 1}}
	firstSA   = &wire.SA{Proposals: []wire.Proposal{{Number: 1, Protocol: wire.ProtocolIKE, Transforms: ikeSuite}, {Number: 2, Protocol: wire.ProtocolIKE, Transforms: cbcSuite}}}
	chosenSA  = &wire.SA{Proposals: []wire.Proposal{{Number: 2, Protocol: wire.ProtocolIKE, Transforms: cbcSuite}}}
	espSA     = &wire.SA{Proposals: []wire.Proposal{{Number: 1, Protocol: wire.ProtocolESP, SPI: []byte{0xc0, 1, 2, 3}, Transforms: espSuite}}}
	ahSA      = &wire.SA{Proposals: []wire.Proposal{{Number: 1, Protocol: wire.ProtocolAH, SPI: []byte{0xc0, 1, 2, 4}, Transforms: ahSuite}}}
	rekeySA   = &wire.SA{Proposals: []wire.Proposal{{Number: 1, Protocol: wire.ProtocolIKE, SPI: wire.SPI(0x2122232425262728).Bytes(), Transforms: ikeSuite}}}
	ke        = &wire.KE{Method: 31, Data: fill(32)}
	nonce     = &wire.Nonce{Data: fill(32)}
	idi       = &wire.ID{Kind: wire.IDFQDN, Data: []byte("a.example.net")}
	idr       = &wire.ID{Responder: true, Kind: wire.IDIPv4Addr, Data: []byte{192, 0, 2, 1}}
	cert      = &wire.Cert{Encoding: wire.CertX509Signature, Data: fill(40)}
	certReq   = &wire.CertReq{Encoding: wire.CertX509Signature, Authorities: fill(40)}
	auth      = &wire.Auth{Method: wire.AuthSharedKey, Data: fill(32)}
	vendor    = &wire.Vendor{Data: []byte("adit")}
	tsi       = &wire.TS{Selectors: []wire.Selector{selector(17, [2]uint16{53, 53}, "10.1.0.0", "10.1.255.255"), selector(0, anyPort, "10.1.0.0", "10.1.255.255")}}
	tsr       = &wire.TS{Responder: true, Selectors: []wire.Selector{selector(0, anyPort, "2001:db8::", "2001:db8::ffff"), selector(6, opaque, "10.2.0.0", "10.2.0.255")}}
	cp        = &wire.CP{Kind: wire.CFGRequest, Attributes: []wire.CPAttribute{{Kind: wire.CPInternalIP4Address}, {Kind: wire.CPInternalIP4DNS, Data: []byte{192, 0, 2, 53}}}}
	rekeyESP  = &wire.Notify{Protocol: wire.ProtocolESP, SPI: []byte{0xc0, 0, 0, 9}, Kind: wire.NotifyRekeySA}
	linkData  = notify(wire.NotifyAdditionalKeyExchange, 7, 8, 9)
	natSource = notify(wire.NotifyNATDetectionSourceIP, fill(20)...)
	natDest   = notify(wire.NotifyNATDetectionDestinationIP, fill(20)...)
)

func payloads(p ...wire.Payload) []wire.Payload { return p }

// messages are valid messages of every exchange.
func messages() []message {
	const request, response = false, true
	return []message{
		{"init request", wire.IKESAInit, request, payloads(firstSA, ke, nonce, natSource, natDest, notify(wire.NotifyFragmentationSupported), notify(wire.NotifySignatureHashAlgorithms, 0, 2, 0, 5), vendor)},
		{"init request with a cookie", wire.IKESAInit, request, payloads(notify(wire.NotifyCookie, fill(32)...), firstSA, ke, nonce)},
		{"init response", wire.IKESAInit, response, payloads(chosenSA, ke, nonce, natSource, natDest, certReq)},
		{"init cookie", wire.IKESAInit, response, payloads(notify(wire.NotifyCookie, fill(16)...))},
		{"init other group", wire.IKESAInit, response, payloads(notify(wire.NotifyInvalidKEPayload, 0, 19))},
		{"init refused", wire.IKESAInit, response, payloads(notify(wire.NotifyNoProposalChosen))},
		{"intermediate request", wire.IKEIntermediate, request, payloads(&wire.KE{Method: 36, Data: fill(64)})},
		{"intermediate response", wire.IKEIntermediate, response, payloads(&wire.KE{Method: 36, Data: fill(60)})},
		{"auth request", wire.IKEAuth, request, payloads(idi, cert, notify(wire.NotifyInitialContact), certReq, idr, auth, cp, espSA, tsi, tsr, notify(wire.NotifyMobikeSupported))},
		{"auth request with PPK", wire.IKEAuth, request, payloads(idi, auth, ahSA, tsi, tsr, notify(wire.NotifyPPKIdentity, 2, 'k'), notify(wire.NotifyNoPPKAuth, fill(32)...))},
		{"auth request childless", wire.IKEAuth, request, payloads(idi, auth)},
		{"auth response", wire.IKEAuth, response, payloads(idr, cert, auth, espSA, tsi, tsr, notify(wire.NotifyUseTransportMode))},
		{"auth response without a child", wire.IKEAuth, response, payloads(idr, auth, notify(wire.NotifyTSUnacceptable))},
		{"auth refused", wire.IKEAuth, response, payloads(notify(wire.NotifyAuthenticationFailed))},
		{"child request", wire.CreateChildSA, request, payloads(espSA, nonce, tsi, tsr, notify(wire.NotifyESPTFCPaddingNotSupported))},
		{"child rekey request", wire.CreateChildSA, request, payloads(rekeyESP, espSA, nonce, ke, tsi, tsr)},
		{"child response", wire.CreateChildSA, response, payloads(espSA, nonce, ke, tsi, tsr, linkData)},
		{"child refused", wire.CreateChildSA, response, payloads(notify(wire.NotifyNoAdditionalSAs))},
		{"child not found", wire.CreateChildSA, response, payloads(&wire.Notify{Protocol: wire.ProtocolESP, SPI: []byte{0xc0, 0, 0, 9}, Kind: wire.NotifyChildSANotFound})},
		{"IKE rekey request", wire.CreateChildSA, request, payloads(rekeySA, nonce, ke)},
		{"IKE rekey response", wire.CreateChildSA, response, payloads(rekeySA, nonce, ke)},
		{"followup request", wire.IKEFollowupKE, request, payloads(&wire.KE{Method: 36, Data: fill(48)}, linkData)},
		{"followup response", wire.IKEFollowupKE, response, payloads(&wire.KE{Method: 36, Data: fill(48)}, linkData)},
		{"followup last response", wire.IKEFollowupKE, response, payloads(&wire.KE{Method: 36, Data: fill(48)})},
		{"followup refused", wire.IKEFollowupKE, response, payloads(notify(wire.NotifyStateNotFound))},
		{"liveness", wire.Informational, request, nil},
		{"liveness answered", wire.Informational, response, nil},
		{"delete children", wire.Informational, request, payloads(&wire.Delete{Protocol: wire.ProtocolESP, SPIs: []uint32{0xc0010203, 0xc0010204}}, &wire.Delete{Protocol: wire.ProtocolAH, SPIs: []uint32{0xc0010205}})},
		{"delete IKE", wire.Informational, request, payloads(&wire.Delete{Protocol: wire.ProtocolIKE})},
		{"move", wire.Informational, request, payloads(notify(wire.NotifyUpdateSAAddresses), natSource, natDest, notify(wire.NotifyCookie2, fill(16)...), notify(wire.NotifyAdditionalIP4Address, 192, 0, 2, 9), notify(wire.NotifyAdditionalIP6Address, fill(16)...))},
		{"configuration", wire.Informational, response, payloads(&wire.CP{Kind: wire.CFGAck, Attributes: []wire.CPAttribute{{Kind: wire.CPApplicationVersion, Data: []byte("1")}}})},
		{"payloads of the future", wire.Informational, request, payloads(&wire.Unknown{Kind: 200, Data: fill(5)}, &wire.Unknown{Kind: 49})},
	}
}

// TestMessagesAreThoseOfTheFile holds every message against its bytes, which were
// read with another program too, and against its one line for logs. -update writes
// the file.
func TestMessagesAreThoseOfTheFile(t *testing.T) {
	const file = "testdata/messages.txt"
	var b strings.Builder
	for _, m := range messages() {
		parsed, err := wire.Parse(m.bytes())
		if err != nil {
			t.Fatalf("%s: %v", m.name, err)
		}
		fmt.Fprintf(&b, "# %s\n%s\n", m.name, parsed.Summary())
		for line := range slices.Chunk(m.bytes(), 60) {
			fmt.Fprintln(&b, hex.EncodeToString(line))
		}
	}
	if *update {
		if err := os.WriteFile(file, []byte(b.String()), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got := b.String(); got != string(want) {
		gotLines, wantLines := strings.Split(got, "\n"), strings.Split(string(want), "\n")
		for i := range min(len(gotLines), len(wantLines)) {
			if gotLines[i] != wantLines[i] {
				t.Fatalf("line %d of %s:\n got %s\nwant %s", i+1, file, gotLines[i], wantLines[i])
			}
		}
		t.Fatalf("%s has %d lines, the messages give %d", file, len(wantLines), len(gotLines))
	}
}
