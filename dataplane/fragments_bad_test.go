package dataplane

import (
	"sync"
	"testing"
	"time"

	"github.com/adit-ipsec/adit/internal/packet"
	"github.com/adit-ipsec/adit/sad"
	"github.com/adit-ipsec/adit/spd"
)

// bad is a fragment that nobody should send, behind what came of the datagram
// before, and what of the datagram then never passes.
type bad struct {
	name   string
	before [][2]int // ranges of the datagram that pass first
	piece  func(whole []byte) []byte
	after  [2]int // refused from then on
	only   uint8  // 4 or 6; 0: both
}

// of is a fragment of the whole packet itself, its bytes from start to end.
func of(start, end int, more bool) func([]byte) []byte {
	return func(whole []byte) []byte { return pieceOf(whole, 1, start, end, more) }
}

// with is a fragment with other bytes.
func with(start int, more bool, data []byte) func([]byte) []byte {
	return func(whole []byte) []byte { return rawPiece(whole[:ipHeader(whole)], 1, start, more, data) }
}

// protocolOf is the same with another next layer protocol.
func protocolOf(protocol uint8, piece func([]byte) []byte) func([]byte) []byte {
	return func(whole []byte) []byte {
		p := piece(whole)
		if p[0]>>4 == 4 {
			p[9] = protocol
		} else {
			p[40] = protocol
		}
		return p
	}
}

func ipHeader(p []byte) int {
	if p[0]>>4 == 6 {
		return 40
	}
	return 20
}

// The datagram is 400 bytes long.
var badFragments = []bad{
	{"overlaps what came, from behind", [][2]int{{0, 120}}, of(112, 240, true), [2]int{240, 400}, 0},
	{"overlaps what came, from in front", [][2]int{{0, 80}, {160, 240}}, of(80, 168, true), [2]int{240, 400}, 0},
	{"covers what came (teardrop, reversed)", [][2]int{{0, 80}, {160, 240}}, of(80, 320, true), [2]int{320, 400}, 0},
	{"inside what came, RFC 5722", [][2]int{{0, 120}}, of(64, 80, true), [2]int{120, 400}, 6},
	{"twice the same, which RFC 8200 lets be an overlap", [][2]int{{0, 120}}, of(0, 120, true), [2]int{120, 400}, 6},
	{"another initial fragment, longer", [][2]int{{0, 120}}, of(0, 240, true), [2]int{240, 400}, 0},
	{"another initial fragment, of other ports", [][2]int{{0, 120}}, func(whole []byte) []byte {
		p := of(0, 120, true)(whole)
		p[len(p)-118]++ // the destination port
		return p
	}, [2]int{120, 400}, 6},
	{"begins behind the end", [][2]int{{0, 120}, {240, 400}}, with(408, true, make([]byte, 8)), [2]int{120, 240}, 0},
	{"a second end", [][2]int{{0, 120}, {240, 400}}, with(408, false, make([]byte, 8)), [2]int{120, 240}, 0},
	{"an end in front of what came", [][2]int{{0, 120}, {240, 320}}, of(160, 200, false), [2]int{320, 400}, 0},
	{"length not a multiple of 8", [][2]int{{0, 120}}, of(120, 239, true), [2]int{240, 400}, 0},
	{"initial, length not a multiple of 8", nil, of(0, 119, true), [2]int{120, 400}, 0},
	{"no data", [][2]int{{0, 120}}, with(120, true, nil), [2]int{240, 400}, 0},
	{"no data, the last", [][2]int{{0, 120}}, with(120, false, nil), [2]int{240, 400}, 0},
	{"initial, no data", nil, with(0, true, nil), [2]int{240, 400}, 0},
	{"reaches beyond 65535", [][2]int{{0, 120}}, with(65528, false, make([]byte, 8)), [2]int{120, 400}, 0},
	{"inside the UDP header", nil, with(0, true, make([]byte, 4)), [2]int{120, 400}, 0},
	{"IPv6 header chain cut", nil, protocolOf(packet.ProtoDestination, with(0, true, []byte{17, 1, 0, 0, 0, 0, 0, 0})), [2]int{120, 400}, 6},
	{"IPv6 fragment header in a fragment", nil, protocolOf(packet.ProtoFragment, with(0, true, []byte{17, 0, 0, 1, 0, 0, 0, 9, 0, 9, 0, 80, 0, 8, 0, 0})), [2]int{120, 400}, 6},
	{"IPv6 TCP flags, RFC 3128", nil, protocolOf(packet.ProtoTCP, of(8, 120, true)), [2]int{120, 400}, 6},
	{"IPv6 inside the TCP header", nil, protocolOf(packet.ProtoTCP, of(16, 120, true)), [2]int{120, 400}, 6},
	{"IPv6 TCP header not whole, RFC 7112", nil, protocolOf(packet.ProtoTCP, of(0, 16, true)), [2]int{120, 400}, 6},
}

