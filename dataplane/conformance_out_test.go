package dataplane

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/bits"
	"net/netip"
	"strings"
	"testing"

	"github.com/adit-ipsec/adit/esp"
	"github.com/adit-ipsec/adit/internal/packet"
	"github.com/adit-ipsec/adit/sad"
	"github.com/adit-ipsec/adit/spd"
)

// The sending half of the conformance catalogue and its policy lines, at the
// whole outbound walk.

func wireSeq(b []byte) uint32 { return binary.BigEndian.Uint32(b[4:]) }

func TestCS01_NumbersStartAt1AndGoUpBy1(t *testing.T) {
	for _, suite := range []string{"aes128gcm16", "aes128-sha256", "null-sha256"} {
		r := newRig(t, options{suite: suite})
		next := uint32(1)
		for batch := 1; batch <= 40; batch++ {
			packets := make([][]byte, batch)
			for i := range packets {
				packets[i] = fromA("x")
			}
			got := r.send(packets...)
			if len(got) != batch {
				t.Fatalf("expected %d datagrams, saw %d", batch, len(got))
			}
			for _, d := range got {
				if spi := binary.BigEndian.Uint32(d.Bytes()); spi != outSPI {
					t.Fatalf("SPI: expected %#x, saw %#x", outSPI, spi)
				}
				if seq := wireSeq(d.Bytes()); seq != next {
					t.Fatalf("%s: number: expected %d, saw %d", suite, next, seq)
				}
				next++
			}
		}
	}
}

// startAt is a store that says how far a key's numbers were used.
type startAt struct{ reserved uint64 }

func (s *startAt) Reserved(sad.KeyID) (uint64, error) { return s.reserved, nil }
func (s *startAt) Reserve(_ sad.KeyID, until uint64) error {
	s.reserved = until
	return nil
}

// At 2^32-1 without ESN: no packet ever again, one event, never a wrap.
func TestCS02_RFC4303_3_3_3_TheNumbersNeverCycle(t *testing.T) {
	r := newRig(t, options{noESN: true, store: &startAt{1<<32 - 1 - 10}})
	house := housekeeper{gateway: r.gw}
	packets := make([][]byte, 8)
	for i := range packets {
		packets[i] = fromA("x")
	}
	seen := map[uint32]bool{}
	take := func(got []sent) {
		for _, d := range got {
			seq := wireSeq(d.Bytes())
			if seen[seq] || seq < 1<<32-10 {
				t.Fatalf("number %d: used twice or outside the rest of the space", seq)
			}
			seen[seq] = true
		}
	}
	r.counts(nil, func() { take(r.send(packets...)) })
	house.round()
	if list := r.events(); len(list) != 1 || list[0].Kind != SoftExpire || list[0].Limit != sad.LimitSequence {
		t.Errorf("before the end: expected one SoftExpire, saw %+v", list)
	}
	r.counts(map[DropReason]uint64{OutSeqExhausted: 6}, func() { take(r.send(packets...)) })
	for range 5 {
		r.counts(map[DropReason]uint64{OutSeqExhausted: 8}, func() { take(r.send(packets...)) })
		house.round()
	}
	if len(seen) != 10 || !seen[1<<32-1] {
		t.Errorf("expected the last 10 numbers on the wire, saw %d", len(seen))
	}
	if list := r.events(); len(list) != 1 || list[0].Kind != SeqOverflow || list[0].SPI != outSPI {
		t.Errorf("expected one SeqOverflow, saw %+v", list)
	}
}

// With ESN the numbers pass 2^32, the low half on the wire.
func TestESNPasses2To32Outbound(t *testing.T) {
	r := newRig(t, options{store: &startAt{1<<32 - 3}})
	for want := uint64(1<<32 - 2); want < 1<<32+3; want++ {
		got := r.send(fromA("x"))
		if len(got) != 1 || wireSeq(got[0].Bytes()) != uint32(want) {
			t.Fatalf("expected number %#x on the wire, saw %+v", uint32(want), got)
		}
		if _, err := r.opened(got[0], want); err != nil {
			t.Errorf("number %#x: %v", want, err)
		}
	}
}

