package dataplane

import (
	"errors"
	"net"
	"net/netip"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/adit-ipsec/adit/esp"
	"github.com/adit-ipsec/adit/internal/packet"
	"github.com/adit-ipsec/adit/sad"
)

var outID = sad.ID{Direction: sad.Outbound, SPI: outSPI, Peer: "b"}

// dummy sends one and returns what left.
func (r *rig) dummy(length int) []sent {
	r.t.Helper()
	if err := r.gw.SendDummy(outID, length); err != nil {
		r.t.Fatal(err)
	}
	return r.send()
}

// Requirement 10: a dummy "MUST be discarded silently", and it consumes a
// number, moves the window and is a sign of life.
func TestRFC4303_2_6_DummyMovesTheWindowAndIsASignOfLife(t *testing.T) {
	for _, suite := range esp.Suites() {
		r := newRig(t, options{suite: suite.String()})
		r.now = time.Second
		r.delivers(1, r.arrive(r.good(1)))
		r.now = 2 * time.Second
		dummy := r.sealed(9, packet.ProtoNone, []byte("whatever a dummy holds"))
		r.dropped(InDummy, func() { r.delivers(0, r.arrive(dummy)) })
		s := r.inSA().Stats()
		if s.Seq != 9 || s.LastUsed != int64(2*time.Second) {
			t.Errorf("%s: after the dummy: window's edge %d, used at %s; expected 9, 2s", suite, s.Seq, time.Duration(s.LastUsed))
		}
		if s.Packets != 1 || s.OtherDrops != 0 {
			t.Errorf("%s: a dummy is neither carried nor an error: saw %d packets, %d other drops", suite, s.Packets, s.OtherDrops)
		}
		r.now = 3 * time.Second
		r.dropped(InReplay, func() { r.delivers(0, r.arrive(dummy)) })
		r.dropped(InAuth, func() { r.delivers(0, r.arrive(flip(r.sealed(10, packet.ProtoNone, nil), 100))) })
		if s := r.inSA().Stats(); s.Seq != 9 || s.LastUsed != int64(2*time.Second) {
			t.Errorf("%s: a replayed and a forged dummy: window's edge %d, used at %s; expected 9, 2s", suite, s.Seq, time.Duration(s.LastUsed))
		}
	}
}

// In every suite, of every length around the alignment: what is sent the peer's
// gateway takes for a dummy and drops silently.
func TestRFC4303_2_6_SendDummy(t *testing.T) {
	for _, suite := range esp.Suites() {
		r := newRig(t, options{suite: suite.String()})
		m := r.mirrored()
		for n := range 40 {
			m.now = time.Duration(n+1) * time.Second
			list := r.dummy(n)
			if len(list) != 1 || list[0].Len != suite.SealedLen(n) || list[0].Addr != gwB4 || list[0].wire != wireUDP {
				t.Fatalf("%s, %d bytes: saw %+v", suite, n, list)
			}
			open, err := r.opened(list[0], uint64(n+1))
			if err != nil || open.NextHeader != packet.ProtoNone || len(open.Payload) != n {
				t.Errorf("%s, %d bytes: next header %d, %d bytes, %v", suite, n, open.NextHeader, len(open.Payload), err)
			}
			m.dropped(InDummy, func() { m.delivers(0, m.carried(list)) })
			if s := m.inSAOf(outSPI).Stats(); s.Seq != uint64(n+1) || s.LastUsed != int64(m.now) || s.Packets != 0 {
				t.Errorf("%s, %d bytes: the peer's window at %d, used at %s, %d packets", suite, n, s.Seq, time.Duration(s.LastUsed), s.Packets)
			}
		}
		if got := r.gw.Stats().Counter("OutDummies"); got != 40 {
			t.Errorf("OutDummies: expected 40, saw %d", got)
		}
	}
}

// Dummies and packets share the numbers, and a dummy of a TFC SA has the size of
// its packets.
func TestDummiesAmongPackets(t *testing.T) {
	r := newRig(t, options{tfc: 1000})
	m := r.mirrored()
	list := r.send(fromA("1"))
	list = append(list, r.dummy(0)...)
	list = append(list, r.dummy(999)...)
	list = append(list, r.send(fromA("2"))...)
	r.oneSize(list, 1000)
	for i, s := range list {
		if _, err := r.opened(s, uint64(i+1)); err != nil {
			t.Errorf("datagram %d: %v", i+1, err)
		}
	}
	m.counts(map[DropReason]uint64{InDummy: 2}, func() { m.delivers(2, m.carried(list)) })
}

