package wire

import (
	"net/netip"
	"slices"

	"golang.org/x/crypto/cryptobyte"
)

// What one message may hold. Beyond it the message is refused.
const (
	MaxPayloads   = 64
	MaxProposals  = 64
	MaxTransforms = 256
	MaxSelectors  = 255 // per TS payload: its count is one byte
)

// reader reads the payloads of one message. Offsets of errors are base and what
// lies in front of the payload that is being read.
type reader struct {
	base                  int
	proposals, transforms int // so far, in the whole message
}

func (r *reader) fail(what string) error { return &ParseError{Offset: r.base, What: what} }

// chain reads payloads from first on to the end of b. An SK or SKF payload ends the
// message, and is refused where outer is not set.
func (r *reader) chain(first PayloadType, b []byte, outer bool) ([]Payload, *Protected, error) {
	var payloads []Payload
	s := cryptobyte.String(b)
	start := r.base
	for next := first; next != PayloadNone; {
		r.base = start + len(b) - len(s)
		kind := next
		critical, data, ok := readGeneric(&s, &next)
		if !ok {
			return nil, nil, r.fail("payload does not fit")
		}
		if kind == PayloadSK || kind == PayloadSKF {
			if !outer {
				return nil, nil, r.fail("encrypted payload inside an encrypted payload")
			}
			// RFC 7296 3.14: it "MUST be the last payload in the message".
			if len(s) != 0 {
				return nil, nil, r.fail("bytes behind the encrypted payload")
			}
			p, err := r.protected(kind, next, data)
			return payloads, p, err
		}
		if len(payloads) == MaxPayloads {
			return nil, nil, r.fail("too many payloads")
		}
		p, err := r.payload(kind, critical, data)
		if err != nil {
			return nil, nil, err
		}
		payloads = append(payloads, p)
	}
	r.base = start + len(b) - len(s)
	if len(s) != 0 {
		return nil, nil, r.fail("bytes behind the last payload")
	}
	return payloads, nil, nil
}

// readGeneric reads a generic payload header (RFC 7296 3.2) and the payload behind
// it. Like everything that is given out, that ends where its capacity does: whoever
// appends to it does not write over the rest of the message.
func readGeneric(s *cryptobyte.String, next *PayloadType) (critical bool, data cryptobyte.String, ok bool) {
	var kind, flags uint8
	var length uint16
	if !s.ReadUint8(&kind) || !s.ReadUint8(&flags) || !s.ReadUint16(&length) || length < 4 ||
		!s.ReadBytes((*[]byte)(&data), int(length)-4) {
		return false, nil, false
	}
	*next = PayloadType(kind)
	return flags&0x80 != 0, slices.Clip(data), true
}

// protected reads an SK or SKF payload, which starts at r.base.
func (r *reader) protected(kind, first PayloadType, data cryptobyte.String) (*Protected, error) {
	p := &Protected{First: first, AAD: r.base + 4}
	if kind == PayloadSKF {
		if !data.ReadUint16(&p.Fragment) || !data.ReadUint16(&p.Total) {
			return nil, r.fail("SKF payload is cut short")
		}
		// RFC 7383 2.5: numbers start from 1 and go up to the total.
		if p.Fragment == 0 || p.Fragment > p.Total {
			return nil, r.fail("SKF payload: number of the fragment is not within its total")
		}
		p.AAD += 4
	}
	p.Body = data
	return p, nil
}

// payload reads what stands behind one generic header.
func (r *reader) payload(kind PayloadType, critical bool, s cryptobyte.String) (Payload, error) {
	switch kind {
	case PayloadSA:
		return r.sa(s)
	case PayloadKE:
		return r.ke(s)
	case PayloadIDi, PayloadIDr:
		return r.id(kind == PayloadIDr, s)
	case PayloadCERT, PayloadCERTREQ:
		return r.cert(kind, s)
	case PayloadAUTH:
		return r.auth(s)
	case PayloadNonce:
		return r.nonce(s)
	case PayloadN:
		return r.notify(s)
	case PayloadD:
		return r.delete(s)
	case PayloadV:
		return &Vendor{Data: s}, nil
	case PayloadTSi, PayloadTSr:
		return r.ts(kind == PayloadTSr, s)
	case PayloadCP:
		return r.cp(s)
	case PayloadEAP:
		return r.eap(s)
	}
	return &Unknown{Kind: kind, Critical: critical, Data: s}, nil
}

func (r *reader) sa(s cryptobyte.String) (Payload, error) {
	p := &SA{}
	for last := uint8(moreProposals); last != 0; {
		if r.proposals++; r.proposals > MaxProposals {
			return nil, r.fail("too many proposals")
		}
		body, ok := readSubstructure(&s, &last, moreProposals)
		if !ok {
			return nil, r.fail("proposal does not fit the SA payload")
		}
		q, err := r.proposal(body)
		if err != nil {
			return nil, err
		}
		p.Proposals = append(p.Proposals, q)
	}
	if len(s) != 0 {
		return nil, r.fail("bytes behind the last proposal")
	}
	return p, nil
}

