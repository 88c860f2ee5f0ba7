package dataplane

import "fmt"

// DropReason says why a walk ended a packet. The zero value, forwarded, says
// that it went on. Names are kept: counters and alarms are built on them.
type DropReason uint8

// The reasons, in the order of the walks. docs/counters.md tells an operator
// what to do about each.
const (
	forwarded DropReason = iota
	probed               // inbound: a probe of the path MTU, handed to the prober: InProbes, no drop

	OutMalformed      // no valid IP packet came from the TUN
	OutFragment       // a fragment that cannot be decided without its initial one, or is broken (RFC 4301 7, auditable)
	OutDiscard        // policy says discard, or no policy matches (RFC 4301 5.1)
	OutNoBypass       // policy says bypass, but there is no socket to send clear packets with
	OutNoSA           // policy says protect, but there is no SA, and nobody to ask for one
	OutResponderOnly  // the same, and only the peer may begin
	OutHoldFull       // the same, and too much waits for SAs already
	OutHoldExpired    // the same, and it has waited too long
	OutRefused        // the same, and it was held until the key source said that there will be none
	OutTooBig         // longer than one outer datagram can be
	OutSegment        // a superpacket that cannot be cut into packets
	OutSeqExhausted   // the SA's sequence numbers are used up (RFC 4303 3.3.3)
	OutExpired        // the SA's lifetime is over (RFC 4301 4.4.2.1)
	OutSeqReservation // waiting for the next durable block of sequence numbers
	OutSeal           // esp refused to seal: a bug here, never clear text on the wire
	OutNoWire         // no socket for the SA's encapsulation and address family
	OutSendError      // the kernel refused the outer packet
	OutTransport      // a transport mode SA, and not a whole packet between its two ends

	InMalformed  // too short, or no ESP
	InNoIKE      // an IKE message, and nobody here speaks IKE
	InIKEFull    // an IKE message, and the IKE inbox has no room for it
	InNoSA       // unknown SPI (RFC 4303 3.4.2, auditable)
	InEndpoint   // right SPI, but sent to or from an address that is not the SA's
	InExpired    // the SA's lifetime is over (RFC 4301 4.4.2.1)
	InReplay     // sequence number seen before, or left of the window (3.4.3, auditable)
	InAuth       // the ICV is wrong (3.4.4, auditable)
	InBundle     // one of AH and ESP where the policy wants both
	InPadding    // the padding is not 1, 2, 3 … or longer than the payload
	InDummy      // next header 59: a dummy packet, ended silently (2.6); not an error
	InNextHeader // a tunnel mode SA carried something that is not IP
	InInner      // the inner packet is broken, or not of the announced version
	InECN        // inner Not-ECT, outer CE (RFC 6040 4.2)
	InSelector   // the inner packet is not what this SA may carry (RFC 4301 5.2, auditable)
	InICMP       // an ICMP error that quotes a packet which this SA's peer was not sent (RFC 4301 6.2, auditable)
	InFragment   // an inner fragment that cannot be decided without its initial one, or is broken (RFC 4301 7, auditable)
	InTUNError   // the TUN refused the packet

	reasons // how many there are
)

var reasonNames = [reasons]string{
	forwarded:         "Forwarded",
	probed:            "Probed",
	OutMalformed:      "OutMalformed",
	OutFragment:       "OutFragment",
	OutDiscard:        "OutDiscard",
	OutNoBypass:       "OutNoBypass",
	OutNoSA:           "OutNoSA",
	OutResponderOnly:  "OutResponderOnly",
	OutHoldFull:       "OutHoldFull",
	OutHoldExpired:    "OutHoldExpired",
	OutRefused:        "OutRefused",
	OutTooBig:         "OutTooBig",
	OutSegment:        "OutSegment",
	OutSeqExhausted:   "OutSeqExhausted",
	OutExpired:        "OutExpired",
	OutSeqReservation: "OutSeqReservation",
	OutSeal:           "OutSeal",
	OutNoWire:         "OutNoWire",
	OutSendError:      "OutSendError",
	OutTransport:      "OutTransport",
	InMalformed:       "InMalformed",
	InNoIKE:           "InNoIKE",
	InIKEFull:         "InIKEFull",
	InNoSA:            "InNoSA",
	InEndpoint:        "InEndpoint",
	InExpired:         "InExpired",
	InReplay:          "InReplay",
	InAuth:            "InAuth",
	InBundle:          "InBundle",
	InPadding:         "InPadding",
	InDummy:           "InDummy",
	InNextHeader:      "InNextHeader",
	InInner:           "InInner",
	InECN:             "InECN",
	InSelector:        "InSelector",
	InICMP:            "InICMP",
	InFragment:        "InFragment",
	InTUNError:        "InTUNError",
}

// String is the counter's name.
func (r DropReason) String() string {
	if r < reasons {
		return reasonNames[r]
	}
	return fmt.Sprintf("DropReason(%d)", uint8(r))
}

// DropReasons lists all reasons, in the order of the walks.
func DropReasons() []DropReason {
	all := make([]DropReason, 0, reasons-probed-1)
	for r := probed + 1; r < reasons; r++ {
		all = append(all, r)
	}
	return all
}
