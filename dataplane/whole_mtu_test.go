package dataplane

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"testing"

	"github.com/adit-ipsec/adit/internal/packet"
	"github.com/adit-ipsec/adit/sad"
)

// narrow makes A's path take outer packets of that many bytes.
func (e *end) narrow(mtu int) {
	for sa := range e.gw.sas.Load().All() {
		if sa.Direction == sad.Outbound {
			sa.SetPathMTU(mtu, sad.MTULink, 1)
		}
	}
}

// put makes one datagram of the fragments that A sent, as B's kernel does.
func put(t testing.TB, pieces []sent) sent {
	t.Helper()
	whole := pieces[0]
	b := bytes.Clone(pieces[0].Bytes())
	at, version := 0, int(b[0]>>4)
	if version == 4 {
		at = int(b[0]&15) * 4
		b[6], b[7] = b[6]&0x40, 0
	} else {
		b = append(b[:40:40], b[48:]...)
		at = 40
		packet.SetProtocol(b[:40], pieces[0].Bytes()[40])
	}
	for i, piece := range pieces[1:] {
		p := piece.Bytes()
		var h packet.Header
		var f packet.Flow
		if err := packet.Parse(p, &h, &f); err != nil || h.FragmentOffset != len(b)-at {
			t.Fatalf("fragment %d: at %d, expected %d (%v)", i+1, h.FragmentOffset, len(b)-at, err)
		}
		b = append(b, p[h.TransportOffset:]...)
	}
	packet.SetLength(b[:at], len(b))
	packet.SetChecksum(b[:at])
	whole.Mem, whole.Off, whole.Len = b, 0, len(b)
	return whole
}

func sized(src, dst netip.Addr, length int, df bool) []byte {
	headers := 28
	if src.Is6() {
		headers = 48
	}
	p := inner{src: src, dst: dst, df: df, payload: string(bytes.Repeat([]byte{7}, length-headers))}.udp()
	if src.Is4() {
		binary.BigEndian.PutUint16(p[4:], 77)
		packet.SetChecksum(p[:20])
	}
	return p
}

func (s wholeSet) with(fragment sad.FragmentMode, df sad.DFMode) wholeSet {
	s.fragment, s.df = fragment, df
	return s
}

// RFC 4301 8.2: what has DF, or is IPv6, is answered with the MTU that passes; a
// packet of that length then passes in one piece.
func TestRFC4301_8_2_WholePacketsThatAreTooLongAreAnswered(t *testing.T) {
	for _, s := range []wholeSet{
		{protocol: "ah", encap: sad.EncapNone, ah: "sha256"},
		{protocol: "ah", encap: sad.EncapNone, ah: "sha512", v6: true},
		bundle4,
		{protocol: "ah", mode: sad.TransportMode, encap: sad.EncapNone, ah: "sha256", v6: true},
		{protocol: "esp", mode: sad.TransportMode, encap: sad.EncapUDP, esp: "aes128gcm16"},
		{protocol: "ah+esp", mode: sad.TransportMode, encap: sad.EncapNone, ah: "sha256", esp: "aes128-sha256"},
	} {
		a, b := newWholePair(t, s)
		a.narrow(1400)
		pairs := [][2]netip.Addr{{hostA, hostB}, {host6, hostS}}
		if s.mode == sad.TransportMode {
			pairs = [][2]netip.Addr{{a.addr, b.addr}}
		}
		for _, pair := range pairs {
			a.dropped(OutTooBig, func() int { return len(a.send(sized(pair[0], pair[1], 1400, true))) })
			answers := a.tun.take()
			if len(answers) != 1 {
				t.Fatalf("%s: expected one ICMP message, saw %d", s, len(answers))
			}
			e, mtu := answers[0], 0
			if e[0]>>4 == 4 && e[20] == 3 && e[21] == 4 {
				mtu = int(binary.BigEndian.Uint16(e[26:]))
			} else if e[0]>>4 == 6 && e[40] == 2 {
				mtu = int(binary.BigEndian.Uint32(e[44:]))
			}
			if mtu < 1280 || mtu >= 1400 {
				t.Fatalf("%s: expected an MTU from 1280 to 1399, saw %d in %x", s, mtu, e)
			}
			want := sized(pair[0], pair[1], mtu, true)
			out := a.send(want)
			if len(out) != 1 || out[0].wire != wireUDP && out[0].Len > 1400 || out[0].wire == wireUDP && out[0].Len > 1372 {
				t.Fatalf("%s: a packet of %d bytes: expected one outer packet of at most 1400, saw %+v; drops %v", s, mtu, out, nonzero(a.gw))
			}
			if got := b.receive(out...); len(got) != 1 {
				t.Fatalf("%s: expected it delivered, saw %d; drops %v", s, len(got), nonzero(b.gw))
			}
		}
	}
}

