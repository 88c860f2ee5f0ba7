package keys

import (
	"bytes"
	"errors"
	"io"
	"math/big"
	"slices"
	"testing"

	"github.com/adit-ipsec/adit/ike/proposal"
	"github.com/adit-ipsec/adit/ike/wire"
)

// wireLen is what the KE payloads carry, and the length of the secret, in bytes.
var wireLen = map[proposal.KE]struct{ request, answer, secret int }{
	proposal.KEModp2048: {256, 256, 256}, proposal.KEModp3072: {384, 384, 384}, proposal.KEModp4096: {512, 512, 512},
	proposal.KEModp6144: {768, 768, 768}, proposal.KEModp8192: {1024, 1024, 1024},
	proposal.KEECP256: {64, 64, 32}, proposal.KEECP384: {96, 96, 48}, proposal.KEECP521: {132, 132, 66},
	proposal.KEX25519: {32, 32, 32}, proposal.KEX448: {56, 56, 56},
	proposal.KEMLKEM768: {1184, 1088, 32}, proposal.KEMLKEM1024: {1568, 1568, 32},
}

func forEveryMethod(t *testing.T, f func(t *testing.T, method proposal.KE)) {
	t.Helper()
	for _, method := range Methods() {
		t.Run(method.String(), func(t *testing.T) { f(t, method) })
	}
}

func begin(t testing.TB, method proposal.KE, rand io.Reader) Exchange {
	t.Helper()
	x, err := Begin(method, rand)
	if err != nil {
		t.Fatal(err)
	}
	return x
}

func TestBothEndsHaveOneSecret(t *testing.T) {
	if len(Methods()) != len(wireLen) || !slices.IsSorted(Methods()) {
		t.Fatalf("methods: saw %v", Methods())
	}
	forEveryMethod(t, func(t *testing.T, method proposal.KE) {
		x := begin(t, method, nil)
		public, secret, err := Respond(method, nil, x.Public())
		if err != nil {
			t.Fatal(err)
		}
		ours, err := x.Finish(public)
		if err != nil || !bytes.Equal(ours, secret) {
			t.Errorf("secrets: saw %x and %x, %v", ours, secret, err)
		}
		want := wireLen[method]
		if len(x.Public()) != want.request || len(public) != want.answer || len(secret) != want.secret {
			t.Errorf("expected %v, saw %d, %d and %d bytes", want, len(x.Public()), len(public), len(secret))
		}
		if _, err := x.Finish(public); !errors.Is(err, ErrSpent) {
			t.Errorf("second Finish: expected ErrSpent, saw %v", err)
		}
	})
	for _, method := range []proposal.KE{0, 1, 2, 5, 22, 23, 24, 35, 38} {
		_, errB := Begin(method, nil)
		_, _, errR := Respond(method, nil, []byte{1})
		if u := new(UnsupportedError); !errors.As(errB, &u) || !errors.As(errR, &u) {
			t.Errorf("method %d: saw %v and %v", method, errB, errR)
		}
	}
}

// What ike/proposal takes as a keyword for an IKE SA is here, whatever is chosen.
func TestWhatCanBeOfferedIsHere(t *testing.T) {
	parse := func(text string) (proposal.Choice, bool) {
		p, err := proposal.Parse(wire.ProtocolIKE, text, true)
		if err != nil {
			return proposal.Choice{}, false
		}
		c, err := proposal.Choose([]proposal.Proposal{p}, []wire.Proposal{p.Wire(1, nil)})
		if err != nil {
			t.Errorf("%s: %v", text, err)
		}
		return c, true
	}
	for _, prf := range []proposal.PRF{1, 2, 3, 4, 5, 6, 7, 8, 9} {
		if _, ok := parse("aes128gcm16-" + prf.String() + "-x25519"); ok && PRFLen(prf) == 0 {
			t.Errorf("%s can be offered, and is not here", prf)
		}
	}
	methods, suites := 0, 0
	for n := range 64 {
		method := proposal.KE(n)
		_, alone := parse("aes128gcm16-prfsha256-" + method.String())
		_, more := parse("aes128gcm16-prfsha256-x25519-ke1_" + method.String())
		if method != proposal.KENone && (alone || more) {
			methods++
			if !slices.Contains(Methods(), method) {
				t.Errorf("%s can be offered, and is not here", method)
			}
		}
	}
	for encr := proposal.Encr(10); encr < 30; encr++ {
		for _, bits := range []int{0, 128, 192, 256} {
			for integ := range proposal.Integ(16) {
				text := encr.Keyword(bits)
				if integ != proposal.IntegNone {
					text += "-" + integ.String()
				}
				c, ok := parse(text + "-prfsha384-x25519")
				if !ok {
					continue
				}
				suites++
				if _, err := Derive(c, []byte{1}, make([]byte, 32), make([]byte, 32), 1, 2); err != nil {
					t.Errorf("%s can be offered: %v", c.Keyword(), err)
				}
			}
		}
	}
	if methods != len(Methods()) || suites < len(choices()) {
		t.Errorf("saw %d methods and %d suites", methods, suites)
	}
}

// A simulation repeats itself: all but ML-KEM's responder comes from the reader.
func TestTheReaderGivesEverything(t *testing.T) {
	forEveryMethod(t, func(t *testing.T, method proposal.KE) {
		a, b, c := begin(t, method, seeded(1)), begin(t, method, seeded(1)), begin(t, method, seeded(2))
		if !bytes.Equal(a.Public(), b.Public()) || bytes.Equal(a.Public(), c.Public()) {
			t.Error("Begin does not follow its reader")
		}
		if method != proposal.KEMLKEM768 && method != proposal.KEMLKEM1024 {
			p, s, err := Respond(method, seeded(3), a.Public())
			q, u, err2 := Respond(method, seeded(3), a.Public())
			if err != nil || err2 != nil || !bytes.Equal(p, q) || !bytes.Equal(s, u) {
				t.Error("Respond does not follow its reader")
			}
			if _, _, err := Respond(method, io.LimitReader(seeded(1), 8), a.Public()); !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Errorf("Respond of a reader that ends: saw %v", err)
			}
		}
		if _, err := Begin(method, io.LimitReader(seeded(1), 8)); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("Begin of a reader that ends: saw %v", err)
		}
	})
}

