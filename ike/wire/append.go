package wire

import (
	"encoding/binary"
)

// Attribute types and substructure types that never change.
const (
	attributeKeyLength = 14     // RFC 7296 3.3.5, always in the short form
	attributeUnknown   = 0x7fff // the last of those for private use: stands for what was not understood
	attributeShort     = 0x8000 // the AF bit: type and value, no length
	selectorIPv4       = 7      // TS_IPV4_ADDR_RANGE
	selectorIPv6       = 8      // TS_IPV6_ADDR_RANGE
	selectorUnknown    = 255    // the last of those for private use: stands for what was not understood
	moreProposals      = 2
	moreTransforms     = 3
)

func (p *SA) append(dst []byte) []byte {
	for i, q := range p.Proposals {
		start := len(dst)
		q.SPI, q.Transforms = fit(q.SPI), fit(q.Transforms)
		dst = append(dst, more(i, len(p.Proposals), moreProposals), 0, 0, 0, q.Number, byte(q.Protocol), byte(len(q.SPI)), byte(len(q.Transforms)))
		dst = append(dst, q.SPI...)
		for k, t := range q.Transforms {
			dst = t.append(dst, more(k, len(q.Transforms), moreTransforms))
		}
		binary.BigEndian.PutUint16(dst[start+2:], uint16(len(dst)-start))
	}
	return dst
}

// fit is what of s a count of one byte can say.
func fit[E any](s []E) []E { return s[:min(len(s), 255)] }

// more is the Last Substruc field: 0 for the last.
func more(i, n int, mark byte) byte {
	if i == n-1 {
		return 0
	}
	return mark
}

func (t Transform) append(dst []byte, last byte) []byte {
	start := len(dst)
	dst = append(dst, last, 0, 0, 0, byte(t.Type), 0)
	dst = binary.BigEndian.AppendUint16(dst, t.ID)
	if t.KeyBits != 0 {
		dst = binary.BigEndian.AppendUint16(dst, attributeShort|attributeKeyLength)
		dst = binary.BigEndian.AppendUint16(dst, t.KeyBits)
	}
	if t.Unknown {
		dst = binary.BigEndian.AppendUint16(dst, attributeShort|attributeUnknown)
		dst = binary.BigEndian.AppendUint16(dst, 0)
	}
	binary.BigEndian.PutUint16(dst[start+2:], uint16(len(dst)-start))
	return dst
}

func (p *KE) append(dst []byte) []byte {
	dst = binary.BigEndian.AppendUint16(dst, p.Method)
	return append(append(dst, 0, 0), p.Data...)
}

func (p *ID) append(dst []byte) []byte {
	return append(append(append(dst, byte(p.Kind)), p.Reserved[:]...), p.Data...)
}

func (p *Cert) append(dst []byte) []byte { return append(append(dst, byte(p.Encoding)), p.Data...) }

func (p *CertReq) append(dst []byte) []byte {
	return append(append(dst, byte(p.Encoding)), p.Authorities...)
}

func (p *Auth) append(dst []byte) []byte {
	return append(append(dst, byte(p.Method), 0, 0, 0), p.Data...)
}

func (p *Nonce) append(dst []byte) []byte { return append(dst, p.Data...) }

func (p *Notify) append(dst []byte) []byte {
	protocol, spi := p.Protocol, fit(p.SPI)
	if len(spi) == 0 {
		// RFC 7296 3.10: "If the SPI field is empty, this field MUST be sent as zero".
		protocol = 0
	}
	dst = append(dst, byte(protocol), byte(len(spi)))
	dst = binary.BigEndian.AppendUint16(dst, uint16(p.Kind))
	return append(append(dst, spi...), p.Data...)
}

func (p *Delete) append(dst []byte) []byte {
	size := byte(4)
	if p.Protocol == ProtocolIKE {
		size = 0
	}
	dst = append(dst, byte(p.Protocol), size)
	dst = binary.BigEndian.AppendUint16(dst, uint16(len(p.SPIs)))
	for _, spi := range p.SPIs {
		dst = binary.BigEndian.AppendUint32(dst, spi)
	}
	return dst
}

func (p *Vendor) append(dst []byte) []byte { return append(dst, p.Data...) }

func (p *TS) append(dst []byte) []byte {
	selectors := fit(p.Selectors)
	dst = append(dst, byte(len(selectors)), 0, 0, 0)
	for _, s := range selectors {
		dst = s.append(dst)
	}
	return dst
}

func (s Selector) append(dst []byte) []byte {
	switch {
	case s.Unknown || !s.From.IsValid() || s.From.BitLen() != s.To.BitLen():
		return append(dst, selectorUnknown, 0, 0, 4)
	case s.From.Is4():
		dst = append(dst, selectorIPv4, s.Protocol, 0, 16)
	default:
		dst = append(dst, selectorIPv6, s.Protocol, 0, 40)
	}
	dst = binary.BigEndian.AppendUint16(dst, s.FromPort)
	dst = binary.BigEndian.AppendUint16(dst, s.ToPort)
	dst = append(dst, s.From.AsSlice()...)
	return append(dst, s.To.AsSlice()...)
}

func (p *CP) append(dst []byte) []byte {
	dst = append(dst, byte(p.Kind), 0, 0, 0)
	for _, a := range p.Attributes {
		dst = binary.BigEndian.AppendUint16(dst, uint16(a.Kind)&0x7fff)
		dst = binary.BigEndian.AppendUint16(dst, uint16(len(a.Data)))
		dst = append(dst, a.Data...)
	}
	return dst
}

func (p *EAP) append(dst []byte) []byte { return append(dst, p.Data...) }

func (p *Unknown) append(dst []byte) []byte { return append(dst, p.Data...) }
