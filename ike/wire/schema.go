package wire

// many is no bound: MaxPayloads bounds every message anyway.
const many = MaxPayloads

// shape is one form that a message of an exchange may have: how often each payload
// comes, at least and at most. What it does not name may not come. Notifications and
// vendor IDs come in every message (RFC 7296 3.10.1: "Notify payloads with status
// types MAY be added to any message"; 3.12: "A Vendor ID payload may be sent as part
// of any message"), and are not named.
type shape struct {
	counts map[PayloadType]count
	child  bool // SA, TSi and TSr come all together or not at all
	check  func(c *checker) *SchemaError
}

type count struct{ min, max int }

var (
	one      = count{1, 1}
	optional = count{0, 1}
	anyCount = count{0, many}
)

// The shapes. The order of payloads means nothing (RFC 7296 2.5: implementations
// "MUST NOT reject as invalid a message with those payloads in any other order").
var (
	// RFC 7296 1.2: "HDR, SAi1, KEi, Ni".
	shapeInitRequest = shape{counts: map[PayloadType]count{PayloadSA: one, PayloadKE: one, PayloadNonce: one}, check: (*checker).firstSA}
	// "HDR, SAr1, KEr, Nr, [CERTREQ]".
	shapeInitResponse = shape{counts: map[PayloadType]count{PayloadSA: one, PayloadKE: one, PayloadNonce: one, PayloadCERTREQ: anyCount}, check: (*checker).firstSA}
	// "HDR(A,0), N(COOKIE)", "HDR(A,0), N(INVALID_KE_PAYLOAD)" (2.6.1) and other
	// errors.
	shapeInitRefusal = shape{check: (*checker).cookieOrError}

	// RFC 7296 1.2: "HDR, SK {IDi, [CERT,] [CERTREQ,] [IDr,] AUTH, SAi2, TSi, TSr}",
	// with CP (2.19), and without a Child SA (RFC 6023).
	shapeAuthRequest = shape{child: true, counts: map[PayloadType]count{PayloadIDi: one, PayloadIDr: optional, PayloadCERT: anyCount,
		PayloadCERTREQ: anyCount, PayloadAUTH: one, PayloadCP: optional, PayloadSA: optional, PayloadTSi: optional, PayloadTSr: optional}, check: (*checker).childSA}
	// "HDR, SK {IDr, [CERT,] AUTH, SAr2, TSi, TSr}"; without SA there is a
	// notification why (1.2, 2.21.2), or a Child SA was not asked for.
	shapeAuthResponse = shape{child: true, counts: map[PayloadType]count{PayloadIDr: one, PayloadCERT: anyCount, PayloadAUTH: one,
		PayloadCP: optional, PayloadSA: optional, PayloadTSi: optional, PayloadTSr: optional}, check: (*checker).childSA}
	// RFC 7296 2.21.2: authentication failed.
	shapeAuthRefusal = shape{counts: map[PayloadType]count{PayloadIDr: optional, PayloadCERT: anyCount}, check: (*checker).anError}

	// RFC 7296 1.3.1, 1.3.3: HDR, SK {[N(REKEY_SA),] SA, Ni, [KEi,] TSi, TSr}, and the
	// same back.
	shapeChild = shape{counts: map[PayloadType]count{PayloadSA: one, PayloadNonce: one, PayloadKE: optional,
		PayloadTSi: one, PayloadTSr: one, PayloadCP: optional}, check: (*checker).childSA}
	// RFC 7296 1.3.2: "HDR, SK {SA, Ni, KEi}", and the same back.
	shapeRekeyIKE = shape{counts: map[PayloadType]count{PayloadSA: one, PayloadNonce: one, PayloadKE: one}, check: (*checker).rekeyIKE}
	shapeRefusal  = shape{check: (*checker).anError}

	// RFC 7296 1.4: "HDR, SK {[N,] [D,] [CP,] ...}", both ways, and nothing at all.
	shapeInformational = shape{counts: map[PayloadType]count{PayloadD: anyCount, PayloadCP: optional}, check: (*checker).deletes}

	// RFC 9370 2.2.2: HDR(IKE_INTERMEDIATE), SK {KEi(n)}, both ways.
	shapeIntermediate = shape{counts: map[PayloadType]count{PayloadKE: one}}
	// RFC 9370 2.2.4: HDR(IKE_FOLLOWUP_KE), SK {KEi(n),
	// N(ADDITIONAL_KEY_EXCHANGE)(link)}; the last response has no link.
	shapeFollowupRequest  = shape{counts: map[PayloadType]count{PayloadKE: one}, check: (*checker).link}
	shapeFollowupResponse = shape{counts: map[PayloadType]count{PayloadKE: one}}
)

