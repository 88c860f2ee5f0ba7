package wire_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/adit-ipsec/adit/ike/wire"
)

// TestEveryValidMessagePassesCheck: written, read, and held against its schema, in
// the order given and in the reverse one (RFC 7296 2.5: implementations "MUST NOT
// reject as invalid a message with those payloads in any other order").
func TestEveryValidMessagePassesCheck(t *testing.T) {
	for _, m := range messages() {
		t.Run(m.name, func(t *testing.T) {
			parsed, err := wire.Parse(m.bytes())
			if err != nil {
				t.Fatal(err)
			}
			p := parsed.Payloads
			for range 2 {
				if err := wire.Check(m.exchange, m.response, p); err != nil {
					t.Errorf("%v", err)
				}
				if err := wire.Check(m.exchange, m.response, append(payloads(vendor, &wire.Unknown{Kind: 60}, notify(40000)), p...)); err != nil {
					t.Errorf("with a vendor ID, a payload and a status nobody knows: %v", err)
				}
				for i := range len(p) / 2 {
					p[i], p[len(p)-1-i] = p[len(p)-1-i], p[i]
				}
			}
		})
	}
}

// required is what each kind of message must hold, apart from the schema's own table.
var required = map[string][]wire.PayloadType{
	"init request":                  {wire.PayloadSA, wire.PayloadKE, wire.PayloadNonce},
	"init request with a cookie":    {wire.PayloadSA, wire.PayloadKE, wire.PayloadNonce},
	"init response":                 {wire.PayloadSA, wire.PayloadKE, wire.PayloadNonce},
	"init cookie":                   {wire.PayloadN},
	"init other group":              {wire.PayloadN},
	"init refused":                  {wire.PayloadN},
	"intermediate request":          {wire.PayloadKE},
	"intermediate response":         {wire.PayloadKE},
	"auth request":                  {wire.PayloadIDi, wire.PayloadAUTH, wire.PayloadSA, wire.PayloadTSi, wire.PayloadTSr},
	"auth request with PPK":         {wire.PayloadIDi, wire.PayloadAUTH, wire.PayloadSA, wire.PayloadTSi, wire.PayloadTSr},
	"auth request childless":        {wire.PayloadIDi, wire.PayloadAUTH},
	"auth response":                 {wire.PayloadIDr, wire.PayloadAUTH, wire.PayloadSA, wire.PayloadTSi, wire.PayloadTSr},
	"auth response without a child": {wire.PayloadIDr},
	"auth refused":                  {wire.PayloadN},
	"child request":                 {wire.PayloadSA, wire.PayloadNonce, wire.PayloadTSi, wire.PayloadTSr},
	"child rekey request":           {wire.PayloadSA, wire.PayloadNonce, wire.PayloadTSi, wire.PayloadTSr},
	"child response":                {wire.PayloadSA, wire.PayloadNonce, wire.PayloadTSi, wire.PayloadTSr},
	"child refused":                 {wire.PayloadN},
	"child not found":               {wire.PayloadN},
	"IKE rekey request":             {wire.PayloadSA, wire.PayloadKE, wire.PayloadNonce},
	"IKE rekey response":            {wire.PayloadSA, wire.PayloadKE, wire.PayloadNonce},
	"followup request":              {wire.PayloadKE, wire.PayloadN},
	"followup response":             {wire.PayloadKE},
	"followup last response":        {wire.PayloadKE},
	"followup refused":              {wire.PayloadN},
	"liveness":                      nil,
	"liveness answered":             nil,
	"delete children":               nil,
	"delete IKE":                    nil,
	"move":                          nil,
	"configuration":                 nil,
	"payloads of the future":        nil,
}

// repeatable is what may come more than once.
var repeatable = map[wire.PayloadType]bool{wire.PayloadCERT: true, wire.PayloadCERTREQ: true, wire.PayloadN: true, wire.PayloadV: true, wire.PayloadD: true}

