package dataplane

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/adit-ipsec/adit/esp"
	"github.com/adit-ipsec/adit/internal/packet"
	"github.com/adit-ipsec/adit/sad"
	"github.com/adit-ipsec/adit/spd"
)

// family is one address family's hosts behind A and B.
type family struct{ a, b netip.Addr }

func families() map[string]family {
	return map[string]family{"IPv4": {hostA, hostB}, "IPv6": {host6, hostS}}
}

// datagramTo is UDP from A to B's port with n bytes of payload.
func (f family) datagramTo(port uint16, n int) []byte {
	return inner{src: f.a, dst: f.b, sport: 9, dport: port, payload: strings.Repeat("f", n)}.udp()
}

// datagramFrom is UDP from B's port to A.
func (f family) datagramFrom(port uint16, n int) []byte {
	return inner{src: f.b, dst: f.a, sport: port, dport: 9, payload: strings.Repeat("f", n)}.udp()
}

// pieceOf is the bytes from start to end of a whole packet's fragmentable part
// as a fragment.
func pieceOf(whole []byte, id uint32, start, end int, more bool) []byte {
	header := 20
	if whole[0]>>4 == 6 {
		header = 40
	}
	return rawPiece(whole[:header], id, start, more, whole[header+start:header+end])
}

// rawPiece is a fragment with the IP header of a whole packet and any data.
func rawPiece(header []byte, id uint32, start int, more bool, data []byte) []byte {
	b := slices.Clone(header)
	flag := uint16(0)
	if more {
		flag = 1
	}
	if b[0]>>4 == 4 {
		binary.BigEndian.PutUint16(b[2:], uint16(20+len(data)))
		binary.BigEndian.PutUint16(b[4:], uint16(id))
		binary.BigEndian.PutUint16(b[6:], flag<<13|uint16(start/8))
		binary.BigEndian.PutUint16(b[10:], 0)
		binary.BigEndian.PutUint16(b[10:], ^packet.Checksum(b[:20], 0))
		return append(b, data...)
	}
	binary.BigEndian.PutUint16(b[4:], uint16(8+len(data)))
	b = append(b, b[6], 0, 0, 0, 0, 0, 0, 0)
	b[6] = packet.ProtoFragment
	binary.BigEndian.PutUint16(b[42:], uint16(start)|flag)
	binary.BigEndian.PutUint32(b[44:], id)
	return append(b, data...)
}

// pieces cuts a whole packet's fragmentable part every size bytes.
func pieces(whole []byte, id uint32, size int) (list [][]byte) {
	length := len(whole) - 20
	if whole[0]>>4 == 6 {
		length = len(whole) - 40
	}
	for start := 0; start < length; start += size {
		end := min(start+size, length)
		list = append(list, pieceOf(whole, id, start, end, end < length))
	}
	return list
}

func reversed(list [][]byte) [][]byte {
	list = slices.Clone(list)
	slices.Reverse(list)
	return list
}

// byPort is a table in which UDP ports decide: 80 is protected, 22 discarded,
// and all else is what rest says.
func byPort(rest spd.Action) []spd.Policy {
	on := func(name string, action spd.Action, ports ...spd.PortRange) spd.Policy {
		p := spd.Policy{Name: name, Action: action, Selector: spd.Selector{Local: lanA, Remote: lanB, Protocol: packet.ProtoUDP, RemotePorts: spd.Ports{Ranges: ports}}}
		if action == spd.Protect {
			p.Peer = "b"
		}
		return p
	}
	policies := []spd.Policy{on("web", spd.Protect, spd.PortRange{From: 80, To: 80}), on("ssh", spd.Discard, spd.PortRange{From: 22, To: 22})}
	if rest == spd.Bypass {
		policies = append(policies, spd.Policy{Name: "rest", Action: spd.Bypass, Selector: spd.Selector{Local: lanA, Remote: lanB, Protocol: spd.ProtocolAny}})
	}
	return policies
}

// fragmentRig is a rig whose SAs carry no policy of their own.
func fragmentRig(t testing.TB, policies []spd.Policy) *rig {
	return newRig(t, options{suite: "aes128-sha256", noESN: true, policies: policies})
}