// RFC 4301 7: IPv4 without DF is cut: before, each fragment is protected by itself;
// after, in transport mode always, the protected packet is cut.
func TestRFC4301_7_WholePacketsAreCut(t *testing.T) {
	for _, c := range []struct {
		s     wholeSet
		outer bool // the outer packet is in fragments
	}{
		{wholeSet{protocol: "ah", encap: sad.EncapNone, ah: "sha256"}, false},
		{wholeSet{protocol: "ah", encap: sad.EncapNone, ah: "sha256"}.with(sad.FragmentAfter, sad.DFCopy), true},
		{wholeSet{protocol: "ah", encap: sad.EncapNone, ah: "sha256"}.with(sad.FragmentAfter, sad.DFSet), false},
		{wholeSet{protocol: "ah", encap: sad.EncapNone, ah: "sha512", v6: true}.with(sad.FragmentAfter, sad.DFCopy), true},
		{bundle4, false},
		{bundle4.with(sad.FragmentAfter, sad.DFCopy), true},
		{wholeSet{protocol: "esp", mode: sad.TransportMode, encap: sad.EncapNone, esp: "aes128gcm16"}, true},
		{wholeSet{protocol: "ah", mode: sad.TransportMode, encap: sad.EncapNone, ah: "aes256gmac"}, true},
	} {
		a, b := newWholePair(t, c.s)
		a.narrow(1300)
		from, to := hostA, hostB
		if c.s.mode == sad.TransportMode {
			from, to = a.addr, b.addr
		}
		want := sized(from, to, 3000, false)
		out := a.send(want)
		if len(out) < 3 {
			t.Fatalf("%s: expected three outer packets or more, saw %d; drops %v", c.s, len(out), nonzero(a.gw))
		}
		for _, g := range out {
			if g.Len > 1300 {
				t.Errorf("%s: expected outer packets of at most 1300 bytes, saw %d", c.s, g.Len)
			}
		}
		var got [][]byte
		if c.outer {
			got = b.receive(put(t, out))
			if len(got) != 1 || !sameButMutable(c.s, want, got[0]) {
				t.Fatalf("%s: expected the packet of 3000 bytes, saw %d packets; drops %v", c.s, len(got), nonzero(b.gw))
			}
			continue
		}
		for _, g := range out {
			got = append(got, b.receive(g)...)
		}
		total := 0
		for _, p := range got {
			total += len(p) - 20
		}
		if len(got) != len(out) || total != 2980 {
			t.Fatalf("%s: expected %d inner fragments with 2980 bytes, saw %d with %d; drops %v", c.s, len(out), len(got), total, nonzero(b.gw))
		}
	}
}

// RFC 8200 5: 1280 bytes pass whatever the path leaves.
func TestRFC8200_5_WholePacketsOf1280BytesPass(t *testing.T) {
	for _, s := range []wholeSet{
		{protocol: "ah", encap: sad.EncapNone, ah: "sha512", v6: true},
		{protocol: "ah+esp", mode: sad.TransportMode, encap: sad.EncapNone, ah: "sha256", esp: "aes128-sha256", v6: true},
	} {
		a, b := newWholePair(t, s)
		a.narrow(1280)
		from, to := host6, hostS
		if s.mode == sad.TransportMode {
			from, to = a.addr, b.addr
		}
		want := sized(from, to, 1280, true)
		out := a.send(want)
		if len(out) != 2 || out[0].Len > 1280 {
			t.Fatalf("%s: expected two fragments of at most 1280 bytes, saw %d; drops %v", s, len(out), nonzero(a.gw))
		}
		if got := b.receive(put(t, out)); len(got) != 1 || !sameButMutable(s, want, got[0]) {
			t.Fatalf("%s: expected the packet, saw %d; drops %v", s, len(got), nonzero(b.gw))
		}
	}
}
