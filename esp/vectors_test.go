package esp

import (
	"bytes"
	"crypto/aes"
	"encoding/binary"
	"os"
	"testing"

	"github.com/adit-ipsec/adit/internal/crypt"
	"github.com/adit-ipsec/adit/internal/vectors"
)

// failures are the words of "expect".
var failures = map[string]error{"": nil, "auth": ErrAuth, "padding": ErrPadding, "malformed": ErrMalformed}

// forEveryVector reads a file of exactly count vectors.
func forEveryVector(t *testing.T, file string, count int, f func(t *testing.T, v *vectors.Stanza)) {
	t.Helper()
	all, err := vectors.ReadFile(os.DirFS("testdata"), file)
	if err != nil {
		t.Fatal(err)
	}
	ran := 0
	for _, v := range all {
		t.Run(v.Name, func(t *testing.T) {
			ran++
			f(t, v)
			if err := v.Done(); err != nil {
				t.Error(err)
			}
			if t.Failed() {
				t.Logf("source: %s", v.Source)
			}
		})
	}
	if len(all) != count || ran != count {
		t.Errorf("%s: expected %d vectors, read %d, ran %d", file, count, len(all), ran)
	}
}

// vectorTransform is what a vector of packets.txt or made.txt says.
func vectorTransform(t *testing.T, v *vectors.Stanza) *Transform {
	t.Helper()
	s, err := ParseSuite(v.Text("suite"))
	if err != nil {
		t.Fatal(err)
	}
	var integrity []byte
	if v.Has("integrity-key") {
		integrity = v.Hex("integrity-key")
	}
	tr, err := New(s, v.Hex("encryption-key"), integrity, v.Uint("esn") == 1)
	if err != nil {
		t.Fatal(err)
	}
	return tr
}

// openVector opens a packet and fails the test unless it ends as expected.
func openVector(t *testing.T, tr *Transform, high uint64, wire []byte, expect string) Packet {
	t.Helper()
	want, known := failures[expect]
	if !known {
		t.Fatalf("unknown expectation %q", expect)
	}
	_, low, ok := ParseHeader(wire)
	if !ok {
		t.Fatal("packet without a header")
	}
	p := opened(tr, NewScratch(), high<<32|uint64(low), wire)
	if want != nil {
		refused(t, p, want, "packet")
	} else if p.Err != nil {
		t.Fatalf("expected it to open, saw %v", p.Err)
	}
	return p
}

// Packets made by others: RFC 7634, Linux, scapy.
func TestVectors_PacketsOfOtherImplementations(t *testing.T) {
	forEveryVector(t, "packets.txt", 12, func(t *testing.T, v *vectors.Stanza) {
		tr := vectorTransform(t, v)
		p := openVector(t, tr, v.Uint("high"), v.Hex("packet"), v.Expect())
		if p.Err != nil {
			return
		}
		if want := v.Uint("next-header"); uint64(p.NextHeader) != want {
			t.Errorf("expected next header %d, saw %d", want, p.NextHeader)
		}
		if v.Has("payload") {
			if want := v.Hex("payload"); !bytes.Equal(p.Payload, want) {
				t.Errorf("expected payload %x, saw %x", want, p.Payload)
			}
		}
		if v.Has("inner-source") {
			source, destination := v.Hex("inner-source"), v.Hex("inner-destination")
			if len(p.Payload) < 20 || !bytes.Equal(p.Payload[12:16], source) || !bytes.Equal(p.Payload[16:20], destination) {
				t.Fatalf("expected a packet from %x to %x, saw %x", source, destination, p.Payload)
			}
			if want := int(binary.BigEndian.Uint16(p.Payload[2:])); len(p.Payload) != want {
				t.Errorf("expected an inner packet of %d bytes, saw %d", want, len(p.Payload))
			}
		}
	})
}

// Packets of every suite made by Python's cryptography package: they open, and
// where the IV is the sequence number Seal makes them to the byte.
func TestVectors_EverySuiteAgreesWithPythonCryptography(t *testing.T) {
	suites := map[Suite]bool{}
	forEveryVector(t, "made.txt", 100, func(t *testing.T, v *vectors.Stanza) {
		tr := vectorTransform(t, v)
		suites[tr.suite] = true
		payload := make([]byte, v.Uint("payload-length"))
		for i := range payload {
			payload[i] = byte(i)
		}
		want := v.Hex("packet")
		p := openVector(t, tr, v.Uint("high"), want, v.Expect())
		if !bytes.Equal(p.Payload, payload) || uint64(p.NextHeader) != v.Uint("next-header") {
			t.Errorf("expected %x, saw %x, next header %d", payload, p.Payload, p.NextHeader)
		}
		if tr.d.mode == modeCBC {
			return // its IV is nobody's to foretell
		}
		_, low, _ := ParseHeader(want)
		if got := sealed(t, tr, v.Uint("high")<<32|uint64(low), payload); !bytes.Equal(got, want) {
			t.Errorf("expected packet\n%x, saw\n%x", want, got)
		}
	})
	if len(suites) != len(Suites()) {
		t.Errorf("expected vectors for %d suites, saw %d", len(Suites()), len(suites))
	}
}

