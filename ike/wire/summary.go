package wire

import (
	"strconv"
	"strings"
)

// Summary is one line about the message for logs and transcripts: the exchange,
// request or response, the message ID and the names of what stands in clear. It
// holds names only, never data.
func (m *Message) Summary() string {
	return Describe(m.Header, m.Payloads, m.Protected)
}

// Describe is what [Message.Summary] says, of a header, payloads in clear or from
// inside, and a protected payload that has not been opened (nil: none).
func Describe(h Header, payloads []Payload, p *Protected) string {
	var b strings.Builder
	b.WriteString(h.Exchange.String())
	if h.Response() {
		b.WriteString(" response ")
	} else {
		b.WriteString(" request ")
	}
	b.WriteString(strconv.FormatUint(uint64(h.MessageID), 10))
	b.WriteString(" [")
	for i, q := range payloads {
		if i > 0 {
			b.WriteByte(' ')
		}
		b.WriteString(payloadName(q))
	}
	if p != nil {
		if len(payloads) > 0 {
			b.WriteByte(' ')
		}
		b.WriteString(p.Type().String())
		if p.Total != 0 {
			b.WriteString("(" + strconv.Itoa(int(p.Fragment)) + "/" + strconv.Itoa(int(p.Total)) + ")")
		}
	}
	b.WriteByte(']')
	return b.String()
}

func payloadName(p Payload) string {
	switch p := p.(type) {
	case *Notify:
		return "N(" + p.Kind.String() + ")"
	case *Delete:
		return "D(" + p.Protocol.String() + ")"
	}
	return p.Type().String()
}
