package crypt

import (
	"bytes"
	"fmt"
	"os"
	"runtime/debug"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// guarded is n bytes, rounded up to whole pages, between two pages that nobody
// may touch.
func guarded(t *testing.T, n int) []byte {
	t.Helper()
	page := os.Getpagesize()
	n = (n + page - 1) / page * page
	memory, err := unix.Mmap(-1, 0, n+2*page, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		t.Fatalf("mmap: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Munmap(memory); err != nil {
			t.Errorf("munmap: %v", err)
		}
	})
	for _, guard := range [][]byte{memory[:page], memory[page+n:]} {
		if err := unix.Mprotect(guard, unix.PROT_NONE); err != nil {
			t.Fatalf("mprotect: %v", err)
		}
	}
	return memory[page : page+n]
}

// fault is what f's touch of a guard page says, or nil.
func fault(f func()) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("%v", r)
		}
	}()
	f()
	return nil
}

func TestGuardPagesFault(t *testing.T) {
	memory := guarded(t, 1)
	behind := memory[:len(memory)+1]
	if err := fault(func() { behind[len(memory)]++ }); err == nil {
		t.Error("a write to the page behind: no fault, so the guard tests below could not fail")
	}
}

// TestNothingOutsideIsTouched sums and copies every length that ends with a
// page, and every one that begins with it.
func TestNothingOutsideIsTouched(t *testing.T) {
	const longest = 2048
	src, dst := guarded(t, longest), guarded(t, longest)
	for i := range src {
		src[i] = byte(i * 37)
	}
	for n := range longest + 1 {
		for name, cut := range map[string]func(b []byte) []byte{
			"at the page's end":   func(b []byte) []byte { return b[len(b)-n:] },
			"at the page's start": func(b []byte) []byte { return b[:n] },
		} {
			s, d := cut(src), cut(dst)
			want := reference(s, 1)
			for _, k := range Kernels() {
				var sum, copied uint16
				if err := fault(func() { sum = k.Checksum(s, 1) }); err != nil || sum != want {
					t.Fatalf("%v: Checksum of %d bytes %s: %#x, %v; want %#x and no fault", k, n, name, sum, err, want)
				}
				if err := fault(func() { copied = k.Copy(d, s, 1) }); err != nil || copied != want {
					t.Fatalf("%v: Copy of %d bytes %s: %#x, %v; want %#x and no fault", k, n, name, copied, err, want)
				}
			}
		}
	}
}

// TestGCMTouchesNothingOutside seals and opens texts, with nonces and data,
// that end with a page or begin with it.
func TestGCMTouchesNothingOutside(t *testing.T) {
	const longest = 1100
	from, to := guarded(t, longest+16), guarded(t, longest+16)
	nonces, datas := guarded(t, gcmNonceLen), guarded(t, 300)
	copy(from, random(1, len(from)))
	copy(datas, random(2, len(datas)))
	key := random(3, 16)
	aead, reference := gcm(t, GCMKernel(), key, 16), referenceGCM(t, key, 16)
	for n := range longest + 1 {
		for name, cut := range map[string]func(b []byte, n int) []byte{
			"at the page's end":   func(b []byte, n int) []byte { return b[len(b)-n:] },
			"at the page's start": func(b []byte, n int) []byte { return b[:n:n] },
		} {
			nonce, data, text := cut(nonces, gcmNonceLen), cut(datas, n*7%300), cut(from, n)
			copy(text, random(4, n))
			want := reference.Seal(nil, nonce, text, data)
			var sealed, opened []byte
			var refused error
			if err := fault(func() { sealed = aead.Seal(cut(to, n+16)[:0], nonce, text, data) }); err != nil || !bytes.Equal(sealed, want) {
				t.Fatalf("seal %d bytes %s: %v, equal %t; want no fault", n, name, err, bytes.Equal(sealed, want))
			}
			text = bytes.Clone(text)
			if err := fault(func() { opened, refused = aead.Open(cut(from, n)[:0], nonce, sealed, data) }); err != nil || refused != nil || !bytes.Equal(opened, text) {
				t.Fatalf("open %d bytes %s: %v, %v; want no fault and no error", n, name, err, refused)
			}
			if err := fault(func() { opened, refused = aead.Open(sealed[:0], nonce, sealed, data) }); err != nil || refused != nil || !bytes.Equal(opened, text) {
				t.Fatalf("open %d bytes %s in place: %v, %v; want no fault and no error", n, name, err, refused)
			}
		}
	}
}

// TestGCMRefusesWhatIsTooLong: SP 800-38D 5.2.1.1. One byte more, and the
// counter comes round to the block that hides the tag. Nothing of these 64 GiB
// may be touched.
func TestGCMRefusesWhatIsTooLong(t *testing.T) {
	const size = gcmMaxLen + 1 + 16
	memory, err := unix.Mmap(-1, 0, size, unix.PROT_NONE, unix.MAP_ANON|unix.MAP_PRIVATE|unix.MAP_NORESERVE)
	if err != nil {
		t.Fatalf("mmap: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Munmap(memory); err != nil {
			t.Errorf("munmap: %v", err)
		}
	})
	nonce := make([]byte, gcmNonceLen)
	for _, k := range GCMKernels() {
		aead := gcm(t, k, random(1, 16), 16)
		var refused error
		if err := fault(func() { _, refused = aead.Open(memory[:0], nonce, memory, nil) }); err != nil || refused == nil {
			t.Errorf("%v: open: %v, %v; want an error and no fault", k, err, refused)
		}
		err := fault(func() { aead.Seal(memory[:0], nonce, memory[:gcmMaxLen+1], nil) })
		if err == nil || strings.Contains(err.Error(), "fault") {
			t.Errorf("%v: seal: %v; want a panic that is no fault", k, err)
		}
	}
}