// draft-mcgrew-gcm-test-01, all 14: the text below the frame, and the packet
// with ICVs of 16, 12 and 8 bytes.
func TestVectors_GCM(t *testing.T) {
	unaligned := 0
	forEveryVector(t, "gcm.txt", 14, func(t *testing.T, v *vectors.Stanza) {
		key, nonce, aad := v.Hex("key"), v.Hex("nonce"), v.Hex("aad")
		plaintext, ciphertext, tag := v.Hex("plaintext"), v.Hex("ciphertext"), v.Hex("tag")
		esn := len(aad) == 12
		var high uint64
		header := bytes.Clone(aad)
		if esn {
			high = uint64(binary.BigEndian.Uint32(aad[4:]))
			header = append(aad[:4:4], aad[8:]...)
		}
		for icv, name := range map[int]string{16: "gcm16", 12: "gcm12", 8: "gcm8"} {
			s, err := ParseSuite(map[int]string{16: "aes128", 24: "aes192", 32: "aes256"}[len(key)] + name)
			if err != nil {
				t.Fatal(err)
			}
			tr, err := New(s, append(bytes.Clone(key), nonce[:4]...), nil, esn)
			if err != nil {
				t.Fatal(err)
			}
			wire := bytes.Join([][]byte{header, nonce[4:], ciphertext, tag[:icv]}, nil)
			seq := high<<32 | uint64(binary.BigEndian.Uint32(header[4:]))
			if got := openedText(t, tr, seq, wire); !bytes.Equal(got, plaintext) {
				t.Errorf("%s: expected %x, saw %x", s, plaintext, got)
			}
			if len(ciphertext)%4 != 0 {
				unaligned++
				openVector(t, tr, high, wire, "malformed")
				continue
			}
			pad := int(plaintext[len(plaintext)-2])
			p := openVector(t, tr, high, wire, "")
			if want := plaintext[:len(plaintext)-2-pad]; !bytes.Equal(p.Payload, want) || p.NextHeader != plaintext[len(plaintext)-1] {
				t.Errorf("%s: expected payload %x, saw %x, next header %d", s, want, p.Payload, p.NextHeader)
			}
			wire[len(wire)-1] ^= 0x80
			openVector(t, tr, high, wire, "auth")
		}
	})
	if unaligned%3 != 0 || unaligned == 14*3 {
		t.Errorf("saw %d vectors that are no ESP packets", unaligned)
	}
}

// RFC 3602 cases 5 to 8, cipher only: both directions and the trailer.
func TestVectors_RFC3602_CBC(t *testing.T) {
	forEveryVector(t, "cbc.txt", 4, func(t *testing.T, v *vectors.Stanza) {
		block, err := aes.NewCipher(v.Hex("key"))
		if err != nil {
			t.Fatal(err)
		}
		wire := v.Hex("packet")
		iv := wire[HeaderLen : HeaderLen+blockLen]
		text := bytes.Clone(wire[cbcStart:])
		decryptCBC(block, make([]byte, blockLen), iv, text)
		p := Packet{}
		(&job{packet: &p, text: text, ok: true}).finish()
		if want := v.Hex("payload"); p.Err != nil || !bytes.Equal(p.Payload, want) || uint64(p.NextHeader) != v.Uint("next-header") {
			t.Errorf("expected payload %x, saw %x, next header %d, %v", want, p.Payload, p.NextHeader, p.Err)
		}
		if want := int(v.Uint("pad-length")); len(text)-2-len(p.Payload) != want {
			t.Errorf("expected %d bytes of padding, saw %d", want, len(text)-2-len(p.Payload))
		}
		encryptCBC(block, iv, text, text)
		if !bytes.Equal(text, wire[cbcStart:]) {
			t.Errorf("expected %x again, saw %x", wire[cbcStart:], text)
		}
	})
}

// RFC 3686, all 9: the counter block is nonce, IV, block number from one.
func TestVectors_RFC3686_CTR(t *testing.T) {
	forEveryVector(t, "ctr.txt", 9, func(t *testing.T, v *vectors.Stanza) {
		block, err := aes.NewCipher(v.Hex("key"))
		if err != nil {
			t.Fatal(err)
		}
		stream, err := newCTRStream(block)
		if err != nil {
			t.Fatal(err)
		}
		c := ctrCipher{stream, salt(v.Hex("nonce"))}
		want, plaintext := v.Hex("ciphertext"), v.Hex("plaintext")
		run := []job{{seq: binary.BigEndian.Uint64(v.Hex("iv")), text: plaintext, wire: make([]byte, counterStart+len(plaintext))}}
		c.encrypt(NewScratch(), run)
		if got := run[0].wire[counterStart:]; !bytes.Equal(got, want) {
			t.Errorf("expected %x, saw %x", want, got)
		}
		run[0].text, run[0].ok = run[0].wire[counterStart:], true
		c.decrypt(NewScratch(), run)
		if !bytes.Equal(run[0].text, plaintext) {
			t.Errorf("expected %x back, saw %x", plaintext, run[0].text)
		}
	})
}

// RFC 4868 and its like: key, data, truncated output.
func TestVectors_RFC4868_HMAC(t *testing.T) {
	kinds := map[string]crypt.HMACHash{}
	for _, k := range crypt.HMACHashes() {
		kinds[k.Params().Name] = k
	}
	forEveryVector(t, "hmac.txt", 6, func(t *testing.T, v *vectors.Stanza) {
		kind := kinds[v.Text("hash")]
		m, err := crypt.NewHMAC(kind, v.Hex("key"))
		if err != nil {
			t.Fatal(err)
		}
		want := v.Hex("icv")
		if len(v.Hex("key")) == kind.Params().KeyLen && len(want) != m.ICVLen {
			t.Errorf("expected an ICV of %d bytes, the suite has %d", len(want), m.ICVLen)
		}
		m.ICVLen = len(want)
		if got := m.Sum(crypt.NewDigests(), v.Hex("data"), nil, nil); !bytes.Equal(got, want) {
			t.Errorf("expected %x, saw %x", want, got)
		}
	})
}