// TestF2_MissingPayloads takes each payload out of each message: what is required is
// missed by name, and nothing else is.
func TestF2_MissingPayloads(t *testing.T) {
	for _, m := range messages() {
		for i, gone := range m.payloads {
			kind := gone.Type()
			rest := append(append([]wire.Payload(nil), m.payloads[:i]...), m.payloads[i+1:]...)
			err := wire.Check(m.exchange, m.response, rest)
			// One of several notifications is a capability, and is not missed.
			if want := contains(required[m.name], kind) && !(kind == wire.PayloadN && len(m.payloads) > 1 && !isLink(gone)); want != (err != nil) {
				t.Errorf("%s without %v: got %v, want an error: %t", m.name, kind, err, want)
			}
		}
		if _, listed := required[m.name]; !listed {
			t.Errorf("%s has no row", m.name)
		}
	}
}

func isLink(p wire.Payload) bool {
	n, ok := p.(*wire.Notify)
	return ok && n.Kind == wire.NotifyAdditionalKeyExchange
}

func contains(all []wire.PayloadType, t wire.PayloadType) bool {
	for _, x := range all {
		if x == t {
			return true
		}
	}
	return false
}

// TestF2_DuplicatePayloads puts each payload into each message a second time.
func TestF2_DuplicatePayloads(t *testing.T) {
	for _, m := range messages() {
		for _, twice := range m.payloads {
			if _, ok := twice.(*wire.Unknown); ok {
				continue
			}
			err := wire.Check(m.exchange, m.response, append(payloads(twice), m.payloads...))
			want := !repeatable[twice.Type()]
			if n, ok := twice.(*wire.Notify); ok {
				switch n.Kind {
				case wire.NotifyCookie, wire.NotifyCookie2, wire.NotifyRekeySA, wire.NotifyAdditionalKeyExchange, wire.NotifyPPKIdentity, wire.NotifyNoPPKAuth:
					want = true
				}
			}
			if d, ok := twice.(*wire.Delete); ok && d.Protocol == wire.ProtocolIKE {
				want = true
			}
			if want != (err != nil) || err != nil && !strings.Contains(err.Error(), "only once") {
				t.Errorf("%s with %v twice: got %v, want an error: %t", m.name, twice.Type(), err, want)
			}
		}
	}
}

// TestF2_ForeignPayloads puts each payload that an exchange does not have into it.
func TestF2_ForeignPayloads(t *testing.T) {
	allowed := map[string]string{
		"init request": "SA KE Nonce", "init response": "SA KE Nonce CERTREQ", "init cookie": "", "init refused": "",
		"intermediate request": "KE", "intermediate response": "KE",
		"auth request": "IDi IDr CERT CERTREQ AUTH CP SA TSi TSr", "auth response": "IDr CERT AUTH CP SA TSi TSr", "auth refused": "IDr CERT",
		"child request": "SA KE Nonce TSi TSr CP", "child response": "SA KE Nonce TSi TSr CP", "child refused": "",
		"IKE rekey request": "SA KE Nonce", "IKE rekey response": "SA KE Nonce",
		"followup request": "KE", "followup response": "KE", "followup refused": "",
		"liveness": "D CP", "liveness answered": "D CP",
	}
	each := payloads(firstSA, ke, idi, idr, cert, certReq, auth, nonce, &wire.Delete{Protocol: wire.ProtocolESP}, tsi, tsr, cp, &wire.EAP{})
	for _, m := range messages() {
		names, listed := allowed[m.name]
		if !listed {
			continue
		}
		for _, p := range each {
			if contains(typesOf(m.payloads), p.Type()) || strings.Contains(" "+names+" ", " "+p.Type().String()+" ") {
				continue
			}
			err := wire.Check(m.exchange, m.response, append(payloads(p), m.payloads...))
			var schema *wire.SchemaError
			if !errors.As(err, &schema) {
				t.Errorf("%s with %v: got %v, want a *SchemaError", m.name, p.Type(), err)
			}
		}
	}
}

func typesOf(p []wire.Payload) (all []wire.PayloadType) {
	for _, x := range p {
		all = append(all, x.Type())
	}
	return all
}