// readSubstructure reads a proposal or a transform: whether it is the last, a
// reserved byte, the length of all of it, and the rest.
func readSubstructure(s *cryptobyte.String, last *uint8, mark uint8) (body cryptobyte.String, ok bool) {
	var length uint16
	ok = s.ReadUint8(last) && (*last == 0 || *last == mark) && s.Skip(1) && s.ReadUint16(&length) &&
		length >= 4 && s.ReadBytes((*[]byte)(&body), int(length)-4)
	return body, ok
}

func (r *reader) proposal(s cryptobyte.String) (Proposal, error) {
	var (
		q                          Proposal
		protocol, size, transforms uint8
	)
	if !s.ReadUint8(&q.Number) || !s.ReadUint8(&protocol) || !s.ReadUint8(&size) || !s.ReadUint8(&transforms) ||
		!s.ReadBytes(&q.SPI, int(size)) {
		return q, r.fail("proposal is cut short")
	}
	q.Protocol, q.SPI = ProtocolID(protocol), slices.Clip(q.SPI)
	// RFC 7296 3.3.1: "8 for IKE, 4 for ESP and AH", and none for a first IKE SA.
	if want := q.Protocol.SPILen(); want != 0 && int(size) != want && (q.Protocol != ProtocolIKE || size != 0) {
		return q, r.fail("proposal: SPI is not as long as its protocol's")
	}
	if transforms == 0 {
		return q, r.fail("proposal without transforms")
	}
	if r.transforms += int(transforms); r.transforms > MaxTransforms {
		return q, r.fail("too many transforms")
	}
	q.Transforms = make([]Transform, 0, transforms)
	for i := range int(transforms) {
		var last uint8
		body, ok := readSubstructure(&s, &last, moreTransforms)
		if !ok || (last == 0) != (i == int(transforms)-1) {
			return q, r.fail("transform does not fit the proposal")
		}
		t, err := r.transform(body)
		if err != nil {
			return q, err
		}
		q.Transforms = append(q.Transforms, t)
	}
	if len(s) != 0 {
		return q, r.fail("bytes behind the last transform")
	}
	return q, nil
}

func (r *reader) transform(s cryptobyte.String) (Transform, error) {
	var t Transform
	var kind uint8
	if !s.ReadUint8(&kind) || !s.Skip(1) || !s.ReadUint16(&t.ID) {
		return t, r.fail("transform is cut short")
	}
	t.Type = TransformType(kind)
	for len(s) != 0 {
		var attribute, value uint16
		if !s.ReadUint16(&attribute) || !s.ReadUint16(&value) {
			return t, r.fail("transform attribute is cut short")
		}
		if attribute&attributeShort == 0 && !s.Skip(int(value)) {
			return t, r.fail("transform attribute does not fit the transform")
		}
		if attribute == attributeShort|attributeKeyLength && value != 0 && t.KeyBits == 0 {
			t.KeyBits = value
		} else {
			t.Unknown = true
		}
	}
	return t, nil
}

func (r *reader) ke(s cryptobyte.String) (Payload, error) {
	p := &KE{}
	if !s.ReadUint16(&p.Method) || !s.Skip(2) || len(s) == 0 {
		return nil, r.fail("KE payload is cut short")
	}
	p.Data = s
	return p, nil
}

func (r *reader) id(responder bool, s cryptobyte.String) (Payload, error) {
	p := &ID{Responder: responder}
	var kind uint8
	if !s.ReadUint8(&kind) || !s.CopyBytes(p.Reserved[:]) {
		return nil, r.fail("ID payload is cut short")
	}
	p.Kind, p.Data = IDType(kind), s
	if (p.Kind == IDIPv4Addr && len(s) != 4) || (p.Kind == IDIPv6Addr && len(s) != 16) {
		return nil, r.fail("ID payload: address of another length")
	}
	return p, nil
}

func (r *reader) cert(kind PayloadType, s cryptobyte.String) (Payload, error) {
	var encoding uint8
	if !s.ReadUint8(&encoding) {
		return nil, r.fail("certificate payload is cut short")
	}
	if kind == PayloadCERTREQ {
		return &CertReq{Encoding: CertEncoding(encoding), Authorities: s}, nil
	}
	if len(s) == 0 {
		return nil, r.fail("CERT payload without a certificate")
	}
	return &Cert{Encoding: CertEncoding(encoding), Data: s}, nil
}

func (r *reader) auth(s cryptobyte.String) (Payload, error) {
	var method uint8
	if !s.ReadUint8(&method) || !s.Skip(3) || len(s) == 0 {
		return nil, r.fail("AUTH payload is cut short")
	}
	return &Auth{Method: AuthMethod(method), Data: s}, nil
}

func (r *reader) nonce(s cryptobyte.String) (Payload, error) {
	// RFC 7296 3.9: "The size of the Nonce Data MUST be between 16 and 256 octets,
	// inclusive."
	if len(s) < 16 || len(s) > 256 {
		return nil, r.fail("nonce is not of 16 to 256 bytes")
	}
	return &Nonce{Data: s}, nil
}

