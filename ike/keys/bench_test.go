package keys

import (
	"testing"

	"github.com/adit-ipsec/adit/ike/proposal"
	"github.com/adit-ipsec/adit/ike/wire"
)

// One half each: what an end pays for a handshake.
func BenchmarkKeyExchange(b *testing.B) {
	for _, method := range Methods() {
		x := begin(b, method, nil)
		public, _, err := Respond(method, nil, x.Public())
		if err != nil {
			b.Fatal(err)
		}
		b.Run(method.String()+"/initiator", func(b *testing.B) {
			for b.Loop() {
				if _, err := begin(b, method, nil).Finish(public); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(method.String()+"/responder", func(b *testing.B) {
			for b.Loop() {
				if _, _, err := Respond(method, nil, x.Public()); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkDerive(b *testing.B) {
	c := choice(proposal.PRFSHA256, proposal.EncrAESGCM16, 256, 0)
	for b.Loop() {
		derived(b, c)
	}
}

// A message of the size of an IKE_AUTH request without certificates.
func BenchmarkSeal(b *testing.B) {
	inner := make([]byte, 256)
	for _, c := range choices() {
		k := derived(b, c)
		begin := wire.BeginProtected(wire.Header{Major: 2}, nil, wire.Protected{}, k.SealedLen(len(inner)))
		b.Run(suiteName(c), func(b *testing.B) {
			b.SetBytes(int64(len(inner)))
			for b.Loop() {
				k.Seal(true, begin, inner, nil)
			}
		})
	}
}

func BenchmarkOpen(b *testing.B) {
	for _, c := range choices() {
		k := derived(b, c)
		m := sealedMessage(b, k, true, make([]byte, 256))
		b.Run(suiteName(c), func(b *testing.B) {
			b.SetBytes(256)
			for b.Loop() {
				if _, err := k.Open(true, m); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