// RFC 1858, RFC 3128, RFC 5722, RFC 7112, RFC 8200 4.5: such a fragment does not
// pass, and nothing more of its datagram does, in both directions.
func TestRFC1858_RFC5722_BadFragmentsAndTheRestOfTheirDatagramAreDropped(t *testing.T) {
	for name, f := range families() {
		for _, c := range badFragments {
			out, in := f.datagramTo(80, 392), f.datagramFrom(80, 392)
			if c.only != 0 && c.only != out[0]>>4 {
				continue
			}
			t.Run(name+" "+c.name, func(t *testing.T) {
				r := fragmentRig(t, protectAll()) // without ports all of it would pass
				for _, b := range c.before {
					r.counts(nil, func() {
						r.leaves(1, 0, r.send(of(b[0], b[1], b[1] < 400)(out)))
						r.delivers(1, r.arrive(r.from(of(b[0], b[1], b[1] < 400)(in))...))
					})
				}
				for range 2 {
					r.dropped(OutFragment, func() { none(t, r.send(c.piece(out))) })
					r.dropped(InFragment, func() { r.delivers(0, r.arrive(r.from(c.piece(in))...)) })
					r.dropped(OutFragment, func() { none(t, r.send(of(c.after[0], c.after[1], c.after[1] < 400)(out))) })
					r.dropped(InFragment, func() { r.delivers(0, r.arrive(r.from(of(c.after[0], c.after[1], c.after[1] < 400)(in))...)) })
				}
				// Another datagram is as good as ever, and so is this
				// identification when its time is over.
				whole := pieces(out, 2, 120)
				r.counts(nil, func() { r.leaves(len(whole), 0, r.send(whole...)) })
				r.now += fragmentTimeout
				whole = pieces(out, 1, 120)
				r.counts(nil, func() { r.leaves(len(whole), 0, r.send(whole...)) })
			})
		}
	}
}

// RFC 1858 3.2, IPv4's own: TCP fragments that hold or overwrite a part of the
// header.
func TestRFC1858_TinyTCPFragmentsAreDropped(t *testing.T) {
	f := families()["IPv4"]
	tcp := protocolOf(packet.ProtoTCP, of(0, 400, false))(f.datagramTo(80, 392))
	for _, c := range []struct{ start, end, rest int }{{0, 8, 24}, {0, 16, 24}, {8, 120, 120}, {16, 120, 120}} {
		r := fragmentRig(t, protectAll())
		r.dropped(OutFragment, func() { none(t, r.send(pieceOf(tcp, 1, c.start, c.end, true))) })
		r.dropped(OutFragment, func() { none(t, r.send(pieceOf(tcp, 1, c.rest, 400, false))) })
		r.dropped(InFragment, func() {
			back := protocolOf(packet.ProtoTCP, of(0, 400, false))(f.datagramFrom(80, 392))
			r.delivers(0, r.arrive(r.from(pieceOf(back, 1, c.start, c.end, true))...))
		})
	}
	r := fragmentRig(t, protectAll())
	r.counts(nil, func() { r.leaves(2, 0, r.send(pieceOf(tcp, 1, 0, 24, true), pieceOf(tcp, 1, 24, 400, false))) })
}

// A forged initial fragment that policy discards changes nothing for those behind
// the one that passed.
func TestADiscardedInitialFragmentTakesNothingOver(t *testing.T) {
	for name, f := range families() {
		r := fragmentRig(t, byPort(spd.Bypass))
		list, forged := pieces(f.datagramTo(99, 300), 1, 120), pieces(f.datagramTo(22, 300), 1, 120)
		r.counts(map[DropReason]uint64{OutDiscard: 1}, func() { r.leaves(0, 3, r.send(list[0], forged[0], list[1], list[2])) })
		if t.Failed() {
			t.Fatal(name)
		}
	}
}

// RFC 791 3.2 takes duplicates for granted: one that brings nothing new is
// dropped alone. Its bytes do not pass, for they may be others.
func TestRFC791_IPv4DuplicatesAreDroppedAlone(t *testing.T) {
	f := families()["IPv4"]
	r := fragmentRig(t, byPort(spd.Bypass))
	list := pieces(f.datagramTo(80, 300), 1, 120)
	forged := pieceOf(f.datagramTo(99, 300), 1, 0, 120, true)
	r.counts(map[DropReason]uint64{OutFragment: 4}, func() {
		r.leaves(3, 0, r.send(list[0], list[0], forged, list[1], list[1], pieceOf(f.datagramTo(80, 300), 1, 40, 200, true), list[2]))
	})
}

