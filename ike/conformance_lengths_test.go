package ike

import (
	"encoding/binary"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/adit-ipsec/adit/ike/wire"
)

// lengthBytes are the places of all bytes of lengths, sizes and counts in payloads
// that begin with one of type first at b[at].
func lengthBytes(first wire.PayloadType, b []byte, at int) (places []int) {
	eachPayload(first, b, at, func(t wire.PayloadType, at, length int) {
		places = append(places, at+2, at+3)
		switch t {
		case wire.PayloadN:
			places = append(places, at+5)
		case wire.PayloadD:
			places = append(places, at+5, at+6, at+7)
		case wire.PayloadTSi, wire.PayloadTSr:
			places = append(places, at+4)
			for s := at + 8; s < at+length; s += int(binary.BigEndian.Uint16(b[s+2:])) {
				places = append(places, s+2, s+3)
			}
		case wire.PayloadSA:
			for p := at + 4; p < at+length; p += int(binary.BigEndian.Uint16(b[p+2:])) {
				places = append(places, p+2, p+3, p+6, p+7)
				for x := p + 8 + int(b[p+6]); x < p+int(binary.BigEndian.Uint16(b[p+2:])); x += int(binary.BigEndian.Uint16(b[x+2:])) {
					places = append(places, x+2, x+3)
				}
			}
		}
	})
	return places
}

// TestCK04_LengthsInsideSK sets every byte of every length, size and count inside SK to
// each of the 254 values that are neither its own nor 255 (which TestCK04 of package
// wire has besides), in IKE_AUTH, CREATE_CHILD_SA and INFORMATIONAL, from an initiator
// that has the keys and from a responder that has. No such message does more than what
// it would have done whole: nothing panics, the SAs are none or one, and the honest end
// is free of everything at the end.
func TestCK04_LengthsInsideSK(t *testing.T) {
	for _, x := range []wire.ExchangeType{wire.IKEAuth, wire.CreateChildSA, wire.Informational} {
		for _, response := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s response %t", x, response), func(t *testing.T) {
				places := placesOf(t, x, response)
				if response && x == wire.Informational {
					return // its answer to a delete of the IKE SA is empty
				}
				if len(places) == 0 {
					t.Fatal("no lengths in it")
				}
				stride := 1
				if testing.Short() {
					stride = 15
				}
				for _, at := range places {
					for value := 0; value < 254; value += stride {
						wrongLength(t, x, response, at, byte(value+1))
					}
					if t.Failed() {
						t.Fatalf("byte %d", at)
					}
				}
			})
		}
	}
}

// lengthRun is an exchange of each kind, with A's or B's messages changed.
func lengthRun(t *testing.T, response bool, rule func(*letter) bool) (r *rig, honest *end) {
	r, a, b := pair(t, nil)
	bad, honest := a, b
	if response {
		bad, honest = b, a
	}
	r.impair(bad, rule)
	a.step(Initiate{Peer: "B"})
	r.run(100 * time.Millisecond)
	a.step(Rekey{Peer: "B", Policy: "lan"})
	r.run(100 * time.Millisecond)
	a.step(Terminate{Peer: "B", Policy: "lan"})
	r.run(100 * time.Millisecond)
	return r, honest
}

func placesOf(t *testing.T, x wire.ExchangeType, response bool) (places []int) {
	lengthRun(t, response, on(x, response, func(l *letter) bool {
		if places == nil && len(l.Payloads) > 0 {
			first, inner := wire.AppendPayloads(nil, l.Payloads...)
			places = lengthBytes(first, inner, 0)
		}
		return false
	}))
	slices.Sort(places)
	return slices.Compact(places)
}

func wrongLength(t *testing.T, x wire.ExchangeType, response bool, at int, value byte) {
	done := false
	r, honest := lengthRun(t, response, on(x, response, func(l *letter) bool {
		if done || len(l.Payloads) == 0 {
			return false
		}
		done = true
		l.inner = func(b []byte) []byte {
			if b[at] == value {
				value--
			}
			b[at] = value
			return b
		}
		return true
	}))
	if n := len(honest.establishedSAs()); n > 1 {
		t.Errorf("value %d: %d IKE SAs", value, n)
	}
	r.fate = func(*datagram) []time.Duration { return nil }
	honest.step(Terminate{})
	r.run(3 * time.Minute)
	honest.wantNothingLeft()
}
