package ah

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/adit-ipsec/adit/internal/packet"
)

const testSPI = 0x1001

// forEverySuite runs f for every suite, with and without ESN.
func forEverySuite(t *testing.T, f func(t *testing.T, tr *Transform)) {
	t.Helper()
	if n := len(Suites()); n != 7 {
		t.Fatalf("expected 7 suites, saw %d", n)
	}
	for _, s := range Suites() {
		for _, esn := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/esn=%t", s, esn), func(t *testing.T) {
				f(t, testTransform(t, s.String(), esn))
			})
		}
	}
}

// testTransform has a key that follows from the suite.
func testTransform(t testing.TB, suite string, esn bool) *Transform {
	t.Helper()
	s, err := ParseSuite(suite)
	if err != nil {
		t.Fatal(err)
	}
	tr, err := New(s, testKey(s), esn)
	if err != nil {
		t.Fatal(err)
	}
	return tr
}

func testKey(s Suite) []byte { return randomBytes(uint64(s), s.KeyLen()) }

// randomBytes are the same for the same seed.
func randomBytes(seed uint64, n int) []byte {
	r := rand.New(rand.NewPCG(seed, 42))
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

// testSeq is a number whose high half is not zero where there is ESN.
func testSeq(tr *Transform) uint64 {
	if tr.esn {
		return 3<<32 | 7
	}
	return 7
}

// headerIPv4 is a header with these options, to be sent in front of AH.
func headerIPv4(options ...byte) []byte {
	h := make([]byte, ipv4Len, ipv4Len+len(options))
	h = append(h, options...)
	h[0] = 0x40 | byte(len(h)/4)
	h[1], h[6], h[8], h[9] = 0xb9, 0x40, 61, packet.ProtoAH
	binary.BigEndian.PutUint16(h[4:], 0x1234)
	copy(h[12:], []byte{192, 0, 2, 1, 192, 0, 2, 2})
	return h
}

// extension is an IPv6 extension header: its own type, then its bytes, whose
// next header headerIPv6 fills in.
type extension struct {
	kind uint8
	body []byte
}

// headerIPv6 is a header with these extension headers, to be sent in front of
// AH.
func headerIPv6(extensions ...extension) []byte {
	h := make([]byte, ipv6Len)
	binary.BigEndian.PutUint32(h, 0x6b9abcde)
	h[7] = 61
	copy(h[8:], randomBytes(1, 32))
	next := 6
	for _, e := range extensions {
		h[next], next = e.kind, len(h)
		h = append(h, e.body...)
	}
	h[next] = packet.ProtoAH
	return h
}

// setLength makes the header's length that of a packet of n bytes.
func setLength(header []byte, n int) {
	if header[0]>>4 == 4 {
		binary.BigEndian.PutUint16(header[2:], uint16(n))
	} else {
		binary.BigEndian.PutUint16(header[4:], uint16(n-ipv6Len))
	}
}

// unsigned is a packet to sign: this header, room for AH, the payload in place.
func unsigned(s Suite, seq uint64, header, payload []byte) Packet {
	start := len(header) + s.HeaderLen(int(header[0]>>4))
	wire := slices.Concat(header, bytes.Repeat([]byte{0xa5}, start-len(header)), payload)
	setLength(wire, len(wire))
	return Packet{Seq: seq, NextHeader: packet.ProtoUDP, Payload: wire[start:], Wire: wire}
}

// signed is that packet with its AH.
func signed(t testing.TB, tr *Transform, header, payload []byte) []byte {
	t.Helper()
	batch := []Packet{unsigned(tr.suite, testSeq(tr), header, payload)}
	tr.Sign(NewScratch(), testSPI, batch)
	if batch[0].Err != nil {
		t.Fatalf("sign: %v", batch[0].Err)
	}
	return batch[0].Wire
}

// signError is what Sign makes of a header.
func signError(tr *Transform, header []byte) error {
	batch := []Packet{unsigned(tr.suite, testSeq(tr), header, []byte("payload"))}
	tr.Sign(NewScratch(), testSPI, batch)
	return batch[0].Err
}

// verified is what Verify makes of a copy of wire.
func verified(tr *Transform, sc *Scratch, wire []byte) Packet {
	batch := []Packet{{Seq: testSeq(tr), Wire: bytes.Clone(wire)}}
	tr.Verify(sc, batch)
	return batch[0]
}

// mustVerify fails the test unless wire is accepted.
func mustVerify(t testing.TB, tr *Transform, wire []byte, what string) {
	t.Helper()
	if p := verified(tr, NewScratch(), wire); p.Err != nil {
		t.Errorf("%s: expected it accepted, saw %v", what, p.Err)
	}
}

// mustRefuse fails the test unless wire ends in want and gives nothing away.
func mustRefuse(t testing.TB, tr *Transform, wire []byte, want error, what string) {
	t.Helper()
	p := verified(tr, NewScratch(), wire)
	if !errors.Is(p.Err, want) || p.Payload != nil || p.NextHeader != 0 {
		t.Errorf("%s: expected %v, saw %v, payload of %d bytes, next header %d", what, want, p.Err, len(p.Payload), p.NextHeader)
	}
}

// headers are one header of each kind that tests go through.
var headers = map[string][]byte{
	"IPv4":         headerIPv4(),
	"IPv4 options": headerIPv4(optNOP, 148, 4, 0, 0, 7, 7, 8, 192, 0, 2, 9, 130, 3, 1, optEnd),
	"IPv6":         headerIPv6(),
	"IPv6 extensions": headerIPv6(
		extension{packet.ProtoHopByHop, []byte{0, 0, 0x05, 2, 0, 0, 0, 0}},
		extension{packet.ProtoDestination, []byte{0, 1, 0x3e, 4, 1, 2, 3, 4, 0x1e, 4, 5, 6, 7, 8, 1, 0}},
		extension{packet.ProtoRouting, slices.Concat([]byte{0, 4, 0, 2, 0, 0, 0, 0}, randomBytes(2, 32))}),
}
