package natt

import (
	"bytes"
	"net/netip"
	"testing"

	"github.com/adit-ipsec/adit/internal/packet"
)

// TestCR25_Demux holds the demultiplexing of port 4500 row by row.
func TestCR25_Demux(t *testing.T) {
	ike := make([]byte, NonESPMarkerLen+IKEHeaderLen)
	tests := []struct {
		name string
		in   []byte
		want Kind
	}{
		{"empty", nil, Malformed},
		{"keepalive 0xFF", []byte{0xff}, Keepalive},
		{"one byte, not 0xFF", []byte{0xfe}, Malformed},
		{"one zero byte", []byte{0}, Malformed},
		{"two bytes 0xFF", []byte{0xff, 0xff}, Malformed},
		{"three bytes", []byte{1, 2, 3}, Malformed},
		{"marker alone", make([]byte, 4), Malformed},
		{"SPI alone", []byte{1, 2, 3, 4}, Malformed},
		{"SPI and half a sequence number", []byte{1, 2, 3, 4, 0, 0}, Malformed},
		{"7 bytes of 0xFF", bytes.Repeat([]byte{0xff}, 7), Malformed},
		{"ESP header alone", []byte{0, 0, 1, 0, 0, 0, 0, 1}, ESP},
		{"SPI of 0xFFFFFFFF", bytes.Repeat([]byte{0xff}, 8), ESP},
		{"first SPI byte set", append([]byte{1, 0, 0, 0}, make([]byte, 60)...), ESP},
		{"last SPI byte set", append([]byte{0, 0, 0, 1}, make([]byte, 60)...), ESP},
		{"marker and 4 bytes", make([]byte, 8), Malformed},
		{"marker and 27 bytes", ike[:len(ike)-1], Malformed},
		{"marker and an IKE header", ike, IKE},
		{"marker and more", append(ike, 1, 2, 3), IKE},
	}
	for _, tt := range tests {
		if got := Classify(tt.in); got != tt.want {
			t.Errorf("%s: Classify(%x) = %v, want %v", tt.name, tt.in, got, tt.want)
		}
	}
}

// TestRFC3948_2_3_KeepaliveIsOneOctetFF holds the bytes and that nothing of the
// slot's last use remains.
func TestRFC3948_2_3_KeepaliveIsOneOctetFF(t *testing.T) {
	m := packet.NewDatagrams(1)[0]
	m.Off, m.Len, m.TOS, m.DF, m.SegmentSize = 7, 99, 0xff, true, 3
	local, peer := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddrPort("192.0.2.2:4500")
	FillKeepalive(&m, local, peer)
	if !bytes.Equal(m.Bytes(), []byte{0xff}) {
		t.Errorf("payload = %x, want ff", m.Bytes())
	}
	if m.Local != local || m.Addr != peer {
		t.Errorf("from %v to %v, want from %v to %v", m.Local, m.Addr, local, peer)
	}
	if m.TOS != 0 || m.DF || m.SegmentSize != 0 {
		t.Errorf("TOS %d, DF %v, SegmentSize %d; want all zero", m.TOS, m.DF, m.SegmentSize)
	}
	if got := Classify(m.Bytes()); got != Keepalive {
		t.Errorf("Classify of it = %v, want keepalive", got)
	}
}

func TestKindString(t *testing.T) {
	for kind, want := range map[Kind]string{ESP: "esp", IKE: "ike", Keepalive: "keepalive", Malformed: "malformed", Kind(99): "malformed"} {
		if got := kind.String(); got != want {
			t.Errorf("Kind(%d).String() = %q, want %q", kind, got, want)
		}
	}
}

func TestClassifyAllocatesNothing(t *testing.T) {
	b := make([]byte, 64)
	if n := testing.AllocsPerRun(100, func() { Classify(b) }); n != 0 {
		t.Errorf("Classify: %v allocations, want 0", n)
	}
}

func BenchmarkClassify(b *testing.B) {
	esp := bytes.Repeat([]byte{1}, 1400)
	kinds := Kind(0)
	for b.Loop() {
		kinds += Classify(esp)
	}
	_ = kinds
}
