package keys

import (
	"bytes"
	"errors"
	"io"
	"math"
	"testing"

	"github.com/adit-ipsec/adit/ike/proposal"
	"github.com/adit-ipsec/adit/ike/wire"
	"github.com/adit-ipsec/adit/sad"
)

// sealedMessage is an INFORMATIONAL message with inner in it.
func sealedMessage(t testing.TB, k *SK, initiator bool, inner []byte) *wire.Message {
	t.Helper()
	h := wire.Header{Initiator: 0x1111, Responder: 0x2222, Major: 2, Exchange: wire.Informational, MessageID: 7}
	begin := wire.BeginProtected(h, nil, wire.Protected{First: wire.PayloadN}, k.SealedLen(len(inner)))
	return parsed(t, k.Seal(initiator, begin, inner, nil))
}

func parsed(t testing.TB, b []byte) *wire.Message {
	t.Helper()
	m, err := wire.Parse(b)
	if err != nil {
		t.Fatalf("%x: %v", b, err)
	}
	return m
}

// resized is the message with another body; its lengths are as they were, as if
// the body alone had been changed on its way.
func resized(m *wire.Message, body []byte) *wire.Message {
	p := *m.Protected
	p.Body = body
	return &wire.Message{Header: m.Header, Protected: &p, Raw: append(bytes.Clone(m.Raw[:p.AAD]), body...)}
}

// RFC 7634 appendix B: an INFORMATIONAL message by ChaCha20-Poly1305.
func TestRFC7634_B_Message(t *testing.T) {
	want := unhex(t, `c0c1c2c3c4c5c6c7d0d1d2d3d4d5d6d72e2025000000000900000045290000291011121314151617
		610394701f8d017f7c129248896b71bfe25236efd7cdc67066906315b2`)
	inner := unhex(t, "0000000c000040010000000a")
	key := sad.Key(unhex(t, `808182838485868788898a8b8c8d8e8f909192939495969798999a9b9c9d9e9fa0a1a2a3`))
	c := choice(proposal.PRFSHA256, proposal.EncrChaCha20, 0, 0)
	m, err := newMessages(suiteOf(c), key, nil, key, nil)
	if err != nil {
		t.Fatal(err)
	}
	m.initiator.counter = 0x1011121314151617
	k := &SK{keys: veil(&secrets{d: sad.Key{1}, choice: c, messages: m})}
	h := wire.Header{Initiator: 0xc0c1c2c3c4c5c6c7, Responder: 0xd0d1d2d3d4d5d6d7, Major: 2, Exchange: wire.Informational, MessageID: 9}
	begin := wire.BeginProtected(h, nil, wire.Protected{First: wire.PayloadN}, k.SealedLen(len(inner)))
	same(t, "sealed", k.Seal(true, begin, inner, nil), want)
	got, err := k.Open(true, parsed(t, want))
	if err != nil {
		t.Fatal(err)
	}
	same(t, "opened", got, inner)
}

func TestSealAndOpenEveryLength(t *testing.T) {
	forEverySuite(t, func(t *testing.T, c proposal.Choice, k *SK) {
		peer := derived(t, c)
		for n := range 70 {
			inner := count(byte(n), n)
			for _, initiator := range []bool{true, false} {
				m := sealedMessage(t, k, initiator, inner)
				if len(m.Protected.Body) != k.SealedLen(n) {
					t.Fatalf("%d bytes: SealedLen is %d, sealed are %d", n, k.SealedLen(n), len(m.Protected.Body))
				}
				if got, err := peer.Open(initiator, m); err != nil || !bytes.Equal(got, inner) {
					t.Fatalf("%d bytes: saw %x, %v", n, got, err)
				}
				if _, err := peer.Open(!initiator, m); !errors.Is(err, ErrOpen) {
					t.Fatalf("%d bytes: it opens with the keys of the other direction", n)
				}
			}
			if room := k.MaxInner(k.SealedLen(n)); room < n || k.SealedLen(room) > k.SealedLen(n) || k.SealedLen(room+1) <= k.SealedLen(n) {
				t.Fatalf("%d bytes: MaxInner(%d) is %d", n, k.SealedLen(n), room)
			}
		}
		if room := k.MaxInner(k.SealedLen(0) - 1); room != -1 {
			t.Errorf("MaxInner of too little: saw %d", room)
		}
	})
}

// No bit of a message may be changed: header, lengths, IV, text, ICV.
func TestRFC7296_3_14_AnyFlippedBitDoesNotOpen(t *testing.T) {
	forEverySuite(t, func(t *testing.T, c proposal.Choice, k *SK) {
		m := sealedMessage(t, k, true, count(0, 20))
		for bit := range 8 * len(m.Raw) {
			raw := bytes.Clone(m.Raw)
			raw[bit/8] ^= 1 << (bit % 8)
			p := *m.Protected
			p.Body = raw[p.AAD:]
			if got, err := k.Open(true, &wire.Message{Header: m.Header, Raw: raw, Protected: &p}); !errors.Is(err, ErrOpen) || got != nil {
				t.Fatalf("bit %d flipped: saw %x, %v", bit, got, err)
			}
		}
		if _, err := k.Open(true, m); err != nil {
			t.Errorf("unchanged: %v", err)
		}
	})
}

