package ah

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/adit-ipsec/adit/internal/packet"
)

// One test for each sentence of RFC 4302 that the package answers for.

// changed returns a copy of wire with these bytes from at on.
func changed(wire []byte, at int, with ...byte) []byte {
	c := bytes.Clone(wire)
	copy(c[at:], with)
	return c
}

func TestRFC4302_MutableFieldsStayOnTheWire(t *testing.T) {
	forEverySuite(t, func(t *testing.T, tr *Transform) {
		for name, header := range headers {
			wire := signed(t, tr, header, []byte("payload"))
			want := bytes.Clone(header)
			setLength(want, len(wire))
			if !bytes.Equal(wire[:len(header)], want) {
				t.Errorf("%s: expected header %x, saw %x", name, want, wire[:len(header)])
			}
		}
	})
}

func TestRFC4302_IPv4MutableFields(t *testing.T) {
	tr := testTransform(t, "sha256", true)
	wire := signed(t, tr, headerIPv4(), []byte("payload"))
	wire = changed(wire, 1, 0xff)        // DSCP and ECN
	wire = changed(wire, 6, 0x80, 0)     // flags
	wire = changed(wire, 8, 1)           // time to live
	wire = changed(wire, 10, 0xde, 0xad) // checksum
	mustVerify(t, tr, wire, "all mutable fields changed")
}

func TestRFC4302_IPv4OptionsImmutableAndMutable(t *testing.T) {
	immutable := []uint8{130, 133, 134, 148, 149}
	tr := testTransform(t, "sha256", true)
	for kind := 2; kind < 256; kind++ {
		if kind == optLSRR || kind == optSSRR {
			continue // they have a test of their own
		}
		header := headerIPv4(byte(kind), 4, 1, 2, optNOP, optNOP, optEnd, 0)
		other := signed(t, tr, header, nil)
		mustVerify(t, tr, other, fmt.Sprintf("option %d", kind))
		other = changed(other, ipv4Len+2, 3, 4)
		if slices.Contains(immutable, uint8(kind)) {
			mustRefuse(t, tr, other, ErrAuth, fmt.Sprintf("option %d changed", kind))
		} else {
			mustVerify(t, tr, other, fmt.Sprintf("option %d changed", kind))
		}
	}
}

func TestRFC4302_MutableOptionsKeepTheirLength(t *testing.T) {
	tr := testTransform(t, "sha256", false)
	wire := signed(t, tr, headerIPv4(7, 4, 0, 0, 148, 4, 0, 0), nil)
	// Another length would move the router alert: what stands at its place
	// is under the ICV.
	mustRefuse(t, tr, changed(wire, 21, 8), ErrAuth, "route record eight bytes long")
}

func TestRFC4302_MalformedIPv4Options(t *testing.T) {
	tr := testTransform(t, "sha256", false)
	for name, options := range map[string][]byte{
		"length 0":               {68, 0, 0, 0},
		"length 1":               {68, 1, 0, 0},
		"past the header":        {68, 5, 0, 0},
		"no length":              {optNOP, optNOP, optNOP, 68},
		"source route, 4 bytes":  {optLSRR, 4, 4, 0},
		"source route, no room":  {optLSRR, 2, 0, 0},
		"pointer 0":              {optLSRR, 7, 0, 1, 2, 3, 4, 0},
		"pointer 5":              {optSSRR, 7, 5, 1, 2, 3, 4, 0},
		"two source routes":      {optLSRR, 3, 4, optSSRR, 3, 4, 0, 0},
		"the same route, doubly": {optLSRR, 3, 4, optLSRR, 3, 4, 0, 0},
	} {
		if err := signError(tr, headerIPv4(options...)); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: Sign: expected %v, saw %v", name, ErrMalformed, err)
		}
		wire := signed(t, tr, headerIPv4(make([]byte, len(options))...), nil)
		mustRefuse(t, tr, changed(wire, ipv4Len, options...), ErrMalformed, name)
	}
}

// A source-routed packet is signed as it will arrive, and verifies at every hop
// of a route of three.
func TestRFC4302_IPv4SourceRouteIsSignedAsAtItsEnd(t *testing.T) {
	for _, kind := range []byte{optLSRR, optSSRR} {
		tr := testTransform(t, "sha256", true)
		wire := signed(t, tr, headerIPv4(kind, 11, 4, 10, 0, 0, 1, 10, 0, 0, 2, 0), []byte("payload"))
		for hop := range 3 {
			mustVerify(t, tr, wire, fmt.Sprintf("option %d after %d hops", kind, hop))
			if hop < 2 { // RFC 791 3.1: the next address, and the router's own in its place
				at := ipv4Len - 1 + int(wire[ipv4Len+2])
				copy(wire[16:20], wire[at:at+4])
				copy(wire[at:], []byte{172, 16, 0, byte(hop)})
				wire[ipv4Len+2] += 4
			}
		}
		if end := wire[16:20]; !bytes.Equal(end, []byte{10, 0, 0, 2}) {
			t.Fatalf("the route ended at %v", end)
		}
		mustRefuse(t, tr, changed(wire, 19, 3), ErrAuth, "another final destination")
	}
}