// TestSchemaRules has one row for each rule beyond the counts.
func TestSchemaRules(t *testing.T) {
	const request, response = false, true
	proposal := func(number uint8, protocol wire.ProtocolID, spi ...byte) wire.Proposal {
		return wire.Proposal{Number: number, Protocol: protocol, SPI: spi, Transforms: espSuite}
	}
	sa := func(p ...wire.Proposal) *wire.SA { return &wire.SA{Proposals: p} }
	spi8 := []byte{1, 2, 3, 4, 5, 6, 7, 8}
	for _, c := range []struct {
		exchange wire.ExchangeType
		response bool
		payloads []wire.Payload
		want     string
	}{
		{99, request, nil, "exchange 99 request: none exchange is not known"},
		{wire.IKESAInit, request, payloads(sa(proposal(1, wire.ProtocolIKE, spi8...)), ke, nonce), "IKE_SA_INIT request: SA has a proposal of another protocol, or whose SPI"},
		{wire.IKESAInit, request, payloads(sa(proposal(1, wire.ProtocolIKE), proposal(2, wire.ProtocolESP, 1, 2, 3, 4)), ke, nonce), "SA has a proposal of another protocol"},
		{wire.IKESAInit, request, payloads(sa(proposal(1, wire.ProtocolIKE), proposal(3, wire.ProtocolIKE)), ke, nonce), "not numbered 1, 2, 3"},
		{wire.IKESAInit, request, payloads(sa(proposal(0, wire.ProtocolIKE)), ke, nonce), "not numbered 1, 2, 3"},
		{wire.IKESAInit, request, payloads(sa(), ke, nonce), "has no proposal"},
		{wire.IKESAInit, response, payloads(firstSA, ke, nonce), "more than the one proposal"},
		{wire.IKESAInit, response, nil, "neither a cookie nor an error"},
		{wire.IKESAInit, response, payloads(notify(wire.NotifyMobikeSupported)), "neither a cookie nor an error"},
		{wire.IKESAInit, response, payloads(notify(wire.NotifyRedirect)), "neither a cookie nor an error"},
		{wire.IKESAInit, response, payloads(notify(wire.NotifyCookie, 1), chosenSA), "KE missing"},
		{wire.IKESAInit, response, payloads(notify(wire.NotifyCookie)), "N(COOKIE) has data of another length"},
		{wire.IKESAInit, response, payloads(notify(wire.NotifyCookie, fill(65)...)), "N(COOKIE) has data of another length"},
		{wire.IKESAInit, response, payloads(notify(wire.NotifyInvalidKEPayload, 1)), "N(INVALID_KE_PAYLOAD) has data of another length"},
		{wire.IKESAInit, response, payloads(notify(8000)), ""},
		{wire.IKESAInit, request, payloads(firstSA, ke, nonce, notify(wire.NotifySignatureHashAlgorithms, 0, 1, 2)), "N(SIGNATURE_HASH_ALGORITHMS) has data of another length"},
		{wire.IKESAInit, request, payloads(firstSA, ke, nonce, notify(wire.NotifyNATDetectionSourceIP, fill(19)...)), "N(NAT_DETECTION_SOURCE_IP) has data of another length"},
		{wire.IKESAInit, request, payloads(firstSA, ke, nonce, natSource, natSource, natDest), ""}, // RFC 7296 2.23: several source addresses
		{wire.IKEAuth, request, payloads(idi, espSA, tsi, tsr), "AUTH missing"},
		{wire.IKEAuth, request, payloads(auth, espSA, tsi, tsr), "IDi missing"},
		{wire.IKEAuth, request, payloads(&wire.EAP{}), "IDi missing"},
		{wire.IKEAuth, request, payloads(idi, auth, espSA), "TSi missing"},
		{wire.IKEAuth, request, payloads(idi, auth, tsi, tsr), "SA missing"},
		{wire.IKEAuth, request, payloads(idi, auth, rekeySA, tsi, tsr), "SA has a proposal of another protocol"},
		{wire.IKEAuth, request, payloads(idi, auth, sa(proposal(1, 4, 1, 2), proposal(2, wire.ProtocolESP, 1, 2, 3, 4)), tsi, tsr), ""},
		{wire.IKEAuth, response, nil, "IDr missing"},
		{wire.IKEAuth, response, payloads(notify(wire.NotifyMobikeSupported)), "IDr missing"},
		{wire.IKEAuth, response, payloads(idr, espSA, tsi, tsr), "AUTH missing"},
		{wire.IKEAuth, response, payloads(notify(wire.NotifyAuthenticationFailed), espSA, tsi, tsr), "SA may not be there"},
		{wire.IKEAuth, response, payloads(notify(wire.NotifyNoProposalChosen), auth), "IDr missing"},
		{wire.IKEAuth, response, payloads(idr, auth), ""},
		{wire.CreateChildSA, request, nil, "SA missing"},
		{wire.CreateChildSA, request, payloads(notify(wire.NotifyNoAdditionalSAs)), "SA missing"},
		{wire.CreateChildSA, response, payloads(notify(wire.NotifyAdditionalTSPossible)), "SA missing"},
		{wire.CreateChildSA, response, payloads(notify(wire.NotifyNoProposalChosen), nonce), "Nonce may not be there"},
		{wire.CreateChildSA, request, payloads(espSA, nonce), "TSi missing"},
		{wire.CreateChildSA, request, payloads(espSA, tsi, tsr), "Nonce missing"},
		{wire.CreateChildSA, request, payloads(rekeySA, nonce), "KE missing"},
		{wire.CreateChildSA, request, payloads(rekeySA, nonce, ke, tsi, tsr), "TSi may not be there"},
		{wire.CreateChildSA, request, payloads(rekeySA, nonce, ke, rekeyESP), "N(REKEY_SA) is for Child SAs"},
		{wire.CreateChildSA, request, payloads(sa(proposal(1, wire.ProtocolIKE)), nonce, ke), "SA has a proposal of another protocol, or whose SPI"},
		{wire.CreateChildSA, request, payloads(espSA, nonce, tsi, tsr, notify(wire.NotifyRekeySA)), "N(REKEY_SA) names no Child SA"},
		{wire.CreateChildSA, request, payloads(espSA, nonce, tsi, tsr, &wire.Notify{Protocol: wire.ProtocolIKE, SPI: spi8, Kind: wire.NotifyRekeySA}), "N(REKEY_SA) names no Child SA"},
		{wire.CreateChildSA, response, payloads(sa(proposal(1, wire.ProtocolESP, 1, 2, 3, 4), proposal(2, wire.ProtocolESP, 1, 2, 3, 4)), nonce, tsi, tsr), "more than the one proposal"},
		{wire.CreateChildSA, response, payloads(sa(proposal(7, wire.ProtocolESP, 1, 2, 3, 4)), nonce, tsi, tsr), ""},
		{wire.IKEIntermediate, request, nil, "KE missing"},
		{wire.IKEIntermediate, response, payloads(notify(wire.NotifyInvalidSyntax)), ""},
		{wire.IKEFollowupKE, request, payloads(ke), "N(ADDITIONAL_KEY_EXCHANGE) missing"},
		{wire.IKEFollowupKE, request, payloads(ke, notify(wire.NotifyAdditionalKeyExchange)), "N(ADDITIONAL_KEY_EXCHANGE) has data of another length"},
		{wire.IKEFollowupKE, response, payloads(linkData), "KE missing"},
		{wire.Informational, request, payloads(notify(wire.NotifyCookie2, fill(7)...)), "N(COOKIE2) has data of another length"},
		{wire.Informational, request, payloads(notify(wire.NotifyUnsupportedCriticalPayload)), "has data of another length"},
	} {
		t.Run(fmt.Sprint(c.exchange, c.response, c.want), func(t *testing.T) {
			err := wire.Check(c.exchange, c.response, c.payloads)
			if c.want == "" {
				if err != nil {
					t.Fatal(err)
				}
				return
			}
			var schema *wire.SchemaError
			if !errors.As(err, &schema) || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("got %v, want a *SchemaError with %q", err, c.want)
			}
			direction := map[bool]string{request: " request: ", response: " response: "}[c.response]
			if !strings.HasPrefix(err.Error(), c.exchange.String()+direction) {
				t.Errorf("%q does not begin with its exchange and direction", err)
			}
			want := wire.NotifyInvalidSyntax
			if c.exchange == wire.IKEAuth && c.want == "AUTH missing" {
				want = wire.NotifyAuthenticationFailed
			}
			if got := schema.Answer(); got != want {
				t.Errorf("answer %v, want %v", got, want)
			}
		})
	}
}

