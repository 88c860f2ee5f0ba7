package fuzz

import (
	"testing"

	"github.com/adit-ipsec/adit/internal/packet"
)

// FuzzReadFragment holds of any bytes: ReadFragment does not panic; of what Parse
// takes it calls the same packets fragments, of the same addresses, and finds the
// same offset and length; bytes behind the packet change nothing.
func FuzzReadFragment(f *testing.F) {
	v4 := append([]byte{0x45, 0, 0, 28, 0, 1, 0x20, 2, 64, 17, 0, 0, 10, 1, 0, 10, 10, 2, 0, 20}, make([]byte, 8)...)
	v6 := make([]byte, 64)
	v6[0], v6[5], v6[6], v6[40], v6[43] = 0x60, 24, packet.ProtoFragment, packet.ProtoUDP, 9
	nested := append([]byte(nil), v6...)
	nested[40], nested[43] = packet.ProtoFragment, 1
	for _, seed := range [][]byte{v4, v6, nested} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		got, ok := packet.ReadFragment(b)
		var h packet.Header
		var flow packet.Flow
		if packet.Parse(b, &h, &flow) != nil {
			return
		}
		if ok != h.Fragment {
			t.Fatalf("ReadFragment says %v, Parse says %v", ok, h.Fragment)
		}
		if cut, cutOK := packet.ReadFragment(b[:h.TotalLen]); cut != got || cutOK != ok {
			t.Fatalf("without the bytes behind it: %+v %v, want %+v %v", cut, cutOK, got, ok)
		}
		if !ok {
			return
		}
		if got.Datagram.Src != flow.Src || got.Datagram.Dst != flow.Dst || got.Datagram.Version != flow.Version || got.End < got.Start {
			t.Fatalf("%+v of %v", got, flow)
		}
		if !got.Nested && (got.Start != h.FragmentOffset || got.Start > 0 && got.End-got.Start != h.TotalLen-h.TransportOffset) {
			t.Fatalf("%+v, and Parse has %+v", got, h)
		}
	})
}
