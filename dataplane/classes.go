package dataplane

import (
	"github.com/adit-ipsec/adit/internal/packet"
	"github.com/adit-ipsec/adit/sad"
)

// choose completes a decision about flow that depends on the DSCP of the packet p
// (RFC 4301 4.1); of an ICMP error, flow is not its own. Only where SAs have
// classes: it costs a call for each packet. Where the SA without a class is of a
// bundle, it is nothing without AH around it, as in flowCache.apply.
func (w *outboundWorker) choose(d *decision, p *packet.Buffer, flow *packet.Flow) {
	d.sa = d.classes.SA(p.Header.TrafficClass, flow)
	if d.sa == nil || !d.sa.Bundle {
		return
	}
	d.around = w.cache.sas.OutboundAH(d.sa)
	if d.around == nil || !d.around.Matches(sad.Outbound, flow) {
		d.sa = nil
	}
}