// split counts what left.
func split(list []sent) (protected, inClear int) {
	for _, s := range list {
		if s.wire == wireKinds {
			inClear++
		} else {
			protected++
		}
	}
	return protected, inClear
}

// leaves fails unless so many packets left protected and in clear.
func (r *rig) leaves(protected, inClear int, list []sent) {
	r.t.Helper()
	if p, c := split(list); p != protected || c != inClear {
		r.t.Errorf("expected %d protected and %d in clear, saw %d and %d", protected, inClear, p, c)
	}
}

// from seals packets as the peer's next ones.
func (r *rig) from(list ...[]byte) [][]byte { return r.sealedFrom(int(r.edge())+1, list) }

// sealedFrom seals packets as the peer's, numbered from next.
func (r *rig) sealedFrom(next int, list [][]byte) (wires [][]byte) {
	for i, p := range list {
		protocol := uint8(packet.ProtoIPv4)
		if p[0]>>4 == 6 {
			protocol = packet.ProtoIPv6
		}
		wires = append(wires, r.sealed(uint64(next+i), protocol, p))
	}
	return wires
}

func TestRFC4301_7_3_FragmentsFollowTheirInitialOne(t *testing.T) {
	for name, f := range families() {
		t.Run(name, func(t *testing.T) {
			r := fragmentRig(t, byPort(spd.Bypass))
			r.counts(nil, func() { r.leaves(3, 0, r.send(pieces(f.datagramTo(80, 300), 1, 120)...)) })
			r.counts(nil, func() { r.leaves(0, 3, r.send(pieces(f.datagramTo(99, 300), 2, 120)...)) })
			r.counts(map[DropReason]uint64{OutDiscard: 3}, func() { r.leaves(0, 0, r.send(pieces(f.datagramTo(22, 300), 3, 120)...)) })

			r.counts(nil, func() { r.delivers(3, r.arrive(r.from(pieces(f.datagramFrom(80, 300), 1, 120)...)...)) })
			r.counts(map[DropReason]uint64{InSelector: 3}, func() { r.delivers(0, r.arrive(r.from(pieces(f.datagramFrom(99, 300), 2, 120)...)...)) })
		})
	}
}

// The bytes of a fragment are not touched.
func TestFragmentsCrossUnchanged(t *testing.T) {
	for name, f := range families() {
		r := fragmentRig(t, byPort(spd.Bypass))
		list := pieces(f.datagramTo(80, 300), 1, 120)
		for i, s := range r.send(list...) {
			if got, err := r.opened(s, uint64(i+1)); err != nil || string(got.Payload) != string(list[i]) {
				t.Errorf("%s: fragment %d outbound differs, %v", name, i, err)
			}
		}
		back := pieces(f.datagramFrom(80, 300), 1, 120)
		for i, p := range r.arrive(r.from(back...)...) {
			if string(p) != string(back[i]) {
				t.Errorf("%s: fragment %d inbound differs", name, i)
			}
		}
	}
}

// RFC 4301 7.4: "stateful fragment checking to accommodate BYPASS traffic for
// which a non-trivial port range is specified". What may be a part of a protected
// packet never leaves in clear.
func TestRFC4301_7_4_NoFragmentIsBypassedThatPortsMayProtect(t *testing.T) {
	for name, f := range families() {
		t.Run(name, func(t *testing.T) {
			r := fragmentRig(t, byPort(spd.Bypass))
			for _, port := range []uint16{80, 22, 99} {
				tail := pieces(f.datagramTo(port, 300), uint32(port), 120)[1:]
				r.counts(map[DropReason]uint64{OutFragment: 2}, func() { r.leaves(0, 0, r.send(tail...)) })
			}
			// Reversed: the initial one comes last, and alone goes its way.
			r.counts(map[DropReason]uint64{OutFragment: 2}, func() { r.leaves(1, 0, r.send(reversed(pieces(f.datagramTo(80, 300), 1, 120))...)) })
			// The one behind it is decided again.
			list := pieces(f.datagramTo(99, 300), 2, 120)
			r.counts(map[DropReason]uint64{OutFragment: 1}, func() { r.leaves(0, 2, r.send(list[2], list[0], list[1])) })
			tail := pieces(f.datagramFrom(80, 300), 1, 120)[1:]
			r.counts(map[DropReason]uint64{InFragment: 2}, func() { r.delivers(0, r.arrive(r.from(tail...)...)) })
		})
	}
}

