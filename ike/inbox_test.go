package ike

import (
	"bytes"
	"testing"

	"github.com/adit-ipsec/adit/ike/wire"
)

// TestEstablishedPeersComeFirst: messages of exchanges under way overtake first ones,
// in their own order; and still one first message in seventeen has its turn.
func TestEstablishedPeersComeFirst(t *testing.T) {
	b := NewInbox()
	for i := range 3 {
		b.Put(hereIKE, thereIKE, false, ikeBytes(0, byte(100+i)))
	}
	for i := range 20 {
		b.Put(hereIKE, thereIKE, true, ikeBytes(1, byte(i)))
	}
	var got []byte
	for p := (Packet{}); b.next(&p); {
		got = append(got, p.Data[ikeHeaderLen])
		if p.NATT != (p.Data[ikeHeaderLen] < 100) || p.Local != hereIKE || p.Remote != thereIKE {
			t.Errorf("%+v", p)
		}
	}
	want := []byte{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 100, 16, 17, 18, 19, 101, 102}
	if !bytes.Equal(got, want) {
		t.Errorf("order %v, want %v", got, want)
	}
}

// TestInboxIsBounded: a flood of first messages fills its own queue, in messages and
// in bytes, and what is longer than any first message is not kept; messages of
// exchanges under way still find room.
func TestInboxIsBounded(t *testing.T) {
	b := NewInbox()
	taken := 0
	for range 2 * firstMessages {
		if b.Put(hereIKE, thereIKE, false, ikeBytes(0, 1)) {
			taken++
		}
	}
	if taken != firstMessages {
		t.Errorf("%d first messages are kept, want %d", taken, firstMessages)
	}
	if !b.Put(hereIKE, thereIKE, false, ikeBytes(1, 1)) {
		t.Error("no room for an established peer behind a flood")
	}
	for p := (Packet{}); b.next(&p); {
	}
	long := make([]byte, firstLength)
	for taken = 0; b.Put(hereIKE, thereIKE, false, long); taken++ {
	}
	if taken != firstBytes/firstLength {
		t.Errorf("%d long first messages are kept, want %d", taken, firstBytes/firstLength)
	}
	if long = ikeBytes(1, 0); !b.Put(hereIKE, thereIKE, false, append(long, make([]byte, 65535-len(long))...)) {
		t.Error("no room for the longest message of an established peer")
	}
	for p := (Packet{}); b.next(&p); {
	}
	if b.Put(hereIKE, thereIKE, false, make([]byte, firstLength+1)) {
		t.Error("a first message longer than any is kept")
	}
	if b.Put(hereIKE, thereIKE, false, make([]byte, ikeHeaderLen-1)) {
		t.Error("less than a header is kept")
	}
	for range 2 * knownMessages {
		b.Put(hereIKE, thereIKE, false, ikeBytes(1, 1))
	}
	for taken = 0; b.next(&Packet{}); taken++ {
	}
	if taken != knownMessages {
		t.Errorf("%d messages were kept, want %d", taken, knownMessages)
	}
}

// What was put is copied, a buffer comes back only when it is done with, and long
// ones are not kept.
func TestInboxCopiesAndReuses(t *testing.T) {
	b := NewInbox()
	message := ikeBytes(1, 42)
	b.Put(hereIKE, thereIKE, false, message)
	clear(message)
	var p Packet
	if !b.next(&p) || p.Data[ikeHeaderLen] != 42 {
		t.Fatalf("%+v", p)
	}
	for range 3 * knownMessages {
		b.Put(hereIKE, thereIKE, false, ikeBytes(1, 1))
		if p.Data[ikeHeaderLen] == 0 {
			t.Fatal("a message in hand was overwritten")
		}
		b.next(&p)
	}
	message = ikeBytes(1, 1)
	if n := testing.AllocsPerRun(100, func() { b.Put(hereIKE, thereIKE, false, message); b.next(&p) }); n != 0 {
		t.Errorf("%v allocations a message", n)
	}
	b.Put(hereIKE, thereIKE, false, make([]byte, 20000))
	for range 2 * knownMessages {
		b.next(&p)
		b.Put(hereIKE, thereIKE, false, ikeBytes(1, 1))
	}
	kept := 0
	for i := range b.known.slots {
		kept = max(kept, cap(b.known.slots[i].Data))
	}
	if kept > slotReused {
		t.Errorf("a buffer of %d bytes is kept", kept)
	}
}

// TestAnswersDoNotQueueBehindAFlood: RFC 7296 2.6: a COOKIE comes without a responder
// SPI. It answers what this end has asked, and must not wait, or be lost, among those
// who begin something.
func TestAnswersDoNotQueueBehindAFlood(t *testing.T) {
	b := NewInbox()
	for b.Put(hereIKE, thereIKE, false, ikeBytes(0, 1)) {
	}
	answer := ikeBytes(0, 2)
	answer[19] = byte(wire.FlagResponse)
	if !b.Put(hereIKE, thereIKE, false, answer) {
		t.Fatal("no room for an answer behind a flood of requests")
	}
	if p := (Packet{}); !b.next(&p) || p.Data[ikeHeaderLen] != 2 {
		t.Errorf("the answer is not the first: %v", p.Data)
	}
}
