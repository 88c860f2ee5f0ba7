package dataplane

import (
	"testing"

	"github.com/adit-ipsec/adit/internal/packet"
	"github.com/adit-ipsec/adit/sad"
)

// An ICMP error goes by the SA of the return traffic: of a bundle by both, or by
// none, also where the bundle stands beside classes.
func TestRFC4301_6_2_AnErrorNeverTakesHalfOfABundle(t *testing.T) {
	a, _ := newWholePair(t, bundle4)
	p := bundle4.params(t, "a", outerA[0], outerB[0])[0]
	p.Bundle, p.SPI, p.DSCPs, p.EncryptionKey = false, efSPI, []uint8{ef}, key("class", len(p.EncryptionKey))
	if err := a.gw.Install(p); err != nil {
		t.Fatal(err)
	}
	message := exceeded(router4, hostB, fromB("x"))
	out := a.send(message)
	if len(out) != 1 || out[0].wire != wireWhole || out[0].Bytes()[9] != packet.ProtoAH {
		t.Errorf("expected one packet with AH, saw %+v", out)
	}
	a.gw.Remove(sad.ID{Direction: sad.Outbound, SPI: 0x3000, Peer: "peer", Protocol: sad.AH})
	a.dropped(OutDiscard, func() int { return len(a.send(message)) })
}
