package dataplane

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"testing"

	"github.com/adit-ipsec/adit/internal/packet"
	"github.com/adit-ipsec/adit/sad"
	"github.com/adit-ipsec/adit/spd"
)

func wireSPI(b []byte) uint32 { return binary.BigEndian.Uint32(b) }

// classParams is an outbound SA for these code points.
func (r *rig) classParams(spi uint32, dscps ...uint8) sad.Params {
	p := r.params(sad.Outbound)
	p.SPI, p.DSCPs, p.EncryptionKey = spi, dscps, key(fmt.Sprint("class ", spi), len(p.EncryptionKey))
	return p
}

const (
	ef, af41     = 46, 34
	efSPI, afSPI = 0x6001, 0x6002
)

// RFC 4301 4.1: traffic is distributed over parallel SAs by the DSCP of the inner
// header, of both families, and ECN means nothing for it. One flow whose packets
// change their DSCP changes its SA: the flow cache does not know it.
func TestRFC4301_4_1_ParallelSAsPerDSCP(t *testing.T) {
	r := newRig(t, options{noSA: true})
	if err := r.gw.Install(r.classParams(efSPI, ef, 44), r.classParams(afSPI, af41), r.params(sad.Outbound)); err != nil {
		t.Fatal(err)
	}
	for _, ends := range [][2]netip.Addr{{hostA, hostB}, {host6, hostS}} {
		var packets [][]byte
		var want []uint32
		for _, c := range []struct {
			dscp uint8
			spi  uint32
		}{{ef, efSPI}, {0, outSPI}, {ef, efSPI}, {44, efSPI}, {af41, afSPI}, {63, outSPI}, {45, outSPI}} {
			for ecn := range uint8(3) {
				packets = append(packets, inner{src: ends[0], dst: ends[1], tos: c.dscp<<2 | ecn, payload: "x"}.udp())
				want = append(want, c.spi)
			}
		}
		got := r.send(packets...)
		if len(got) != len(want) {
			t.Fatalf("%s: expected %d packets, saw %d", ends[0], len(want), len(got))
		}
		for i := range got {
			if spi := wireSPI(got[i].Bytes()); spi != want[i] {
				t.Errorf("%s: packet %d: expected SPI %#x, saw %#x", ends[0], i, want[i], spi)
			}
		}
	}
	big := fromASuper(3000, 1000) // its DSCP is 10
	if err := r.gw.Install(r.classParams(0x6003, 10)); err != nil {
		t.Fatal(err)
	}
	r.gw.out[0].bufs[0].Set(big.bytes())
	r.gw.out[0].bufs[0].SegmentSize = big.size
	r.gw.out[0].walk(1)
	got := r.wires[wireUDP].take()
	if len(got) != 3 {
		t.Fatalf("superpacket: expected 3 segments, saw %d", len(got))
	}
	for i := range got {
		if spi := wireSPI(got[i].Bytes()); spi != 0x6003 {
			t.Errorf("segment %d of a superpacket: expected SPI 0x6003, saw %#x", i, spi)
		}
	}
}

// A class without an SA, and none for the rest: no SA, and the DSCP that wants one
// is said. The packet never borrows another class's SA.
func TestAClassWithoutAnSAAsksForOne(t *testing.T) {
	r := newRig(t, options{noSA: true})
	if err := r.gw.Install(r.classParams(efSPI, ef)); err != nil {
		t.Fatal(err)
	}
	r.dropped(OutNoSA, func() {
		if got := r.send(inner{src: hostA, dst: hostB, tos: af41 << 2, payload: "x"}.udp()); len(got) != 0 {
			t.Errorf("expected no packet, saw %d", len(got))
		}
	})
	if list := r.events(); len(list) != 1 || list[0].Kind != Acquire || list[0].DSCP != af41 || list[0].Policy != "lan" {
		t.Errorf("expected an Acquire for DSCP %d, saw %+v", af41, list)
	}
}

// A class beside a bundle: what no class names goes through both of the bundle's
// SAs, and nowhere when one of them is missing.
func TestAClassBesideABundle(t *testing.T) {
	a, _ := newWholePair(t, bundle4)
	p := bundle4.params(t, "a", outerA[0], outerB[0])[0]
	p.Bundle, p.SPI, p.DSCPs, p.EncryptionKey = false, efSPI, []uint8{ef}, key("class", len(p.EncryptionKey))
	if err := a.gw.Install(p); err != nil {
		t.Fatal(err)
	}
	voice, rest := inner{src: hostA, dst: hostB, tos: ef << 2, payload: "x"}.udp(), fromA("x")
	got := a.send(voice, rest, voice, rest)
	if len(got) != 4 {
		t.Fatalf("expected 4 packets, saw %d", len(got))
	}
	for _, d := range got {
		if class := d.wire != wireWhole; class && wireSPI(d.Bytes()) != efSPI {
			t.Errorf("EF: expected SPI %#x, saw %#x", efSPI, wireSPI(d.Bytes()))
		} else if !class && d.Bytes()[9] != packet.ProtoAH {
			t.Errorf("the rest: expected AH, saw protocol %d", d.Bytes()[9])
		}
	}
	a.gw.Remove(sad.ID{Direction: sad.Outbound, SPI: 0x3000, Peer: "peer", Protocol: sad.AH})
	a.dropped(OutNoSA, func() int { return len(a.send(rest)) })
	if n := len(a.send(voice)); n != 1 {
		t.Errorf("EF without the bundle's AH: expected 1 packet, saw %d", n)
	}
}

