package ike

import (
	"testing"

	"github.com/adit-ipsec/adit/ike/wire"
)

// TestAnotherVersionIsNotAmplified: INVALID_MAJOR_VERSION goes to an address that
// nobody has verified, and is never longer than what came from there.
func TestAnotherVersionIsNotAmplified(t *testing.T) {
	m, err := New(Config{})
	if err != nil {
		t.Fatal(err)
	}
	h := wire.Header{Initiator: 1, Major: wire.Version + 1, Exchange: wire.IKESAInit, Flags: wire.FlagInitiator}
	for _, c := range []struct {
		request []byte
		answers int
	}{
		{wire.Append(nil, h), 0},
		{wire.Append(nil, h, &wire.Vendor{Data: make([]byte, 4)}), 0},
		{wire.Append(nil, h, &wire.Vendor{Data: make([]byte, 200)}), 1},
	} {
		answers := 0
		for _, a := range m.Step(0, Packet{Local: hereIKE, Remote: thereIKE, Data: c.request}) {
			if s, ok := a.(Send); ok {
				answers++
				if len(s.Data) > len(c.request) {
					t.Errorf("%d bytes answer %d", len(s.Data), len(c.request))
				}
			}
		}
		if answers != c.answers {
			t.Errorf("a message of %d bytes: %d answers, want %d", len(c.request), answers, c.answers)
		}
	}
}
