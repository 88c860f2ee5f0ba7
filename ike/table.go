package ike

import "github.com/adit-ipsec/adit/ike/wire"

// table says which requests of the peer an IKE SA takes in which state, and who
// takes them. What is not in it is dropped and counted. Responses are not here:
// they are taken for the one request that is on its way, and for no other.
//
// IKE_SA_INIT is not here: it belongs to no IKE SA yet (initRequest).
var table [states]map[wire.ExchangeType]handler

func init() {
	table = [states]map[wire.ExchangeType]handler{
		halfOpen: {
			wire.IKEIntermediate: intermediateRequest,
			wire.IKEAuth:         authRequest,
		},
		established: {
			wire.CreateChildSA: createChildRequest,
			wire.IKEFollowupKE: followupRequest,
			wire.Informational: informationalRequest,
		},
		// RFC 7296 2.25.2: a peer that has been told of the end of the IKE SA,
		// or of a new one, may still ask for Child SAs: TEMPORARY_FAILURE.
		replaced: {
			wire.CreateChildSA: closingRequest,
			wire.IKEFollowupKE: closingRequest,
			wire.Informational: informationalRequest,
		},
		deleting: {
			wire.CreateChildSA: closingRequest,
			wire.IKEFollowupKE: closingRequest,
			wire.Informational: informationalRequest,
		},
	}
}

// closingRequest says that there is nothing to be had of this IKE SA any more.
func closingRequest(_ *Machine, _ *ikeSA, _ []wire.Payload, answer func(...wire.Payload)) {
	answer(&wire.Notify{Kind: wire.NotifyTemporaryFailure})
}

// packet takes one message from the wire to the one that it is for. It returns the
// name of the drop, "" if there is none.
//
//	parse -> version -> IKE_SA_INIT request: initRequest
//	                 -> the SA by our SPI -> response: answered
//	                                      -> request:  asked -> table
func (m *Machine) packet(in Packet) string {
	h, err := wire.ParseHeader(in.Data)
	if err != nil {
		return "malformed"
	}
	if h.Major != wire.Version {
		return m.otherVersion(in, h)
	}
	msg, err := wire.Parse(in.Data)
	if err != nil {
		m.malformedAnswer(h, err)
		return "malformed"
	}
	if h.Exchange == wire.IKESAInit && !h.Response() {
		return m.initRequest(in, msg)
	}
	ours, theirs := h.Responder, h.Initiator
	if !h.FromInitiator() {
		ours, theirs = theirs, ours
	}
	sa := m.sas[ours]
	switch {
	case sa == nil:
		return "no_ike_sa"
	case sa.initiator == h.FromInitiator():
		return "wrong_direction"
	case sa.state != starting && theirs != sa.spiR:
		return "wrong_peer_spi"
	case h.Response():
		return m.answered(sa, in, msg)
	}
	return m.asked(sa, in, msg)
}

// otherVersion is a message of another major version. RFC 7296 2.5: "If an
// endpoint receives a message with a higher major version number, it MUST drop the
// message and SHOULD send an unauthenticated Notify message of type
// INVALID_MAJOR_VERSION containing the highest (closest) version number it
// supports."
func (m *Machine) otherVersion(in Packet, h wire.Header) string {
	if h.Major < wire.Version {
		return "lower_version" // IKEv1
	}
	if h.Response() {
		return "higher_version"
	}
	h.Major, h.Minor, h.Flags = wire.Version, 0, h.Flags&wire.FlagInitiator^wire.FlagInitiator|wire.FlagResponse
	back := path{local: in.Local, remote: in.Remote, natt: in.NATT}
	m.sayStranger(back, len(in.Data), wire.Append(nil, h, &wire.Notify{Kind: wire.NotifyInvalidMajorVersion, Data: []byte{wire.Version}}))
	return "higher_version"
}
