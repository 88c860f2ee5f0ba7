package main

import (
	"fmt"
	"slices"

	"github.com/adit-ipsec/adit/config"
	"github.com/adit-ipsec/adit/dataplane"
	"github.com/adit-ipsec/adit/internal/packet"
	"github.com/adit-ipsec/adit/internal/rawip"
	"github.com/adit-ipsec/adit/natt"
	"github.com/adit-ipsec/adit/sad"
)

// wires are the sockets of a gateway while they are being opened. Which there are
// follows from the file: UDP always; protocol 50 wherever it may be, for a peer may
// leave UDP at any time; protocol 51 for AH; whole packets for AH, transport mode
// and bypass; ICMP errors where they can be had.
type wires struct {
	g      *gateway
	engine dataplane.Config
	udp    *natt.Conn // nil: there is none
	opened []interface{ Close() error }
}

func (w *wires) add(opened ...interface{ Close() error }) { w.opened = append(w.opened, opened...) }

func (w *wires) close() {
	for _, wire := range w.opened {
		_ = wire.Close()
	}
}

// open opens all of them, or says which one is missing.
func (w *wires) open() error {
	if err := w.openUDP(); err != nil {
		return err
	}
	if err := w.openIKE(); err != nil {
		return err
	}
	for _, family := range []int{4, 6} {
		if err := w.openRaw(family); err != nil {
			return err
		}
	}
	if s := w.g.ike; s != nil {
		s.raw4, s.raw6 = w.engine.Raw4 != nil, w.engine.Raw6 != nil
	}
	w.add(w.g.openICMP(&w.engine)...)
	if err := w.g.openClear(); err != nil {
		return err
	}
	if w.g.clear != nil {
		w.engine.Clear, w.engine.Whole = w.g.clear, w.g.clear
	}
	return nil
}

// openUDP opens the UDP sockets, or none if they cannot be had and no peer needs
// them.
func (w *wires) openUDP() error {
	udp, err := w.g.openUDP()
	if err != nil {
		for _, conn := range udp {
			_ = conn.Close()
		}
		if w.g.cfg.Listen.Raw && !w.g.needs(sad.ESP, sad.EncapUDP, 0) {
			w.g.log.Warn("no UDP socket; no peer needs it", "error", err)
			return nil
		}
		return err
	}
	for i, conn := range udp {
		w.add(conn)
		if i == 0 {
			w.engine.Wire, w.udp = conn, conn
		} else {
			w.engine.Siblings = append(w.engine.Siblings, conn)
		}
	}
	return nil
}

// openRaw opens the sockets of one family for protocol 50, and 51 where there is AH.
func (w *wires) openRaw(family int) error {
	esp, ah := &w.engine.Raw4, &w.engine.AH4
	if family == 6 {
		esp, ah = &w.engine.Raw6, &w.engine.AH6
	}
	if err := w.openProtocol(sad.ESP, family, esp); err != nil {
		return err
	}
	if !w.g.cfg.UsesAH() {
		return nil
	}
	return w.openProtocol(sad.AH, family, ah)
}

// openProtocol opens the socket of a protocol and family where the configuration
// allows one; one that fails is an error if a peer needs it.
func (w *wires) openProtocol(protocol sad.Protocol, family int, wire *dataplane.Wire) error {
	address, number := w.g.cfg.Listen.Address, packet.ProtoESP
	if protocol == sad.AH {
		number = packet.ProtoAH
	}
	if !w.g.cfg.RawAllowed || address.IsValid() && address.Is4() != (family == 4) {
		return nil
	}
	raw, err := rawip.Listen(rawip.Config{Family: family, Protocol: number, Address: address, Mark: ownMark, Whole: protocol == sad.AH})
	if err != nil {
		if w.g.needs(protocol, sad.EncapNone, family) {
			return err
		}
		w.g.log.Debug("no raw socket; no peer needs it", "protocol", number, "family", family, "error", err)
		return nil
	}
	*wire = raw
	w.add(raw)
	w.g.listens = append(w.g.listens, fmt.Sprintf("protocol %d over IPv%d", number, family))
	return nil
}

// queues is how many TUN queues there are, and UDP sockets: docs/adr/0003.
func queues(cfg *config.Config) int { return max(cfg.TUN.Queues, 1) }

// openUDP opens the UDP sockets, as many as there are queues. What it returns is
// to be closed, also after an error.
func (g *gateway) openUDP() (list []*natt.Conn, err error) {
	udp, err := natt.Listen(natt.Config{
		Address: g.cfg.Listen.Address, Port: g.cfg.Listen.NATTPort, Mark: ownMark, Offload: udpOffload(g.cfg.TUN.Offload),
	})
	if err != nil {
		return nil, err
	}
	for list = append(list, udp); len(list) < queues(g.cfg); {
		sibling, err := udp.Sibling()
		if err != nil {
			return list, err
		}
		list = append(list, sibling)
	}
	g.listens = append(g.listens, fmt.Sprintf("UDP %d on %s", udp.LocalPort(), listenAddress(g.cfg.Listen.Address)))
	return list, nil
}

// openClear opens the sender for whole packets: needed by AH, by transport mode
// without UDP and by a bypass policy, welcome for one that a later reload brings.
func (g *gateway) openClear() error {
	clear, err := rawip.NewClear(ownMark)
	if err == nil {
		g.clear = clear
		g.defers(clear.Close)
		return nil
	}
	if names := clearPolicies(g.cfg.Policies); len(names) > 0 {
		return fmt.Errorf("policy %s bypasses: %w", names[0], err)
	}
	if slices.ContainsFunc(allParams(g.cfg), sendsWhole) {
		return fmt.Errorf("AH and transport mode send whole packets: %w", err)
	}
	g.log.Debug("no socket for whole packets; no peer and no policy needs it", "error", err)
	return nil
}

// sendsWhole tells whether the SA's packets leave with a header made here.
func sendsWhole(p sad.Params) bool {
	return p.Direction == packet.Outbound && (p.Protocol == sad.AH || p.Bundle || p.Mode == sad.TransportMode && p.Encap == sad.EncapNone)
}

// needs tells whether an outbound SA uses protocol and encapsulation, towards a
// peer of the family; family 0: any.
func (g *gateway) needs(protocol sad.Protocol, encap sad.Encapsulation, family int) bool {
	if encap == sad.EncapUDP && g.cfg.UsesIKE() {
		return true // IKE itself
	}
	return slices.ContainsFunc(allParams(g.cfg), func(p sad.Params) bool {
		return p.Direction == packet.Outbound && p.Protocol == protocol && p.Encap == encap &&
			(family == 0 || !p.Remote.IsValid() || p.Remote.Addr().Is4() == (family == 4))
	})
}