// Without a policy by port, fragments come in any order: "All implementations
// MUST support tunnel mode SAs that are configured to pass traffic without regard
// to port field values" (RFC 4301 7.1).
func TestRFC4301_7_1_AnyPortsCarryFragmentsInAnyOrder(t *testing.T) {
	for name, f := range families() {
		r := fragmentRig(t, protectAll())
		r.counts(nil, func() {
			r.leaves(3, 0, r.send(reversed(pieces(f.datagramTo(80, 300), 1, 120))...))
			r.leaves(2, 0, r.send(pieces(f.datagramTo(80, 300), 2, 120)[1:]...))
			r.delivers(3, r.arrive(r.from(reversed(pieces(f.datagramFrom(80, 300), 1, 120))...)...))
		})
		if t.Failed() {
			t.Fatal(name)
		}
	}
}

// Ports that could only decide the same need no initial fragment.
func TestFragmentsThatPortsCannotDecideOtherwise(t *testing.T) {
	table := []spd.Policy{byPort(spd.Bypass)[0], protectAll()[0]}
	for _, f := range families() {
		r := fragmentRig(t, table)
		r.counts(nil, func() {
			r.leaves(2, 0, r.send(pieces(f.datagramTo(80, 300), 2, 120)[1:]...))
			r.delivers(2, r.arrive(r.from(pieces(f.datagramFrom(80, 300), 2, 120)[1:]...)...))
		})
		// An SA of its own for one of them: then they do decide otherwise.
		r = newRig(t, options{suite: "aes128-sha256", noESN: true, policies: table, noSA: true})
		web, all := r.params(sad.Outbound), r.params(sad.Outbound)
		web.Policy, all.Policy, all.SPI = "web", "lan", outSPI+1
		all.EncryptionKey, all.IntegrityKey = key("other enc", len(all.EncryptionKey)), key("other int", len(all.IntegrityKey))
		if err := r.gw.Install(web, all); err != nil {
			t.Fatal(err)
		}
		r.counts(map[DropReason]uint64{OutFragment: 2}, func() {
			r.leaves(0, 0, r.send(pieces(f.datagramTo(80, 300), 3, 120)[1:]...))
		})
	}
}

// RFC 8200 4.5: of an IPv6 fragment that is not the first, the next header proves
// nothing.
func TestRFC8200_4_5_NextHeaderOfLaterFragmentsIsNotBelieved(t *testing.T) {
	f := families()["IPv6"]
	r := fragmentRig(t, byPort(spd.Bypass))
	list := pieces(f.datagramTo(80, 300), 1, 120)
	for _, p := range list[1:] {
		p[40] = packet.ProtoGRE // which no policy by port can be about
	}
	r.counts(map[DropReason]uint64{OutFragment: 2}, func() { r.leaves(0, 0, r.send(list[1:]...)) })
	list[0], list[1], list[2] = withID(list[0], 2), withID(list[1], 2), withID(list[2], 2)
	r.counts(nil, func() { r.leaves(3, 0, r.send(list...)) })
	// IPv4's protocol is a part of what tells datagrams apart (RFC 791).
	f = families()["IPv4"]
	list = pieces(f.datagramTo(80, 300), 1, 120)
	list[1][9], list[2][9] = packet.ProtoGRE, packet.ProtoGRE
	r.counts(nil, func() { r.leaves(1, 2, r.send(list...)) })
}

// withID is an IPv6 fragment with another identification.
func withID(p []byte, id uint32) []byte {
	binary.BigEndian.PutUint32(p[44:], id)
	return p
}

