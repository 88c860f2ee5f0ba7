package crypt

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"fmt"
	"math/rand/v2"
	"reflect"
	"strings"
	"sync"
	"testing"
)

// random returns n bytes, the same for every call with the same seed.
func random(seed uint64, n int) []byte {
	r := rand.New(rand.NewPCG(seed, uint64(n)))
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

// gcm is kernel k's AES-GCM.
func gcm(t testing.TB, k Kernel, key []byte, tagSize int) cipher.AEAD {
	t.Helper()
	aead, err := k.NewGCM(key, tagSize)
	if err != nil {
		t.Fatal(err)
	}
	return aead
}

// referenceGCM is crypto/cipher's AES-GCM, whatever Plain is.
func referenceGCM(t testing.TB, key []byte, tagSize int) cipher.AEAD {
	t.Helper()
	block, err := aes.NewCipher(key)
	if err != nil {
		t.Fatal(err)
	}
	aead, err := cipher.NewGCMWithTagSize(block, tagSize)
	if err != nil {
		t.Fatal(err)
	}
	return aead
}

// forEveryGCM runs f for every kernel and key length, with tags of both
// lengths that ESP has.
func forEveryGCM(t *testing.T, f func(t *testing.T, aead, reference cipher.AEAD)) {
	for _, k := range GCMKernels() {
		for _, keyLen := range []int{16, 24, 32} {
			for _, tagSize := range []int{12, 16} {
				t.Run(fmt.Sprintf("%v/%d/%d", k, 8*keyLen, tagSize), func(t *testing.T) {
					key := random(1, keyLen)
					f(t, gcm(t, k, key, tagSize), referenceGCM(t, key, tagSize))
				})
			}
		}
	}
}

// gcmMemory is where texts lie: canaries around them, at any alignment.
type gcmMemory struct{ from, to, canary []byte }

func newGCMMemory(n int) *gcmMemory {
	m := &gcmMemory{from: random(2, n+256), to: make([]byte, n+256), canary: random(3, n+256)}
	copy(m.to, m.canary)
	return m
}

// check holds Seal and Open of n bytes with data equal to the reference's: at
// one place in memory or from another, and nothing written beside.
func (m *gcmMemory) check(t *testing.T, aead, reference cipher.AEAD, n, place int, data []byte) {
	t.Helper()
	nonce := m.canary[place : place+gcmNonceLen]
	text := m.from[place : place+n]
	sealed := reference.Seal(nil, nonce, text, data)
	total := n + reference.Overhead()
	at := 64 + (place*7+n)%64
	// crypto/cipher's own writes whole blocks: with tags of 12 bytes up to three
	// bytes behind the result, unless n is a multiple of 4, as in ESP.
	end := at + total
	if reflect.TypeOf(aead) == reflect.TypeOf(reference) {
		end += 3
	}

	for _, inPlace := range []bool{true, false} {
		text, sealed := text, sealed
		if inPlace {
			text = append(m.to[at:at:at+total], text...)
		}
		got := aead.Seal(m.to[at:at:at+total], nonce, text, data)
		if !bytes.Equal(got, sealed) || &got[0] != &m.to[at] {
			t.Fatalf("seal %d bytes, data of %d, in place %t: %x, want %x", n, len(data), inPlace, got, sealed)
		}
		if inPlace {
			sealed = got
		}
		opened, err := aead.Open(m.to[at:at:at+n], nonce, sealed, data)
		if err != nil || !bytes.Equal(opened, m.from[place:place+n]) {
			t.Fatalf("open %d bytes, data of %d, in place %t: %x, %v", n, len(data), inPlace, opened, err)
		}
		if !bytes.Equal(m.to[:at], m.canary[:at]) || !bytes.Equal(m.to[end:], m.canary[end:]) {
			t.Fatalf("%d bytes, data of %d, in place %t: written outside", n, len(data), inPlace)
		}
		copy(m.to[at:end], m.canary[at:])
	}
}

// TestGCMEqualsCryptoCipher goes over all lengths of text to 1100 bytes and of
// additional data to 64, while the places in memory run through a cache line.
func TestGCMEqualsCryptoCipher(t *testing.T) {
	forEveryGCM(t, func(t *testing.T, aead, reference cipher.AEAD) {
		m := newGCMMemory(1100)
		data := random(4, 64)
		for n := range 1101 {
			for d := 0; d <= len(data); d += 1 + (sweep-1)/4 {
				m.check(t, aead, reference, n, (n*5+d*3)%64, data[:d])
			}
		}
	})
}

// TestGCMOfManyGroups: lengths of text and of data about the multiples of the
// kernel's group, and the two together.
func TestGCMOfManyGroups(t *testing.T) {
	forEveryGCM(t, func(t *testing.T, aead, reference cipher.AEAD) {
		const longest = 9 * 256
		m := newGCMMemory(longest + 20)
		data := random(5, longest+20)
		for i := 0; i <= longest; i += 256 {
			for off := max(0, i-20); off < i+20; off++ {
				m.check(t, aead, reference, off, i%64, data[:12])
				m.check(t, aead, reference, 20, i%64, data[:off])
				m.check(t, aead, reference, off, off%64, data[:longest-off+19])
			}
		}
	})
}

// TestGCMCountersCarry: the counter's lowest byte overflows at 4 KiB, the next
// at 1 MiB.
func TestGCMCountersCarry(t *testing.T) {
	forEveryGCM(t, func(t *testing.T, aead, reference cipher.AEAD) {
		text := random(6, 1<<20+4096+7)
		nonce := bytes.Repeat([]byte{0xff}, gcmNonceLen)
		for _, n := range []int{4064, 4080, 4081, 4096, 4100, 4352, 8192, 1<<20 - 33, 1<<20 - 16, 1 << 20, len(text)} {
			got, want := aead.Seal(nil, nonce, text[:n], nil), reference.Seal(nil, nonce, text[:n], nil)
			if !bytes.Equal(got, want) {
				t.Fatalf("%d bytes: sealed bytes differ", n)
			}
			opened, err := aead.Open(nil, nonce, want, nil)
			if err != nil || !bytes.Equal(opened, text[:n]) {
				t.Fatalf("%d bytes: not opened: %v", n, err)
			}
		}
	})
}

// TestGCMRefusesWhatWasChanged changes a bit of the tag, the text, the nonce or
// the data, and takes bytes away. No cleartext is left behind.
func TestGCMRefusesWhatWasChanged(t *testing.T) {
	forEveryGCM(t, func(t *testing.T, aead, reference cipher.AEAD) {
		overhead := aead.Overhead()
		for n := range 600 {
			nonce, text, data := random(7, gcmNonceLen), random(8, n), random(9, n%40)
			sealed := reference.Seal(nil, nonce, text, data)
			refused := func(what string, nonce, sealed, data []byte) {
				t.Helper()
				checkRefused(t, aead, fmt.Sprintf("%d bytes, %s", n, what), nonce, sealed, data, text)
			}
			bit := func(b []byte, i int) []byte {
				b = bytes.Clone(b)
				b[i/8%len(b)] ^= 1 << (i % 8)
				return b
			}
			for i := range 8 * overhead {
				if n%64 < 3 || i == n%(8*overhead) {
					refused("tag changed", nonce, bit(sealed, 8*n+i), data)
				}
			}
			refused("nonce changed", bit(nonce, n), sealed, data)
			refused("data longer", nonce, sealed, append(bytes.Clone(data), 0))
			refused("cut", nonce, sealed[:len(sealed)-1], data)
			refused("longer", nonce, append(bytes.Clone(sealed), 0), data)
			if n > 0 {
				refused("text changed", nonce, bit(sealed, n*11%(8*n)), data)
			}
			if len(data) > 0 {
				refused("data changed", nonce, sealed, bit(data, n))
			}
		}
	})
}

// checkRefused opens at another place and in place.
func checkRefused(t *testing.T, aead cipher.AEAD, what string, nonce, sealed, data, text []byte) {
	t.Helper()
	n := len(sealed) - aead.Overhead()
	apart := make([]byte, max(n, 0))
	if got, err := aead.Open(apart[:0], nonce, sealed, data); err == nil || got != nil {
		t.Fatalf("%s: %x, %v; want an error and nil", what, got, err)
	}
	inPlace := bytes.Clone(sealed)
	if got, err := aead.Open(inPlace[:0], nonce, inPlace, data); err == nil || got != nil {
		t.Fatalf("%s, in place: %x, %v; want an error and nil", what, got, err)
	}
	if n < 0 {
		return
	}
	if !bytes.Equal(apart, make([]byte, n)) {
		t.Fatalf("%s: %x is left", what, apart)
	}
	if !bytes.Equal(inPlace[n:], sealed[n:]) {
		t.Fatalf("%s, in place: the tag was written", what)
	}
	// By chance, a byte of the sealed text or a zero equals one of the
	// cleartext; four in a row do not.
	for i := 0; i+4 <= min(n, len(text)); i++ {
		if bytes.Equal(inPlace[i:i+4], text[i:i+4]) {
			t.Fatalf("%s, in place: cleartext is left at %d", what, i)
		}
	}
}

// TestGCMRefusesWhatIsShorterThanATag is apart from the sweep above, in which
// no length is below the tag's.
func TestGCMRefusesWhatIsShorterThanATag(t *testing.T) {
	forEveryGCM(t, func(t *testing.T, aead, _ cipher.AEAD) {
		for n := range aead.Overhead() {
			if got, err := aead.Open(nil, make([]byte, gcmNonceLen), make([]byte, n), nil); err == nil || got != nil {
				t.Errorf("%d bytes: %x, %v; want an error", n, got, err)
			}
		}
	})
}

func TestGCMAppends(t *testing.T) {
	forEveryGCM(t, func(t *testing.T, aead, reference cipher.AEAD) {
		nonce, text, data := random(7, gcmNonceLen), random(8, 100), random(9, 8)
		for _, room := range []int{0, 10, 1000} {
			head := append(make([]byte, 0, 5+room), "first"...)
			sealed := aead.Seal(head, nonce, text, data)
			if want := reference.Seal([]byte("first"), nonce, text, data); !bytes.Equal(sealed, want) {
				t.Errorf("room for %d: %x, want %x", room, sealed, want)
			}
			opened, err := aead.Open(head, nonce, sealed[5:], data)
			if err != nil || string(opened) != "first"+string(text) {
				t.Errorf("room for %d: opened %q, %v", room, opened, err)
			}
		}
	})
}

// TestGCMPanicsAsCryptoCipherDoes tries all places of result, input and
// additional data in a small memory.
func TestGCMPanicsAsCryptoCipherDoes(t *testing.T) {
	const room, n, dataLen = 64, 10, 5
	panics := func(aead cipher.AEAD, open bool, to, from, data, dataLen int) (yes bool) {
		defer func() { yes = recover() != nil }()
		memory := make([]byte, room)
		nonce := make([]byte, gcmNonceLen)
		if open {
			// That it fails does not matter: the check comes first.
			_, _ = aead.Open(memory[to:to], nonce, memory[from:from+n+aead.Overhead()], memory[data:data+dataLen])
		} else {
			aead.Seal(memory[to:to], nonce, memory[from:from+n], memory[data:data+dataLen])
		}
		return false
	}
	reference := referenceGCM(t, make([]byte, 16), 16)
	for _, k := range GCMKernels() {
		aead := gcm(t, k, make([]byte, 16), 16)
		for to := 0; to < room-n-aead.Overhead(); to += sweep {
			for from := range room - n - aead.Overhead() {
				for data := range room - dataLen {
					for _, open := range []bool{false, true} {
						for _, dataLen := range []int{0, dataLen} {
							want := panics(reference, open, to, from, data, dataLen)
							if got := panics(aead, open, to, from, data, dataLen); got != want {
								t.Fatalf("%v: open %t, result at %d, input at %d, %d bytes of data at %d: panics %t, want %t", k, open, to, from, dataLen, data, got, want)
							}
						}
					}
				}
			}
		}
	}
}

func TestGCMPanicsOnOtherNonces(t *testing.T) {
	forEveryGCM(t, func(t *testing.T, aead, _ cipher.AEAD) {
		if aead.NonceSize() != gcmNonceLen {
			t.Errorf("nonces of %d bytes, want %d", aead.NonceSize(), gcmNonceLen)
		}
		for _, n := range []int{0, 8, 11, 13, 16} {
			for name, f := range map[string]func(nonce []byte){
				"seal": func(nonce []byte) { aead.Seal(nil, nonce, nil, nil) },
				"open": func(nonce []byte) { _, _ = aead.Open(nil, nonce, make([]byte, 16), nil) },
			} {
				func() {
					defer func() {
						if recover() == nil {
							t.Errorf("%s with a nonce of %d bytes: no panic", name, n)
						}
					}()
					f(make([]byte, n))
				}()
			}
		}
	})
}

func TestNewGCMRefusesOtherLengths(t *testing.T) {
	for _, k := range GCMKernels() {
		for _, keyLen := range []int{0, 8, 15, 17, 20, 31, 33, 64} {
			if aead, err := k.NewGCM(make([]byte, keyLen), 16); err == nil || aead != nil {
				t.Errorf("%v: key of %d bytes: no error", k, keyLen)
			}
		}
		for _, tagSize := range []int{-1, 0, 8, 11, 17} {
			if aead, err := k.NewGCM(make([]byte, 16), tagSize); err == nil || aead != nil {
				t.Errorf("%v: tag of %d bytes: no error", k, tagSize)
			}
		}
	}
}

// TestGCMIsSafeForConcurrentUse is for the race detector, and for what would
// go wrong without it.
func TestGCMIsSafeForConcurrentUse(t *testing.T) {
	forEveryGCM(t, func(t *testing.T, aead, reference cipher.AEAD) {
		var workers sync.WaitGroup
		for w := range 8 {
			nonce, text, data := random(uint64(w), gcmNonceLen), random(uint64(w), 100+200*w), random(uint64(w), 8)
			want := reference.Seal(nil, nonce, text, data)
			workers.Go(func() {
				out := make([]byte, 0, len(want))
				for range 200 {
					if got := aead.Seal(out, nonce, text, data); !bytes.Equal(got, want) {
						t.Errorf("worker %d: sealed bytes differ", w)
					}
					if got, err := aead.Open(out, nonce, want, data); err != nil || !bytes.Equal(got, text) {
						t.Errorf("worker %d: not opened: %v", w, err)
					}
				}
			})
		}
		workers.Wait()
	})
}

func TestGCMAllocatesNothing(t *testing.T) {
	forEveryGCM(t, func(t *testing.T, aead, _ cipher.AEAD) {
		nonce, wire, data := make([]byte, gcmNonceLen), make([]byte, 1500), make([]byte, 8)
		got := testing.AllocsPerRun(100, func() {
			sealed := aead.Seal(wire[:0], nonce, wire[:1400], data)
			if _, err := aead.Open(wire[:0], nonce, sealed, data); err != nil {
				t.Error(err)
			}
			if _, err := aead.Open(wire[:0], nonce, sealed, data); err == nil {
				t.Error("opened twice in place")
			}
		})
		if got != 0 {
			t.Errorf("%v allocations, want 0", got)
		}
	})
}

// TestGCMDoesNotPrintItsKey looks for the first bytes of the key in hexadecimal
// and decimal digits. What crypto/cipher prints is not ours.
func TestGCMDoesNotPrintItsKey(t *testing.T) {
	for _, k := range GCMKernels()[1:] {
		aead := gcm(t, k, []byte("0123456789abcdef"), 16)
		for _, verb := range []string{"%v", "%+v", "%#v", "%x", "%s", "%d", "%q"} {
			text := fmt.Sprintf(verb, aead)
			for _, digits := range []string{"30313233", "30, 0x31", "48 49 50", "48, 49", "0123"} {
				if strings.Contains(text, digits) {
					t.Errorf("%v: %s prints %s", k, verb, text)
				}
			}
		}
	}
}

// TestNewGCMTakesTheChosenKernel: the test may change what nothing else does.
func TestNewGCMTakesTheChosenKernel(t *testing.T) {
	defer func(k Kernel) { chosenGCM = k }(chosenGCM)
	for _, k := range GCMKernels() {
		chosenGCM = k
		got, err := NewGCM(make([]byte, 16), 16)
		want := gcm(t, k, make([]byte, 16), 16)
		if err != nil || reflect.TypeOf(got) != reflect.TypeOf(want) {
			t.Errorf("%v: NewGCM returned %T, %v; want %T", k, got, err, want)
		}
	}
}

func TestGCMKernelsBeginWithPlainAndEndWithTheChosen(t *testing.T) {
	list := GCMKernels()
	if list[0] != Plain || chosenGCM != list[len(list)-1] || GCMKernel() != chosenGCM {
		t.Errorf("kernels %v, chosen %v; want plain first and the last one chosen", list, chosenGCM)
	}
}