// TestRFC7296_2_5_CriticalPayloads: an unknown payload is skipped, unless its
// critical bit says that the message makes no sense without it.
func TestRFC7296_2_5_CriticalPayloads(t *testing.T) {
	for _, m := range messages() {
		for _, kind := range []wire.PayloadType{1, 32, 49, 52, 54, 255} {
			all := append(payloads(&wire.Unknown{Kind: kind, Critical: true, Data: fill(3)}), m.payloads...)
			parsed, err := wire.Parse(message{exchange: m.exchange, response: m.response, payloads: all}.bytes())
			if err != nil {
				t.Fatalf("%s: %v", m.name, err)
			}
			var critical *wire.CriticalError
			if err := wire.Check(m.exchange, m.response, parsed.Payloads); !errors.As(err, &critical) || critical.Type != kind {
				t.Errorf("%s with a critical payload %d: %v", m.name, kind, err)
			}
		}
	}
	// "the critical flag is ignored" where the type is known.
	b := messages()[0].bytes()
	b[wire.HeaderLen+1] |= 0x80
	parsed, err := wire.Parse(b)
	if err != nil {
		t.Fatal(err)
	}
	if err := wire.Check(wire.IKESAInit, false, parsed.Payloads); err != nil {
		t.Errorf("a critical SA payload: %v", err)
	}
}

