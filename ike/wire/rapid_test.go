package wire_test

import (
	"bytes"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/adit-ipsec/adit/ike/wire"
)

func drawBytes(low, high int) *rapid.Generator[[]byte] {
	return rapid.SliceOfN(rapid.Byte(), low, high)
}

var drawTransform = rapid.Custom(func(t *rapid.T) wire.Transform {
	return wire.Transform{Type: wire.TransformType(rapid.Byte().Draw(t, "type")), ID: rapid.Uint16().Draw(t, "id"),
		KeyBits: rapid.Uint16().Draw(t, "bits"), Unknown: rapid.Bool().Draw(t, "unknown")}
})

var drawProposal = rapid.Custom(func(t *rapid.T) wire.Proposal {
	p := wire.Proposal{Number: rapid.Byte().Draw(t, "number"), Protocol: wire.ProtocolID(rapid.Uint8Range(0, 5).Draw(t, "protocol")),
		Transforms: rapid.SliceOfN(drawTransform, 1, 20).Draw(t, "transforms")}
	n := p.Protocol.SPILen()
	p.SPI = drawBytes(n, max(n, 8*(1-min(n, 1)))).Draw(t, "spi")
	return p
})

var drawSelector = rapid.Custom(func(t *rapid.T) wire.Selector {
	if rapid.IntRange(0, 9).Draw(t, "unknown") == 0 {
		return wire.Selector{Unknown: true}
	}
	n := rapid.SampledFrom([]int{4, 16}).Draw(t, "family")
	from, _ := netip.AddrFromSlice(drawBytes(n, n).Draw(t, "from"))
	to, _ := netip.AddrFromSlice(drawBytes(n, n).Draw(t, "to"))
	ports := [2]uint16{rapid.Uint16().Draw(t, "port"), rapid.Uint16().Draw(t, "to port")}
	if to.Less(from) {
		from, to = to, from
	}
	if rapid.Bool().Draw(t, "opaque") {
		ports = opaque
	} else if ports[1] < ports[0] {
		ports[0], ports[1] = ports[1], ports[0]
	}
	return wire.Selector{Protocol: rapid.Byte().Draw(t, "protocol"), FromPort: ports[0], ToPort: ports[1], From: from, To: to}
})

var drawNotify = rapid.Custom(func(t *rapid.T) wire.Payload {
	n := &wire.Notify{Protocol: wire.ProtocolID(rapid.Uint8Range(0, 5).Draw(t, "protocol")), Kind: wire.NotifyType(rapid.Uint16().Draw(t, "kind")), Data: drawBytes(0, 40).Draw(t, "data")}
	switch n.Protocol {
	case wire.ProtocolAH, wire.ProtocolESP:
		n.SPI = drawBytes(4, 4).Draw(t, "spi")
	default:
		if n.SPI = drawBytes(0, 16).Draw(t, "spi"); len(n.SPI) == 0 {
			n.Protocol = 0
		}
	}
	return n
})

var drawDelete = rapid.Custom(func(t *rapid.T) wire.Payload {
	d := &wire.Delete{Protocol: wire.ProtocolID(rapid.Uint8Range(1, 3).Draw(t, "protocol"))}
	if d.Protocol != wire.ProtocolIKE {
		d.SPIs = rapid.SliceOfN(rapid.Uint32(), 0, 20).Draw(t, "spis")
	}
	return d
})

