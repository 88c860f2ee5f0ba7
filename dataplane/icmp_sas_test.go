package dataplane

import (
	"bytes"
	"testing"

	"github.com/adit-ipsec/adit/internal/packet"
	"github.com/adit-ipsec/adit/sad"
)

// The SA of the return traffic may be one of AH, or two in a bundle: the message
// then has both. One of transport mode takes what its ends say, and no router.
func TestRFC4301_6_2_ThroughAHBundlesAndTransportMode(t *testing.T) {
	for _, protocol := range []string{"ah", "ah+esp"} {
		a, b := newWholePair(t, wholeSet{protocol: protocol, encap: sad.EncapNone, ah: "sha256", esp: "aes128gcm16"})
		for _, p := range [][]byte{exceeded(router4, hostB, fromB("x")), exceeded(router6, hostS, from6())} {
			out := a.send(p)
			if len(out) != 1 || out[0].wire != wireWhole {
				t.Fatalf("%s: expected one packet with AH, saw %+v; drops %v", protocol, out, nonzero(a.gw))
			}
			if got := b.receive(out...); len(got) != 1 || !bytes.Equal(got[0], p) {
				t.Errorf("%s: B has %x, want %x; drops %v", protocol, got, p, nonzero(b.gw))
			}
		}
	}
	a, _ := newWholePair(t, wholeSet{protocol: "esp", mode: sad.TransportMode, encap: sad.EncapNone, esp: "aes128gcm16"})
	a.dropped(OutTransport, func() int {
		return len(a.send(exceeded(router4, outerB[0], inner{src: outerB[0], dst: outerA[0], payload: "x"}.udp())))
	})
}

// Where several SAs share the return traffic by DSCP, the message's own says which,
// and a class without an SA borrows none.
func TestRFC4301_6_2_TheMessagesOwnDSCPChoosesTheSA(t *testing.T) {
	r := newRig(t, options{noSA: true})
	if err := r.gw.Install(r.classParams(efSPI, ef), r.classParams(afSPI, af41)); err != nil {
		t.Fatal(err)
	}
	marked := func(dscp byte) []byte {
		p := exceeded(router6, hostS, from6()) // IPv6 has no header checksum to keep right
		p[0], p[1] = 0x60|dscp>>2, p[1]&0x3f|dscp<<6
		return p
	}
	for dscp, spi := range map[byte]uint32{ef: efSPI, af41: afSPI} {
		if got := r.send(marked(dscp)); len(got) != 1 || wireSPI(got[0].Bytes()) != spi {
			t.Errorf("DSCP %d: expected one packet with SPI %#x, saw %+v", dscp, spi, got)
		}
	}
	r.dropped(OutDiscard, func() { none(t, r.send(marked(0))) })
	if list := r.events(); len(list) != 0 {
		t.Errorf("an error asks for an SA: %+v", list)
	}
}

// An ICMP error about traffic of a bundle beside a class goes through both of the
// bundle's SAs, as that traffic does, and nowhere when one of them is missing.
func TestRFC4301_6_2_ThroughABundleBesideAClass(t *testing.T) {
	a, b := newWholePair(t, bundle4)
	p := bundle4.params(t, "a", outerA[0], outerB[0])[0]
	p.Bundle, p.SPI, p.DSCPs, p.EncryptionKey = false, efSPI, []uint8{ef}, key("class", len(p.EncryptionKey))
	if err := a.gw.Install(p); err != nil {
		t.Fatal(err)
	}
	report := exceeded(router4, hostB, fromB("x"))
	out := a.send(report)
	if len(out) != 1 || out[0].wire != wireWhole || out[0].Bytes()[9] != packet.ProtoAH {
		t.Fatalf("expected one packet with AH around it, saw %+v", out)
	}
	if n := len(b.receive(out...)); n != 1 {
		t.Errorf("at B: expected 1 packet, saw %d; drops %v", n, nonzero(b.gw))
	}
	a.gw.Remove(sad.ID{Direction: sad.Outbound, SPI: 0x3000, Peer: "peer", Protocol: sad.AH})
	a.dropped(OutDiscard, func() int { return len(a.send(report)) })
}