func TestRFC4302_IPv6MutableFields(t *testing.T) {
	tr := testTransform(t, "sha256", true)
	wire := signed(t, tr, headerIPv6(), []byte("payload"))
	wire = changed(wire, 0, 0x6f, 0xff, 0xff, 0xff) // traffic class, flow label
	wire = changed(wire, 7, 1)                      // hop limit
	mustVerify(t, tr, wire, "all mutable fields changed")
}

func TestRFC4302_IPv6OptionsByTheirBit(t *testing.T) {
	tr := testTransform(t, "aes128gmac", true)
	for _, kind := range []uint8{packet.ProtoHopByHop, packet.ProtoDestination} {
		for option := 1; option < 256; option++ {
			header := headerIPv6(extension{kind, []byte{0, 0, byte(option), 2, 8, 9, 0, 0}})
			wire := signed(t, tr, header, nil)
			what := fmt.Sprintf("extension header %d, option %#x", kind, option)
			mustVerify(t, tr, wire, what)
			if option&0x20 != 0 {
				mustVerify(t, tr, changed(wire, ipv6Len+4, 1, 2), what+" changed")
				mustRefuse(t, tr, changed(wire, ipv6Len+2, byte(option^1)), ErrAuth, what+", type changed")
				mustRefuse(t, tr, changed(wire, ipv6Len+3, 3), ErrAuth, what+", length changed")
			} else {
				mustRefuse(t, tr, changed(wire, ipv6Len+4, 1, 2), ErrAuth, what+" changed")
			}
		}
	}
}

// A packet with a routing header of type 0 is signed as it will arrive, and
// verifies at every hop of a route of four.
func TestRFC4302_IPv6RoutingHeaderIsSignedAsAtItsEnd(t *testing.T) {
	tr := testTransform(t, "sha384", true)
	route := randomBytes(5, 48)
	header := headerIPv6(extension{packet.ProtoRouting, slices.Concat([]byte{0, 6, 0, 3, 0, 0, 0, 0}, route)})
	wire := signed(t, tr, header, []byte("payload"))
	for hop := range 4 {
		mustVerify(t, tr, wire, fmt.Sprintf("after %d hops", hop))
		if hop < 3 { // RFC 2460 4.4
			next := wire[ipv6Len+8+16*hop:][:16]
			there := [16]byte(next)
			copy(next, wire[24:40])
			copy(wire[24:], there[:])
			wire[ipv6Len+3]--
		}
	}
	if wire[ipv6Len+3] != 0 || !bytes.Equal(wire[24:40], route[32:]) {
		t.Fatalf("the route ended with %d to go at %x", wire[ipv6Len+3], wire[24:40])
	}
	mustRefuse(t, tr, changed(wire, 24, ^wire[24]), ErrAuth, "another final destination")
}

func TestRFC4302_MalformedAndUnknownIPv6Extensions(t *testing.T) {
	tr := testTransform(t, "sha256", false)
	eight := func(b ...byte) []byte { return append(b, make([]byte, 8-len(b))...) }
	hop := extension{packet.ProtoHopByHop, eight()}
	routing := extension{packet.ProtoRouting, eight()}
	for name, extensions := range map[string][]extension{
		"mobility header":             {{135, eight()}},
		"ESP in front":                {{packet.ProtoESP, eight()}},
		"no next header in front":     {{packet.ProtoNone, eight()}},
		"hop-by-hop not first":        {{packet.ProtoDestination, eight()}, hop},
		"hop-by-hop twice":            {hop, hop},
		"routing header twice":        {routing, routing},
		"routing header type 2":       {{packet.ProtoRouting, append([]byte{0, 2, 2, 1, 0, 0, 0, 0}, make([]byte, 16)...)}},
		"routing type 4, none left":   {{packet.ProtoRouting, eight(0, 0, 4)}},
		"more segments than there":    {{packet.ProtoRouting, eight(0, 0, 0, 1)}},
		"routing header of half one":  {{packet.ProtoRouting, append([]byte{0, 1, 0, 0}, make([]byte, 12)...)}},
		"option past its header":      {{packet.ProtoDestination, eight(0, 0, 5, 5)}},
		"option without length":       {{packet.ProtoHopByHop, eight(0, 0, 1, 3, 0, 0, 0, 5)}},
		"extension header past total": {{packet.ProtoDestination, eight(0, 200)}},
	} {
		if err := signError(tr, headerIPv6(extensions...)); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: Sign: expected %v, saw %v", name, ErrMalformed, err)
		}
		p := unsigned(tr.suite, 7, headerIPv6(extensions...), nil)
		mustRefuse(t, tr, p.Wire, ErrMalformed, name)
	}
}

