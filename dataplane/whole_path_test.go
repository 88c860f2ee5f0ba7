package dataplane

import (
	"bytes"
	"encoding/binary"
	"testing"

	"github.com/adit-ipsec/adit/internal/packet"
	"github.com/adit-ipsec/adit/sad"
)

// An ICMP error about a bundle quotes its AH, whose path is narrower from then on
// than that of the ESP inside. Both count: what is longer is cut to what passes,
// and answered with it.
func TestRFC4301_8_2_ABundleIsAsNarrowAsItsAH(t *testing.T) {
	a, b := newWholePair(t, bundle4)
	a.narrow(1500)
	around := a.gw.sas.Load().OutboundAH(a.gw.sas.Load().Outbound("peer", "p"))
	around.LowerPathMTU(1300, sad.MTUICMP, 2)
	out, total := a.send(sized(hostA, hostB, 1400, false)), 0
	for _, g := range out {
		if g.Len > 1300 {
			t.Errorf("expected outer packets of at most 1300 bytes, saw %d", g.Len)
		}
		for _, p := range b.receive(g) {
			total += len(p) - 20
		}
	}
	if total != 1380 {
		t.Errorf("expected 1380 bytes in fragments, saw %d in %d; drops %v %v", total, len(out), nonzero(a.gw), nonzero(b.gw))
	}
	long := sized(hostA, hostB, 1400, true)
	a.dropped(OutTooBig, func() int { return len(a.send(long)) })
	answers := a.tun.take()
	if len(answers) != 1 {
		t.Fatalf("expected one ICMP message, saw %d", len(answers))
	}
	mtu := ptb(t, answers[0], long)
	if out := a.send(sized(hostA, hostB, mtu, true)); len(out) != 1 || out[0].Len > 1300 {
		t.Errorf("a packet of %d bytes, as was asked for: expected one outer packet of at most 1300 bytes, saw %d; drops %v", mtu, len(out), nonzero(a.gw))
	}
	if syn := a.send(tcpOf(hostA, hostB, "SYN", 1460)); len(syn) != 1 {
		t.Fatalf("a SYN: expected one packet, saw %d", len(syn))
	} else if got := b.receive(syn...); len(got) != 1 {
		t.Fatalf("a SYN: expected it delivered, saw %d", len(got))
	} else if mss, _ := mssOf(t, got[0]); int(mss) != mtu-40 {
		t.Errorf("MSS: expected %d, saw %d", mtu-40, mss)
	}
}

// RFC 1191 5: a message that does not ask for less than was sent leads nowhere. In
// transport mode the IP header is the packet's own, options included.
func TestRFC1191_5_TransportModeWithOptionsIsAskedForLess(t *testing.T) {
	for _, esp := range []string{"aes128-sha256", "aes128gcm16"} {
		a, _ := newWholePair(t, wholeSet{protocol: "esp", mode: sad.TransportMode, encap: sad.EncapNone, esp: esp})
		a.narrow(1400)
		for options := 0; options <= 40; options += 4 {
			for length := 1300; length <= 1400; length++ {
				plain := sized(a.addr, outerB[0], length-options, true)
				p := append(bytes.Clone(plain[:20]), bytes.Repeat([]byte{1}, options)...)
				p = append(p, plain[20:]...)
				p[0] = 0x45 + byte(options/4)
				binary.BigEndian.PutUint16(p[2:], uint16(length))
				packet.SetChecksum(p[:20+options])
				a.gw.out[0].mtu.replies = limiter{}
				if out := a.send(p); len(out) == 1 && out[0].Len <= 1400 {
					continue
				}
				answers := a.tun.take()
				if len(answers) != 1 {
					t.Fatalf("%s, %d bytes of options, %d in all: expected one answer, saw %d; drops %v", esp, options, length, len(answers), nonzero(a.gw))
				}
				if mtu := ptb(t, answers[0], p); mtu >= length {
					t.Fatalf("%s, %d bytes of options, %d in all: asked for %d", esp, options, length, mtu)
				}
			}
		}
	}
}

// The longest inner packets are cut before too: with its headers around it none of
// them would be an IP packet.
func TestRFC791_TheLongestPacketsAreCutBefore(t *testing.T) {
	for _, fragment := range []sad.FragmentMode{sad.FragmentBefore, sad.FragmentAfter} {
		a, b := newWholePair(t, wholeSet{protocol: "ah", encap: sad.EncapNone, ah: "sha256"}.with(fragment, sad.DFCopy))
		a.narrow(1500)
		total := 0
		for _, g := range a.send(sized(hostA, hostB, packet.MaxLen, false)) {
			for _, p := range b.receive(g) {
				total += len(p) - 20
			}
		}
		if total != packet.MaxLen-20 {
			t.Errorf("%s: expected %d bytes, saw %d; drops %v %v", fragment, packet.MaxLen-20, total, nonzero(a.gw), nonzero(b.gw))
		}
		long := sized(hostA, hostB, packet.MaxLen, true)
		a.dropped(OutTooBig, func() int { return len(a.send(long)) })
		if answers := a.tun.take(); len(answers) != 1 {
			t.Errorf("with DF: expected one ICMP message, saw %d", len(answers))
		}
	}
}
