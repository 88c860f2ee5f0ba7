package main

import (
	"github.com/adit-ipsec/adit/dataplane"
	"github.com/adit-ipsec/adit/internal/rawip"
)

// openICMP opens the sockets that hear ICMP errors about outer packets. They are
// welcome and not needed: without them a path MTU is found by probes. What it
// returns is to be closed.
func (g *gateway) openICMP(engine *dataplane.Config) (opened []interface{ Close() error }) {
	address := g.cfg.Listen.Address
	for family, wire := range map[int]*dataplane.Wire{4: &engine.ICMP4, 6: &engine.ICMP6} {
		if address.IsValid() && address.Is4() != (family == 4) {
			continue
		}
		conn, err := rawip.ListenICMP(family, address, ownMark)
		if err != nil {
			g.log.Debug("no socket for ICMP errors: path MTUs are found by probes alone", "family", family, "error", err)
			continue
		}
		*wire = conn
		opened = append(opened, conn)
	}
	return opened
}
