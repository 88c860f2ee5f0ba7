package fuzz

import (
	"crypto/sha1" // RFC 7296 2.23 has it
	"encoding/binary"
	"net/netip"
	"testing"

	"github.com/adit-ipsec/adit/ike/wire"
	"github.com/adit-ipsec/adit/sad"
	"github.com/adit-ipsec/adit/spd"
)

// FuzzIKEReassembly: somebody who has the keys cuts a request as it likes: fragments of
// any number, of any total, with any part of it, twice, overlapping, none at all.
// Nothing panics, nothing is answered that was not whole, and a request that is cut
// properly behind all that, into more fragments than any cut before, is answered.
func FuzzIKEReassembly(f *testing.F) {
	inner := func(n int) []byte {
		_, b := wire.AppendPayloads(nil, &wire.Vendor{Data: make([]byte, n)})
		return b
	}
	f.Add([]byte{1, 1, 43}, inner(300))
	f.Add([]byte{3, 3, 43, 1, 3, 43, 2, 3, 0}, inner(300))
	f.Add([]byte{1, 2, 43, 1, 3, 43, 2, 2, 0, 2, 3, 0, 3, 3, 0}, inner(2000))
	f.Add([]byte{0, 0, 0, 0, 5, 0, 255, 255, 0, 9, 8, 0, 1, 255, 43}, inner(10))
	f.Fuzz(func(t *testing.T, cuts, inner []byte) {
		if len(cuts) > 300 || len(inner) > 1<<13 {
			return
		}
		s := establishedStranger(t)
		most := 0
		for i := 0; i+2 < len(cuts); i += 3 {
			number, total := int(cuts[i]), int(cuts[i+1])
			first := wire.PayloadType(cuts[i+2])
			part := inner[min(len(inner), len(inner)*i/len(cuts)):]
			part = part[:min(len(part), int(cuts[i+2])*8)]
			sent := s.put(s.seal(wire.Informational, wire.Protected{First: first, Fragment: uint16(number), Total: uint16(total)}, part))
			if number <= total {
				most = max(most, total)
			}
			if len(sent) > 0 {
				return // it was whole; what came of it is the sequence target's
			}
		}
		if most > 250 {
			return
		}
		kind, whole := wire.AppendPayloads(nil, &wire.Vendor{Data: make([]byte, 4*most+8)})
		answers := 0
		for n := 1; n <= most+1; n++ {
			at := (n - 1) * len(whole) / (most + 1)
			part := whole[at : n*len(whole)/(most+1)]
			answers += len(s.put(s.seal(wire.Informational, wire.Protected{First: kind, Fragment: uint16(n), Total: uint16(most + 1)}, part)))
			kind = wire.PayloadNone
		}
		if answers != 1 {
			t.Fatalf("a request in %d fragments behind %d others: %d answers", most+1, len(cuts)/3, answers)
		}
	})
}

// establishedStranger has proved itself, and has no Child SA.
func establishedStranger(t *testing.T) *ikeStranger {
	s := newIKEStranger(t, newIKEEnd(t, "b", ikePeer("b", "a", ikeSecret, 1)), ikeA)
	if s == nil {
		t.Fatal("IKE_SA_INIT is not answered")
	}
	first, inner := wire.AppendPayloads(nil, s.auth(t)...)
	if len(s.put(s.seal(wire.IKEAuth, wire.Protected{First: first}, inner))) != 1 || s.end.up != 1 {
		t.Fatal("IKE_AUTH is not believed")
	}
	s.id++
	return s
}

