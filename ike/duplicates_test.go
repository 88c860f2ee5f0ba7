package ike

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/adit-ipsec/adit/ike/wire"
)

// scenario is a run of everything that two ends do: handshake with an additional
// key exchange, rekeys of both kinds, liveness, deletes.
func scenario(r *rig, a, b *end) {
	a.step(Initiate{Peer: "B"})
	r.run(10 * time.Second)
	a.step(Rekey{Peer: "B", Policy: "lan"})
	r.run(20 * time.Second)
	b.step(Rekey{Peer: "A"})
	r.run(30 * time.Second)
	b.step(Terminate{Peer: "A", Policy: "lan"})
	r.run(10 * time.Second)
	a.step(Initiate{Peer: "B", Policy: "lan"})
	r.run(10 * time.Second)
	a.step(Terminate{Peer: "B"})
	r.run(3 * time.Minute)
}

func scenarioPair(t testing.TB) (*rig, *end, *end) {
	return pair(t, func(pa, pb *Peer) {
		pa.Proposals = proposals(t, wire.ProtocolIKE, "aes128gcm16-prfsha256-x25519-ke1_ecp256")
		pb.Proposals = pa.Proposals
		pa.DPD = 7 * time.Second
	})
}

// TestScenario is what the others of this file disturb.
func TestScenario(t *testing.T) {
	r, a, b := scenarioPair(t)
	scenario(r, a, b)
	for _, e := range []*end{a, b} {
		if len(e.failures()) != 0 {
			t.Errorf("%s:\n%s", e.name, lines(e.log))
		}
		e.wantNothingLeft()
	}
	for _, s := range []Stage{StageInit, StageIntermediate, StageAuth, StageChild, StageRekeyChild, StageRekeyIKE, StageDelete} {
		if len(a.find(s, Done)) == 0 {
			t.Errorf("no %s; log:\n%s", s, lines(a.log))
		}
	}
}

// TestCK06_DuplicateOfEveryMessage sends each message of the scenario twice, at
// once and later: the answer to a duplicate is the very same, no duplicate makes a
// state, and the events are those of the undisturbed run.
func TestCK06_DuplicateOfEveryMessage(t *testing.T) {
	r, a, b := scenarioPair(t)
	scenario(r, a, b)
	quiet := len(r.sent)
	want := slices.Concat(a.log, b.log)
	for _, later := range []time.Duration{0, time.Millisecond, 3 * time.Second} {
		r, a, b := scenarioPair(t)
		seen := map[string][]byte{}
		r.fate = func(d *datagram) []time.Duration {
			h := d.header()
			if h.Response() {
				key := fmt.Sprint(d.by.name, h.Initiator, h.Exchange, h.MessageID, h.FromInitiator())
				if was := seen[key]; was != nil && string(was) != string(d.data) {
					t.Errorf("%s: two answers to one request", key)
				}
				seen[key] = d.data
			}
			return []time.Duration{r.latency, r.latency + later}
		}
		scenario(r, a, b)
		if got := slices.Concat(a.log, b.log); !slices.Equal(got, want) {
			t.Errorf("duplicates %s later: another course of events:\n%s", later, lines(got))
		}
		for _, e := range []*end{a, b} {
			e.wantNothingLeft()
		}
		if again := a.m.Stats()["duplicate_requests"] + b.m.Stats()["duplicate_requests"]; later < time.Second && again < uint64(quiet/3) {
			t.Errorf("duplicates %s later: only %d were answered again", later, again)
		}
	}
}

// TestCK06_EachDuplicateAlone repeats one message at a time, much later: nothing
// comes of it.
func TestCK06_EachDuplicateAlone(t *testing.T) {
	r, a, b := scenarioPair(t)
	scenario(r, a, b)
	total, want := len(r.sent), slices.Concat(a.log, b.log)
	for n := 1; n <= total; n++ {
		r, a, b := scenarioPair(t)
		r.fate = func(d *datagram) []time.Duration {
			if d.seq == n {
				return []time.Duration{r.latency, 2 * time.Second, 12 * time.Second, 25 * time.Second}
			}
			return []time.Duration{r.latency}
		}
		scenario(r, a, b)
		r.run(time.Minute)
		if got := slices.Concat(a.log, b.log); !slices.Equal(got, want) {
			t.Errorf("message %d again: another course of events:\n%s", n, lines(got))
		}
		a.wantNothingLeft()
		b.wantNothingLeft()
	}
}

