package wire

import "net/netip"

// Payload is one payload of a message: a pointer to SA, KE, ID, Cert, CertReq,
// Auth, Nonce, Notify, Delete, Vendor, TS, CP, EAP or Unknown.
type Payload interface {
	Type() PayloadType
	append(dst []byte) []byte // without the generic header
}

// SA is the Security Association payload (RFC 7296 3.3).
type SA struct{ Proposals []Proposal }

// Proposal is one proposal (RFC 7296 3.3.1). SPI is empty, or of 8 bytes for IKE
// and of 4 for AH and ESP.
type Proposal struct {
	Number     uint8
	Protocol   ProtocolID
	SPI        []byte
	Transforms []Transform
}

// Transform is one transform (RFC 7296 3.3.2). KeyBits is the Key Length attribute
// in bits, 0: none. Unknown: it has an attribute that is not known or makes no
// sense. RFC 7296 3.3.6: "if the responder receives a transform that it does not
// understand, or one that contains a Transform Attribute it does not understand, it
// MUST consider this transform unacceptable". An unknown one is written with an
// attribute that nobody knows.
type Transform struct {
	Type    TransformType
	ID      uint16
	KeyBits uint16
	Unknown bool
}

// KE is the Key Exchange payload (RFC 7296 3.4).
type KE struct {
	Method uint16 // transform ID of type KE
	Data   []byte
}

// ID is an Identification payload (RFC 7296 3.5): IDr if Responder, else IDi.
// Reserved is sent as zero and means nothing, but AUTH covers it as it was sent.
type ID struct {
	Responder bool
	Kind      IDType
	Reserved  [3]byte
	Data      []byte
}

// Body is the payload without its generic header, RestOfInitIDPayload of RFC 7296
// 2.15: what AUTH covers.
func (p *ID) Body() []byte { return p.append(nil) }

// Cert is the Certificate payload (RFC 7296 3.6).
type Cert struct {
	Encoding CertEncoding
	Data     []byte
}

// CertReq is the Certificate Request payload (RFC 7296 3.7). Authorities are SHA-1
// hashes, 20 bytes each.
type CertReq struct {
	Encoding    CertEncoding
	Authorities []byte
}

// Auth is the Authentication payload (RFC 7296 3.8).
type Auth struct {
	Method AuthMethod
	Data   []byte
}

// Nonce is the Nonce payload (RFC 7296 3.9), 16 to 256 bytes.
type Nonce struct{ Data []byte }

// Notify is the Notify payload (RFC 7296 3.10). Protocol is 0 if SPI is empty.
type Notify struct {
	Protocol ProtocolID
	SPI      []byte
	Kind     NotifyType
	Data     []byte
}

// Delete is the Delete payload (RFC 7296 3.11): the IKE SA itself, without SPIs, or
// SPIs of AH or ESP.
type Delete struct {
	Protocol ProtocolID
	SPIs     []uint32
}

// Vendor is the Vendor ID payload (RFC 7296 3.12).
type Vendor struct{ Data []byte }

// TS is a Traffic Selector payload (RFC 7296 3.13): TSr if Responder, else TSi. It
// has 1 to 255 selectors.
type TS struct {
	Responder bool
	Selectors []Selector
}

// Selector is one traffic selector (RFC 7296 3.13.1). Protocol 0 is any. FromPort
// 65535 with ToPort 0 is OPAQUE; of ICMP a port is type*256+code. Both addresses are
// of one family. Unknown: it is of a type that is not known, and says nothing.
type Selector struct {
	Protocol         uint8
	FromPort, ToPort uint16
	From, To         netip.Addr
	Unknown          bool
}

// Opaque says that the ports are OPAQUE (RFC 7296 3.13.1): not to be had, as in
// fragments.
func (s Selector) Opaque() bool { return s.FromPort == 65535 && s.ToPort == 0 }

// CP is the Configuration payload (RFC 7296 3.15).
type CP struct {
	Kind       CPType
	Attributes []CPAttribute
}

// CPAttribute is one Configuration Attribute; Kind has 15 bits.
type CPAttribute struct {
	Kind CPAttributeType
	Data []byte
}

// EAP is the EAP payload (RFC 7296 3.16): one EAP message of RFC 3748.
type EAP struct{ Data []byte }

// Unknown is a payload of a type that this package does not know. To be skipped,
// or if Critical a reason to refuse the message: see [Check].
type Unknown struct {
	Kind     PayloadType
	Critical bool
	Data     []byte
}

// Type is PayloadSA.
func (*SA) Type() PayloadType { return PayloadSA }

// Type is PayloadKE.
func (*KE) Type() PayloadType { return PayloadKE }

// Type is PayloadIDr for a responder's identity, else PayloadIDi.
func (p *ID) Type() PayloadType {
	if p.Responder {
		return PayloadIDr
	}
	return PayloadIDi
}

// Type is PayloadCERT.
func (*Cert) Type() PayloadType { return PayloadCERT }

// Type is PayloadCERTREQ.
func (*CertReq) Type() PayloadType { return PayloadCERTREQ }

// Type is PayloadAUTH.
func (*Auth) Type() PayloadType { return PayloadAUTH }

// Type is PayloadNonce.
func (*Nonce) Type() PayloadType { return PayloadNonce }

// Type is PayloadN.
func (*Notify) Type() PayloadType { return PayloadN }

// Type is PayloadD.
func (*Delete) Type() PayloadType { return PayloadD }

// Type is PayloadV.
func (*Vendor) Type() PayloadType { return PayloadV }

// Type is PayloadTSr for the responder's side, else PayloadTSi.
func (p *TS) Type() PayloadType {
	if p.Responder {
		return PayloadTSr
	}
	return PayloadTSi
}

// Type is PayloadCP.
func (*CP) Type() PayloadType { return PayloadCP }

// Type is PayloadEAP.
func (*EAP) Type() PayloadType { return PayloadEAP }

// Type is the type that the message named.
func (p *Unknown) Type() PayloadType { return p.Kind }

// First is the first payload of Go type P, such as *KE; nil if there is none.
func First[P Payload](payloads []Payload) P {
	for _, p := range payloads {
		if found, ok := p.(P); ok {
			return found
		}
	}
	var none P
	return none
}

// All is every payload of Go type P, in their order.
func All[P Payload](payloads []Payload) []P {
	var all []P
	for _, p := range payloads {
		if found, ok := p.(P); ok {
			all = append(all, found)
		}
	}
	return all
}

// FindNotify is the first notification of that kind; nil if there is none.
func FindNotify(payloads []Payload, kind NotifyType) *Notify {
	for _, p := range payloads {
		if n, ok := p.(*Notify); ok && n.Kind == kind {
			return n
		}
	}
	return nil
}

// FindID is IDr if responder, else IDi; nil if it is not there.
func FindID(payloads []Payload, responder bool) *ID {
	for _, p := range payloads {
		if id, ok := p.(*ID); ok && id.Responder == responder {
			return id
		}
	}
	return nil
}

// FindTS is TSr if responder, else TSi; nil if it is not there.
func FindTS(payloads []Payload, responder bool) *TS {
	for _, p := range payloads {
		if ts, ok := p.(*TS); ok && ts.Responder == responder {
			return ts
		}
	}
	return nil
}