// FuzzIKETS: somebody who has the secret asks for a Child SA with any two TS payloads,
// in IKE_AUTH and then again in CREATE_CHILD_SA. The IKE SA stays what it is or ends,
// and whatever is installed carries nothing outside the policy, nor outside what was
// asked for; the answer says the same.
func FuzzIKETS(f *testing.F) {
	body := func(ts *wire.TS) []byte {
		_, b := wire.AppendPayloads(nil, ts)
		return b[4:]
	}
	selector := func(protocol uint8, from, to uint16, first, last string) wire.Selector {
		return wire.Selector{Protocol: protocol, FromPort: from, ToPort: to, From: netip.MustParseAddr(first), To: netip.MustParseAddr(last)}
	}
	for _, pair := range [][2]*wire.TS{
		{{Selectors: []wire.Selector{selector(0, 0, 65535, "10.1.0.0", "10.1.0.255")}}, {Selectors: []wire.Selector{selector(0, 0, 65535, "10.2.0.0", "10.2.0.255")}}},
		{{Selectors: []wire.Selector{selector(0, 0, 65535, "0.0.0.0", "255.255.255.255")}}, {Selectors: []wire.Selector{selector(0, 0, 65535, "0.0.0.0", "255.255.255.255")}}},
		{{Selectors: []wire.Selector{selector(6, 1000, 2000, "10.1.0.9", "10.1.1.9")}}, {Selectors: []wire.Selector{selector(6, 80, 80, "10.2.0.1", "10.2.0.1"), selector(6, 443, 443, "10.2.1.1", "10.2.1.1")}}},
		{{Selectors: []wire.Selector{selector(1, 0x0800, 0x08ff, "10.1.0.0", "10.1.0.255")}}, {Selectors: []wire.Selector{selector(1, 65535, 0, "10.2.0.0", "10.2.0.255")}}},
		{{Selectors: []wire.Selector{selector(0, 0, 65535, "2001:db8::", "2001:db8::ffff")}}, {Selectors: []wire.Selector{{Unknown: true}}}},
		{{Selectors: []wire.Selector{selector(17, 500, 400, "10.1.0.9", "10.1.0.1")}}, {Selectors: []wire.Selector{selector(17, 0, 65535, "10.2.0.9", "10.2.0.1")}}},
	} {
		f.Add(body(pair[0]), body(pair[1]))
	}
	f.Fuzz(func(t *testing.T, tsi, tsr []byte) {
		if len(tsi) > 1<<13 || len(tsr) > 1<<13 {
			return
		}
		s := newIKEStranger(t, newIKEEnd(t, "b", ikePeer("b", "a", ikeSecret, 3)), ikeA)
		if s == nil {
			t.Fatal("IKE_SA_INIT is not answered")
		}
		// Payloads of types that wire does not look into: their bytes are as given.
		asked := []wire.Payload{ikeChildSA(0x1000), &wire.Unknown{Kind: wire.PayloadTSi, Data: tsi}, &wire.Unknown{Kind: wire.PayloadTSr, Data: tsr}}
		first, inner := wire.AppendPayloads(nil, append(s.auth(t), asked...)...)
		sent := s.put(s.seal(wire.IKEAuth, wire.Protected{First: first}, inner))
		if len(sent) == 0 {
			t.Fatal("no answer")
		}
		ikeWithin(t, s, tsi, tsr)
		if s.end.up == 0 {
			return // TS payloads that make no sense end it
		}
		s.id++
		asked[0] = ikeChildSA(0x2000)
		first, inner = wire.AppendPayloads(nil, append(asked, &wire.Nonce{Data: make([]byte, 32)})...)
		for _, answer := range s.put(s.seal(wire.CreateChildSA, wire.Protected{First: first}, inner)) {
			_ = s.open(t, answer.Data)
		}
		ikeWithin(t, s, tsi, tsr)
	})
}

// ikeWithin holds every SA of the machine against its policy and what was asked for.
func ikeWithin(t *testing.T, s *ikeStranger, tsi, tsr []byte) {
	t.Helper()
	theirs, ours := ikeSelectors(wire.PayloadTSi, tsi), ikeSelectors(wire.PayloadTSr, tsr)
	for id, p := range s.end.sas {
		if len(p.Selectors) == 0 {
			t.Fatalf("%s takes everything", id)
		}
		for _, one := range p.Selectors {
			for _, local := range one.Local {
				for _, remote := range one.Remote {
					if !ikeAllowed(local, remote) || !ikeAskedFor(ours, local) || !ikeAskedFor(theirs, remote) {
						t.Fatalf("%s takes %v === %v", id, local, remote)
					}
				}
			}
		}
		if id.Direction == sad.Outbound && id.SPI != 0x1000 && id.SPI != 0x2000 {
			t.Fatalf("%s: an SPI that nobody gave", id)
		}
	}
}

func ikeSelectors(kind wire.PayloadType, body []byte) []wire.Selector {
	_, b := wire.AppendPayloads(nil, &wire.Unknown{Kind: kind, Data: body})
	payloads, err := wire.ParsePayloads(kind, b)
	if err != nil {
		return nil
	}
	return wire.First[*wire.TS](payloads).Selectors
}