// RFC 4302 3.4.1; errata 133 and 134: an IPv6 fragment header that
// fragments nothing is no fragment.
func TestRFC4302_FragmentsAreRefused(t *testing.T) {
	tr := testTransform(t, "sha256", true)
	for _, field := range [][]byte{{0x20, 0}, {0, 1}, {0x1f, 0xff}} {
		wire := signed(t, tr, headerIPv4(), []byte("payload"))
		mustRefuse(t, tr, changed(wire, 6, field...), ErrFragment, fmt.Sprintf("IPv4 %x", field))
		if err := signError(tr, changed(headerIPv4(), 6, field...)); !errors.Is(err, ErrFragment) {
			t.Errorf("IPv4 %x: Sign: expected %v, saw %v", field, ErrFragment, err)
		}
	}
	for _, field := range [][]byte{{0, 1}, {0, 8}, {0xff, 0xf9}} {
		fragment := extension{packet.ProtoFragment, []byte{0, 0, field[0], field[1], 1, 2, 3, 4}}
		p := unsigned(tr.suite, testSeq(tr), headerIPv6(fragment), []byte("payload"))
		mustRefuse(t, tr, p.Wire, ErrFragment, fmt.Sprintf("IPv6 %x", field))
	}
}

func TestRFC4302_AtomicFragmentIsVerifiedWithoutItsHeader(t *testing.T) {
	for _, suite := range []string{"sha256", "aes256gmac"} {
		tr := testTransform(t, suite, true)
		hop := extension{packet.ProtoHopByHop, []byte{0, 0, 0x3e, 4, 1, 2, 3, 4}}
		atomic := extension{packet.ProtoFragment, []byte{0, 0, 0, 0, 1, 2, 3, 4}}
		for _, front := range [][]extension{nil, {hop}} {
			plain := signed(t, tr, headerIPv6(front...), []byte("payload"))
			body := plain[len(headerIPv6(front...)):]
			wire := slices.Concat(headerIPv6(append(front, atomic)...), body)
			setLength(wire, len(wire))
			mustVerify(t, tr, wire, suite+", an atomic fragment")
			mustRefuse(t, tr, changed(wire, len(wire)-1, 0), ErrAuth, suite+", an atomic fragment, changed")
		}
		twice := slices.Concat(headerIPv6(atomic, atomic), signed(t, tr, headerIPv6(), nil)[ipv6Len:])
		setLength(twice, len(twice))
		mustRefuse(t, tr, twice, ErrMalformed, suite+", two fragment headers")
		if err := signError(tr, headerIPv6(atomic)); !errors.Is(err, ErrFragment) {
			t.Errorf("Sign: expected %v, saw %v", ErrFragment, err)
		}
	}
}

// RFC 4302 2.2 and 2.6; erratum 3643 to RFC 4543.
func TestRFC4302_LengthAndPadding(t *testing.T) {
	for _, c := range []struct {
		suite      string
		ipv4, ipv6 int
	}{
		{"sha256", 28, 32}, {"sha384", 36, 40}, {"sha512", 44, 48}, {"sha1", 24, 24},
		{"aes128gmac", 36, 40}, {"aes192gmac", 36, 40}, {"aes256gmac", 36, 40},
	} {
		tr := testTransform(t, c.suite, true)
		for _, v := range []struct {
			header []byte
			want   int
		}{{headerIPv4(), c.ipv4}, {headerIPv6(), c.ipv6}} {
			wire := signed(t, tr, v.header, nil)
			h := wire[len(v.header):]
			if len(h) != v.want || int(h[atLength]) != v.want/4-2 {
				t.Errorf("%s behind IPv%d: expected %d bytes, saw %d, length field %d", c.suite, wire[0]>>4, v.want, len(h), h[atLength])
			}
			end := fixedLen + tr.suite.IVLen() + tr.suite.ICVLen()
			if !bytes.Equal(h[end:], make([]byte, len(h)-end)) {
				t.Errorf("%s: padding is %x", c.suite, h[end:])
			}
			if len(h) > end {
				mustRefuse(t, tr, changed(wire, len(wire)-1, 1), ErrAuth, c.suite+" with other padding")
			}
		}
	}
}

