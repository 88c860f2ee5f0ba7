package dataplane

import (
	"testing"
	"time"

	"github.com/adit-ipsec/adit/internal/packet"
	"github.com/adit-ipsec/adit/sad"
)

// RFC 7296 2.4: "Receipt of a fresh cryptographically protected message" says that a
// peer is there: what is authentic and no replay, dummies too. What goes out does not.
func TestRFC7296_2_4_HeardIsWhatCameAndIsFresh(t *testing.T) {
	r := newRig(t, options{})
	in, out := r.inSA().ID(), r.outSA().ID()
	want := func(what string, ago time.Duration) {
		t.Helper()
		got, ok := r.gw.Heard(out, sad.ID{Direction: sad.Inbound, SPI: 7, Peer: "b"}, in)
		if ok != (ago >= 0) || ok && got != ago {
			t.Errorf("%s: heard %s ago (%t), want %s", what, got, ok, ago)
		}
	}
	want("nothing came", -1)
	r.now = time.Second
	if len(r.send(fromA("x"))) != 1 {
		t.Fatal("nothing was sent")
	}
	want("only sent", -1)
	r.now = 5 * time.Second
	r.delivers(1, r.arrive(r.good(1)))
	r.now = 8 * time.Second
	want("one came", 3*time.Second)
	forged := r.good(2)
	forged[len(forged)-1] ^= 1
	r.dropped(InReplay, func() { r.arrive(r.good(1)) })
	r.dropped(InAuth, func() { r.arrive(forged) })
	want("a replay and a forgery came", 3*time.Second)
	r.now = 9 * time.Second
	r.arrive(r.sealed(3, packet.ProtoNone, make([]byte, 40)))
	want("a dummy came", 0)
}