func TestReservationThatIsNotExtendedStopsWithoutReuse(t *testing.T) {
	store := &startAt{}
	r := newRig(t, options{store: store})
	sa := r.outSA()
	sa.Reserve(sad.ReservationBlock - 4)
	packets := make([][]byte, 8)
	for i := range packets {
		packets[i] = fromA("x")
	}
	r.counts(map[DropReason]uint64{OutSeqReservation: 4}, func() {
		if got := r.send(packets...); len(got) != 4 {
			t.Errorf("expected 4 datagrams, saw %d", len(got))
		}
	})
	house := housekeeper{gateway: r.gw}
	house.round()
	r.counts(nil, func() {
		got := r.send(packets...)
		if len(got) != 8 || wireSeq(got[0].Bytes()) != sad.ReservationBlock+1 {
			t.Errorf("expected to go on at %d, saw %d datagrams", sad.ReservationBlock+1, len(got))
		}
	})
}

// The high half is under the ICV and not on the wire.
func TestCS03_ESNHighHalfIsInTheICVOnly(t *testing.T) {
	for _, suite := range esp.Suites() {
		r := newRig(t, options{suite: suite.String(), store: &startAt{0x7777_0000_0001}})
		got := r.send(fromA("x"))
		if len(got) != 1 {
			t.Fatalf("%s: expected 1 datagram, saw %d", suite, len(got))
		}
		b := got[0].Bytes()
		if want := suite.SealedLen(len(fromA("x"))); len(b) != want {
			t.Errorf("%s: length: expected %d, saw %d", suite, want, len(b))
		}
		if wireSeq(b) != 2 {
			t.Errorf("%s: low half: expected 2, saw %d", suite, wireSeq(b))
		}
		if _, err := r.opened(got[0], 0x7777_0000_0002); err != nil {
			t.Errorf("%s: with the right high half: %v", suite, err)
		}
		if _, err := r.opened(got[0], 0x7778_0000_0002); err == nil {
			t.Errorf("%s: with a wrong high half it opened", suite)
		}
	}
}

// Padding is 1, 2, 3 …, as short as the alignment allows, for every length.
func TestCS04_PaddingOfEveryLength(t *testing.T) {
	for _, suite := range trailerSuites {
		r := newRig(t, options{suite: suite})
		s := r.suite()
		for n := range 301 {
			p := inner{src: hostA, dst: hostB, payload: strings.Repeat("p", n)}.udp()
			got := r.send(p)
			if len(got) != 1 {
				t.Fatalf("%s: length %d did not leave", suite, len(p))
			}
			text := len(got[0].Bytes()) - esp.HeaderLen - s.IVLen() - s.ICVLen()
			if text%s.BlockSize() != 0 || text < len(p)+2 || text-len(p)-2 >= s.BlockSize() {
				t.Fatalf("%s: length %d: %d bytes of text do not fit alignment %d", suite, len(p), text, s.BlockSize())
			}
			if text%4 != 0 {
				t.Fatalf("%s: ICV not on a 4-byte boundary", suite)
			}
			open, err := r.opened(got[0], uint64(n+1))
			if err != nil || !bytes.Equal(open.Payload, p) {
				t.Fatalf("%s: length %d: %v", suite, len(p), err)
			}
			for i, v := range open.Payload[len(p) : len(p)+text-len(p)-2] {
				if int(v) != i+1 {
					t.Fatalf("%s: length %d: padding byte %d: saw %d", suite, len(p), i+1, v)
				}
			}
		}
	}
}

// Within a key no IV repeats, across a restart that kept the store.
func TestCS05_CounterModeIVsNeverRepeatAcrossARestart(t *testing.T) {
	for _, suite := range esp.Suites() {
		if !suite.CounterMode() {
			continue
		}
		store := &startAt{}
		seen := map[string]bool{}
		for range 5 {
			r := newRig(t, options{suite: suite.String(), store: store})
			for range 20 {
				for _, d := range r.send(fromA("x")) {
					iv := string(d.Bytes()[esp.HeaderLen : esp.HeaderLen+suite.IVLen()])
					if seen[iv] {
						t.Fatalf("%s: IV % x twice", suite, iv)
					}
					seen[iv] = true
				}
			}
		}
		if len(seen) != 100 {
			t.Errorf("%s: expected 100 IVs, saw %d", suite, len(seen))
		}
	}
}

