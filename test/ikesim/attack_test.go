package ikesim

import (
	"encoding/binary"
	"net/netip"
	"slices"

	"github.com/adit-ipsec/adit/ike"
	"github.com/adit-ipsec/adit/ike/wire"
)

// The attacker sees all, sends what it likes from any address, and for a while may
// even stand where a gateway is. It has everything but the secrets.

// attack does one thing.
func (w *world) attack(h *host, e event) {
	w.lossy = max(w.lossy, w.now+e.dur+faultsEnd)
	switch e.kind {
	case replay:
		for range e.n {
			w.inject(w.someDatagram(), chance(w.evil, 50))
		}
	case mutate:
		for range 3 * e.n {
			if d := w.someDatagram(); len(d.data) > 0 {
				d.data = w.mutated(d.data)
				w.inject(d, chance(w.evil, 30))
			}
		}
	case forge:
		for range e.n {
			w.inject(w.forged(), false)
		}
	case spoof:
		w.flood(h, e.n)
	case impersonate:
		w.impersonate(h, e)
	}
}

// someDatagram is one that was seen.
func (w *world) someDatagram() datagram {
	if len(w.recorded) == 0 {
		return datagram{}
	}
	d := pick(w.evil, w.recorded...)
	d.data = slices.Clone(d.data)
	d.forged = true
	return d
}

// inject sends a datagram at once, from an address of the attacker's choice.
func (w *world) inject(d datagram, elsewhere bool) {
	if len(d.data) == 0 {
		return
	}
	if elsewhere {
		w.relayed = true
		from := netip.AddrFrom4([4]byte{198, 51, 100, byte(1 + w.evil.IntN(5))})
		if w.spoofed[from] == nil && !w.followed[from] {
			w.spoofed[from] = &tally{}
		}
		d.from = netip.AddrPortFrom(from, d.from.Port())
	}
	w.deliver(d)
}

// mutated is a message with something changed.
func (w *world) mutated(b []byte) []byte {
	r := w.evil
	switch r.IntN(7) {
	case 0:
		return b[:r.IntN(len(b))]
	case 1: // another exchange
		b[min(18, len(b)-1)] = byte(34 + r.IntN(10))
	case 2: // other flags
		b[min(19, len(b)-1)] ^= pick(r, byte(wire.FlagInitiator), byte(wire.FlagResponse), byte(wire.FlagInitiator|wire.FlagResponse))
	case 3: // another message ID
		b[min(23, len(b)-1)] += byte(r.IntN(3)) - 1
	case 4: // another version, next payload or SPI
		b[r.IntN(min(18, len(b)))] = byte(r.Uint32())
	case 5:
		b = append(b, byte(r.Uint32()))
		if len(b) >= 28 {
			binary.BigEndian.PutUint32(b[24:], uint32(len(b)))
		}
	default:
		for range 1 + r.IntN(4) {
			b[r.IntN(len(b))] ^= byte(1 << r.IntN(8))
		}
	}
	return b
}

// forged is a message in clear that claims to belong to an IKE SA that was seen, or
// to begin one.
func (w *world) forged() datagram {
	d := w.someDatagram()
	if len(d.data) < wire.HeaderLen {
		return d
	}
	h := d.header()
	switch pick(w.evil, 0, 1, 2, 3, 4) {
	case 0: // an error for an initiator
		h.Exchange, h.MessageID, h.Responder = wire.IKESAInit, 0, 0
		h.Flags = wire.FlagResponse
		d.from, d.to = d.to, d.from
		kind := pick(w.evil, wire.NotifyNoProposalChosen, wire.NotifyAuthenticationFailed, wire.NotifyInvalidSyntax, wire.NotifyInvalidKEPayload, wire.NotifyCookie)
		d.data = wire.Append(nil, h, &wire.Notify{Kind: kind, Data: []byte{0, byte(w.evil.IntN(40))}})
	case 1: // a delete in clear
		h.Exchange = wire.Informational
		h.Flags ^= wire.FlagResponse & h.Flags
		d.data = wire.Append(nil, h, &wire.Delete{Protocol: wire.ProtocolIKE})
	case 2: // AUTH that nobody has encrypted
		h.Exchange = wire.IKEAuth
		d.data = wire.Append(nil, h, &wire.ID{Kind: wire.IDFQDN, Data: []byte(identityOf("A"))}, &wire.Auth{Method: wire.AuthSharedKey, Data: make([]byte, 32)})
	case 3: // a first message again, with another nonce
		h.Initiator = wire.SPI(w.evil.Uint64())
		binary.BigEndian.PutUint64(d.data, uint64(h.Initiator))
	case 4: // noise behind a good header
		for i := wire.HeaderLen; i < len(d.data); i++ {
			d.data[i] = byte(w.evil.Uint32())
		}
	}
	return d
}

// flood begins IKE SAs from addresses where nobody is.
func (w *world) flood(h *host, n int) {
	for _, d := range w.recorded {
		if x := d.header(); x.Exchange != wire.IKESAInit || x.Response() || d.to.Addr() != h.outside() {
			continue
		}
		for range n {
			c := d
			c.data = slices.Clone(d.data)
			binary.BigEndian.PutUint64(c.data, w.evil.Uint64())
			w.inject(c, true)
		}
		return
	}
}

// impersonate has the attacker stand where a host is, with all of its settings but
// the secrets. The true host gets no IKE message for that time.
func (w *world) impersonate(h *host, e event) {
	if w.rogue != nil || h.nat != nil {
		return
	}
	w.rogue = &host{w: w, index: h.index, hostSetup: impostor(h.hostSetup)}
	w.taken = h.addr
	h.excuseAll(e.dur + faultsEnd)
	w.rogue.boot()
	for _, p := range h.peers {
		if initiates(p.Role) && p.Remote.IsValid() {
			w.rogue.step(ike.Initiate{Peer: p.Name})
		}
	}
	w.after(e.dur, func() { w.rogue = nil })
}
