package dataplane

import (
	"testing"

	"github.com/adit-ipsec/adit/sad"
	"github.com/adit-ipsec/adit/spd"
)

// What the selectors refuse, of a peer that has the keys, takes no memory for good.
func TestRefusedTransportPacketsTakeNoRoom(t *testing.T) {
	for _, s := range []wholeSet{
		{protocol: "ah", mode: sad.TransportMode, encap: sad.EncapNone, ah: "sha256"},
		{protocol: "esp", mode: sad.TransportMode, encap: sad.EncapUDP, esp: "aes128gcm16"},
	} {
		a, b := newWholePair(t, s)
		table, err := spd.NewTable(nil)
		if err != nil {
			t.Fatal(err)
		}
		b.gw.ApplyPolicy(table)
		p := sized(a.addr, b.addr, 1400, true)
		for i := range 2 * arenaLen / len(p) {
			if got := b.receive(a.send(p)...); len(got) != 0 {
				t.Fatalf("%s: packet %d: expected it refused, saw %x", s, i, got)
			}
		}
		if n := b.gw.Stats().Counter("InSelector"); n != uint64(2*arenaLen/len(p)) {
			t.Errorf("%s: expected every packet in InSelector, saw %d; drops %v", s, n, nonzero(b.gw))
		}
	}
}
