package netsim

import (
	"bytes"
	"errors"
	"net"
	"net/netip"
	"syscall"
	"testing"
	"testing/synctest"

	"go.uber.org/goleak"

	"github.com/adit-ipsec/adit/internal/packet"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var (
	addrA = netip.MustParseAddrPort("192.0.2.1:4500")
	addrB = netip.MustParseAddrPort("192.0.2.2:4500")
	sixA  = netip.MustParseAddrPort("[2001:db8::1]:4500")
	sixB  = netip.MustParseAddrPort("[2001:db8::2]:4500")
	rawA  = netip.MustParseAddrPort("192.0.2.1:0")
	rawB  = netip.MustParseAddrPort("192.0.2.2:0")
)

func endpoint(t *testing.T, n *Network, addrs ...netip.AddrPort) *Endpoint {
	t.Helper()
	e, err := n.Endpoint(addrs...)
	if err != nil {
		t.Fatalf("Endpoint(%v): %v", addrs, err)
	}
	return e
}

func message(to netip.AddrPort, payload string) Message {
	m := Message{Mem: make([]byte, packet.Headroom+len(payload)), Off: packet.Headroom, Addr: to}
	m.Len = copy(m.Mem[m.Off:], payload)
	return m
}

func send(t *testing.T, e *Endpoint, m ...Message) {
	t.Helper()
	if n, err := e.WriteBatch(m); n != len(m) || err != nil {
		t.Fatalf("WriteBatch = %d, %v; want %d, nil", n, err, len(m))
	}
}

// payloads reads everything that waits at e.
func payloads(t *testing.T, e *Endpoint) []string {
	t.Helper()
	var all []string
	for e.Waiting() > 0 {
		m := packet.NewDatagrams(3)
		n, err := e.ReadBatch(m)
		if err != nil {
			t.Fatalf("ReadBatch: %v", err)
		}
		for i := range m[:n] {
			all = append(all, string(m[i].Bytes()))
		}
	}
	return all
}

func equal(t *testing.T, got []string, want ...string) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("received %q, want %q", got, want)
	}
	for i := range got {
		if got[i] != want[i] {
			t.Fatalf("received %q, want %q", got, want)
		}
	}
}

func TestDeliveryTellsPeerLocalAndTrafficClass(t *testing.T) {
	n := NewNetwork()
	a, b := endpoint(t, n, addrA, sixA, rawA), endpoint(t, n, addrB, sixB, rawB)
	for _, tt := range []struct{ from, to netip.AddrPort }{{addrA, addrB}, {sixA, sixB}} {
		m := message(tt.to, "hello")
		m.TOS, m.Local = 0xb9, tt.from.Addr()
		send(t, a, m)
		got := packet.NewDatagrams(1)
		if k, err := b.ReadBatch(got); k != 1 || err != nil {
			t.Fatalf("ReadBatch = %d, %v; want 1, nil", k, err)
		}
		g := &got[0]
		if string(g.Bytes()) != "hello" || g.Off != packet.Headroom || g.Addr != tt.from || g.Local != tt.to.Addr() || g.TOS != 0xb9 {
			t.Errorf("received %q at %d from %v to %v, class %#x; want \"hello\" at %d from %v to %v, 0xb9",
				g.Bytes(), g.Off, g.Addr, g.Local, g.TOS, packet.Headroom, tt.from, tt.to)
		}
	}
	if got := a.LocalPort(); got != 4500 {
		t.Errorf("LocalPort = %d, want 4500", got)
	}
}

func TestRawIPIsApartFromUDP(t *testing.T) {
	n := NewNetwork()
	udpA, rawFrom := endpoint(t, n, addrA), endpoint(t, n, rawA)
	udpB, rawTo := endpoint(t, n, addrB), endpoint(t, n, rawB)
	send(t, udpA, message(addrB, "udp"))
	send(t, rawFrom, message(rawB, "raw"))
	equal(t, payloads(t, udpB), "udp")
	equal(t, payloads(t, rawTo), "raw")
}

func TestReceiverOwnsACopy(t *testing.T) {
	n := NewNetwork()
	a, b := endpoint(t, n, addrA), endpoint(t, n, addrB)
	m := message(addrB, "before")
	send(t, a, m)
	copy(m.Bytes(), "after!")
	equal(t, payloads(t, b), "before")
}

func TestQueueIsBoundedAndCounts(t *testing.T) {
	n := NewNetwork()
	n.SetQueue(3)
	a, b := endpoint(t, n, addrA), endpoint(t, n, addrB)
	for _, p := range []string{"1", "2", "3", "4", "5"} {
		send(t, a, message(addrB, p))
	}
	send(t, a, message(netip.MustParseAddrPort("192.0.2.9:4500"), "nobody"))
	if got, want := n.Stats(), (Stats{Sent: 6, Delivered: 3, QueueFull: 2, NoEndpoint: 1}); got != want {
		t.Errorf("Stats = %+v, want %+v", got, want)
	}
	equal(t, payloads(t, b), "1", "2", "3")
	send(t, a, message(addrB, "6"))
	equal(t, payloads(t, b), "6")
}