// CBC IVs are unpredictable: not the number, no repeat, every bit set half the
// time (CVE-2022-46397 was an IV that counted).
func TestCS06_CBCIVsAreUnpredictable(t *testing.T) {
	r := newRig(t, options{suite: "aes128-sha256"})
	const packets = 20000
	seen := map[[16]byte]bool{}
	var ones [128]int
	var last [16]byte
	flips := 0
	p := fromA("x")
	for n := range packets {
		d := r.send(p)[0]
		iv := [16]byte(d.Bytes()[esp.HeaderLen:])
		if seen[iv] {
			t.Fatalf("IV % x twice", iv)
		}
		seen[iv] = true
		if uint32(binary.BigEndian.Uint64(iv[8:])) == uint32(n+1) {
			t.Fatalf("IV % x ends in the number", iv)
		}
		for i := range iv {
			flips += bits.OnesCount8(iv[i] ^ last[i])
			for b := range 8 {
				ones[i*8+b] += int(iv[i] >> b & 1)
			}
		}
		last = iv
	}
	// Ten standard deviations of a fair coin.
	const slack = 10 * 71
	for bit, n := range ones {
		if n < packets/2-slack || n > packets/2+slack {
			t.Errorf("bit %d is set %d times of %d", bit, n, packets)
		}
	}
	if mean := float64(flips) / packets; mean < 62 || mean > 66 {
		t.Errorf("bits that change from IV to IV: expected about 64, saw %.1f", mean)
	}
}

func selector(local, remote string) spd.Selector {
	return spd.Selector{Local: mustRanges(local), Remote: mustRanges(remote), Protocol: spd.ProtocolAny}
}

func TestCP01_FirstMatchWinsAndNoMatchIsDiscard(t *testing.T) {
	r := newRig(t, options{policies: []spd.Policy{
		{Name: "secret", Selector: selector("10.1.0.0/24", "10.2.0.66/32"), Action: spd.Discard},
		{Name: "open", Selector: selector("10.1.0.0/24", "10.2.0.77/32"), Action: spd.Bypass},
		{Name: "lan", Selector: selector("10.1.0.0/24", "10.2.0.0/24"), Action: spd.Protect, Peer: "b"},
		{Name: "too late", Selector: selector("10.1.0.0/24", "10.2.0.20/32"), Action: spd.Discard},
	}})
	to := func(addr string) []byte {
		return inner{src: hostA, dst: netip.MustParseAddr(addr), payload: "x"}.udp()
	}
	r.dropped(OutDiscard, func() { none(t, r.send(to("10.2.0.66"))) })
	r.counts(nil, func() {
		got := r.send(to("10.2.0.77"))
		if len(got) != 1 || got[0].wire != wireKinds || !bytes.Equal(got[0].Bytes(), to("10.2.0.77")) {
			t.Errorf("bypass: expected the packet itself on the clear socket, saw %+v", got)
		}
	})
	r.counts(nil, func() {
		if got := r.send(to("10.2.0.20")); len(got) != 1 || got[0].wire != wireUDP {
			t.Errorf("protect: expected one UDP datagram, saw %+v", got)
		}
	})
	r.dropped(OutDiscard, func() { none(t, r.send(to("10.7.0.1"))) })

	from := func(addr string) []byte {
		return r.sealed(r.edge()+1, packet.ProtoIPv4, inner{src: netip.MustParseAddr(addr), dst: hostA, payload: "x"}.udp())
	}
	for _, addr := range []string{"10.2.0.66", "10.2.0.77", "10.7.0.1"} {
		r.dropped(InSelector, func() { r.delivers(0, r.arrive(from(addr))) })
	}
	r.counts(nil, func() { r.delivers(1, r.arrive(from("10.2.0.20"))) })
}

func none(t testing.TB, got []sent) {
	t.Helper()
	if len(got) != 0 {
		t.Errorf("expected nothing to leave, saw %+v", got)
	}
}

func TestCP01_BypassWithoutASocketIsDropped(t *testing.T) {
	r := newRig(t, options{policies: []spd.Policy{{Name: "open", Selector: selector("10.1.0.0/24", "10.2.0.0/24"), Action: spd.Bypass}}})
	r.gw.out[0].clear.to = nil
	r.dropped(OutNoBypass, func() { none(t, r.send(fromA("x"))) })
}

