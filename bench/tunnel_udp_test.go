package bench

import (
	"encoding/binary"
	"net"
	"testing"
	"time"
)

// loopbackFlow is a flow from this process to itself.
func loopbackFlow(t *testing.T, l UDPLoad) *udpFlow {
	t.Helper()
	f := newUDPFlow(l)
	t.Cleanup(f.close)
	var err error
	if f.rx, err = net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)}); err != nil {
		t.Fatal(err)
	}
	if f.tx, err = net.DialUDP("udp", nil, f.rx.LocalAddr().(*net.UDPAddr)); err != nil {
		t.Fatal(err)
	}
	return f
}

// TestUDPFlowKeepsToItsRate: never more than the rate, every number once, and
// nothing that was not sent.
func TestUDPFlowKeepsToItsRate(t *testing.T) {
	for _, size := range []int{udpHeaderLen, 64, 1372} {
		l := UDPLoad{Size: size, Rate: 4000, Duration: 50 * time.Millisecond}
		f := loopbackFlow(t, l)
		if err := f.run(); err != nil {
			t.Fatal(err)
		}
		if f.sent == 0 || f.sent > 200 {
			t.Errorf("size %d: %d sent, want at most 200: %d a second for %v", size, f.sent, l.Rate, l.Duration)
		}
		if int(f.received.Load()) != f.sent || f.wrong != 0 || f.last.Before(f.first) {
			t.Errorf("size %d: %d received of %d, %d wrong", size, f.received.Load(), f.sent, f.wrong)
		}
	}
}

// TestUDPFlowWithoutRateFillsTheTime: batches one after the other, and what the
// socket could not hold is lost, not waited for without end.
func TestUDPFlowWithoutRateFillsTheTime(t *testing.T) {
	l := UDPLoad{Size: 64, Duration: 20 * time.Millisecond}
	f := loopbackFlow(t, l)
	if err := f.run(); err != nil {
		t.Fatal(err)
	}
	if got := int(f.received.Load()); f.sending < l.Duration || f.sent < udpBatch || f.sent%udpBatch != 0 || got == 0 || got > f.sent || f.wrong != 0 {
		t.Errorf("%d sent in %v, %d received, %d wrong", f.sent, f.sending, got, f.wrong)
	}
}

// TestUDPFlowKnowsWhatItDidNotSend: another length, flow, payload or number, and
// one that came before.
func TestUDPFlowKnowsWhatItDidNotSend(t *testing.T) {
	f := newUDPFlow(UDPLoad{Size: 20})
	datagram := func(number, id uint64, pattern []byte) []byte {
		return append(binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(nil, number), id), pattern...)
	}
	f.arrived(datagram(130, f.id, f.pattern))
	f.arrived(datagram(0, f.id, f.pattern))
	if got := f.received.Load(); got != 2 || f.wrong != 0 {
		t.Fatalf("%d received, %d wrong, want 2 and 0", got, f.wrong)
	}
	for i, p := range [][]byte{
		datagram(130, f.id, f.pattern),
		datagram(1, f.id+1, f.pattern),
		datagram(1, f.id, []byte{0, 1, 2, 4}),
		datagram(1, f.id, f.pattern[:3]),
		datagram(1, f.id, append(f.pattern[:4:4], 4)),
		datagram(1<<63, f.id, f.pattern),
	} {
		f.arrived(p)
		if got := f.received.Load(); got != 2 || f.wrong != i+1 {
			t.Errorf("datagram %d: %d received, %d wrong, want 2 and %d", i, got, f.wrong, i+1)
		}
	}
}
