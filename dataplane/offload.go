package dataplane

import (
	"github.com/adit-ipsec/adit/internal/tun"
	"github.com/adit-ipsec/adit/natt"
)

// Offload is one way in which the gateway and the kernel exchange superpackets,
// many packets in one buffer, and whether it is in use. What is on the wire is
// the same with and without.
type Offload struct {
	Name   string // see the list in Offloads
	Active bool
	Why    string // why it is not active; "" while it is

	// Fallbacks counts superpackets that the kernel refused, and whose
	// packets then went one by one.
	Fallbacks uint64
}

// Why an offload is not active, where the device does not say.
const (
	whyUnknown = "switched off, or this kernel does not know it"
	whyRefused = "the kernel refused a superpacket"
	whyNoUDP   = "there is no UDP socket"
	whyForeign = "the device or the wire is not the kernel's"
)

// offloads lists, for the TUN: tun-read-tcp and tun-read-udp (many packets of a
// flow in one read), tun-write-tcp and tun-write-udp (in one write); for UDP:
// udp-send (GSO) and udp-receive (GRO).
//
// Where there are several queues or sockets, an offload is active if it is on
// all of them.
func (g *Gateway) offloads() []Offload {
	var ofTUN, ofUDP []Offload
	for _, q := range g.queues {
		ofTUN = merge(ofTUN, g.queueOffloads(q))
	}
	for _, w := range g.in {
		if w.udp {
			ofUDP = merge(ofUDP, wireOffloads(w.wire))
		}
	}
	if ofUDP == nil {
		ofUDP = inactive(whyNoUDP, "udp-send", "udp-receive")
	}
	return append(ofTUN, ofUDP...)
}

// merge adds b to a, the same offloads of another queue or socket.
func merge(a, b []Offload) []Offload {
	if a == nil {
		return b
	}
	for i := range a {
		a[i].Fallbacks += b[i].Fallbacks
		if !b[i].Active {
			a[i].Active, a[i].Why = false, b[i].Why
		}
	}
	return a
}

func (g *Gateway) queueOffloads(queue tun.Queue) []Offload {
	q, ok := queue.(*tun.Vnet)
	if !ok {
		why := whyForeign
		if g.noOffload != nil {
			why = g.noOffload.Error()
		}
		return inactive(why, "tun-read-tcp", "tun-read-udp", "tun-write-tcp", "tun-write-udp")
	}
	is, whyTCP, whyUDP := q.Offloads(), whyRefused, whyRefused
	if !is.ReadTCP { // the kernel takes what it gives
		whyTCP = whyUnknown
	}
	if !is.ReadUDP {
		whyUDP = whyUnknown
	}
	return []Offload{
		active("tun-read-tcp", is.ReadTCP, whyUnknown),
		active("tun-read-udp", is.ReadUDP, whyUnknown),
		refusable("tun-write-tcp", is.WriteTCP, whyTCP),
		refusable("tun-write-udp", is.WriteUDP, whyUDP),
	}
}

// refusable is an offload of the TUN that ends with the first refusal.
func refusable(name string, is bool, why string) Offload {
	o := active(name, is, why)
	if o.Why == whyRefused {
		o.Fallbacks = 1
	}
	return o
}

func wireOffloads(wire Wire) []Offload {
	w, ok := wire.(interface{ Offloads() natt.Offloads })
	if !ok {
		return inactive(whyForeign, "udp-send", "udp-receive")
	}
	is := w.Offloads()
	why := whyUnknown
	if is.FallbackEIO > 0 {
		why = whyRefused
	}
	send := active("udp-send", is.GSO, why)
	send.Fallbacks = is.FallbackEIO + is.FallbackEINVAL + is.FallbackEMSGSIZE
	return []Offload{send, active("udp-receive", is.GRO, whyUnknown)}
}

func active(name string, is bool, why string) Offload {
	if is {
		why = ""
	}
	return Offload{Name: name, Active: is, Why: why}
}

func inactive(why string, names ...string) (list []Offload) {
	for _, name := range names {
		list = append(list, Offload{Name: name, Why: why})
	}
	return list
}
