package wire

import "slices"

// checker is one call of [Check].
type checker struct {
	exchange ExchangeType
	response bool
	payloads []Payload
	counts   [PayloadSKF + 1]int // of known payloads
}

func (c *checker) error(t PayloadType, rule string) *SchemaError {
	return &SchemaError{Exchange: c.exchange, Response: c.response, Payload: t, Rule: rule}
}

func (c *checker) notifyError(n *Notify, rule string) *SchemaError {
	return &SchemaError{Exchange: c.exchange, Response: c.response, Payload: PayloadN, Notify: n.Kind, Rule: rule}
}

// count holds the message against the counts of its shape, in the order of payload
// numbers, so that the same message always gets the same error.
func (c *checker) count(s *shape) *SchemaError {
	for t := PayloadSA; t <= PayloadSKF; t++ {
		if t == PayloadN || t == PayloadV {
			continue
		}
		allowed, n := s.counts[t], c.counts[t]
		switch {
		case n < allowed.min:
			return c.error(t, "missing")
		case n > 0 && allowed.max == 0:
			return c.error(t, "may not be there")
		case n > allowed.max:
			return c.error(t, "may be there only once")
		}
	}
	if s.child {
		for _, t := range []PayloadType{PayloadSA, PayloadTSi, PayloadTSr} {
			if c.counts[t] == 0 && c.counts[PayloadSA]+c.counts[PayloadTSi]+c.counts[PayloadTSr] > 0 {
				return c.error(t, "missing")
			}
		}
	}
	return nil
}

func (c *checker) hasError() bool {
	for _, n := range All[*Notify](c.payloads) {
		if n.Kind.IsError() {
			return true
		}
	}
	return false
}

func (c *checker) anError() *SchemaError {
	if !c.hasError() {
		return c.error(PayloadN, "with an error is missing")
	}
	return nil
}

func (c *checker) cookieOrError() *SchemaError {
	if FindNotify(c.payloads, NotifyCookie) == nil && !c.hasError() {
		return c.error(PayloadSA, "missing, and there is neither a cookie nor an error")
	}
	return nil
}

// proposes says whether the first proposal is of that protocol.
func (c *checker) proposes(p ProtocolID) bool {
	sa := First[*SA](c.payloads)
	return sa != nil && len(sa.Proposals) > 0 && sa.Proposals[0].Protocol == p
}

// proposals holds an SA payload against RFC 7296 3.3.1.
func (c *checker) proposals(spi func(Proposal) bool) *SchemaError {
	sa := First[*SA](c.payloads)
	if sa == nil {
		return nil
	}
	if len(sa.Proposals) == 0 {
		return c.error(PayloadSA, "has no proposal")
	}
	if c.response && len(sa.Proposals) != 1 {
		// RFC 7296 3.3.6: "the responder MUST choose a single proposal".
		return c.error(PayloadSA, "has more than the one proposal that is chosen")
	}
	for i, p := range sa.Proposals {
		// "the first proposal in an SA payload MUST be 1, and subsequent proposals
		// MUST be one more than the previous proposal".
		if !c.response && int(p.Number) != i+1 {
			return c.error(PayloadSA, "has proposals that are not numbered 1, 2, 3")
		}
		if !spi(p) {
			return c.error(PayloadSA, "has a proposal of another protocol, or whose SPI is not as long as it is to be here")
		}
	}
	return nil
}

// firstSA: RFC 7296 3.3.1: "For an initial IKE SA negotiation, this field MUST be
// zero; the SPI is obtained from the outer header."
func (c *checker) firstSA() *SchemaError {
	return c.proposals(func(p Proposal) bool { return p.Protocol == ProtocolIKE && len(p.SPI) == 0 })
}

// childSA: "it is equal to the size, in octets, of the SPI of the corresponding
// protocol". A protocol that is not known is another's to offer, ours to skip.
func (c *checker) childSA() *SchemaError {
	return c.proposals(func(p Proposal) bool {
		return p.Protocol != ProtocolIKE && (p.Protocol.SPILen() == 0 || len(p.SPI) == p.Protocol.SPILen())
	})
}