// Padded to 64 bits behind IPv4, as Linux sends it, AH is taken; padded more, or
// not at all behind IPv6, it is not.
func TestRFC4302_PaddingThatVerifyTakes(t *testing.T) {
	tr := testTransform(t, "sha256", false)
	for _, c := range []struct {
		header []byte
		n      int
		ok     bool
	}{
		{headerIPv4(), 24, false}, {headerIPv4(), 28, true}, {headerIPv4(), 32, true}, {headerIPv4(), 36, false},
		{headerIPv6(), 24, false}, {headerIPv6(), 28, false}, {headerIPv6(), 32, true}, {headerIPv6(), 40, false},
	} {
		start := len(c.header) + c.n
		wire := append(make([]byte, start), "payload"...)
		copy(wire, c.header)
		setLength(wire, len(wire))
		h := wire[len(c.header):start]
		h[0], h[atLength], h[atReserved] = 17, byte(c.n/4-2), 9
		binary.BigEndian.PutUint32(h[atSeq:], uint32(testSeq(tr)))
		at, err := locate(wire)
		if err != nil {
			t.Fatal(err)
		}
		if c.n >= 28 {
			icv, err := tr.icv(NewScratch(), &Packet{Seq: testSeq(tr), Wire: wire}, &at, start)
			if err != nil {
				t.Fatal(err)
			}
			copy(h[fixedLen:], icv)
		}
		what := fmt.Sprintf("IPv%d, AH of %d bytes", wire[0]>>4, c.n)
		if c.ok {
			mustVerify(t, tr, wire, what)
		} else {
			mustRefuse(t, tr, wire, ErrMalformed, what)
		}
	}
}

// RFC 4302 2.3: sent as zero, and "included in the ICV calculation": another
// value is refused unless it was signed (TestRFC4302_PaddingThatVerifyTakes).
func TestRFC4302_ReservedField(t *testing.T) {
	tr := testTransform(t, "sha256", false)
	wire := signed(t, tr, headerIPv4(), nil)
	if reserved := wire[ipv4Len+atReserved:][:2]; !bytes.Equal(reserved, []byte{0, 0}) {
		t.Errorf("sent as %x", reserved)
	}
	mustRefuse(t, tr, changed(wire, ipv4Len+atReserved, 1), ErrAuth, "reserved field changed")
}

// RFC 4302 2.5.1: the high half is under the ICV and not sent.
func TestRFC4302_ESNHighHalfIsImplicit(t *testing.T) {
	for _, s := range Suites() {
		with, without := testTransform(t, s.String(), true), testTransform(t, s.String(), false)
		sign := func(tr *Transform, seq uint64) []byte {
			batch := []Packet{unsigned(s, seq, headerIPv4(), []byte("payload"))}
			tr.Sign(NewScratch(), testSPI, batch)
			return batch[0].Wire
		}
		low, high, plain := sign(with, 7), sign(with, 1<<32|7), sign(without, 7)
		icv := ipv4Len + fixedLen
		if len(low) != len(high) || !bytes.Equal(low[:icv], high[:icv]) || bytes.Equal(low[icv:], high[icv:]) {
			t.Errorf("%s: high halves 0 and 1: expected to differ in the ICV only:\n%x\n%x", s, low, high)
		}
		if bytes.Equal(low, plain) {
			t.Errorf("%s: a high half of 0 is not under the ICV", s)
		}
	}
}

// RFC 4302 3.3.2: the first number is 1; 0 is never sent.
func TestRFC4302_SequenceNumbers(t *testing.T) {
	for _, c := range []struct {
		seq  uint64
		esn  bool
		want error
	}{
		{0, false, ErrSequence}, {0, true, ErrSequence}, {1, false, nil}, {1, true, nil},
		{1<<32 - 1, false, nil}, {1 << 32, false, ErrSequence}, {1 << 32, true, nil}, {1<<64 - 1, true, nil},
	} {
		tr := testTransform(t, "aes256gmac", c.esn)
		batch := []Packet{unsigned(tr.suite, c.seq, headerIPv4(), nil)}
		tr.Sign(NewScratch(), testSPI, batch)
		if !errors.Is(batch[0].Err, c.want) {
			t.Errorf("number %#x, ESN %t: expected %v, saw %v", c.seq, c.esn, c.want, batch[0].Err)
		}
	}
}
