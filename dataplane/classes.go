package dataplane

import (
	"github.com/adit-ipsec/adit/internal/packet"
	"github.com/adit-ipsec/adit/sad"
)

// choose completes a decision that depends on the packet's DSCP (RFC 4301 4.1).
// Only where SAs have classes: it costs a call for each packet. Where the SA
// without a class is of a bundle, it is nothing without AH around it, as in
// flowCache.decide.
// flow is the one that the decision is about: of an ICMP error not its own.
func (w *outboundWorker) choose(d *decision, p *packet.Buffer, flow *packet.Flow) {
	d.sa = d.classes.SA(p.Header.TrafficClass, flow)
	if d.sa == nil || !d.sa.Bundle {
		return
	}
	d.around = w.cache.sas.OutboundAH(d.policy.Peer, d.policy.Name)
	if d.around == nil || !d.around.Matches(sad.Outbound, flow) {
		d.sa = nil
	}
}