func TestCP02_NestedAndOverlappingPoliciesAmong2000(t *testing.T) {
	var policies []spd.Policy
	for i := range 2000 {
		net := netip.AddrFrom4([4]byte{172, 16, byte(i >> 8), byte(i)}).String() + "/32"
		policies = append(policies, spd.Policy{Name: "dummy" + net, Selector: selector(net, "0.0.0.0/0"), Action: spd.Discard})
	}
	policies = append(policies,
		spd.Policy{Name: "direct", Selector: selector("10.1.0.10/32", "10.2.0.20/32"), Action: spd.Protect, Peer: "b"},
		spd.Policy{Name: "exception", Selector: selector("10.1.0.0/28", "10.2.0.0/24"), Action: spd.Discard},
		spd.Policy{Name: "wide", Selector: selector("10.0.0.0/8", "10.0.0.0/8"), Action: spd.Protect, Peer: "b"},
	)
	r := newRig(t, options{policies: policies})
	send := func(src, dst string) []sent {
		return r.send(inner{src: netip.MustParseAddr(src), dst: netip.MustParseAddr(dst), payload: "x"}.udp())
	}
	for range 2 { // uncached, then cached
		r.counts(nil, func() {
			if got := send("10.1.0.10", "10.2.0.20"); len(got) != 1 {
				t.Error("the direct policy must beat the exception behind it")
			}
		})
		r.dropped(OutDiscard, func() { none(t, send("10.1.0.10", "10.2.0.21")) })
		r.dropped(OutDiscard, func() { none(t, send("10.1.0.11", "10.2.0.20")) })
		r.counts(nil, func() {
			if got := send("10.1.0.16", "10.2.0.20"); len(got) != 1 {
				t.Error("one past the exception is the wide policy's")
			}
		})
		r.dropped(OutDiscard, func() { none(t, send("172.16.7.207", "10.2.0.20")) })
	}
}

func TestCP03_PortsProtocolsAndICMPTypes(t *testing.T) {
	sel := selector("10.1.0.0/24", "10.2.0.0/24")
	sel.Protocol = packet.ProtoUDP
	sel.RemotePorts = spd.Ports{Ranges: []spd.PortRange{{From: 5060, To: 5070}}}
	r := newRig(t, options{policies: []spd.Policy{{Name: "lan", Selector: sel, Action: spd.Protect, Peer: "b"}}})
	for port, ok := range map[uint16]bool{5059: false, 5060: true, 5065: true, 5070: true, 5071: false} {
		p := inner{src: hostA, dst: hostB, sport: 9, dport: port}.udp()
		if ok {
			r.counts(nil, func() { r.send(p) })
		} else {
			r.dropped(OutDiscard, func() { none(t, r.send(p)) })
		}
		// The answer comes from that port: remote ports are the source's.
		back := r.sealed(r.edge()+1, packet.ProtoIPv4, inner{src: hostB, dst: hostA, sport: port, dport: 9}.udp())
		if ok {
			r.counts(nil, func() { r.delivers(1, r.arrive(back)) })
		} else {
			r.dropped(InSelector, func() { r.delivers(0, r.arrive(back)) })
		}
	}
	// A non-initial fragment has no ports, and its initial one is not known.
	frag := inner{src: hostA, dst: hostB, sport: 9, dport: 5060, payload: strings.Repeat("f", 64)}.udp()
	binary.BigEndian.PutUint16(frag[6:], 10)
	r.dropped(OutFragment, func() { none(t, r.send(frag)) })
}

// Remove, re-add, change: the flow cache never outlives the databases.
func TestCP04_FlowCacheNeverOutlivesItsPolicyOrSA(t *testing.T) {
	r := newRig(t, options{store: &startAt{}})
	r.counts(nil, func() { r.send(fromA("cached")) })
	r.gw.Remove(r.outSA().ID())
	r.dropped(OutNoSA, func() { none(t, r.send(fromA("no SA"))) })
	p := r.params(sad.Outbound)
	if err := r.gw.Install(p); err != nil {
		t.Fatal(err)
	}
	r.counts(nil, func() {
		if got := r.send(fromA("again")); len(got) != 1 {
			t.Error("after the SA came back nothing leaves")
		}
	})
	table, err := spd.NewTable([]spd.Policy{{Name: "lan", Selector: selector("10.1.0.0/24", "10.2.0.0/24"), Action: spd.Discard}})
	if err != nil {
		t.Fatal(err)
	}
	r.gw.ApplyPolicy(table)
	r.dropped(OutDiscard, func() { none(t, r.send(fromA("discarded now"))) })
	r.dropped(InSelector, func() { r.delivers(0, r.arrive(r.good(1))) })
}