func TestOpenRefusesEveryOtherLength(t *testing.T) {
	forEverySuite(t, func(t *testing.T, c proposal.Choice, k *SK) {
		m := sealedMessage(t, k, true, count(0, 40))
		body := m.Protected.Body
		for n := range len(body) {
			for _, cut := range [][]byte{body[:n], body[len(body)-n:]} {
				if _, err := k.Open(true, resized(m, cut)); !errors.Is(err, ErrOpen) {
					t.Fatalf("cut to %d of %d bytes: saw %v", n, len(body), err)
				}
			}
		}
		for n := range 40 {
			if _, err := k.Open(true, resized(m, append(bytes.Clone(body), make([]byte, n+1)...))); !errors.Is(err, ErrOpen) {
				t.Fatalf("%d bytes longer: saw %v", n+1, err)
			}
		}
		for name, bad := range map[string]*wire.Message{
			"nil": nil, "not protected": {}, "AAD beyond": {Protected: &wire.Protected{AAD: 9, Body: body}}, "AAD negative": {Protected: &wire.Protected{AAD: -1, Body: body}},
		} {
			if _, err := k.Open(true, bad); !errors.Is(err, ErrOpen) {
				t.Errorf("%s: saw %v", name, err)
			}
		}
	})
}

// RFC 7296 3.14: "the recipient MUST accept any length that results in proper
// alignment", and padding of any content; a pad length beyond the text is refused.
func TestRFC7296_3_14_AnyPaddingIsAccepted(t *testing.T) {
	forEverySuite(t, func(t *testing.T, c proposal.Choice, k *SK) {
		s := k.live().messages.suite
		for pad := range 256 {
			inner := make([]byte, (s.block-(pad+1)%s.block)%s.block)
			text := append(bytes.Clone(inner), count(byte(3*pad), pad)...)
			m := sealedText(t, k, append(text, byte(pad)))
			if got, err := k.Open(true, m); err != nil || !bytes.Equal(got, inner) {
				t.Fatalf("%d bytes of padding: saw %x, %v", pad, got, err)
			}
			if len(text) < 255 {
				m := sealedText(t, k, append(text, byte(len(text)+1)))
				if got, err := k.Open(true, m); !errors.Is(err, ErrOpen) {
					t.Fatalf("pad length %d in a text of %d bytes: saw %x, %v", len(text)+1, len(text)+1, got, err)
				}
			}
		}
	})
}

// sealedText is a message whose text, with padding and pad length, is given.
func sealedText(t *testing.T, k *SK, text []byte) *wire.Message {
	t.Helper()
	s, d := k.live().messages.suite, &k.live().messages.initiator
	iv, err := d.iv(s, nil)
	if err != nil {
		t.Fatal(err)
	}
	h := wire.Header{Major: 2, Exchange: wire.Informational}
	begin := wire.BeginProtected(h, nil, wire.Protected{First: wire.PayloadN}, s.ivLen+len(text)+s.icvLen)
	return parsed(t, d.protector.seal(append(bytes.Clone(begin), iv...), begin, iv, text))
}

// The IV of a counter mode counts per direction and is never random; that of CBC is
// what the reader gives. The same message twice is never the same bytes twice.
func TestIVsAreNeverUsedTwice(t *testing.T) {
	forEverySuite(t, func(t *testing.T, c proposal.Choice, k *SK) {
		s := k.live().messages.suite
		begin := wire.BeginProtected(wire.Header{Major: 2}, nil, wire.Protected{}, k.SealedLen(3))
		for n := range 4 {
			for _, initiator := range []bool{true, false} {
				random := count(byte(16*n), 16)
				m := parsed(t, k.Seal(initiator, bytes.Clone(begin), []byte("abc"), bytes.NewReader(random)))
				want := append(make([]byte, 7), byte(n))
				if s.block > 1 {
					want = random
				}
				same(t, "IV", m.Protected.Body[:s.ivLen], want)
			}
		}
	})
}

func TestSealSaysNothingWhereItCannot(t *testing.T) {
	cbc := derived(t, choice(proposal.PRFSHA256, proposal.EncrAESCBC, 256, proposal.IntegSHA256))
	if got := cbc.Seal(true, []byte("header"), []byte("clear"), io.LimitReader(seeded(1), 15)); got != nil {
		t.Errorf("15 random bytes: saw %x", got)
	}
	gcm := derived(t, choices()[0])
	gcm.live().messages.initiator.counter = math.MaxUint64 - 1
	if gcm.Seal(true, []byte("header"), nil, nil) == nil {
		t.Error("the last IV but one was refused")
	}
	for range 2 {
		if got := gcm.Seal(true, []byte("header"), nil, nil); got != nil {
			t.Errorf("all IVs used: saw %x", got)
		}
	}
}

// What Seal is told about memory: inner may lie anywhere, even where the result
// comes to lie; the result lies in dst's memory if there is room; Open leaves the
// message as it is.
func TestSealAndOpenKeepToTheirMemory(t *testing.T) {
	forEverySuite(t, func(t *testing.T, c proposal.Choice, k *SK) {
		want := count(9, 33)
		n := k.SealedLen(len(want))
		begin := wire.BeginProtected(wire.Header{Major: 2}, nil, wire.Protected{}, n)
		for shift := range 40 {
			memory := make([]byte, len(begin)+max(n, shift+len(want)))
			dst := memory[:copy(memory, begin)]
			inner := memory[len(dst)+shift:][:len(want)]
			copy(inner, want)
			sealed := k.Seal(true, dst, inner, nil)
			if &sealed[0] != &memory[0] {
				t.Fatal("there was room, and it was not used")
			}
			m := parsed(t, sealed)
			before := bytes.Clone(sealed)
			got, err := k.Open(true, m)
			if err != nil || !bytes.Equal(got, want) {
				t.Fatalf("inner %d bytes behind dst: saw %x, %v", shift, got, err)
			}
			clear(got)
			if !bytes.Equal(sealed, before) {
				t.Fatal("Open gives the message's own memory")
			}
		}
		if got := k.Seal(true, begin[:len(begin):len(begin)], want, nil); &got[0] == &begin[0] || len(got) != len(begin)+n {
			t.Error("no room, and the result is not in new memory")
		}
	})
}