func TestImpairDropsDoublesCorruptsAndReorders(t *testing.T) {
	n := NewNetwork()
	a, b := endpoint(t, n, addrA), endpoint(t, n, addrB)
	var seen []string
	n.Observe(func(d *Message) {
		if d.Local != addrA.Addr() || d.Addr != addrB {
			t.Errorf("observer sees %v to %v, want %v to %v", d.Local, d.Addr, addrA.Addr(), addrB)
		}
		seen = append(seen, string(d.Bytes()))
	})
	n.Impair(func(d *Message) int {
		switch string(d.Bytes()) {
		case "drop":
			return 0
		case "twice":
			return 2
		case "corrupt":
			d.Bytes()[0] ^= 0xff
		case "cut":
			d.Len = 1
		case "hold 0", "hold 1", "hold 2":
			return Hold
		}
		return 1
	})
	sent := []string{"drop", "twice", "corrupt", "hold 0", "cut", "hold 1", "plain", "hold 2"}
	for _, p := range sent {
		send(t, a, message(addrB, p))
	}
	equal(t, seen, sent...)
	equal(t, payloads(t, b), "twice", "twice", "\x9corrupt", "c", "plain")
	if got := n.Held(); got != 3 {
		t.Errorf("Held = %d, want 3", got)
	}
	if err := n.Release(3); err == nil {
		t.Error("Release of a datagram that is not held: no error")
	}
	if err := n.Release(2, 0, 2); err != nil {
		t.Fatal(err)
	}
	equal(t, payloads(t, b), "hold 2", "hold 0", "hold 2")
	if got := n.Held(); got != 0 {
		t.Errorf("Held after Release = %d, want 0", got)
	}
	if got := n.Stats().Impaired; got != 1 {
		t.Errorf("Impaired = %d, want 1", got)
	}
	n.Impair(nil)
	n.Observe(nil)
	send(t, a, message(addrB, "drop"))
	equal(t, payloads(t, b), "drop")
	if err := n.Release(); err != nil {
		t.Errorf("Release of nothing: %v", err)
	}
}

func TestTranslateIsANAT(t *testing.T) {
	n := NewNetwork()
	a, b := endpoint(t, n, addrA), endpoint(t, n, addrB)
	outside := netip.MustParseAddrPort("203.0.113.1:61000")
	n.Translate(func(from, to netip.AddrPort) (netip.AddrPort, netip.AddrPort) {
		if from == addrA {
			return outside, to
		}
		if to == outside {
			return from, addrA
		}
		return from, to
	})
	send(t, a, message(addrB, "there"))
	got := packet.NewDatagrams(1)
	if _, err := b.ReadBatch(got); err != nil || got[0].Addr != outside {
		t.Fatalf("peer is %v (%v), want %v", got[0].Addr, err, outside)
	}
	send(t, b, message(got[0].Addr, "back"))
	equal(t, payloads(t, a), "back")
}

func TestInjectPassesNoHook(t *testing.T) {
	n := NewNetwork()
	b := endpoint(t, n, addrB)
	n.Impair(func(*Message) int { return 0 })
	n.Inject(netip.MustParseAddrPort("198.51.100.1:1"), addrB, 3, []byte("forged"))
	equal(t, payloads(t, b), "forged")
}

func TestWriteErrorsNameTheDatagram(t *testing.T) {
	n := NewNetwork()
	n.SetMTU(100)
	a, b := endpoint(t, n, addrA, sixA), endpoint(t, n, addrB, sixB)
	long := message(addrB, string(bytes.Repeat([]byte{'x'}, 73)))
	longDF := long
	longDF.DF = true
	foreign, mixed := message(addrB, "m"), message(addrB, "m")
	foreign.Local, mixed.Local = addrB.Addr(), sixA.Addr()
	for _, tt := range []struct {
		name string
		bad  Message
		want error
	}{
		{"over the MTU with DF", longDF, syscall.EMSGSIZE},
		{"over the MTU by IPv6", message(sixB, string(bytes.Repeat([]byte{'x'}, 53))), syscall.EMSGSIZE},
		{"no destination", message(netip.AddrPort{}, "m"), syscall.EDESTADDRREQ},
		{"foreign source", foreign, syscall.EINVAL},
		{"families mixed", mixed, syscall.EINVAL},
	} {
		k, err := a.WriteBatch([]Message{message(addrB, "1"), tt.bad, message(addrB, "3")})
		if k != 1 || !errors.Is(err, tt.want) {
			t.Errorf("%s: WriteBatch = %d, %v; want 1, %v", tt.name, k, err, tt.want)
		}
		equal(t, payloads(t, b), "1")
	}
	send(t, a, long) // fragmented and reassembled
	if got := payloads(t, b); len(got) != 1 || len(got[0]) != 73 {
		t.Errorf("without DF received %q, want one of 73 bytes", got)
	}
	only4 := endpoint(t, n, netip.MustParseAddrPort("192.0.2.3:4500"))
	if k, err := only4.WriteBatch([]Message{message(sixB, "m")}); k != 0 || !errors.Is(err, syscall.ENETUNREACH) {
		t.Errorf("IPv6 from an IPv4 end: WriteBatch = %d, %v; want 0, ENETUNREACH", k, err)
	}
	a.FailSend(func(d *Message) error {
		if string(d.Bytes()) == "refused" {
			return syscall.EPERM
		}
		return nil
	})
	if k, err := a.WriteBatch([]Message{message(addrB, "1"), message(addrB, "refused")}); k != 1 || !errors.Is(err, syscall.EPERM) {
		t.Errorf("FailSend: WriteBatch = %d, %v; want 1, EPERM", k, err)
	}
}