// RFC 4301 7.4: "All implementations MUST support DISCARDing of fragments using
// the normal SPD packet classification mechanisms": an earlier policy that names
// opaque takes fragments from the way of their initial one, a later one does not.
func TestRFC4301_7_2_OpaqueTakesFragmentsInTheOrderOfTheSPD(t *testing.T) {
	table := byPort(spd.Bypass)
	opaque := func(action spd.Action) spd.Policy {
		p := spd.Policy{Name: "opaque", Action: action, Selector: spd.Selector{Local: lanA, Remote: lanB, Protocol: packet.ProtoUDP, RemotePorts: spd.Ports{Opaque: true}}}
		if action == spd.Protect {
			p.Peer = "b"
		}
		return p
	}
	web, ssh, rest := table[0], table[1], table[2]
	for name, f := range families() {
		for _, c := range []struct {
			name               string
			table              []spd.Policy
			port               uint16
			protected, inClear int
			drops              map[DropReason]uint64
		}{
			{"discard first", []spd.Policy{opaque(spd.Discard), web, ssh, rest}, 80, 1, 0, map[DropReason]uint64{OutDiscard: 2}},
			{"discard behind the policy", []spd.Policy{web, opaque(spd.Discard), ssh, rest}, 80, 3, 0, nil},
			{"discard between a policy by port and a bypass", []spd.Policy{web, opaque(spd.Discard), ssh, rest}, 99, 0, 1, map[DropReason]uint64{OutDiscard: 2}},
			{"an SA for them", []spd.Policy{web, opaque(spd.Protect), ssh, rest}, 99, 2, 1, nil},
			{"bypass behind the policy", []spd.Policy{web, ssh, opaque(spd.Bypass)}, 80, 3, 0, nil},
		} {
			r := fragmentRig(t, c.table)
			r.counts(c.drops, func() { r.leaves(c.protected, c.inClear, r.send(pieces(f.datagramTo(c.port, 300), 1, 120)...)) })
			if t.Failed() {
				t.Fatal(name, c.name)
			}
		}
	}
}

// What passed behind one initial fragment is not another's, whose policy would
// have sent it elsewhere.
func TestASecondInitialFragmentTakesNothingOver(t *testing.T) {
	opaque := spd.Policy{Name: "opaque", Action: spd.Bypass, Selector: spd.Selector{Local: lanA, Remote: lanB, Protocol: packet.ProtoUDP, RemotePorts: spd.Ports{Opaque: true}}}
	gre := spd.Policy{Name: "gre", Action: spd.Protect, Peer: "b", Selector: spd.Selector{Local: lanA, Remote: lanB, Protocol: packet.ProtoGRE}}
	f := families()["IPv6"]
	r := fragmentRig(t, []spd.Policy{opaque, gre})
	udp, other := pieces(f.datagramTo(22, 300), 1, 120), pieces(f.datagramTo(22, 300), 1, 120)
	for _, p := range other {
		p[40] = packet.ProtoGRE
	}
	r.counts(map[DropReason]uint64{OutDiscard: 1, OutFragment: 2}, func() { r.leaves(0, 1, r.send(udp[0], udp[2], other[0], other[1])) })
}

// Datagrams are told apart by addresses, protocol (IPv4) and identification.
func TestInterleavedDatagramsFollowTheirOwnInitialOnes(t *testing.T) {
	for name, f := range families() {
		other := family{f.a.Next(), f.b}
		r := fragmentRig(t, byPort(spd.Bypass))
		a, b, c := pieces(f.datagramTo(80, 300), 1, 120), pieces(f.datagramTo(99, 300), 2, 120), pieces(other.datagramTo(99, 300), 1, 120)
		r.counts(nil, func() { r.leaves(3, 6, r.send(a[0], b[0], c[0], c[1], a[1], b[1], b[2], a[2], c[2])) })
		a, b = pieces(f.datagramFrom(80, 300), 1, 120), pieces(f.datagramFrom(99, 300), 2, 120)
		r.counts(map[DropReason]uint64{InSelector: 3}, func() { r.delivers(3, r.arrive(r.from(a[0], b[0], b[1], a[1], a[2], b[2])...)) })
		if t.Failed() {
			t.Fatal(name)
		}
	}
}