// More holes than a datagram may have end it; fragments that follow on each other
// are one range, however many they are.
func TestDatagramsWithTooManyHolesAreDropped(t *testing.T) {
	for name, f := range families() {
		r := fragmentRig(t, protectAll())
		whole := f.datagramTo(80, 1400)
		r.counts(nil, func() { r.leaves(88, 0, r.send(pieces(whole, 1, 16)...)) })
		r.counts(nil, func() { r.leaves(88, 0, r.send(reversed(pieces(whole, 1, 16))...)) })
		list := pieces(whole, 2, 16)
		for i := range maxHoles {
			r.counts(nil, func() { r.leaves(1, 0, r.send(list[2*i])) })
		}
		r.dropped(OutFragment, func() { none(t, r.send(list[2*maxHoles])) })
		r.dropped(OutFragment, func() { none(t, r.send(list[1])) })
		if t.Failed() {
			t.Fatal(name)
		}
	}
}

// A poisoned datagram of one SA is no other SA's, and outbound is not inbound.
func TestPoisonStaysWithItsSAAndDirection(t *testing.T) {
	table := newDatagrams()
	a := datagramKey{packet.DatagramID{Version: 6, Identification: 1}, sad.ID{Direction: sad.Inbound, SPI: 1, Peer: "b"}}
	b := a
	b.sa.SPI = 2
	table.poison(0, &a)
	f := packet.Fragment{Start: 8, End: 16, More: true}
	if table.admit(0, &a, &f, nil) {
		t.Error("the poisoned datagram passes")
	}
	if !table.admit(0, &b, &f, nil) {
		t.Error("another SA's datagram does not pass")
	}
}

// Several workers share a table.
func TestDatagramsAreSafeForSeveralWorkers(t *testing.T) {
	table := newDatagrams()
	var admitted [4]int
	var workers sync.WaitGroup
	for worker := range admitted {
		workers.Go(func() {
			for i := range 4000 {
				key := datagramKey{DatagramID: packet.DatagramID{Version: 4, Identification: uint32(i % 1500)}}
				f := packet.Fragment{Start: 8 * (i / 1500), End: 8*(i/1500) + 8, More: true}
				if table.admit(time.Duration(i), &key, &f, nil) {
					admitted[worker]++
				}
				if i%100 == worker {
					table.poison(time.Duration(i), &key)
				}
			}
		})
	}
	workers.Wait()
	if n := table.used(); n != maxDatagrams {
		t.Errorf("remembered: expected %d, saw %d", maxDatagrams, n)
	}
}

// Each piece of memory is somewhere, once: among the remembered, or the free.
func TestDatagramsNeverLoseMemory(t *testing.T) {
	table := newDatagrams()
	for i := range 20 * maxDatagrams {
		key := datagramKey{DatagramID: packet.DatagramID{Version: 4, Identification: uint32(i * 7919 % 5000)}}
		f := packet.Fragment{Start: 0, End: 8, More: i%3 == 0}
		table.admit(time.Duration(i)*time.Second/100, &key, &f, nil)
	}
	free := 0
	for i := table.free; i != 0; i = table.list[i].older {
		free++
	}
	if n := table.used(); n+free != maxDatagrams {
		t.Errorf("remembered %d and free %d: expected %d together", n, free, maxDatagrams)
	}
	linked := 0
	for _, i := range table.buckets {
		for ; i != 0; i = table.list[i].next {
			linked++
		}
	}
	if n := table.used(); n != linked {
		t.Errorf("remembered %d, found by key %d", n, linked)
	}
}

// A peer that floods its SA with fragments pushes out its own: what another SA's
// fragments ride on stays.
func TestOneSAsFragmentsDoNotPushOutAnothers(t *testing.T) {
	table := newDatagrams()
	of := func(spi, id uint32) datagramKey {
		return datagramKey{packet.DatagramID{Version: 4, Identification: id}, sad.ID{Direction: sad.Inbound, SPI: spi, Peer: "b"}}
	}
	flow, f := packet.Flow{Version: 4}, packet.Fragment{End: 800, More: true}
	for i := range uint32(100) {
		key := of(0x1001, i)
		table.admit(0, &key, &f, &flow)
	}
	for i := range uint32(3 * maxDatagrams) {
		key := of(0x1002, i)
		table.admit(0, &key, &f, &flow)
	}
	for i := range uint32(100) {
		key := of(0x1001, i)
		if known, _ := table.first(0, &key, &flow); !known {
			t.Fatalf("datagram %d of the quiet SA: forgotten", i)
		}
	}
	table.expire(fragmentTimeout)
	if n := table.used(); n != 0 || table.held != [owners]uint16{} {
		t.Errorf("after all have expired: %d left, held %v", n, table.held)
	}
}
