package dataplane

import (
	"net/netip"
	"testing"

	"github.com/adit-ipsec/adit/sad"
	"github.com/adit-ipsec/adit/spd"
)

// A transport mode SA is between two addresses, and ESP signs neither: who passes
// a packet on from elsewhere cannot make it another host's, however wide the policy.
func TestTransportModePacketsComeFromTheirPeer(t *testing.T) {
	for _, v6 := range []bool{false, true} {
		s := wholeSet{protocol: "esp", mode: sad.TransportMode, encap: sad.EncapUDP, esp: "aes128gcm16", v6: v6}
		a, b := newWholePair(t, s)
		every := mustRanges("0.0.0.0/0", "::/0")
		table, err := spd.NewTable([]spd.Policy{{Name: "p", Selector: spd.Selector{Local: every, Remote: every, Protocol: spd.ProtocolAny}, Action: spd.Protect, Peer: "peer"}})
		if err != nil {
			t.Fatal(err)
		}
		b.gw.ApplyPolicy(table)
		p := s.between(a.addr, b.addr)[1]
		out := a.send(p)
		out[0].Local = []netip.Addr{netip.MustParseAddr("203.0.113.66"), netip.MustParseAddr("2001:db8:66::66")}[index6(v6)]
		b.dropped(InEndpoint, func() int { return len(b.receive(out...)) })
		if got := b.receive(a.send(p)...); len(got) != 1 {
			t.Errorf("from the peer: expected it delivered, saw %d; drops %v", len(got), nonzero(b.gw))
		}
	}
}