// RFC 4301 7.3: a receiver "MUST discard non-initial fragments that arrive on an
// SA with non-trivial port selector values" unless stateful checking says whose
// they are: one SA's fragments never ride on another's initial one.
func TestRFC4301_7_3_OneSAsFragmentsDoNotRideOnAnothers(t *testing.T) {
	for name, f := range families() {
		r := newRig(t, options{suite: "aes128-sha256", noESN: true, policies: byPort(spd.Discard), noSA: true})
		web, other := r.params(sad.Inbound), r.params(sad.Inbound)
		web.Policy, other.SPI = "web", inSPI+1
		other.EncryptionKey, other.IntegrityKey = key("other enc", len(other.EncryptionKey)), key("other int", len(other.IntegrityKey))
		if err := r.gw.Install(web, other); err != nil {
			t.Fatal(err)
		}
		list := pieces(f.datagramFrom(80, 300), 7, 120)
		onFirst := r.sealedAs(inSPI, list)
		var err error
		if r.peer, err = esp.New(other.Suite, other.EncryptionKey, other.IntegrityKey, false); err != nil {
			t.Fatal(err)
		}
		onSecond := r.sealedAs(inSPI+1, list)
		r.counts(map[DropReason]uint64{InFragment: 1}, func() { r.delivers(1, r.arrive(onFirst[0], onSecond[1])) })
		r.counts(nil, func() { r.delivers(1, r.arrive(onSecond[0])) }) // its own initial one
		r.counts(nil, func() { r.delivers(2, r.arrive(onFirst[1], onSecond[2])) })
		if t.Failed() {
			t.Fatal(name)
		}
	}
}

// sealedAs is packets from the peer on another SPI, numbered from 1.
func (r *rig) sealedAs(spi uint32, list [][]byte) (wires [][]byte) {
	s := r.peer.Suite()
	for i, p := range list {
		protocol := uint8(packet.ProtoIPv4)
		if p[0]>>4 == 6 {
			protocol = packet.ProtoIPv6
		}
		src := make([]byte, len(p), len(p)+s.TrailerLen(len(p)))
		copy(src, p)
		batch := []esp.Packet{{Seq: uint64(i + 1), NextHeader: protocol, Payload: src, Wire: make([]byte, s.SealedLen(len(p)))}}
		r.peer.Seal(esp.NewScratch(), spi, batch)
		if batch[0].Err != nil {
			r.t.Fatal(batch[0].Err)
		}
		wires = append(wires, batch[0].Wire)
	}
	return wires
}

// An SA that was negotiated for some ports carries the fragments of what it
// carries, and no others.
func TestFragmentsMatchAnSAsOwnSelectorsByTheirInitialOne(t *testing.T) {
	for _, f := range families() {
		r := newRig(t, options{suite: "aes128-sha256", noESN: true, noSA: true})
		in := r.params(sad.Inbound)
		in.Selectors = []spd.Selector{byPort(spd.Discard)[0].Selector}
		if err := r.gw.Install(in); err != nil {
			t.Fatal(err)
		}
		r.counts(nil, func() { r.delivers(3, r.arrive(r.from(pieces(f.datagramFrom(80, 300), 1, 120)...)...)) })
		r.counts(map[DropReason]uint64{InSelector: 3}, func() { r.delivers(0, r.arrive(r.from(pieces(f.datagramFrom(99, 300), 2, 120)...)...)) })
		r.counts(map[DropReason]uint64{InSelector: 2}, func() { r.delivers(0, r.arrive(r.from(pieces(f.datagramFrom(80, 300), 3, 120)[1:]...)...)) })
	}
}

// RFC 6946, and errata 133 and 134 of RFC 4301: an atomic fragment is a whole
// packet, with ports, also between fragments that bear its identification.
func TestRFC6946_AtomicFragmentsAreWholePackets(t *testing.T) {
	f := families()["IPv6"]
	atomic := func(whole []byte) []byte { return rawPiece(whole[:40], 1, 0, false, whole[40:]) }
	r := fragmentRig(t, byPort(spd.Bypass))
	list := pieces(f.datagramTo(80, 300), 1, 120)
	r.counts(nil, func() {
		r.leaves(4, 2, r.send(list[0], atomic(f.datagramTo(80, 100)), atomic(f.datagramTo(99, 100)), list[1], atomic(f.datagramTo(99, 300)), list[2]))
	})
	r.dropped(OutDiscard, func() { none(t, r.send(atomic(f.datagramTo(22, 100)))) })
	r.counts(nil, func() { r.delivers(1, r.arrive(r.from(atomic(f.datagramFrom(80, 100)))...)) })
	r.dropped(InSelector, func() { r.delivers(0, r.arrive(r.from(atomic(f.datagramFrom(99, 100)))...)) })
}