var drawOther = rapid.Custom(func(t *rapid.T) wire.Payload {
	data := drawBytes(1, 60).Draw(t, "data")
	one := rapid.Byte().Draw(t, "one")
	responder := rapid.Bool().Draw(t, "responder")
	switch rapid.IntRange(0, 9).Draw(t, "payload") {
	case 0:
		return &wire.KE{Method: rapid.Uint16().Draw(t, "method"), Data: data}
	case 1:
		kind := wire.IDType(one)
		if kind == wire.IDIPv4Addr || kind == wire.IDIPv6Addr {
			kind = wire.IDKeyID
		}
		return &wire.ID{Responder: responder, Kind: kind, Data: data}
	case 2:
		return &wire.Cert{Encoding: wire.CertEncoding(one), Data: data}
	case 3:
		return &wire.CertReq{Encoding: wire.CertEncoding(one), Authorities: data}
	case 4:
		return &wire.Auth{Method: wire.AuthMethod(one), Data: data}
	case 5:
		return &wire.Nonce{Data: drawBytes(16, 256).Draw(t, "nonce")}
	case 6:
		return &wire.Vendor{Data: data}
	case 7:
		cp := &wire.CP{Kind: wire.CPType(one)}
		for range rapid.IntRange(0, 4).Draw(t, "attributes") {
			cp.Attributes = append(cp.Attributes, wire.CPAttribute{Kind: wire.CPAttributeType(rapid.Uint16Range(0, 0x7fff).Draw(t, "kind")), Data: drawBytes(0, 9).Draw(t, "value")})
		}
		return cp
	case 8:
		eap := append([]byte{1, one, 0, byte(4 + len(data))}, data...)
		return &wire.EAP{Data: eap}
	}
	kind := wire.PayloadType(rapid.Uint8Range(54, 255).Draw(t, "kind"))
	return &wire.Unknown{Kind: kind, Critical: responder, Data: data}
})

var drawPayload = rapid.Custom(func(t *rapid.T) wire.Payload {
	switch rapid.IntRange(0, 5).Draw(t, "group") {
	case 0:
		return &wire.SA{Proposals: rapid.SliceOfN(drawProposal, 1, 3).Draw(t, "proposals")}
	case 1:
		return &wire.TS{Responder: rapid.Bool().Draw(t, "responder"), Selectors: rapid.SliceOfN(drawSelector, 1, 5).Draw(t, "selectors")}
	case 2:
		return drawNotify.Draw(t, "notify")
	case 3:
		return drawDelete.Draw(t, "delete")
	}
	return drawOther.Draw(t, "other")
})

var drawHeader = rapid.Custom(func(t *rapid.T) wire.Header {
	return wire.Header{Initiator: wire.SPI(rapid.Uint64().Draw(t, "initiator")), Responder: wire.SPI(rapid.Uint64().Draw(t, "responder")),
		Major: 2, Minor: rapid.Uint8Range(0, 15).Draw(t, "minor"), Exchange: wire.ExchangeType(rapid.Byte().Draw(t, "exchange")),
		Flags: wire.Flags(rapid.Byte().Draw(t, "flags")) & (wire.FlagInitiator | wire.FlagVersion | wire.FlagResponse), MessageID: rapid.Uint32().Draw(t, "id")}
})

// TestRoundTrip: what is written is read as it was, in clear and around SK and SKF.
func TestRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		h := drawHeader.Draw(t, "header")
		all := rapid.SliceOfN(drawPayload, 0, 8).Draw(t, "payloads")
		m, err := wire.Parse(wire.Append(nil, h, all...))
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(all, m.Payloads, equalPayloads); d != "" || m.Protected != nil {
			t.Fatalf("in clear (-want +got):\n%s", d)
		}
		h.Next, h.Length = m.Next, uint32(len(m.Raw))
		if m.Header != h {
			t.Fatalf("header %+v, want %+v", m.Header, h)
		}

		p := wire.Protected{First: wire.PayloadType(rapid.Byte().Draw(t, "first")), Body: drawBytes(0, 100).Draw(t, "body")}
		if p.Total = rapid.Uint16().Draw(t, "total"); p.Total != 0 {
			p.Fragment = rapid.Uint16Range(1, p.Total).Draw(t, "fragment")
		}
		begin := wire.BeginProtected(h, all, p, len(p.Body))
		whole := append(begin, p.Body...)
		m, err = wire.Parse(whole)
		if err != nil {
			t.Fatal(err)
		}
		p.AAD = len(begin)
		if d := cmp.Diff(all, m.Payloads, equalPayloads) + cmp.Diff(&p, m.Protected, equalPayloads); d != "" {
			t.Fatalf("protected (-want +got):\n%s", d)
		}
		if !bytes.Equal(again(m), whole) {
			t.Fatal("written again, the message is another")
		}
	})
}
