package wire

import "encoding/binary"

// Message is one IKE message, or one fragment of one (RFC 7383). It borrows from
// the bytes that it was parsed from.
type Message struct {
	Header
	Payloads  []Payload  // what stands in clear, in its order
	Protected *Protected // the SK or SKF payload; nil: none
	Raw       []byte     // the whole message
}

// Protected is an SK payload (RFC 7296 3.14), or an SKF payload (RFC 7383 2.5).
type Protected struct {
	Fragment, Total uint16      // SKF: this is fragment 1..Total; Total 0: SK
	First           PayloadType // of the first payload inside; in fragments behind the first not set
	AAD             int         // Raw[:AAD] is what is authenticated besides Body
	Body            []byte      // IV, ciphertext, ICV: Raw[AAD:]
}

// Type is PayloadSK or PayloadSKF.
func (p *Protected) Type() PayloadType {
	if p.Total != 0 {
		return PayloadSKF
	}
	return PayloadSK
}

// Parse reads one whole message. What it gives borrows from b. Its error is a
// *ParseError. Unknown payloads are no error, critical or not: see [Check].
func Parse(b []byte) (*Message, error) {
	h, err := ParseHeader(b)
	if err != nil {
		return nil, err
	}
	if h.Major != Version {
		return nil, &ParseError{Offset: 17, What: "major version is not 2"}
	}
	r := reader{base: HeaderLen}
	payloads, protected, err := r.chain(h.Next, b[HeaderLen:], true)
	if err != nil {
		return nil, err
	}
	return &Message{Header: h, Payloads: payloads, Protected: protected, Raw: b}, nil
}

// ParsePayloads reads the payloads that stood inside an SK payload, padding and pad
// length taken off. What it gives borrows from b. Its error is a *ParseError.
func ParsePayloads(first PayloadType, b []byte) ([]Payload, error) {
	var r reader
	payloads, _, err := r.chain(first, b, false)
	return payloads, err
}

// maxPayload is how long a payload can say it is, with its generic header.
const maxPayload = 1<<16 - 1

// Append appends a whole message in clear to dst, its lengths and types filled in.
// Of a payload longer than 65535 bytes, of more than 255 selectors in one TS, and of
// more than 255 transforms in one proposal, the rest is not written: whoever builds
// them has to look.
func Append(dst []byte, h Header, payloads ...Payload) []byte {
	start := len(dst)
	h.Next = firstType(payloads, 0)
	dst = h.append(dst)
	dst = appendChain(dst, 0, payloads)
	return setLength(dst, start, 0)
}

// AppendPayloads appends payloads to dst, for the inside of an SK payload. first
// is what the SK payload's Next Payload field is to say.
func AppendPayloads(dst []byte, payloads ...Payload) (first PayloadType, out []byte) {
	return firstType(payloads, 0), appendChain(dst, 0, payloads)
}

// BeginProtected makes the start of a protected message: the header, the payloads
// in clear, and the generic header of SK or (p.Total not 0) of SKF. All of it is the
// associated data. The sealed body, bodyLen bytes of IV, ciphertext and ICV, is to
// be appended to it: the lengths count it already. p.Body and p.AAD do not matter.
// A message is at most 65535 bytes long, as UDP has it: beyond, it has to be cut into
// fragments, and the lengths are wrong.
func BeginProtected(h Header, clear []Payload, p Protected, bodyLen int) []byte {
	h.Next = firstType(clear, p.Type())
	dst := h.append(make([]byte, 0, HeaderLen+8+bodyLen))
	dst = appendChain(dst, p.Type(), clear)
	dst = append(dst, byte(p.First), 0)
	length := 4 + bodyLen
	if p.Total != 0 {
		length += 4
	}
	dst = binary.BigEndian.AppendUint16(dst, uint16(length))
	if p.Total != 0 {
		dst = binary.BigEndian.AppendUint16(dst, p.Fragment)
		dst = binary.BigEndian.AppendUint16(dst, p.Total)
	}
	return setLength(dst, 0, bodyLen)
}

// setLength fills in the length field of the message that starts at start and is
// more bytes longer than what is there.
func setLength(dst []byte, start, more int) []byte {
	binary.BigEndian.PutUint32(dst[start+24:], uint32(len(dst)-start+more))
	return dst
}

func firstType(payloads []Payload, none PayloadType) PayloadType {
	if len(payloads) == 0 {
		return none
	}
	return payloads[0].Type()
}

// appendChain appends payloads with their generic headers (RFC 7296 3.2); last is
// the Next Payload of the last of them. What a length or a count cannot say is cut
// off, so that lengths are never wrong.
func appendChain(dst []byte, last PayloadType, payloads []Payload) []byte {
	for i, p := range payloads {
		var critical byte
		if u, ok := p.(*Unknown); ok && u.Critical {
			critical = 0x80
		}
		start := len(dst)
		dst = append(dst, byte(firstType(payloads[i+1:], last)), critical, 0, 0)
		dst = p.append(dst)
		dst = dst[:min(len(dst), start+maxPayload)]
		binary.BigEndian.PutUint16(dst[start+2:], uint16(len(dst)-start))
	}
	return dst
}
