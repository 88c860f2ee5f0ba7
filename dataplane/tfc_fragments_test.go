package dataplane

import (
	"testing"

	"github.com/adit-ipsec/adit/internal/packet"
	"github.com/adit-ipsec/adit/sad"
)

// RFC 4303 2.7: with padding to the MTU, fragments are as long as everything else,
// and each is what it was behind the padding.
func TestRFC4303_2_7_FragmentsArePadded(t *testing.T) {
	r := newRig(t, options{tfc: sad.TFCMTU})
	r.narrow(1400)
	want := 0
	for _, length := range []int{100, 1500, 3000} {
		for _, s := range r.send(udpOf(false, false, length)) {
			if want == 0 {
				want = s.Len
			}
			if s.Len != want {
				t.Errorf("of a packet of %d bytes: expected %d on the wire, saw %d", length, want, s.Len)
			}
		}
	}
}

// The peer takes the padding off each fragment.
func TestRFC4303_2_7_PaddedFragmentsArrive(t *testing.T) {
	r := newRig(t, options{tfc: 700})
	r.narrow(1400)
	got := r.send(udpOf(false, false, 1500))
	total := 0
	for i, s := range got {
		j, err := r.opened(s, uint64(i)+1)
		if err != nil {
			t.Fatal(err)
		}
		var h packet.Header
		var f packet.Flow
		if err := packet.Parse(j.Payload, &h, &f); err != nil || len(j.Payload) < 700 {
			t.Fatalf("fragment %d: %d bytes, %v", i, len(j.Payload), err)
		}
		for _, b := range j.Payload[h.TotalLen:] {
			if b != 0 {
				t.Fatalf("fragment %d: the padding has something in it", i)
			}
		}
		total += h.TotalLen - h.TransportOffset
	}
	if len(got) != 2 || total != 1480 {
		t.Errorf("expected 1480 bytes in 2 fragments, saw %d in %d", total, len(got))
	}
}