// pick is the shape that a message has to have, by what it holds.
func (c *checker) pick() (s *shape, known bool) {
	has := func(t PayloadType) bool { return c.counts[t] > 0 }
	switch c.exchange {
	case IKESAInit:
		switch {
		case !c.response:
			return &shapeInitRequest, true
		case has(PayloadSA) || has(PayloadKE) || has(PayloadNonce):
			return &shapeInitResponse, true
		}
		return &shapeInitRefusal, true
	case IKEAuth:
		switch {
		case !c.response:
			return &shapeAuthRequest, true
		case has(PayloadAUTH) || !c.hasError():
			return &shapeAuthResponse, true
		}
		return &shapeAuthRefusal, true
	case CreateChildSA:
		switch {
		case c.response && !has(PayloadSA) && c.hasError():
			return &shapeRefusal, true
		case c.proposes(ProtocolIKE):
			return &shapeRekeyIKE, true
		}
		return &shapeChild, true
	case Informational:
		return &shapeInformational, true
	case IKEIntermediate:
		if c.response && c.hasError() {
			return &shapeRefusal, true
		}
		return &shapeIntermediate, true
	case IKEFollowupKE:
		switch {
		case !c.response:
			return &shapeFollowupRequest, true
		case c.hasError():
			return &shapeRefusal, true
		}
		return &shapeFollowupResponse, true
	}
	return nil, false
}

// Check says whether payloads may make up a message of exchange x: a request, or a
// response. It is given all payloads that the exchange means: those in clear for
// IKE_SA_INIT, else those from inside SK. An unknown payload is skipped unless it is
// critical. Its errors are *SchemaError and *CriticalError.
//
// What holds behind it:
//   - IKE_SA_INIT request: SA, KE, Nonce. Response: the three, or none of them and
//     N(COOKIE) or an error.
//   - IKE_AUTH request: IDi and AUTH. Response: IDr and AUTH, or no AUTH, no SA and
//     an error. SA, TSi and TSr are there together or not at all.
//   - CREATE_CHILD_SA with an SA of IKE: Nonce and KE, no TSi, TSr, REKEY_SA. Else SA,
//     Nonce, TSi and TSr, or, in a response, none of them and an error. (A response
//     with both is not refused here: look for an error first.)
//   - INFORMATIONAL: notifications, deletes (one of the IKE SA at most), one CP.
//   - IKE_INTERMEDIATE and IKE_FOLLOWUP_KE: one KE, or, in a response, an error. An
//     IKE_FOLLOWUP_KE request has one N(ADDITIONAL_KEY_EXCHANGE).
//   - The SA of a response has one proposal. SPIs of proposals are as long as their
//     protocol wants them there. Notifications that have a form have it.
//
// The form of a response is picked by what it holds. Whether it is the answer to what
// was asked, a Child SA to a request for one, is for whoever asked.
//
// EAP (RFC 7296 2.16) is not spoken: a request that asks for it lacks AUTH.
func Check(x ExchangeType, response bool, payloads []Payload) error {
	c := &checker{exchange: x, response: response, payloads: payloads}
	for _, p := range payloads {
		if u, ok := p.(*Unknown); ok {
			if u.Critical {
				return &CriticalError{Type: u.Kind}
			}
			continue
		}
		c.counts[p.Type()]++
	}
	s, known := c.pick()
	if !known {
		return c.error(PayloadNone, "exchange is not known")
	}
	if err := c.count(s); err != nil {
		return err
	}
	if err := c.notifications(); err != nil {
		return err
	}
	if s.check != nil {
		if err := s.check(c); err != nil {
			return err
		}
	}
	return nil
}

// CheckOuter says whether m may stand on the wire as it is, before anything of it is
// opened or believed: IKE_SA_INIT in clear, everything else in SK or SKF with
// nothing known in front of it. What is in clear all the same may be only an error,
// as RFC 7296 1.5 and 2.21 have it for messages that belong to no IKE SA; it proves
// nothing. Its errors are *SchemaError and *CriticalError.
func CheckOuter(m *Message) error {
	c := &checker{exchange: m.Exchange, response: m.Response(), payloads: m.Payloads}
	for _, p := range m.Payloads {
		if u, ok := p.(*Unknown); ok && u.Critical {
			return &CriticalError{Type: u.Kind}
		}
	}
	switch {
	case m.Exchange == IKESAInit:
		if m.Protected != nil {
			return c.error(m.Protected.Type(), "may not be there")
		}
		return nil
	case m.Protected == nil && !c.hasError():
		return c.error(PayloadSK, "missing")
	}
	for _, p := range m.Payloads {
		switch p := p.(type) {
		case *Unknown, *Vendor:
		case *Notify:
			if m.Protected != nil {
				return c.notifyError(p, "is in clear")
			}
		default:
			return c.error(p.Type(), "is in clear")
		}
	}
	return nil
}
