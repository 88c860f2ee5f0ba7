package config

import (
	"fmt"

	"github.com/adit-ipsec/adit/spd"
)

// warnFragments warns where parts of a protected packet pass in clear because
// the file says so. Fragments go the way of their first one, which has the ports,
// unless an earlier policy names opaque; one that bypasses takes them from the
// policies behind it.
func (d *decoder) warnFragments() {
	for i := range d.Policies {
		by := &d.Policies[i]
		if s := &by.Selector; by.Action != spd.Bypass || !s.LocalPorts.Opaque && !s.RemotePorts.Opaque && !s.ICMP.Opaque {
			continue
		}
		whole := by.Selector // whatever the ports of the first fragment are
		whole.LocalPorts, whole.RemotePorts, whole.ICMP = spd.Ports{}, spd.Ports{}, spd.Ports{}
		for j := range d.Policies[i+1:] {
			p := &d.Policies[i+1+j]
			if p.Action != spd.Protect || !overlap(&whole, &p.Selector) {
				continue
			}
			d.warn(fmt.Sprintf("policies[%d]", i), fmt.Sprintf("policy %q bypasses what has no ports to be seen, fragments of packets that %q protects among it, which pass in clear; leave opaque out, and fragments go the way of their first one", by.Name, p.Name))
			break
		}
	}
}
