package dataplane

import (
	"bytes"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/adit-ipsec/adit/internal/packet"
	"github.com/adit-ipsec/adit/internal/tun"
)

// answering is a rig whose gateway answers what it discards.
func answering(t *testing.T, c ICMP) *rig {
	r := newRig(t, options{})
	c.Unreachable = true
	r.gw.out[0].answers = newAnswers(&c)
	return r
}

// RFC 4301 5.1: a discarded outbound packet is answered with 3/13 or 1/1, where
// that is asked for.
func TestRFC4301_5_1_DiscardIsAnswered(t *testing.T) {
	nowhere4, nowhere6 := netip.MustParseAddr("10.7.0.1"), netip.MustParseAddr("2001:db8:7::1")
	out4 := inner{src: hostA, dst: nowhere4, payload: strings.Repeat("x", 700)}.udp()
	out6 := inner{src: host6, dst: nowhere6, payload: strings.Repeat("x", 1400)}.udp()
	off := newRig(t, options{})
	off.dropped(OutDiscard, func() { none(t, off.send(out4)) })
	off.delivers(0, off.tun.take())
	for _, tt := range []struct {
		c         ICMP
		in        []byte
		from, to  netip.Addr
		typ, code uint8
		length    int
	}{
		{ICMP{}, out4, nowhere4, hostA, 3, 13, 576},
		{ICMP{}, out6, nowhere6, host6, 1, 1, 1280},
		{ICMP{From4: router4, From6: router6}, out4, router4, hostA, 3, 13, 576},
		{ICMP{From4: router4, From6: router6}, out6, router6, host6, 1, 1, 1280},
		{ICMP{From6: router6}, out4, nowhere4, hostA, 3, 13, 576},
	} {
		r := answering(t, tt.c)
		r.dropped(OutDiscard, func() { none(t, r.send(tt.in)) })
		got := r.tun.take()
		if len(got) != 1 || len(got[0]) != tt.length {
			t.Fatalf("expected one answer of %d bytes, saw %x", tt.length, got)
		}
		var h packet.Header
		var f packet.Flow
		if err := packet.Parse(got[0], &h, &f); err != nil {
			t.Fatal(err)
		}
		message := got[0][h.TransportOffset:]
		e, ok := packet.ParseICMPError(message, h.Version)
		if !ok || e.Type != tt.typ || e.Code != tt.code || !bytes.HasPrefix(tt.in, e.Quoted) || !packet.ICMPChecksumOK(message, &f) {
			t.Errorf("answer %+v, %v", e, ok)
		}
		if f.SrcAddr() != tt.from || f.DstAddr() != tt.to {
			t.Errorf("answer from %v to %v, want %v to %v", f.SrcAddr(), f.DstAddr(), tt.from, tt.to)
		}
		// It reads the packet, and leaves the walk's other packets alone.
		r.counts(map[DropReason]uint64{OutDiscard: 1}, func() {
			if sent := r.send(fromA("1"), tt.in, fromA("2")); len(sent) != 2 {
				t.Errorf("expected both neighbours, saw %d", len(sent))
			}
		})
	}
}

func TestRFC4443_2_4f_AnswersAreLimited(t *testing.T) {
	r := answering(t, ICMP{})
	out := inner{src: hostA, dst: router4, payload: "x"}.udp()
	burst := slices.Repeat([][]byte{out}, 3*answerBurst)
	for _, step := range []struct {
		after time.Duration
		want  int
	}{{0, answerBurst}, {0, 0}, {answerInterval - 1, 0}, {1, 1}, {5 * answerInterval, 5}, {time.Hour, answerBurst}, {time.Second, answerBurst}} {
		r.now += step.after
		r.counts(map[DropReason]uint64{OutDiscard: uint64(len(burst))}, func() { r.send(burst...) })
		r.delivers(step.want, r.tun.take())
	}
	// What gets no answer takes none from the others.
	r.now += time.Hour
	group := inner{src: hostA, dst: netip.MustParseAddr("239.1.1.1"), payload: "x"}.udp()
	r.send(slices.Repeat([][]byte{group, exceeded(router4, router4, out)}, 2*answerBurst)...)
	r.delivers(0, r.tun.take())
	r.send(burst...)
	r.delivers(answerBurst, r.tun.take())
}

// Other reasons than policy are not answered, and a TUN that refuses the answer
// costs nothing else. A superpacket gets one.
func TestAnswersAreForDiscardedPacketsOnly(t *testing.T) {
	r := answering(t, ICMP{})
	r.gw.Remove(r.outSA().ID())
	r.dropped(OutNoSA, func() { none(t, r.send(fromA("x"))) })
	r.dropped(OutMalformed, func() { none(t, r.send(fromA("x")[:20])) })
	r.delivers(0, r.tun.take())
	out := inner{src: hostA, dst: router4, payload: "x"}.udp()
	r.tun.fail = errors.New("full")
	r.dropped(OutDiscard, func() { none(t, r.send(out)) })
	r.tun.fail = nil
	w := r.gw.out[0]
	s := super{src: hostA, dst: router4, payload: 5000, size: 1000}
	w.bufs[0].Set(s.bytes())
	w.bufs[0].SegmentSize = s.size
	w.walk(1)
	if got := r.tun.take(); len(got) != 1 || len(got[0]) != 576 {
		t.Errorf("expected one answer to a superpacket, saw %d", len(got))
	}
}

func TestConfigICMPIsChecked(t *testing.T) {
	for want, c := range map[string]ICMP{
		"":                          {From4: router4, From6: router6},
		"From4":                     {From4: router6},
		"From6":                     {From6: router4},
		"From6 is ::ffff:10.99.0.1": {From6: netip.AddrFrom16(router4.As16())},
	} {
		dev, _ := tun.NewMemory("test0", 1500)
		gw, err := build(Config{TUN: dev, Wire: &captureWire{}, ICMP: c})
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v, want %q", c, err, want)
		}
		if err == nil && (gw.icmp != c || gw.out[0].answers != nil) {
			t.Errorf("%+v became %+v", c, gw.icmp)
		}
		_ = dev.Close()
	}
	dev, _ := tun.NewMemory("test0", 1500)
	gw, err := build(Config{TUN: dev, Wire: &captureWire{}, ICMP: ICMP{Unreachable: true}})
	if err != nil || gw.out[0].answers == nil {
		t.Errorf("%v; answers %v", err, gw)
	}
	_ = dev.Close()
}
