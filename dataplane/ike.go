package dataplane

import (
	"net/netip"

	"github.com/adit-ipsec/adit/natt"
)

// IKE on the port of NAT traversal. RFC 7296 2.23: an endpoint "that discovers a NAT
// between it and its correspondent MUST send all subsequent traffic from port 4500",
// so IKE comes there beside the ESP that the walk is for. The walk tells them apart
// and hands IKE over; what it says is not the walk's matter, and neither is who keys
// an SA.

// IKEInbox takes one IKE message: message has no non-ESP marker and is only
// borrowed for the call, local is the address that it was sent to. The inbox copies
// what it keeps, holds no more than its own bounds and never blocks, for the walk
// that calls it carries ESP. False: there was no room, and the message is lost; its
// sender will say it again. Several goroutines may call it at once.
type IKEInbox func(local netip.Addr, remote netip.AddrPort, message []byte) bool

// ike hands over the IKE message that lies behind the marker of b.
func (w *inboundWorker) ike(b []byte, local netip.Addr, remote netip.AddrPort) DropReason {
	inbox := w.gateway.inbox
	if inbox == nil {
		return InNoIKE
	}
	if !inbox(local, remote, b[natt.NonESPMarkerLen:]) {
		return InIKEFull
	}
	w.iked.Add(1)
	return forwarded
}
