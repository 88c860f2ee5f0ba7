package dataplane

import (
	"testing"

	"github.com/adit-ipsec/adit/internal/packet"
	"github.com/adit-ipsec/adit/sad"
)

// RFC 4303 3.4.4.1 rebuilds a packet from "the original IP header": the hop limit
// that a raw IPv6 socket tells is the packet's, for RFC 5082 3 judges by it; where
// none is told it is what the kernel sends.
func TestRFC4303_3_4_4_1_TransportModeKeepsTheHopLimit(t *testing.T) {
	s := wholeSet{protocol: "esp", mode: sad.TransportMode, encap: sad.EncapNone, esp: "aes128gcm16", v6: true}
	a, b := newWholePair(t, s)
	for told, want := range map[uint8]uint8{255: 255, 1: 1, 0: outerTTL} {
		out := a.send(inner{src: a.addr, dst: b.addr, payload: "x"}.udp())
		kind, d := arrival(out[0])
		if kind != wireRaw6 {
			t.Fatalf("wire: expected %d, saw %d", wireRaw6, kind)
		}
		w := b.in[kind]
		slot := &w.grams[0]
		*slot = packet.Datagram{Mem: slot.Mem, Off: packet.Headroom, Len: d.Len, Addr: d.Addr, Local: d.Local, TTL: told}
		copy(slot.Mem[packet.Headroom:], d.Mem)
		w.walk(1)
		if got := b.tun.take(); len(got) != 1 || got[0][7] != want {
			t.Errorf("hop limit %d: expected %d, saw %x; drops %v", told, want, got, nonzero(b.gw))
		}
	}
}
