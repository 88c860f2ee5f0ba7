package dataplane

import (
	"net/netip"
	"syscall"
	"testing"

	"github.com/adit-ipsec/adit/internal/packet"
	"github.com/adit-ipsec/adit/sad"
)

// The kernel's word about one SA's packet is not taken for another protocol's SA
// that has the same SPI, and counts transport mode's own header once.
func TestRefusedPacketsAreTheirSAs(t *testing.T) {
	s := wholeSet{protocol: "esp", mode: sad.TransportMode, encap: sad.EncapUDP, esp: "aes128gcm16"}
	a, _ := newWholePair(t, s)
	p := wholeSet{protocol: "ah", encap: sad.EncapNone, ah: "sha256"}.params(t, "a", outerA[0], outerB[0])[0]
	p.Policy = "another"
	if err := a.gw.Install(p); err != nil {
		t.Fatal(err)
	}
	a.gw.path.link = func(netip.Addr) int { return 1400 }
	const limit = 1400 - 28
	a.wires[wireUDP].fail = func(d *packet.Datagram) error {
		if d.DF && d.Len > limit {
			return syscall.EMSGSIZE
		}
		return nil
	}
	sa := a.gw.sas.Load().Outbound("peer", "p")
	a.dropped(OutSendError, func() int { return len(a.send(sized(a.addr, outerB[0], sa.MaxInner(1400)+4, true))) })
	if is := sa.PathMTU(); is.MTU != 1400 || is.Source != sad.MTULink {
		t.Errorf("expected 1400 (link), saw %s", is)
	}
	for other := range a.gw.sas.Load().All() {
		if is := other.PathMTU(); other.Protocol == sad.AH && is.MTU != 0 {
			t.Errorf("AH with the same SPI: expected nothing to be known, saw %s", is)
		}
	}
}

// What the kernel refuses of whole packets teaches the path as well, with DF and
// without: nobody but the gateway cuts them.
func TestRefusedWholePacketTeachesTheLink(t *testing.T) {
	for _, s := range []wholeSet{
		bundle4,
		{protocol: "ah", encap: sad.EncapNone, ah: "sha512", v6: true},
		{protocol: "esp", mode: sad.TransportMode, encap: sad.EncapNone, esp: "aes128gcm16"},
	} {
		for _, df := range []bool{false, true} {
			a, _ := newWholePair(t, s)
			a.gw.path.link = func(netip.Addr) int { return 1400 }
			a.wires[wireWhole].fail = func(d *packet.Datagram) error {
				if d.Len > 1400 {
					return syscall.EMSGSIZE
				}
				return nil
			}
			from, to := hostA, hostB
			if s.mode == sad.TransportMode {
				from, to = a.addr, outerB[0]
			}
			long := sized(from, to, 1450, df)
			a.dropped(OutSendError, func() int { return len(a.send(long)) })
			if df {
				a.dropped(OutTooBig, func() int { return len(a.send(long)) })
			} else if n := len(a.send(long)); n < 2 {
				t.Errorf("%s: expected it cut, saw %d; drops %v", s, n, nonzero(a.gw))
			}
		}
	}
}