// TestLossOfEachMessage loses each message of the scenario once: a retransmission
// makes up for it, and nothing else is different.
func TestLossOfEachMessage(t *testing.T) {
	r, a, b := scenarioPair(t)
	scenario(r, a, b)
	total, want := len(r.sent), slices.Concat(a.log, b.log)
	for n := 1; n <= total; n++ {
		r, a, b := scenarioPair(t)
		r.fate = func(d *datagram) []time.Duration {
			if d.seq == n {
				return nil
			}
			return []time.Duration{r.latency}
		}
		scenario(r, a, b)
		if got := slices.Concat(a.log, b.log); len(got) != len(want) || len(a.failures())+len(b.failures()) != 0 {
			t.Errorf("message %d lost: another course of events:\n%s", n, lines(got))
		}
		a.wantNothingLeft()
		b.wantNothingLeft()
	}
}

// TestStaleAndWrongMessages: what is of another exchange, another ID, in clear, or
// changed in any bit, is dropped, and counted.
func TestStaleAndWrongMessages(t *testing.T) {
	r, a, b := pair(t, nil)
	a.step(Initiate{Peer: "B"})
	r.run(time.Second)
	before := slices.Clone(b.log)
	var auth datagram
	for _, d := range r.sent {
		if d.by == a && d.header().Exchange == wire.IKEAuth {
			auth = d
		}
	}
	sent := len(r.sent)
	give := func(want string, data []byte) {
		t.Helper()
		was := b.m.Stats()[want]
		b.step(Packet{Local: auth.to, Remote: auth.from, NATT: auth.natt, Data: data})
		if b.m.Stats()[want] != was+1 {
			t.Errorf("want the drop %s; stats %v", want, b.m.Stats())
		}
	}
	changed := func(at int, to byte) []byte {
		data := slices.Clone(auth.data)
		data[at] = to
		return data
	}
	give("not_authentic", changed(len(auth.data)-1, auth.data[len(auth.data)-1]^1))
	give("request_outside_window", changed(23, 77))
	give("request_in_wrong_state", changed(23, 2)) // IKE_AUTH, again, on an established IKE SA
	give("no_ike_sa", changed(15, auth.data[15]^1))
	give("wrong_peer_spi", changed(7, auth.data[7]^1))
	give("wrong_direction", swapped(auth.data))
	give("malformed", auth.data[:len(auth.data)-1])
	give("malformed", nil)
	give("stale_response", changed(19, byte(wire.FlagInitiator|wire.FlagResponse)))
	h := auth.header()
	h.Exchange, h.MessageID = wire.Informational, 2
	give("unprotected", wire.Append(nil, h, &wire.Delete{Protocol: wire.ProtocolIKE}))
	if !slices.Equal(before, b.log) || len(r.sent) != sent {
		t.Errorf("something came of it:\n%s", lines(b.log))
	}
	r.wantUp(a, b, 1)
}

// swapped claims to be from the responder: the SPIs change places.
func swapped(data []byte) []byte {
	out := slices.Clone(data)
	copy(out, data[8:16])
	copy(out[8:], data[:8])
	out[19] &^= byte(wire.FlagInitiator)
	copy(out[:8], data[8:16])
	copy(out[8:16], data[:8])
	// Our SPI, at the place of the initiator's, from somebody who says to be the
	// responder.
	return out
}

// TestEveryBitOfEveryMessage flips each bit of the protected messages of a
// handshake on its way: nobody is authenticated by what was not sent.
func TestEveryBitOfEveryMessage(t *testing.T) {
	r, a, b := pair(t, nil)
	a.step(Initiate{Peer: "B"})
	r.run(time.Second)
	for n := 1; n <= len(r.sent); n++ {
		bits := len(r.sent[n-1].data) * 8
		for bit := 0; bit < bits; bit += 7 {
			r, a, b := pair(t, nil)
			r.nat = func(d *datagram) bool {
				if d.seq == n {
					d.data[bit/8] ^= 1 << (bit % 8)
				}
				return true
			}
			a.step(Initiate{Peer: "B"})
			r.run(300 * time.Millisecond)
			if n > 2 && len(b.establishedSAs())+len(a.establishedSAs()) > 1 {
				t.Fatalf("message %d, bit %d: both are established", n, bit)
			}
			if n <= 2 && len(b.establishedSAs()) > 0 {
				// The header's flags that nobody reads, the critical bits of known
				// payloads and reserved bytes are signed: AUTH covers them all.
				t.Fatalf("message %d, bit %d: B believes a changed IKE_SA_INIT", n, bit)
			}
		}
	}
	_, _ = a, b
}
