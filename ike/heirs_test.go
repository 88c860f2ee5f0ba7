package ike

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/adit-ipsec/adit/ike/wire"
)

// IKE SAs that take the place of others, where something goes wrong between.

// TestRFC7296_2_8_2_UnansweredRekeyYields: our own rekey of the IKE SA is never
// answered, nor the peer's delete of the old one heard: what the peer has made in its
// place has the Child SAs.
func TestRFC7296_2_8_2_UnansweredRekeyYields(t *testing.T) {
	r, a, b := up(t, nil)
	i, _ := b.establishedSAs()[0].spis()
	r.fate = func(d *datagram) []time.Duration {
		h := d.header()
		if h.Initiator == i && !h.Response() && (d.by == b || h.Exchange == wire.Informational) {
			return nil
		}
		return []time.Duration{r.latency}
	}
	b.step(Rekey{Peer: "A"})
	a.step(Rekey{Peer: "B"})
	r.run(settle)
	r.wantSettled(a, b, 1)
}

// TestRFC7296_2_8_2_HeirsThatGo: an IKE SA whose successor is gone may be replaced by
// another, and one whose predecessor is gone waits for nothing. If this end deletes the
// old one the peer's has the Child SAs.
func TestRFC7296_2_8_2_HeirsThatGo(t *testing.T) {
	for _, goes := range []string{"heir", "old", "deleted"} {
		r, a, b := up(t, nil)
		old := b.establishedSAs()[0]
		r.fate = func(d *datagram) []time.Duration {
			if d.by == b && !d.header().Response() {
				return nil
			}
			return []time.Duration{r.latency}
		}
		b.step(Rekey{Peer: "A"})
		a.step(Rekey{Peer: "B"})
		r.run(15 * time.Millisecond)
		heir := old.heir
		if heir == nil || !heir.untried {
			t.Fatal("no successor whose place is not settled")
		}
		switch goes {
		case "heir":
			b.m.close(heir, failure{Reason: "test"})
			if old.heir != nil || b.m.peers["A"].current() != old {
				t.Error("the old one still waits for a successor that is gone")
			}
			continue
		case "old":
			b.m.close(old, failure{Reason: "test"})
		default:
			b.m.deleteIKE(old, "test")
			if len(heir.children) != 1 || len(old.children) != 0 {
				t.Errorf("%d pairs on the new one, %d on the old one", len(heir.children), len(old.children))
			}
		}
		if b.m.peers["A"].current() != heir {
			t.Error("the new one still waits for a predecessor that is gone")
		}
	}
}

// TestRFC7296_2_8_2_AskedBeforeItIsSettled: the peer asks on its own new IKE SA before
// our answer is here by which ours stays: that one has the Child SAs.
func TestRFC7296_2_8_2_AskedBeforeItIsSettled(t *testing.T) {
	for salt := range 8 {
		r, a, b := saltedUp(t, fmt.Sprint("asked", salt), nil)
		old := b.establishedSAs()[0]
		r.fate = func(d *datagram) []time.Duration {
			switch h := d.header(); {
			case d.by == a && h.Response():
				return []time.Duration{100 * time.Millisecond}
			case d.by == a && h.Exchange == wire.Informational:
				return []time.Duration{200 * time.Millisecond}
			}
			return []time.Duration{r.latency}
		}
		a.step(Rekey{Peer: "B"})
		b.step(Rekey{Peer: "A"})
		r.run(50 * time.Millisecond)
		if old.heir == nil || !old.heir.untried {
			t.Fatal("no successor whose place is not settled")
		}
		b.m.inherit(old.heir)
		r.run(settle)
		r.wantSettled(a, b, 1)
	}
}