// A packet that is too short for ports is not decided by a policy without them
// either, where one with them could.
func TestShortPacketsAreNotBypassedWherePortsMayProtect(t *testing.T) {
	for name, f := range families() {
		r := fragmentRig(t, byPort(spd.Bypass))
		whole := f.datagramTo(80, 10)
		header := 20
		if whole[0]>>4 == 6 {
			header = 40
			binary.BigEndian.PutUint16(whole[4:], 3)
		} else {
			binary.BigEndian.PutUint16(whole[2:], 23)
		}
		r.dropped(OutDiscard, func() { none(t, r.send(whole[:header+3])) })
		if t.Failed() {
			t.Fatal(name)
		}
	}
}

func TestFragmentsFollowANewPolicyTable(t *testing.T) {
	for _, f := range families() {
		r := fragmentRig(t, byPort(spd.Bypass))
		list := pieces(f.datagramTo(99, 300), 1, 120)
		r.leaves(0, 2, r.send(list[:2]...))
		table, err := spd.NewTable(protectAll())
		if err != nil {
			t.Fatal(err)
		}
		r.gw.ApplyPolicy(table)
		r.counts(nil, func() { r.leaves(1, 0, r.send(list[2])) })
	}
}

func TestDatagramsAreForgottenAfterTheirTime(t *testing.T) {
	for name, f := range families() {
		r := fragmentRig(t, byPort(spd.Bypass))
		r.now = time.Hour
		list, back := pieces(f.datagramTo(80, 300), 1, 120), r.from(pieces(f.datagramFrom(80, 300), 1, 120)...)
		r.leaves(1, 0, r.send(list[0]))
		r.delivers(1, r.arrive(back[0]))
		r.now += fragmentTimeout - 1
		r.counts(nil, func() { r.leaves(1, 0, r.send(list[1])); r.delivers(1, r.arrive(back[1])) })
		r.now++ // nothing that came in between makes it longer
		r.counts(map[DropReason]uint64{OutFragment: 1, InFragment: 1}, func() { r.leaves(0, 0, r.send(list[2])); r.delivers(0, r.arrive(back[2])) })
		if t.Failed() {
			t.Fatal(name)
		}
	}
}

func TestDatagramsBeyondTheBoundPushOutTheOldest(t *testing.T) {
	for name, f := range families() {
		r := fragmentRig(t, byPort(spd.Bypass))
		whole := f.datagramTo(80, 300)
		for id := range maxDatagrams + 1 {
			r.send(pieces(whole, uint32(id), 120)[0])
		}
		r.counts(map[DropReason]uint64{OutFragment: 1}, func() { r.leaves(0, 0, r.send(pieces(whole, 0, 120)[1])) })
		for id := 1; id <= maxDatagrams; id++ {
			r.leaves(1, 0, r.send(pieces(whole, uint32(id), 120)[1]))
		}
		// Inbound has a bound of its own.
		r.counts(nil, func() { r.delivers(3, r.arrive(r.from(pieces(f.datagramFrom(80, 300), 1, 120)...)...)) })
		if t.Failed() {
			t.Fatal(name)
		}
	}
}

func TestAnIdentificationIsFreeWhenItsDatagramIsWhole(t *testing.T) {
	for name, f := range families() {
		r := fragmentRig(t, byPort(spd.Bypass))
		r.counts(nil, func() {
			for i, port := range []uint16{80, 99, 80, 99} {
				want := (1 - i%2) * 3
				r.leaves(want, 3-want, r.send(pieces(f.datagramTo(port, 300), 5, 120)...))
			}
		})
		if n := r.gw.fragments[spd.Outbound].used(); n != 0 {
			t.Errorf("%s: remembered: expected nothing, saw %d", name, n)
		}
	}
}

// used is how many datagrams are remembered.
func (t *datagrams) used() (n int) {
	for i := t.list[0].newer; i != 0; i = t.list[i].newer {
		n++
	}
	return n
}
