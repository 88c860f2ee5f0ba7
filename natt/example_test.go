package natt_test

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/adit-ipsec/adit/internal/packet"
	"github.com/adit-ipsec/adit/natt"
)

// Two sockets on this host: one sends an ESP packet and a keepalive in one
// batch, the other tells them apart. They may come in one slot.
func Example() {
	loopback := netip.MustParseAddr("127.0.0.1")
	a, err := natt.Listen(natt.Config{Address: loopback})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer a.Close()
	b, err := natt.Listen(natt.Config{Address: loopback})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer b.Close()

	peer := netip.AddrPortFrom(loopback, b.LocalPort())
	out := packet.NewDatagrams(2)
	out[0].Addr = peer
	out[0].Len = copy(out[0].Mem[out[0].Off:], []byte{0, 0, 0x10, 1, 0, 0, 0, 1, 0xaa, 0xbb})
	natt.FillKeepalive(&out[1], loopback, peer)
	if _, err := a.WriteBatch(out); err != nil {
		fmt.Println(err)
		return
	}

	in := packet.NewDatagrams(2)
	for seen := 0; seen < 2; {
		n, err := b.ReadBatch(in)
		if err != nil {
			fmt.Println(err)
			return
		}
		for _, m := range in[:n] {
			size := m.SegmentSize // of each datagram but the last in the slot
			if size == 0 {
				size = m.Len // there is one
			}
			for b := range slices.Chunk(m.Bytes(), max(size, 1)) {
				fmt.Println(natt.Classify(b), len(b))
				seen++
			}
		}
	}
	// Output:
	// esp 10
	// keepalive 1
}