// Flows that meet in one slot of the cache do not take each other's decision.
func TestCP04_CacheCollisions(t *testing.T) {
	r := newRig(t, options{policies: []spd.Policy{
		{Name: "odd", Selector: selector("10.1.0.0/24", "10.2.0.1/32"), Action: spd.Discard},
		{Name: "lan", Selector: selector("10.1.0.0/24", "10.2.0.0/24"), Action: spd.Protect, Peer: "b"},
	}})
	for round := range 3 {
		for i := range 3 * flowCacheSize {
			in := inner{src: hostA, dst: netip.AddrFrom4([4]byte{10, 2, 0, byte(i % 3)}), sport: uint16(i), dport: 7}
			got := len(r.send(in.udp()))
			want := 1
			if i%3 == 1 {
				want = 0
			}
			if got != want {
				t.Fatalf("round %d flow %d to %s: expected %d datagrams, saw %d", round, i, in.dst, want, got)
			}
		}
	}
}

func TestNoPolicyTableMeansDiscard(t *testing.T) {
	r := newRig(t, options{})
	r.gw.policy.Store(nil)
	r.dropped(OutDiscard, func() { none(t, r.send(fromA("x"))) })
	r.dropped(InSelector, func() { r.delivers(0, r.arrive(r.good(1))) })
}

// RFC 4301 4.4.1: protect without an SA asks for one, and drops.
func TestAcquireOncePerPolicyAndInterval(t *testing.T) {
	r := newRig(t, options{noSA: true})
	r.now = 5 * eventInterval
	r.counts(map[DropReason]uint64{OutNoSA: 10}, func() {
		for range 10 {
			none(t, r.send(fromA("x")))
		}
	})
	list := r.events()
	if len(list) != 1 || list[0].Kind != Acquire || list[0].Peer != "b" || list[0].Policy != "lan" || list[0].Flow.DstAddr() != hostB {
		t.Errorf("expected one Acquire for b/lan towards %s, saw %+v", hostB, list)
	}
	r.now += eventInterval
	r.send(fromA("x"))
	if n := len(r.events()); n != 1 {
		t.Errorf("after the interval: expected 1 event, saw %d", n)
	}
}

func TestAuthFailuresAreReportedPerSA(t *testing.T) {
	r := newRig(t, options{})
	house := housekeeper{gateway: r.gw}
	for range 30 {
		r.arrive(flip(r.good(1), 300))
	}
	house.round()
	if list := r.events(); len(list) != 1 || list[0].Kind != AuthFailures || list[0].Count != 30 || list[0].SPI != inSPI {
		t.Errorf("expected one AuthFailures of 30, saw %+v", list)
	}
}

// A new SA under the name of an old one starts from nothing: what was said of
// the old one is not held against it.
func TestHousekeepingSpeaksOfTheSANotOfItsName(t *testing.T) {
	r := newRig(t, options{noESN: true})
	house := housekeeper{gateway: r.gw}
	spoil := func(failures int) []Event {
		t.Helper()
		for range failures {
			r.arrive(flip(r.good(1), 300))
		}
		for {
			if _, granted := r.outSA().Reserve(1 << 30); granted == 0 {
				break
			}
		}
		r.now += eventInterval
		house.round()
		return r.events()
	}
	check := func(when string, list []Event, failures uint64) {
		t.Helper()
		seen := map[EventKind]Event{}
		for _, e := range list {
			seen[e.Kind] = e
		}
		if len(list) != 3 || seen[SeqOverflow].SPI != outSPI || seen[SoftExpire].SPI != outSPI || seen[AuthFailures].Count != failures {
			t.Errorf("%s: expected SoftExpire, SeqOverflow and AuthFailures of %d, saw %+v", when, failures, list)
		}
	}
	check("first SAs", spoil(30), 30)
	r.gw.Remove(r.inSA().ID(), r.outSA().ID())
	out, in := r.params(sad.Outbound), r.params(sad.Inbound)
	out.EncryptionKey = key("another", len(out.EncryptionKey))
	if err := r.gw.Install(out, in); err != nil {
		t.Fatal(err)
	}
	check("second SAs of the same names", spoil(7), 7)

	// Others come and go: nothing is said again of the SAs that stay.
	other := out
	other.SPI, other.Peer, other.EncryptionKey = 0x7777, "c", key("c", len(out.EncryptionKey))
	for range 100 {
		if err := r.gw.Install(other); err != nil {
			t.Fatal(err)
		}
		r.gw.Remove(other.ID())
		r.now += eventInterval
		house.round()
		other.SPI++
		other.EncryptionKey = key(fmt.Sprint(other.SPI), len(out.EncryptionKey))
	}
	if list := r.events(); len(list) != 0 {
		t.Errorf("after other SAs came and went: expected no event, saw %+v", list)
	}
	if len(house.watched) != 2 {
		t.Errorf("watched SAs: expected 2, saw %d", len(house.watched))
	}
}