func (r *reader) notify(s cryptobyte.String) (Payload, error) {
	var (
		p              = &Notify{}
		protocol, size uint8
	)
	if !s.ReadUint8(&protocol) || !s.ReadUint8(&size) || !s.ReadUint16((*uint16)(&p.Kind)) || !s.ReadBytes(&p.SPI, int(size)) {
		return nil, r.fail("notification is cut short")
	}
	if size != 0 {
		// RFC 7296 3.10: without an SPI the protocol "MUST be ignored on receipt".
		p.Protocol = ProtocolID(protocol)
	}
	if (p.Protocol == ProtocolAH || p.Protocol == ProtocolESP) && size != 4 {
		return nil, r.fail("notification: SPI is not as long as its protocol's")
	}
	p.SPI, p.Data = slices.Clip(p.SPI), s
	return p, nil
}

func (r *reader) delete(s cryptobyte.String) (Payload, error) {
	var (
		protocol, size uint8
		count          uint16
	)
	if !s.ReadUint8(&protocol) || !s.ReadUint8(&size) || !s.ReadUint16(&count) {
		return nil, r.fail("delete payload is cut short")
	}
	p := &Delete{Protocol: ProtocolID(protocol)}
	switch p.Protocol {
	case ProtocolIKE:
		// RFC 7296 3.11: "it MUST be zero for IKE (SPI is in message header)".
		if size != 0 || count != 0 || len(s) != 0 {
			return nil, r.fail("delete payload: the IKE SA has its SPIs in the header")
		}
		return p, nil
	case ProtocolAH, ProtocolESP:
		if size != 4 || len(s) != 4*int(count) {
			return nil, r.fail("delete payload: SPIs do not fit")
		}
	default:
		return nil, r.fail("delete payload: unknown protocol")
	}
	for range int(count) {
		var spi uint32
		if !s.ReadUint32(&spi) {
			return nil, r.fail("delete payload: SPIs do not fit")
		}
		p.SPIs = append(p.SPIs, spi)
	}
	return p, nil
}

func (r *reader) ts(responder bool, s cryptobyte.String) (Payload, error) {
	var count uint8
	if !s.ReadUint8(&count) || !s.Skip(3) || count == 0 {
		return nil, r.fail("traffic selector payload is cut short")
	}
	p := &TS{Responder: responder, Selectors: make([]Selector, 0, count)}
	for range int(count) {
		x, err := r.selector(&s)
		if err != nil {
			return nil, err
		}
		p.Selectors = append(p.Selectors, x)
	}
	if len(s) != 0 {
		return nil, r.fail("bytes behind the last traffic selector")
	}
	return p, nil
}

func (r *reader) selector(s *cryptobyte.String) (Selector, error) {
	var (
		x              Selector
		kind, protocol uint8
		length         uint16
		body           cryptobyte.String
	)
	if !s.ReadUint8(&kind) || !s.ReadUint8(&protocol) || !s.ReadUint16(&length) || length < 4 ||
		!s.ReadBytes((*[]byte)(&body), int(length)-4) {
		return x, r.fail("traffic selector does not fit its payload")
	}
	size := 0
	switch kind {
	case selectorIPv4:
		size = 4
	case selectorIPv6:
		size = 16
	default:
		return Selector{Unknown: true}, nil
	}
	var from, to []byte
	if !body.ReadUint16(&x.FromPort) || !body.ReadUint16(&x.ToPort) || !body.ReadBytes(&from, size) || !body.ReadBytes(&to, size) || len(body) != 0 {
		return x, r.fail("traffic selector is not as long as its type's")
	}
	x.Protocol = protocol
	x.From, _ = netip.AddrFromSlice(from)
	x.To, _ = netip.AddrFromSlice(to)
	if x.To.Less(x.From) || x.ToPort < x.FromPort && !x.Opaque() {
		return x, r.fail("traffic selector ends before it starts")
	}
	return x, nil
}

func (r *reader) cp(s cryptobyte.String) (Payload, error) {
	var kind uint8
	if !s.ReadUint8(&kind) || !s.Skip(3) {
		return nil, r.fail("configuration payload is cut short")
	}
	p := &CP{Kind: CPType(kind)}
	for len(s) != 0 {
		var a CPAttribute
		var data cryptobyte.String
		if !s.ReadUint16((*uint16)(&a.Kind)) || !s.ReadUint16LengthPrefixed(&data) {
			return nil, r.fail("configuration attribute does not fit")
		}
		// RFC 7296 3.15.1: the first bit is reserved and "MUST be ignored on receipt".
		a.Kind &= 0x7fff
		a.Data = slices.Clip(data)
		p.Attributes = append(p.Attributes, a)
	}
	return p, nil
}

func (r *reader) eap(s cryptobyte.String) (Payload, error) {
	p := &EAP{Data: s}
	var length uint16
	// RFC 3748 4: code, identifier, and the length of the whole message.
	if !s.Skip(2) || !s.ReadUint16(&length) || int(length) != len(p.Data) {
		return nil, r.fail("EAP message is not as long as it says")
	}
	return p, nil
}
