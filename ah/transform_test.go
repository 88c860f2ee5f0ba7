package ah

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/adit-ipsec/adit/internal/packet"
)

// Every suite, header, payload length and mode of handing over the payload: the
// packet is as asked for, and verifies to what went in.
func TestSignVerifyRoundTrip(t *testing.T) {
	forEverySuite(t, func(t *testing.T, tr *Transform) {
		for name, header := range headers {
			for _, n := range []int{0, 1, 3, 64, 1400} {
				payload := randomBytes(uint64(n), n)
				wire := signed(t, tr, header, payload)
				version := int(header[0] >> 4)
				if len(wire) != len(header)+tr.suite.HeaderLen(version)+n {
					t.Fatalf("%s, %d bytes: packet of %d bytes", name, n, len(wire))
				}
				if !bytes.Equal(wire[len(wire)-n:], payload) {
					t.Fatalf("%s, %d bytes: the payload was changed", name, n)
				}
				p := verified(tr, NewScratch(), append(bytes.Clone(wire), "trailing"...))
				if p.Err != nil || !bytes.Equal(p.Payload, payload) || p.NextHeader != packet.ProtoUDP {
					t.Fatalf("%s, %d bytes: saw %v, %d bytes, next header %d", name, n, p.Err, len(p.Payload), p.NextHeader)
				}
				spi, low, ok := ParseHeader(wire)
				if spi != testSPI || low != 7 || !ok {
					t.Fatalf("%s: header %#x, %d, %t", name, spi, low, ok)
				}
				apart := unsigned(tr.suite, testSeq(tr), header, make([]byte, n))
				apart.Payload = payload
				batch := []Packet{apart}
				tr.Sign(NewScratch(), testSPI, batch)
				if batch[0].Err != nil || !bytes.Equal(batch[0].Wire, wire) {
					t.Fatalf("%s, payload of %d bytes apart: %v, saw\n%x, expected\n%x", name, n, batch[0].Err, batch[0].Wire, wire)
				}
			}
		}
	})
}

// The largest packets of both families fit a Scratch.
func TestSignTakesTheLargestPacket(t *testing.T) {
	forEverySuite(t, func(t *testing.T, tr *Transform) {
		for version, most := range map[int]int{4: 65535, 6: 65535 + ipv6Len} {
			header := map[int][]byte{4: headerIPv4(), 6: headerIPv6()}[version]
			wire := signed(t, tr, header, make([]byte, most-len(header)-tr.suite.HeaderLen(version)))
			mustVerify(t, tr, wire, fmt.Sprintf("IPv%d, %d bytes", version, len(wire)))
		}
	})
}

// One byte of the packet at a time, each bit: what is immutable is refused,
// what is mutable accepted.
func TestEveryBitFlip(t *testing.T) {
	mutable := map[string][]int{
		"IPv4":            {1, 8, 10, 11},
		"IPv4 options":    {1, 8, 10, 11, 25, 27, 28, 29, 30, 31},
		"IPv6":            {1, 2, 3, 7},
		"IPv6 extensions": {1, 2, 3, 7, 52, 53, 54, 55},
	}
	forEverySuite(t, func(t *testing.T, tr *Transform) {
		sc := NewScratch()
		for name, header := range headers {
			wire := signed(t, tr, header, []byte("immutable"))
			for at := range wire {
				for bit := range 8 {
					changed := bytes.Clone(wire)
					changed[at] ^= 1 << bit
					p := verified(tr, sc, changed)
					want := slices.Contains(mutable[name], at) ||
						name[:4] == "IPv4" && at == 6 && bit >= 6 || // the flags that are no fragment
						name[:4] == "IPv6" && at == 0 && bit < 4 // traffic class, upper half
					if want != (p.Err == nil) {
						t.Errorf("%s: bit %d of byte %d: expected accepted %t, saw %v", name, bit, at, want, p.Err)
					}
					if p.Err != nil && p.Payload != nil {
						t.Errorf("%s: bit %d of byte %d: a payload of a refused packet", name, bit, at)
					}
				}
			}
		}
	})
}

// Cut short anywhere, a packet is refused before any cryptography; nothing is
// read outside of it.
func TestVerifyRefusesEveryPrefix(t *testing.T) {
	tr := testTransform(t, "sha256", true)
	for name, header := range headers {
		wire := signed(t, tr, header, []byte("payload"))
		for n := range wire {
			mustRefuse(t, tr, slices.Clip(wire[:n]), ErrMalformed, fmt.Sprintf("%s, %d bytes", name, n))
			cut := bytes.Clone(wire[:n])
			if n >= ipv6Len {
				setLength(cut, n) // the header tells of nothing
				if p := verified(tr, NewScratch(), cut); p.Err == nil {
					t.Errorf("%s, %d bytes with their length: accepted", name, n)
				}
				_, _, _ = ParseHeader(cut)
			}
		}
	}
}

