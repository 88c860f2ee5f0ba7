package dataplane

import (
	"bytes"
	"fmt"
	"syscall"
	"testing"

	"github.com/adit-ipsec/adit/esp"
	"github.com/adit-ipsec/adit/internal/packet"
	"github.com/adit-ipsec/adit/sad"
)

// Both walks, every suite, all four address family combinations: what the peer
// opens is what the TUN gave, and what the peer sealed is what the TUN gets.
func TestWalksCarryEverySuiteAndFamily(t *testing.T) {
	for _, suite := range esp.Suites() {
		for _, outer := range []struct {
			name   string
			remote string
		}{{"outer4", gwB4.String()}, {"outer6", gwB6.String()}} {
			t.Run(suite.String()+"/"+outer.name, func(t *testing.T) {
				o := options{suite: suite.String(), remote: gwB4}
				if outer.name == "outer6" {
					o.remote = gwB6
				}
				r := newRig(t, o)
				for n, p := range [][]byte{
					inner{src: hostA, dst: hostB, payload: "four"}.udp(),
					inner{src: host6, dst: hostS, payload: "six"}.udp(),
				} {
					r.counts(nil, func() {
						got := r.send(p)
						if len(got) != 1 || got[0].Addr != o.remote || got[0].wire != wireUDP {
							t.Fatalf("expected one UDP datagram to %s, saw %+v", o.remote, got)
						}
						open, err := r.opened(got[0], uint64(n+1))
						if err != nil || !bytes.Equal(open.Payload, p) {
							t.Fatalf("expected % x, saw % x, %v", p, open.Payload, err)
						}
						if want := []uint8{packet.ProtoIPv4, packet.ProtoIPv6}[n]; open.NextHeader != want {
							t.Errorf("next header: expected %d, saw %d", want, open.NextHeader)
						}
					})
				}
				for n, p := range [][]byte{
					inner{src: hostB, dst: hostA, payload: "four"}.udp(),
					inner{src: hostS, dst: host6, payload: "six"}.udp(),
				} {
					r.counts(nil, func() {
						next := []uint8{packet.ProtoIPv4, packet.ProtoIPv6}[n]
						got := r.arrive(r.sealed(uint64(n+1), next, p))
						if len(got) != 1 || !bytes.Equal(got[0], p) {
							t.Fatalf("expected % x, saw % x", p, got)
						}
					})
				}
			})
		}
	}
}

func TestEncapNoneLeavesByRawSocketOfItsFamily(t *testing.T) {
	for _, c := range []struct {
		o    options
		wire wireKind
	}{
		{options{encap: sad.EncapNone, remote: gwB4}, wireRaw4},
		{options{encap: sad.EncapNone, remote: gwB6}, wireRaw6},
		{options{encap: sad.EncapUDP, remote: gwB6}, wireUDP},
	} {
		r := newRig(t, c.o)
		got := r.send(fromA("x"))
		if len(got) != 1 || got[0].wire != c.wire {
			t.Errorf("encap %s to %s: expected one datagram on wire %d, saw %+v", c.o.encap, c.o.remote, c.wire, got)
		}
	}
}

func TestMissingWireIsCountedNotSentInClear(t *testing.T) {
	r := newRig(t, options{encap: sad.EncapNone})
	r.gw.out[0].wires[wireRaw4].to = nil
	r.dropped(OutNoWire, func() {
		if got := r.send(fromA("x")); len(got) != 0 {
			t.Errorf("expected nothing to leave, saw %+v", got)
		}
	})
}

// A batch that changes SA and fate from packet to packet keeps each SA's order
// and gives every packet its own fate.
func TestBatchOfMixedFates(t *testing.T) {
	r := newRig(t, options{})
	stranger := inner{src: hostA, dst: gwB4.Addr(), payload: "no policy"}.udp()
	broken := []byte{0x45, 0}
	r.counts(map[DropReason]uint64{OutDiscard: 1, OutMalformed: 1}, func() {
		got := r.send(fromA("1"), stranger, fromA("2"), broken, fromA("3"))
		if len(got) != 3 {
			t.Fatalf("expected 3 datagrams, saw %d", len(got))
		}
		for i := range got {
			open, err := r.opened(got[i], uint64(i+1))
			want := fromA(fmt.Sprint(i + 1))
			if err != nil || !bytes.Equal(open.Payload, want) {
				t.Errorf("packet %d: expected % x, saw % x, %v", i+1, want, open.Payload, err)
			}
		}
	})
}

// EPERM, ENOBUFS, ENETUNREACH and the like cost the datagram that they belong
// to: counted, and the ones behind it still leave.
func TestSendErrorCostsOnePacketAndNeverStopsTheWorker(t *testing.T) {
	for _, errno := range []syscall.Errno{syscall.EPERM, syscall.ENOBUFS, syscall.ENETUNREACH, syscall.EMSGSIZE, syscall.EINVAL} {
		r := newRig(t, options{})
		n := 0
		r.wires[wireUDP].fail = func(*packet.Datagram) error {
			if n++; n == 2 {
				return errno
			}
			return nil
		}
		r.dropped(OutSendError, func() {
			if got := r.send(fromA("1"), fromA("2"), fromA("3")); len(got) != 2 {
				t.Errorf("%v: expected 2 datagrams, saw %d", errno, len(got))
			}
		})
		r.counts(nil, func() {
			if got := r.send(fromA("4")); len(got) != 1 {
				t.Errorf("%v: the next batch: expected 1 datagram, saw %d", errno, len(got))
			}
		})
		if got := r.gw.Stats().Counter("OutPackets"); got != 3 {
			t.Errorf("%v: OutPackets: expected 3, saw %d", errno, got)
		}
	}
}

func TestTUNErrorIsCounted(t *testing.T) {
	r := newRig(t, options{})
	r.tun.fail = syscall.EIO
	r.dropped(InTUNError, func() { r.arrive(r.good(1)) })
	r.tun.fail = nil
	r.counts(nil, func() { r.delivers(1, r.arrive(r.good(2))) })
}

func TestPacketsThatDoNotFitOneDatagramAreDropped(t *testing.T) {
	r := newRig(t, options{})
	long := inner{src: hostA, dst: hostB, payload: string(make([]byte, 65000))}.udp()
	r.counts(nil, func() {
		if got := r.send(long); len(got) != 1 {
			t.Errorf("65028 bytes: expected 1 datagram, saw %d", len(got))
		}
	})
	longest := inner{src: hostA, dst: hostB, df: true, payload: string(make([]byte, 65535-28))}.udp()
	r.dropped(OutTooBig, func() {
		if got := r.send(longest); len(got) != 0 {
			t.Errorf("65535 bytes: expected nothing, saw %d", len(got))
		}
	})
}

func TestEveryDropReasonHasItsName(t *testing.T) {
	seen := map[string]bool{}
	for _, reason := range DropReasons() {
		name := reason.String()
		if name == "" || seen[name] {
			t.Errorf("reason %d: name %q is empty or used twice", reason, name)
		}
		seen[name] = true
	}
	if got := DropReason(200).String(); got != "DropReason(200)" {
		t.Errorf("unknown reason: saw %q", got)
	}
}

func TestStatsKnowEveryDropReason(t *testing.T) {
	r := newRig(t, options{})
	s := r.gw.Stats()
	if len(s.Drops) != len(DropReasons()) {
		t.Errorf("expected %d drop counters, saw %d", len(DropReasons()), len(s.Drops))
	}
	if len(s.SAs) != 2 || s.Policies != 1 {
		t.Errorf("expected 2 SAs and 1 policy, saw %d and %d", len(s.SAs), s.Policies)
	}
}
