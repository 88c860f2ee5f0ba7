package tun

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/adit-ipsec/adit/internal/packet"
)

// TestOutlineIsWhatParseSays: the short way of reading headers and packet.Parse
// agree on packets with random faults in their first bytes.
func TestOutlineIsWhatParseSays(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	short, mergeable := 0, 0
	for n := range 100_000 {
		s := shape{v6: r.IntN(2) == 0, udp: r.IntN(2) == 0, flags: flagACK, options: r.IntN(3) * 4, payload: r.IntN(30)}
		if r.IntN(8) == 0 {
			s.ipOptions = 8
		}
		p := s.make()
		if r.IntN(4) == 0 {
			p = p[:r.IntN(len(p)+1)]
		} else if r.IntN(4) == 0 {
			p = append(p, make([]byte, r.IntN(9))...)
		}
		for range r.IntN(3) {
			if len(p) > 0 {
				p[r.IntN(min(len(p), 64))] ^= 1 << r.IntN(8)
			}
		}
		var o, want outline
		var h packet.Header
		var f packet.Flow
		ok, wantOK, err := o.read(p), want.parse(p), packet.Parse(p, &h, &f)
		what := fmt.Sprintf("packet %d: %x", n, p)
		switch {
		case ok != wantOK || ok != (err == nil):
			t.Fatalf("%s: read %v, parse %v, packet.Parse: %v", what, ok, wantOK, err)
		case !ok:
			continue
		case o.total != want.total || o.total != h.TotalLen || o.flow != want.flow:
			t.Fatalf("%s: read %+v, parse %+v, packet.Parse %+v %+v", what, o, want, h, f)
		case o.transport > 0:
			short++
		}
		if !o.mergeable {
			continue
		}
		mergeable++
		if h.Fragment || o.transport != plainHeaderLen(&h) || o.transport != h.TransportOffset || o.payload != h.PayloadOffset ||
			h.PayloadOffset >= h.TotalLen || o.flow.protocol() != f.Protocol {
			t.Fatalf("%s: read %+v as mergeable, packet.Parse %+v %+v", what, o, h, f)
		}
	}
	if short < 25_000 || mergeable < 25_000 {
		t.Errorf("%d packets took the short way, %d may be merged: too few to tell", short, mergeable)
	}
}