// Sign reports the caller's mistakes and leaves no packet.
func TestSignRefusals(t *testing.T) {
	tr := testTransform(t, "sha256", false)
	good := func() Packet { return unsigned(tr.suite, 7, headerIPv4(), []byte("payload")) }
	for _, c := range []struct {
		name   string
		change func(p *Packet)
		want   error
	}{
		{"number 0", func(p *Packet) { p.Seq = 0 }, ErrSequence},
		{"number above 2^32-1 without ESN", func(p *Packet) { p.Seq = 1 << 32 }, ErrSequence},
		{"Wire one byte short", func(p *Packet) { p.Wire = p.Wire[:len(p.Wire)-1] }, ErrRoom},
		{"payload one byte off its place", func(p *Packet) { p.Payload = p.Wire[len(p.Wire)-8 : len(p.Wire)-1] }, ErrRoom},
		{"length of another packet", func(p *Packet) { setLength(p.Wire, len(p.Wire)-1) }, ErrMalformed},
		{"protocol not 51", func(p *Packet) { p.Wire[9] = packet.ProtoUDP }, ErrMalformed},
		{"version 5", func(p *Packet) { p.Wire[0] = 0x55 }, ErrMalformed},
		{"no header", func(p *Packet) { p.Wire = p.Wire[:8] }, ErrMalformed},
		{"header of 16 bytes", func(p *Packet) { p.Wire[0] = 0x44 }, ErrMalformed},
	} {
		batch := []Packet{good(), good()}
		c.change(&batch[0])
		tr.Sign(NewScratch(), testSPI, batch)
		if !errors.Is(batch[0].Err, c.want) || len(batch[0].Wire) != 0 {
			t.Errorf("%s: expected %v and no packet, saw %v and %d bytes", c.name, c.want, batch[0].Err, len(batch[0].Wire))
		}
		if batch[1].Err != nil {
			t.Errorf("%s: the next packet of the batch: %v", c.name, batch[1].Err)
		}
	}
}

// Verify leaves the wire as it is, skips what has an error, and refuses a
// number that is not the packet's.
func TestVerifyKeepsToItsContract(t *testing.T) {
	forEverySuite(t, func(t *testing.T, tr *Transform) {
		wire := signed(t, tr, headers["IPv6 extensions"], []byte("payload"))
		before := bytes.Clone(wire)
		other := testSeq(tr) ^ 1<<32
		batch := []Packet{{Seq: testSeq(tr), Wire: wire}, {Seq: testSeq(tr), Wire: wire, Err: ErrFragment},
			{Seq: testSeq(tr) + 1, Wire: wire}, {Seq: other, Wire: wire}}
		tr.Verify(NewScratch(), batch)
		for i, want := range []error{nil, ErrFragment, ErrAuth, ErrAuth} {
			if !errors.Is(batch[i].Err, want) {
				t.Errorf("packet %d: expected %v, saw %v", i, want, batch[i].Err)
			}
		}
		if !bytes.Equal(wire, before) {
			t.Error("Verify changed the packet")
		}
	})
}

// Another key does not verify; keys and packets are never printed.
func TestKeys(t *testing.T) {
	for _, s := range Suites() {
		wire := signed(t, testTransform(t, s.String(), false), headerIPv4(), nil)
		key := testKey(s)
		key[len(key)-1] ^= 1
		tr, err := New(s, key, false)
		if err != nil {
			t.Fatal(err)
		}
		mustRefuse(t, tr, wire, ErrAuth, s.String()+" with another key")
		if _, err := New(s, key[1:], false); err == nil {
			t.Errorf("%s takes a key one byte short", s)
		}
		if got := fmt.Sprintf("%v %+v %#v", tr, tr, NewScratch()); strings.Contains(got, "{") {
			t.Errorf("%s prints its inside: %.80s", s, got)
		}
	}
}

// The bytes under the ICV, written out by hand for one packet, give the ICV.
func TestICVOfAPacketWrittenOut(t *testing.T) {
	tr := testTransform(t, "sha256", true)
	wire := signed(t, tr, headerIPv4(), []byte("payload"))
	covered := slices.Concat(
		[]byte{0x45, 0, 0, 20 + 28 + 7, 0x12, 0x34, 0, 0, 0, 51, 0, 0, 192, 0, 2, 1, 192, 0, 2, 2},
		[]byte{17, 5, 0, 0, 0, 0, 0x10, 0x01, 0, 0, 0, 7}, make([]byte, 16),
		[]byte("payload"), []byte{0, 0, 0, 3})
	h := hmac.New(sha256.New, testKey(tr.suite))
	h.Write(covered)
	if want, got := h.Sum(nil)[:16], wire[32:48]; !bytes.Equal(got, want) {
		t.Errorf("expected %x, saw %x", want, got)
	}
	if binary.BigEndian.Uint32(wire[20:]) != 17<<24|5<<16 {
		t.Errorf("AH starts with %x", wire[20:24])
	}
}

// The same for GMAC behind IPv6, by crypto/cipher: IV and padding are under the
// ICV, the nonce is salt and IV.
func TestGMACOfAPacketWrittenOut(t *testing.T) {
	tr := testTransform(t, "aes192gmac", true)
	wire := signed(t, tr, headerIPv6(), []byte("payload"))
	iv := []byte{0, 0, 0, 3, 0, 0, 0, 7}
	covered := slices.Concat(
		[]byte{0x60, 0, 0, 0, 0, 40 + 7, 51, 0}, randomBytes(1, 32),
		[]byte{17, 8, 0, 0, 0, 0, 0x10, 0x01, 0, 0, 0, 7}, iv, make([]byte, 16+4),
		[]byte("payload"), []byte{0, 0, 0, 3})
	key := testKey(tr.suite)
	block, err := aes.NewCipher(key[:24])
	if err != nil {
		t.Fatal(err)
	}
	gcm, err := cipher.NewGCM(block)
	if err != nil {
		t.Fatal(err)
	}
	want := append(iv, gcm.Seal(nil, slices.Concat(key[24:], iv), nil, covered)...)
	if got := wire[52 : 52+24]; !bytes.Equal(got, want) {
		t.Errorf("expected %x, saw %x", want, got)
	}
}