// ikeAllowed: one of the policy's selectors has both.
func ikeAllowed(local, remote spd.AddrRange) bool {
	for i := range 3 {
		l, r := ikeNet("b", i), ikeNet("a", i)
		if l.From.Compare(local.From) <= 0 && l.To.Compare(local.To) >= 0 && r.From.Compare(remote.From) <= 0 && r.To.Compare(remote.To) >= 0 {
			return true
		}
	}
	return false
}

func ikeAskedFor(selectors []wire.Selector, r spd.AddrRange) bool {
	for _, s := range selectors {
		if !s.Unknown && s.From.BitLen() == r.From.BitLen() && s.From.Compare(r.From) <= 0 && s.To.Compare(r.To) >= 0 {
			return true
		}
	}
	return false
}

// FuzzIKENATD: any number of NAT detection payloads with any bytes, from any address
// and port. What the machine makes of them is what RFC 7296 2.23 says: who has sent a
// hash that is not of the address that was seen is behind a NAT.
func FuzzIKENATD(f *testing.F) {
	hash := func(a netip.AddrPort) []byte { return ikeNATHash(7, a) }
	f.Add(hash(ikeA), hash(ikeB), uint32(0), uint16(500), false, true)
	f.Add(hash(netip.MustParseAddrPort("10.0.0.1:500")), hash(ikeB), uint32(0xc6336407), uint16(1024), true, true)
	f.Add(hash(ikeA), hash(netip.MustParseAddrPort("10.0.0.2:500")), uint32(0), uint16(4500), true, true)
	f.Add([]byte{}, []byte("rubbish"), uint32(0), uint16(0), false, false)
	f.Add(make([]byte, 19), make([]byte, 21), uint32(0xffffffff), uint16(65535), true, false)
	f.Fuzz(func(t *testing.T, source, destination []byte, from uint32, port uint16, twice, both bool) {
		if len(source) > 1000 || len(destination) > 1000 {
			return
		}
		remote := netip.AddrPortFrom(ikeA.Addr(), port)
		if from != 0 {
			remote = netip.AddrPortFrom(netip.AddrFrom4([4]byte(binary.BigEndian.AppendUint32(nil, from))), port)
		}
		more := []wire.Payload{&wire.Notify{Kind: wire.NotifyNATDetectionSourceIP, Data: source}}
		if twice {
			more = append(more, more[0])
		}
		if both {
			more = append(more, &wire.Notify{Kind: wire.NotifyNATDetectionDestinationIP, Data: destination})
		}
		peer := ikePeer("b", "a", ikeSecret, 1)
		peer.Remote = netip.Addr{}
		s := newIKEStranger(t, newIKEEnd(t, "b", peer), remote, more...)
		if s == nil {
			return // a notification of a length that it may not have, or no room in the answer
		}
		first, inner := wire.AppendPayloads(nil, s.auth(t)...)
		if len(s.put(s.seal(wire.IKEAuth, wire.Protected{First: first}, inner))) != 1 || s.end.up != 1 {
			t.Fatal("NAT detection keeps a peer from being believed")
		}
		sa := s.end.m.Status()[0].SAs[0]
		there := string(source) != string(ikeNATHash(uint64(s.i), remote))
		here := both && string(destination) != string(ikeNATHash(uint64(s.i), ikeB))
		if sa.PeerBehindNAT != there || sa.BehindNAT != here {
			t.Fatalf("peer behind a NAT: %t, want %t; this end: %t, want %t", sa.PeerBehindNAT, there, sa.BehindNAT, here)
		}
		if sa.Remote != remote {
			t.Fatalf("the SA is with %s, and the peer is at %s", sa.Remote, remote)
		}
	})
}

// ikeNATHash is that of an IKE_SA_INIT request.
func ikeNATHash(spi uint64, a netip.AddrPort) []byte {
	b := binary.BigEndian.AppendUint64(nil, spi)
	b = binary.BigEndian.AppendUint64(b, 0)
	b = binary.BigEndian.AppendUint16(append(b, a.Addr().AsSlice()...), a.Port())
	sum := sha1.Sum(b)
	return sum[:]
}