// The outer header of a dummy follows the SA's parameters.
func TestDummyOuterHeader(t *testing.T) {
	local := netip.MustParseAddrPort("192.0.2.7:4500")
	for _, c := range []struct {
		o    options
		tos  uint8
		df   bool
		wire wireKind
	}{
		{options{}, 0, true, wireUDP},
		{options{tunnel: sad.Tunnel{DF: sad.DFSet, DSCP: sad.FixedDSCP(46)}}, 46 << 2, true, wireUDP},
		{options{tunnel: sad.Tunnel{DF: sad.DFClear, DSCP: sad.DSCPOff}}, 0, false, wireUDP},
		{options{encap: sad.EncapNone, local: local}, 0, true, wireRaw4},
		{options{encap: sad.EncapNone, remote: gwB6}, 0, true, wireRaw6},
		{options{remote: gwB6}, 0, true, wireUDP},
	} {
		r := newRig(t, c.o)
		list := r.dummy(100)
		if len(list) != 1 || list[0].TOS != c.tos || list[0].DF != c.df || list[0].wire != c.wire || list[0].Local != c.o.local.Addr() || list[0].Addr != r.opts.remote {
			t.Errorf("%+v: saw %+v", c.o, list)
		}
	}
}

// RFC 4301 4.1: a dummy, and so a probe of the path MTU, is of its SA's class. In
// the queue of another one it would fall out of the peer's window.
func TestDummyIsOfItsSAsClass(t *testing.T) {
	r := newRig(t, options{noSA: true})
	p := r.params(sad.Outbound)
	p.DSCPs = []uint8{46, 34}
	if err := r.gw.Install(p); err != nil {
		t.Fatal(err)
	}
	if list := r.dummy(10); len(list) != 1 || list[0].TOS != 46<<2 {
		t.Errorf("expected one dummy with DSCP 46, saw %+v", list)
	}
}

// A dummy of exactly this plaintext and size is what PMTU probes are made of.
func TestSendDummyOfExactPlaintext(t *testing.T) {
	r := newRig(t, options{tfc: 1000})
	for n, df := range []bool{true, false} {
		if err := r.gw.sendDummy(r.outSA(), []byte("a probe"), df); err != nil {
			t.Fatal(err)
		}
		list := r.send()
		if len(list) != 1 || list[0].DF != df || list[0].Len != r.suite().SealedLen(7) {
			t.Fatalf("saw %+v", list)
		}
		if open, err := r.opened(list[0], uint64(n+1)); err != nil || string(open.Payload) != "a probe" || open.NextHeader != packet.ProtoNone {
			t.Errorf("saw %+v, %v", open, err)
		}
	}
}

func TestSendDummyRefusals(t *testing.T) {
	r := newRig(t, options{noESN: true})
	refused := func(what string, err error, says string) {
		t.Helper()
		if err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v, want %q", what, err, says)
		}
		if list := r.send(); len(list) != 0 {
			t.Errorf("%s: %d datagrams left", what, len(list))
		}
	}
	refused("an inbound SA", r.gw.SendDummy(sad.ID{Direction: sad.Inbound, SPI: inSPI, Peer: "b"}, 0), "there is no outbound ESP SA")
	refused("an unknown SPI", r.gw.SendDummy(sad.ID{Direction: sad.Outbound, SPI: 9999, Peer: "b"}, 0), "there is no outbound ESP SA")
	refused("another peer", r.gw.SendDummy(sad.ID{Direction: sad.Outbound, SPI: outSPI, Peer: "c"}, 0), "there is no outbound ESP SA")
	refused("a negative length", r.gw.SendDummy(outID, -1), "use 0 to 65535")
	refused("no packet's length", r.gw.SendDummy(outID, 65536), "use 0 to 65535")
	refused("too long for an outer packet", r.gw.SendDummy(outID, 65535), "longer than one outer packet holds: use 65470 at most")
	if seq := r.outSA().Stats().Seq; seq != 0 {
		t.Errorf("what is refused at once uses no number: saw %d used", seq)
	}
	r.wires[wireUDP].fail = func(*packet.Datagram) error { return syscall.EMSGSIZE }
	err := r.gw.SendDummy(outID, 100)
	refused("too long for the path", err, "were not sent")
	if !errors.Is(err, syscall.EMSGSIZE) {
		t.Errorf("the socket's error is wrapped: saw %v", err)
	}
	to := r.gw.out[0].wires[wireUDP].to
	r.gw.out[0].wires[wireUDP].to = nil
	refused("no socket", r.gw.SendDummy(outID, 100), "no socket for encapsulation udp")
	r.gw.out[0].wires[wireUDP].to, r.wires[wireUDP].fail = to, nil
	for {
		if _, granted := r.outSA().Reserve(1 << 30); granted == 0 {
			break
		}
	}
	err = r.gw.SendDummy(outID, 100)
	refused("no number left", err, "used up")
	if !errors.Is(err, sad.ErrExhausted) {
		t.Errorf("RFC 4303 3.3.3: expected ErrExhausted, saw %v", err)
	}
	if got := r.gw.Stats().Counter("OutDummies"); got != 0 {
		t.Errorf("OutDummies: expected 0, saw %d", got)
	}
	close(r.gw.stop)
	if err := r.gw.SendDummy(outID, 100); !errors.Is(err, net.ErrClosed) {
		t.Errorf("a gateway that stops: %v", err)
	}
}