// TestRFC4555_3_5_MovesWithinARekey: an address that changes between the additional key
// exchanges of a new IKE SA is that of the new one as well.
func TestRFC4555_3_5_MovesWithinARekey(t *testing.T) {
	r, a, b := up(t, func(pa, pb *Peer) {
		moreKEs(pa, pb)
		mobile(pa, pb)
	})
	a.step(Rekey{Peer: "B"})
	r.run(25 * time.Millisecond)
	if _, is := a.establishedSAs()[0].ours.task.(*followTask); !is {
		t.Fatalf("%T is on its way", a.establishedSAs()[0].ours.task)
	}
	a.moves(addrA2)
	r.run(settle)
	r.wantSettled(a, b, 1)
	a.wantAt(netip.AddrPortFrom(addrA2, 4500), netip.AddrPortFrom(addrB, 4500))
	b.wantAt(netip.AddrPortFrom(addrB, 4500), netip.AddrPortFrom(addrA2, 4500))
}

// TestRFC7296_2_8_3_OneReauthenticationAtATime: a peer that answers no IKE_SA_INIT, and
// makes new IKE SAs of the one there is, does not have one begun for each.
func TestRFC7296_2_8_3_OneReauthenticationAtATime(t *testing.T) {
	r, a, b := up(t, func(pa, _ *Peer) { pa.Reauth = time.Minute })
	r.fate = func(d *datagram) []time.Duration {
		if d.header().Exchange == wire.IKESAInit {
			return nil
		}
		return []time.Duration{r.latency}
	}
	r.run(time.Minute)
	for range 20 {
		b.step(Rekey{Peer: "A"})
		r.run(100 * time.Millisecond)
	}
	begun := slices.DeleteFunc(slices.Clone(a.m.peers["B"].sas), func(sa *ikeSA) bool { return sa.state != starting })
	if len(begun) != 1 {
		t.Errorf("%d IKE SAs are begun", len(begun))
	}
	r.fate = nil
	r.run(10 * time.Minute)
	if n := len(a.establishedSAs()); n != 1 || a.m.Stats()["established"] < 3 {
		t.Errorf("%d IKE SAs, %d authenticated", n, a.m.Stats()["established"])
	}
	r.wantPairs(a, b, 1)
}

// noBytes is a source of random bytes that has none.
type noBytes struct{}

func (noBytes) Read([]byte) (int, error) { return 0, errors.New("none") }

// TestRFC9370_2_2_2_AKeyExchangeThatCannotBegin: what waits is refused, and the attempt
// is over.
func TestRFC9370_2_2_2_AKeyExchangeThatCannotBegin(t *testing.T) {
	r, a, b := pair(t, moreKEs)
	a.step(Acquire{Peer: "B", Policy: "lan"})
	a.m.rand = noBytes{}
	r.run(time.Second)
	a.wantFailure(StageIntermediate, "key_exchange")
	if len(a.refused) != 1 {
		t.Errorf("refused %v", a.refused)
	}
	r.run(2 * time.Minute)
	a.wantNothingLeft()
	b.wantNothingLeft()
}

// TestRFC7296_2_25_2_ADeleteWithinARekey: a Child SA that is closed between the additional
// key exchanges of a new IKE SA is closed at both ends: "If a peer receives a request to
// rekey the IKE SA, and it is currently, creating, rekeying, or closing a Child SA of that
// IKE SA, it SHOULD reply with TEMPORARY_FAILURE", and the last of them is such a request.
func TestRFC7296_2_25_2_ADeleteWithinARekey(t *testing.T) {
	r, a, b := up(t, moreKEs)
	a.step(Rekey{Peer: "B"})
	r.run(15 * time.Millisecond)
	r.fate = func(d *datagram) []time.Duration {
		if h := d.header(); d.by == b && h.Exchange == wire.Informational && !h.Response() {
			return []time.Duration{300 * time.Millisecond}
		}
		return []time.Duration{r.latency}
	}
	del(b)
	r.run(settle)
	r.wantSettled(a, b, 0)
	if len(a.find(StageRekeyIKE, Done)) != 1 {
		t.Errorf("the IKE SA was not replaced; log:\n%s", lines(a.log))
	}
}