// A reader that gives no private value ends in an error, not in a loop.
func TestABrokenReaderIsFound(t *testing.T) {
	for _, method := range []proposal.KE{proposal.KEECP256, proposal.KEECP384, proposal.KEECP521} {
		if _, err := Begin(method, bytes.NewReader(make([]byte, 1<<12))); !errors.Is(err, errBrokenReader) {
			t.Errorf("%s from zeros: saw %v", method, err)
		}
	}
}

// A value that is refused does not spoil the exchange: it may be forged.
func TestAForgedAnswerLeavesTheExchangeAsItWas(t *testing.T) {
	forEveryMethod(t, func(t *testing.T, method proposal.KE) {
		x := begin(t, method, nil)
		want := wireLen[method]
		for _, n := range []int{0, 1, want.answer - 1, want.answer + 1, 2 * want.answer} {
			if _, err := x.Finish(make([]byte, n)); !isRefused(err, method) {
				t.Errorf("answer of %d bytes: saw %v", n, err)
			}
		}
		for _, n := range []int{0, 1, want.request - 1, want.request + 1} {
			if _, _, err := Respond(method, nil, make([]byte, n)); !isRefused(err, method) {
				t.Errorf("request of %d bytes: saw %v", n, err)
			}
		}
		public, secret, err := Respond(method, nil, x.Public())
		if err != nil {
			t.Fatal(err)
		}
		if got, err := x.Finish(public); err != nil || !bytes.Equal(got, secret) {
			t.Errorf("the true answer: saw %x, %v", got, err)
		}
		y := begin(t, method, nil)
		y.Discard()
		y.Discard()
		if _, err := y.Finish(public); !errors.Is(err, ErrSpent) {
			t.Errorf("after Discard: saw %v", err)
		}
	})
}

func isRefused(err error, method proposal.KE) bool {
	refused := new(PeerValueError)
	return errors.As(err, &refused) && refused.Method == method && refused.Error() != ""
}

func TestFinishWipesThePrivateHalf(t *testing.T) {
	for _, method := range []proposal.KE{proposal.KEX448, proposal.KEModp2048} {
		for _, end := range []func(Exchange){
			func(x Exchange) {
				if _, err := x.Finish(begin(t, method, nil).Public()); err != nil {
					t.Error(err)
				}
			},
			Exchange.Discard,
		} {
			x := begin(t, method, nil)
			var private []byte
			switch x := x.(veiled).x().(type) {
			case *x448Exchange:
				private = x.private[:]
			case *modpExchange:
				private = x.private
			}
			end(x)
			if len(private) == 0 || !bytes.Equal(private, make([]byte, len(private))) {
				t.Errorf("%s: the private half is still there", method)
			}
		}
	}
}

// RFC 6989 2.1: with a safe prime p, the peer's public value r has 1 < r < p-1.
func TestRFC6989_2_1_PublicValuesOfMODP(t *testing.T) {
	for _, method := range []proposal.KE{proposal.KEModp2048, proposal.KEModp3072} {
		g := schemes[method].(modpScheme).group
		p := new(big.Int).SetBytes(g.modulus().Nat().Bytes(g.modulus()))
		for _, c := range []struct {
			what string
			r    *big.Int
			ok   bool
		}{
			{"0", big.NewInt(0), false}, {"1", big.NewInt(1), false}, {"2", big.NewInt(2), true},
			{"p-2", new(big.Int).Sub(p, big.NewInt(2)), true}, {"p-1", new(big.Int).Sub(p, big.NewInt(1)), false},
			{"p", p, false}, {"p+1", new(big.Int).Add(p, big.NewInt(1)), false},
			{"all ones", new(big.Int).Sub(new(big.Int).Lsh(big.NewInt(1), uint(p.BitLen())), big.NewInt(1)), false},
		} {
			peer := c.r.FillBytes(make([]byte, p.BitLen()/8))
			_, _, err := Respond(method, nil, peer)
			_, errF := begin(t, method, nil).Finish(peer)
			if (err == nil) != c.ok || (errF == nil) != c.ok || !c.ok && (!isRefused(err, method) || !isRefused(errF, method)) {
				t.Errorf("%s, %s: saw %v and %v", method, c.what, err, errF)
			}
		}
	}
}

// RFC 6989 2.3: points that are not on the curve, and coordinates that are not
// below the prime.
func TestRFC6989_2_3_PointsOfTheCurve(t *testing.T) {
	for _, method := range []proposal.KE{proposal.KEECP256, proposal.KEECP384, proposal.KEECP521} {
		x := begin(t, method, nil)
		good := begin(t, method, nil).Public()
		for bit := range 8 * len(good) {
			bad := bytes.Clone(good)
			bad[bit/8] ^= 1 << (bit % 8)
			if _, err := x.Finish(bad); !isRefused(err, method) {
				t.Fatalf("%s, bit %d of a point flipped: saw %v", method, bit, err)
			}
		}
		for _, fill := range []byte{0, 0xff} {
			if _, _, err := Respond(method, nil, bytes.Repeat([]byte{fill}, len(good))); !isRefused(err, method) {
				t.Errorf("%s, all %#x: saw %v", method, fill, err)
			}
		}
	}
}