func TestSegmentSizeBecomesDatagrams(t *testing.T) {
	n := NewNetwork()
	a, b := endpoint(t, n, addrA), endpoint(t, n, addrB)
	m := message(addrB, "aabbc")
	m.SegmentSize = 2
	send(t, a, m, message(addrB, ""))
	equal(t, payloads(t, b), "aa", "bb", "c", "")
}

func TestSlotTooSmallIsSkippedAndCounted(t *testing.T) {
	n := NewNetwork()
	a, b := endpoint(t, n, addrA), endpoint(t, n, addrB)
	send(t, a, message(addrB, "too long"), message(addrB, "fits"))
	m := []Message{{Mem: make([]byte, packet.Headroom+4+packet.Tailroom)}}
	if k, err := b.ReadBatch(m); k != 1 || err != nil || string(m[0].Bytes()) != "fits" {
		t.Errorf("ReadBatch = %d, %v, %q; want 1, nil, \"fits\"", k, err, m[0].Bytes())
	}
	if got := n.Stats().Truncated; got != 1 {
		t.Errorf("Truncated = %d, want 1", got)
	}
}

func TestCloseWakesReadersAndFreesAddresses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := NewNetwork()
		e := endpoint(t, n, addrA)
		errs := make(chan error, 2)
		for range cap(errs) {
			go func() {
				_, err := e.ReadBatch(packet.NewDatagrams(1))
				errs <- err
			}()
		}
		synctest.Wait() // both wait now
		if err := e.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
		for range cap(errs) {
			if err := <-errs; !errors.Is(err, net.ErrClosed) {
				t.Errorf("ReadBatch after Close: %v, want net.ErrClosed", err)
			}
		}
		if k, err := e.WriteBatch([]Message{message(addrB, "m")}); k != 0 || !errors.Is(err, net.ErrClosed) {
			t.Errorf("WriteBatch after Close = %d, %v; want 0, net.ErrClosed", k, err)
		}
		if err := e.Close(); !errors.Is(err, net.ErrClosed) {
			t.Errorf("second Close: %v, want net.ErrClosed", err)
		}
		again := endpoint(t, n, addrA)
		defer again.Close()
		if _, err := n.Endpoint(addrB, addrA); err == nil {
			t.Error("an address in use was given twice")
		}
		b := endpoint(t, n, addrB) // the failed call took nothing
		defer b.Close()
	})
}

func TestReaderWakesForADatagram(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := NewNetwork()
		a, b := endpoint(t, n, addrA), endpoint(t, n, addrB)
		got := make(chan string, 1)
		go func() {
			m := packet.NewDatagrams(2)
			if _, err := b.ReadBatch(m); err == nil {
				got <- string(m[0].Bytes())
			}
		}()
		synctest.Wait()
		send(t, a, message(addrB, "hello"))
		if p := <-got; p != "hello" {
			t.Errorf("received %q, want \"hello\"", p)
		}
	})
}

func TestEndpointErrors(t *testing.T) {
	n := NewNetwork()
	if _, err := n.Endpoint(); err == nil {
		t.Error("an endpoint without address: no error")
	}
	if _, err := n.Endpoint(netip.AddrPort{}); err == nil {
		t.Error("an endpoint with an invalid address: no error")
	}
}

func TestBatchesAllocateNothing(t *testing.T) {
	n := NewNetwork()
	n.SetQueue(8)
	n.Observe(func(*Message) {})
	a, b := endpoint(t, n, addrA), endpoint(t, n, addrB)
	out, in := packet.NewDatagrams(4), packet.NewDatagrams(8)
	for i := range out {
		out[i].Len, out[i].Addr, out[i].Local = 1400, addrB, addrA.Addr()
	}
	round := func() {
		if _, err := a.WriteBatch(out); err != nil {
			t.Fatal(err)
		}
		if k, err := b.ReadBatch(in); k != len(out) || err != nil {
			t.Fatalf("ReadBatch = %d, %v", k, err)
		}
	}
	round() // the queue's slots have their memory after two
	round()
	if got := testing.AllocsPerRun(100, round); got != 0 {
		t.Errorf("%v allocations per batch, want 0", got)
	}
}