// A durable block at its end is said, and nothing goes out beyond it.
func TestSendDummyWaitsForTheReservation(t *testing.T) {
	r := newRig(t, options{store: &startAt{}})
	if _, granted := r.outSA().Reserve(sad.ReservationBlock); granted != sad.ReservationBlock {
		t.Fatalf("granted %d", granted)
	}
	if err := r.gw.SendDummy(outID, 0); !errors.Is(err, errReservation) || errors.Is(err, sad.ErrExhausted) {
		t.Errorf("saw %v", err)
	}
	if list := r.send(); len(list) != 0 {
		t.Errorf("%d datagrams left", len(list))
	}
}

// A dummy is traffic: no keepalive is due behind it.
func TestDummyPutsOffTheKeepalive(t *testing.T) {
	r := newRig(t, options{noSA: true})
	p := r.params(sad.Outbound)
	p.Keepalive, p.BehindNAT = 20*time.Second, true
	if err := r.gw.Install(p); err != nil {
		t.Fatal(err)
	}
	house := housekeeper{gateway: r.gw, grams: packet.NewDatagrams(1)}
	r.now = 19 * time.Second
	r.dummy(10)
	for _, step := range []struct{ at, want int }{{20, 0}, {38, 0}, {39, 1}} {
		r.now = time.Duration(step.at) * time.Second
		house.round()
		if got := len(r.wires[wireUDP].take()); got != step.want {
			t.Errorf("at %d s: expected %d keepalives, saw %d", step.at, step.want, got)
		}
	}
}

// A burst from several goroutines, beside the packets of a worker: every number
// is used once.
func TestDummyBurstUsesEveryNumberOnce(t *testing.T) {
	r := newRig(t, options{window: 4096})
	const senders, each, packets = 8, 125, 1000
	lock := &lockedWire{}
	r.gw.out[0].wires[wireUDP].to = lock
	var all sync.WaitGroup
	for range senders {
		all.Go(func() {
			for range each {
				if err := r.gw.SendDummy(outID, 64); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for range packets {
		r.gw.out[0].bufs[0].Set(fromA("x"))
		r.gw.out[0].walk(1)
	}
	all.Wait()
	seen := map[uint32]bool{}
	for _, d := range lock.take() {
		_, low, _ := esp.ParseHeader(d.Bytes())
		if seen[low] {
			t.Fatalf("number %d was used twice", low)
		}
		seen[low] = true
	}
	if len(seen) != senders*each+packets || !seen[1] || !seen[senders*each+packets] {
		t.Errorf("%d numbers; expected 1 to %d", len(seen), senders*each+packets)
	}
	if got := r.gw.Stats().Counter("OutDummies"); got != senders*each {
		t.Errorf("OutDummies: expected %d, saw %d", senders*each, got)
	}
}

// lockedWire is a captureWire for several goroutines.
type lockedWire struct {
	mu sync.Mutex
	captureWire
}

func (w *lockedWire) WriteBatch(grams []packet.Datagram) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.captureWire.WriteBatch(grams)
}
