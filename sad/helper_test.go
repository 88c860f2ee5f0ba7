package sad

import (
	"bytes"
	"errors"
	"net/netip"
	"strings"
	"sync"
	"testing"

	"github.com/adit-ipsec/adit/esp"
)

func suite(t testing.TB, name string) esp.Suite {
	t.Helper()
	s, err := esp.ParseSuite(name)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// params are those of an SA that New accepts, with keys filled with fill.
func params(t testing.TB, dir Direction, spi uint32, name string, fill byte) Params {
	t.Helper()
	p := Params{
		Direction: dir, SPI: spi, Peer: "site-b",
		Suite: suite(t, name), ReplayWindow: 4096, FreshKeys: true,
		Local:  netip.MustParseAddrPort("192.0.2.1:4500"),
		Remote: netip.MustParseAddrPort("192.0.2.2:4500"),
	}
	encryption, integrity := p.Suite.KeyLen()
	p.EncryptionKey = bytes.Repeat([]byte{fill}, encryption)
	p.IntegrityKey = bytes.Repeat([]byte{fill ^ 0x55}, integrity)
	return p
}

func outbound(t testing.TB) Params { return params(t, Outbound, 0x2001, "aes128gcm16", 0xa1) }
func inbound(t testing.TB) Params  { return params(t, Inbound, 0x1001, "aes128gcm16", 0xb2) }

func newSA(t testing.TB, p Params) *SA {
	t.Helper()
	sa, err := New(p)
	if err != nil {
		t.Fatalf("New: %v", err)
	}
	return sa
}

// memoryStore is the in-memory twin of a SequenceStore.
type memoryStore struct {
	mu       sync.Mutex
	reserved map[KeyID]uint64
	fail     error // returned by Reserve, once
	written  bool  // a failing Reserve has recorded the number all the same
	calls    int   // of Reserve
}

func newMemoryStore() *memoryStore { return &memoryStore{reserved: map[KeyID]uint64{}} }

func (m *memoryStore) Reserved(id KeyID) (uint64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.reserved[id], nil
}

func (m *memoryStore) Reserve(id KeyID, until uint64) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.calls++
	if until <= m.reserved[id] {
		return errors.New("reserved already")
	}
	err := m.fail
	m.fail = nil
	if err == nil || m.written {
		m.reserved[id] = until
	}
	return err
}

// wantError expects an error with each of these texts.
func wantError(t *testing.T, err error, texts ...string) {
	t.Helper()
	if err == nil {
		t.Errorf("expected an error with %q, seen none", texts)
		return
	}
	for _, text := range texts {
		if !strings.Contains(err.Error(), text) {
			t.Errorf("expected %q in the error, seen %q", text, err)
		}
	}
}