// TestCheckOuter: what may stand on the wire in clear, and what in front of SK.
func TestCheckOuter(t *testing.T) {
	sk := &wire.Protected{First: wire.PayloadIDi}
	for _, c := range []struct {
		name      string
		exchange  wire.ExchangeType
		response  bool
		clear     []wire.Payload
		protected *wire.Protected
		want      string
	}{
		{"IKE_SA_INIT in clear", wire.IKESAInit, false, payloads(firstSA, ke, nonce), nil, ""},
		{"IKE_SA_INIT in SK", wire.IKESAInit, false, nil, sk, "SK may not be there"},
		{"IKE_SA_INIT in SKF", wire.IKESAInit, true, nil, &wire.Protected{Fragment: 1, Total: 2}, "SKF may not be there"},
		{"IKE_AUTH in SK", wire.IKEAuth, false, nil, sk, ""},
		{"IKE_AUTH in clear", wire.IKEAuth, false, payloads(idi, auth), nil, "SK missing"},
		{"IKE_AUTH in clear with an error", wire.IKEAuth, true, payloads(notify(wire.NotifyAuthenticationFailed), idr), nil, "IDr is in clear"},
		{"IKE_AUTH with IDi in front", wire.IKEAuth, false, payloads(idi), sk, "IDi is in clear"},
		{"an error in front", wire.IKEAuth, true, payloads(notify(wire.NotifyInvalidSyntax)), sk, "N(INVALID_SYNTAX) is in clear"},
		{"a payload nobody knows in front", wire.IKEAuth, false, payloads(&wire.Unknown{Kind: 200}, vendor), sk, ""},
		{"a critical one in front", wire.IKEAuth, false, payloads(&wire.Unknown{Kind: 200, Critical: true}), sk, "critical payload of unknown type 200"},
		{"liveness in clear", wire.Informational, false, nil, nil, "SK missing"},
		{"delete in clear", wire.Informational, false, payloads(&wire.Delete{Protocol: wire.ProtocolIKE}), nil, "SK missing"},
		{"RFC 7296 2.21.4: no such IKE SA", wire.Informational, true, payloads(notify(wire.NotifyInvalidIKESPI)), nil, ""},
		{"a status in clear", wire.Informational, true, payloads(notify(wire.NotifyInitialContact)), nil, "SK missing"},
	} {
		m := &wire.Message{Header: wire.Header{Exchange: c.exchange}, Payloads: c.clear, Protected: c.protected}
		if c.response {
			m.Flags = wire.FlagResponse
		}
		err := wire.CheckOuter(m)
		if (c.want == "") != (err == nil) || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q", c.name, err, c.want)
		}
	}
}
