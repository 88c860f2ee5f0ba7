package dataplane

import (
	"bytes"
	"slices"
	"testing"

	"github.com/adit-ipsec/adit/internal/packet"
	"github.com/adit-ipsec/adit/sad"
)

// A batch that fills the arenas several times, with refused packets between, comes
// through whole and in order, whatever the TUN does to memory that it was given.
func TestBatchesOfWholePacketsBeyondTheArena(t *testing.T) {
	for _, s := range wholeSets() {
		if s.esn || s.ah != "" && s.ah != "sha256" || s.esp != "" && s.esp != "aes128gcm16" {
			continue
		}
		s.fragment = sad.FragmentAfter
		a, b := newWholePair(t, s)
		b.tun.scribble = true
		from, to := hostA, hostB
		if s.mode == sad.TransportMode {
			from, to = a.addr, b.addr
		}
		var packets [][]byte
		for i := range inboundBatch {
			p := sized(from, to, 5000+37*i, true)
			p[len(p)-1] = byte(i)
			packets = append(packets, p)
		}
		var out []sent
		for batch := range slices.Chunk(packets, len(a.gw.out[0].bufs)) {
			out = append(out, a.send(batch...)...)
		}
		if len(out) != inboundBatch {
			t.Fatalf("%s: expected %d packets, saw %d; drops %v", s, inboundBatch, len(out), nonzero(a.gw))
		}
		w := b.in[wireUDP]
		for i, g := range out {
			kind, d := arrival(g)
			if i%5 == 4 {
				d.Mem[d.Off+d.Len-1] ^= 1 // not authentic
			}
			w = b.in[kind]
			slot := &w.grams[i]
			*slot = packet.Datagram{Mem: slot.Mem, Off: packet.Headroom + d.Off, Len: d.Len, Addr: d.Addr, Local: d.Local, TOS: d.TOS}
			copy(slot.Mem[packet.Headroom:], d.Mem)
		}
		w.walk(len(out))
		got, n := b.tun.take(), 0
		for i, want := range packets {
			if i%5 == 4 {
				continue
			}
			if n >= len(got) || len(got[n]) != len(want) || !bytes.Equal(got[n][48:], want[48:]) {
				t.Fatalf("%s: packet %d is not what was sent; %d came; drops %v", s, i, len(got), nonzero(b.gw))
			}
			n++
		}
		if n != len(got) {
			t.Errorf("%s: expected %d, saw %d", s, n, len(got))
		}
	}
}