func (c *checker) rekeyIKE() *SchemaError {
	if n := FindNotify(c.payloads, NotifyRekeySA); n != nil {
		return c.notifyError(n, "is for Child SAs")
	}
	return c.proposals(func(p Proposal) bool { return p.Protocol == ProtocolIKE && len(p.SPI) == p.Protocol.SPILen() })
}

func (c *checker) deletes() *SchemaError {
	ike := 0
	for _, d := range All[*Delete](c.payloads) {
		if d.Protocol == ProtocolIKE {
			ike++
		}
	}
	if ike > 1 {
		return c.error(PayloadD, "of the IKE SA may be there only once")
	}
	return nil
}

func (c *checker) link() *SchemaError {
	if FindNotify(c.payloads, NotifyAdditionalKeyExchange) == nil {
		return c.notifyError(&Notify{Kind: NotifyAdditionalKeyExchange}, "missing")
	}
	return nil
}

// notifyRule is the form of one notification: how long its data may be in bytes, how
// it is cut, whether it names a Child SA, and whether it may come once only.
type notifyRule struct {
	min, max int
	unit     int // its length is a multiple of this; 0: any
	childSPI bool
	once     bool
}

const anyLength = 1 << 16

// notifyRules are those that have a form. Every other one may be what it likes.
var notifyRules = map[NotifyType]notifyRule{
	NotifyUnsupportedCriticalPayload: {min: 1, max: 1},                             // RFC 7296 2.5
	NotifyInvalidMessageID:           {min: 4, max: 4},                             // 2.3
	NotifyInvalidKEPayload:           {min: 2, max: 2},                             // 1.2
	NotifySetWindowSize:              {min: 4, max: 4},                             // 2.3
	NotifyIPCompSupported:            {min: 3, max: 3},                             // 2.22
	NotifyNATDetectionSourceIP:       {min: 20, max: 20},                           // 2.23
	NotifyNATDetectionDestinationIP:  {min: 20, max: 20},                           // 2.23
	NotifyCookie:                     {min: 1, max: 64, once: true},                // 2.6
	NotifyRekeySA:                    {max: anyLength, childSPI: true, once: true}, // 1.3.3
	NotifyAdditionalIP4Address:       {min: 4, max: 4},                             // RFC 4555 4.2
	NotifyAdditionalIP6Address:       {min: 16, max: 16},                           // RFC 4555 4.2
	NotifyCookie2:                    {min: 8, max: 64, once: true},                // RFC 4555 4.2.5
	NotifyAuthLifetime:               {min: 4, max: 4},                             // RFC 4478 3
	NotifySignatureHashAlgorithms:    {min: 2, max: anyLength, unit: 2},            // RFC 7427 4
	NotifyPPKIdentity:                {max: anyLength, once: true},                 // RFC 8784 5.1; empty in the answer
	NotifyNoPPKAuth:                  {min: 1, max: anyLength, once: true},         // RFC 8784 3
	NotifyAdditionalKeyExchange:      {min: 1, max: anyLength, once: true},         // RFC 9370 2.2.4
}

// notifications holds each notification against its form.
func (c *checker) notifications() *SchemaError {
	var seen []NotifyType // of those that may come once
	for _, n := range All[*Notify](c.payloads) {
		rule, ok := notifyRules[n.Kind]
		switch {
		case !ok:
			continue
		case len(n.Data) < rule.min || len(n.Data) > rule.max || rule.unit != 0 && len(n.Data)%rule.unit != 0:
			return c.notifyError(n, "has data of another length")
		case rule.childSPI && (n.Protocol != ProtocolAH && n.Protocol != ProtocolESP || len(n.SPI) != 4):
			return c.notifyError(n, "names no Child SA")
		case rule.once && slices.Contains(seen, n.Kind):
			return c.notifyError(n, "may be there only once")
		}
		if rule.once {
			seen = append(seen, n.Kind)
		}
	}
	return nil
}
