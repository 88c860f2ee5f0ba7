package fuzz

import (
	"bytes"
	"crypto/subtle"
	"errors"
	"math/rand/v2"
	"testing"

	"github.com/adit-ipsec/adit/ike/keys"
	"github.com/adit-ipsec/adit/ike/proposal"
	"github.com/adit-ipsec/adit/ike/wire"
)

// ikeKeys holds the keys of an IKE SA for every way to protect messages.
func ikeKeys(f *testing.F) (all []*keys.SK) {
	f.Helper()
	for _, keyword := range []string{
		"aes128gcm16", "aes256gcm12", "aes192gcm8", "aes128ccm16", "aes256ccm12", "aes192ccm8", "chacha20poly1305",
		"aes128-sha256", "aes256-sha384", "aes192-sha512", "aes128ctr-sha256", "aes256ctr-sha512",
	} {
		p, err := proposal.Parse(wire.ProtocolIKE, keyword+"-prfsha256-x25519", true)
		if err != nil {
			f.Fatal(err)
		}
		c, err := proposal.Choose([]proposal.Proposal{p}, []wire.Proposal{p.Wire(1, nil)})
		if err != nil {
			f.Fatal(err)
		}
		nonce := bytes.Repeat([]byte{7}, 32)
		k, err := keys.Derive(c, nonce, nonce, nonce, 1, 2)
		if err != nil {
			f.Fatal(err)
		}
		all = append(all, k)
	}
	return all
}

// FuzzIKEOpen: for every way to protect messages, a message with arbitrary bytes in
// its SK payload never panics and never opens; a sealed one opens to what was sealed
// and leaves the message as it is; with any byte changed, bytes cut off or bytes
// added it does not open, and there is one error for all of that.
func FuzzIKEOpen(f *testing.F) {
	all := ikeKeys(f)
	for i := range all {
		f.Add(uint8(i), true, []byte("payloads, or a body"), uint16(i*5), uint8(1<<(i%8)), int8(i-6), false)
		f.Add(uint8(i), false, bytes.Repeat([]byte{0}, 64), uint16(40), uint8(0x80), int8(0), true)
	}
	f.Fuzz(func(t *testing.T, which uint8, initiator bool, data []byte, at uint16, mask uint8, resize int8, fragment bool) {
		if len(data) > 1<<14 {
			return
		}
		k := all[int(which)%len(all)]
		p := wire.Protected{First: wire.PayloadN}
		if fragment {
			p.Fragment, p.Total = 1, 2
		}
		begin := func(n int) []byte { return wire.BeginProtected(wire.Header{Major: 2}, nil, p, n) }
		ikeMustRefuse(t, k, initiator, append(begin(len(data)), data...))

		sealed := k.Seal(initiator, begin(k.SealedLen(len(data))), data, ikeRand())
		kept := bytes.Clone(sealed)
		m, err := wire.Parse(sealed)
		if err != nil {
			t.Fatalf("a sealed message does not parse: %v", err)
		}
		opened, err := k.Open(initiator, m)
		if err != nil || !bytes.Equal(opened, data) || !bytes.Equal(sealed, kept) {
			t.Fatalf("sealed %x, opened %x, %v", data, opened, err)
		}
		ikeMustRefuse(t, k, !initiator, sealed)

		body := sealed[m.Protected.AAD:]
		switch n := int(resize); {
		case n > 0:
			body = append(bytes.Clone(body), make([]byte, n)...)
		case n < 0:
			body = body[:max(0, len(body)+n)]
		}
		if resize != 0 {
			ikeMustRefuse(t, k, initiator, append(begin(len(body)), body...))
		}
		if mask != 0 {
			kept[int(at)%len(kept)] ^= mask
			changed := *m.Protected
			changed.Body = kept[changed.AAD:]
			if got, err := k.Open(initiator, &wire.Message{Raw: kept, Protected: &changed}); !errors.Is(err, keys.ErrOpen) || got != nil {
				t.Fatalf("byte %d changed, opened %x, %v", int(at)%len(kept), got, err)
			}
		}
	})
}

func ikeMustRefuse(t *testing.T, k *keys.SK, initiator bool, raw []byte) {
	t.Helper()
	m, err := wire.Parse(raw)
	if err != nil {
		t.Fatalf("%x does not parse: %v", raw, err)
	}
	if got, err := k.Open(initiator, m); !errors.Is(err, keys.ErrOpen) || got != nil {
		t.Fatalf("%x opened to %x, %v", raw, got, err)
	}
}

// ikeRand repeats itself: the same input takes the same way, which fuzzing relies on.
func ikeRand() *rand.ChaCha8 { return rand.NewChaCha8([32]byte{1}) }

// ikeHonest is what two honest ends send each other.
type ikeHonest struct {
	method          proposal.KE
	request, answer []byte
	secret          int // bytes
}

// FuzzIKEPublicValue: whatever bytes a peer sends as its public value, the bytes
// themselves or as changes at the end of an honest value, both halves of every key
// exchange give a secret of the method's length or say that the value is refused.
// One of another length than the honest one is always refused.
func FuzzIKEPublicValue(f *testing.F) {
	var all []ikeHonest
	for _, method := range keys.Methods() {
		if method >= proposal.KEModp3072 && method <= proposal.KEModp8192 {
			continue // the code of MODP 2048, and slower
		}
		x, err := keys.Begin(method, ikeRand())
		if err != nil {
			f.Fatal(err)
		}
		public, secret, err := keys.Respond(method, ikeRand(), x.Public())
		if err != nil {
			f.Fatal(err)
		}
		all = append(all, ikeHonest{method, x.Public(), public, len(secret)})
		for i, data := range [][]byte{nil, {1}, bytes.Repeat([]byte{0xff}, len(public))} {
			f.Add(uint8(len(all)-1), data, i < 2)
		}
		f.Add(uint8(len(all)-1), make([]byte, len(public)), false)
	}
	f.Fuzz(func(t *testing.T, which uint8, data []byte, change bool) {
		h := all[int(which)%len(all)]
		value := func(honest []byte) []byte {
			if !change {
				return data[:min(len(data), len(honest)+1)]
			}
			b := bytes.Clone(honest)
			n := min(len(b), len(data))
			subtle.XORBytes(b[len(b)-n:], b[len(b)-n:], data)
			return b
		}
		request := value(h.request)
		public, secret, err := keys.Respond(h.method, ikeRand(), request)
		ikeSecretOrRefusal(t, h, secret, err)
		if err == nil && (len(request) != len(h.request) || len(public) != len(h.answer)) {
			t.Fatalf("%s: a request of %d bytes was answered by %d", h.method, len(request), len(public))
		}
		x, err := keys.Begin(h.method, ikeRand())
		if err != nil {
			t.Fatal(err)
		}
		answer := value(h.answer)
		secret, err = x.Finish(answer)
		ikeSecretOrRefusal(t, h, secret, err)
		if err == nil && len(answer) != len(h.answer) {
			t.Fatalf("%s: an answer of %d bytes was taken", h.method, len(answer))
		}
	})
}

func ikeSecretOrRefusal(t *testing.T, h ikeHonest, secret []byte, err error) {
	t.Helper()
	if err == nil {
		if len(secret) != h.secret || bytes.Equal(secret, make([]byte, h.secret)) {
			t.Fatalf("%s: a secret %x", h.method, secret)
		}
		return
	}
	if refused := new(keys.PeerValueError); !errors.As(err, &refused) || secret != nil {
		t.Fatalf("%s: error %v, secret %x", h.method, err, secret)
	}
}