// "The receiver MUST process the packets from the different SAs without
// prejudice": whatever the DSCP, on whatever SA.
func TestRFC4301_4_1_TheReceiverDoesNotCheckDSCP(t *testing.T) {
	r := newRig(t, options{})
	for dscp := range uint8(64) {
		p := inner{src: hostB, dst: hostA, tos: dscp << 2, payload: "x"}.udp()
		r.delivers(1, r.arrive(r.sealed(uint64(dscp)+1, 4, p)))
	}
}

// reordered sends EF and best effort by turns through SAs of a peer with a window
// of 64, delivers best effort 100 packets late, and says how many the window
// refused. It is what a priority queue does to a path.
func reordered(t *testing.T, classes bool) (delivered, replays uint64) {
	t.Helper()
	const packets, late = 1000, 100
	a, b := newRig(t, options{noSA: true, noESN: true}), newRig(t, options{noSA: true, noESN: true})
	mirror, err := spd.NewTable([]spd.Policy{{Name: "lan", Selector: spd.Selector{Local: lanB, Remote: lanA, Protocol: spd.ProtocolAny}, Action: spd.Protect, Peer: "b"}})
	if err != nil {
		t.Fatal(err)
	}
	b.gw.ApplyPolicy(mirror)
	out := []sad.Params{a.params(sad.Outbound)}
	if classes {
		out = append(out, a.classParams(efSPI, ef))
	}
	for _, p := range out {
		if err := a.gw.Install(p); err != nil {
			t.Fatal(err)
		}
		p.Direction, p.DSCPs = sad.Inbound, nil
		if err := b.gw.Install(p); err != nil {
			t.Fatal(err)
		}
	}
	var waiting []sent
	for i := range packets {
		for _, d := range a.send(inner{src: hostA, dst: hostB, tos: uint8(i%2) * ef << 2, payload: "x"}.udp()) {
			if i%2 == 0 {
				waiting = append(waiting, d)
				continue
			}
			delivered += uint64(len(b.arrive(d.Bytes())))
			if len(waiting) > late {
				delivered += uint64(len(b.arrive(waiting[0].Bytes())))
				waiting = waiting[1:]
			}
		}
	}
	for _, d := range waiting {
		delivered += uint64(len(b.arrive(d.Bytes())))
	}
	return delivered, b.gw.Stats().Counter("InReplay")
}

// RFC 4301 4.1: classes on one SA lose packets "due to the windowing mechanism";
// on SAs of their own they lose none.
func TestDSCPReorderWithTwoSAs(t *testing.T) {
	if delivered, replays := reordered(t, true); delivered != 1000 || replays != 0 {
		t.Errorf("an SA for each class: expected 1000 packets and 0 replays, saw %d and %d", delivered, replays)
	}
	if delivered, replays := reordered(t, false); replays == 0 || delivered+replays != 1000 {
		t.Errorf("one SA: expected replays, and nothing else lost; saw %d packets and %d replays", delivered, replays)
	}
}

// A fragment whose ports are not known does not take a class of one of the policies
// that it may belong to.
func TestFragmentsThatPortsCannotDecideTakeNoClass(t *testing.T) {
	policies := []spd.Policy{byPort(spd.Bypass)[0], protectAll()[0]}
	for name, f := range families() {
		r := newRig(t, options{suite: "aes128-sha256", noESN: true, policies: policies, noSA: true})
		var list []sad.Params
		for i, policy := range []string{"web", "lan"} {
			p := r.params(sad.Outbound)
			p.SPI, p.Policy, p.DSCPs = uint32(efSPI+i), policy, []uint8{0, 46}
			p.EncryptionKey, p.IntegrityKey = key("enc "+policy, len(p.EncryptionKey)), key("int "+policy, len(p.IntegrityKey))
			list = append(list, p)
		}
		if err := r.gw.Install(list...); err != nil {
			t.Fatal(err)
		}
		r.counts(map[DropReason]uint64{OutFragment: 2}, func() {
			for _, s := range r.send(pieces(f.datagramTo(22, 300), 7, 120)[1:]...) {
				t.Errorf("%s: a fragment of no known port left with SPI %#x", name, wireSPI(s.Bytes()))
			}
		})
	}
}
