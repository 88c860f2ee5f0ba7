package mmsg

import (
	"bytes"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"unsafe"

	"github.com/adit-ipsec/adit/internal/packet"
)

// TestNeighboursInMemoryShareAnIovec lists the iovecs of each header by their
// lengths, and follows them to the bytes.
func TestNeighboursInMemoryShareAnIovec(t *testing.T) {
	s, to := listenUDP(t, Config{}), netip.AddrPortFrom(loop4, 9)
	apart := func(n int) (m []packet.Datagram) {
		for range n {
			m = append(m, arena(to, 1, 64)...)
		}
		return m
	}
	edit := func(m []packet.Datagram, f func(m []packet.Datagram)) []packet.Datagram { f(m); return m }
	segmented := func(n int) []packet.Datagram {
		return edit(arena(to, 1, n*64), func(m []packet.Datagram) { m[0].SegmentSize = 64 })
	}
	for _, tt := range []struct {
		name string
		in   []packet.Datagram
		want string
	}{
		{"one arena", arena(to, 63, 64), "4032"},
		{"one arena, several headers", arena(to, 130, 64), "4032; 4032; 256"},
		{"an arena each", apart(3), "64+64+64"},
		{"two arenas", append(arena(to, 3, 64), arena(to, 2, 64)...), "192+128"},
		{"Mem is a part of the arena", edit(arena(to, 4, 64), func(m []packet.Datagram) {
			for i := range m {
				m[i].Mem, m[i].Off = m[i].Mem[m[i].Off:], 0
			}
		}), "256"},
		{"a gap", edit(arena(to, 4, 64), func(m []packet.Datagram) { m[1].Off--; m[2].Off++ }), "64+64+64+64"},
		{"backwards", edit(arena(to, 3, 64), func(m []packet.Datagram) { m[0], m[2] = m[2], m[0] }), "64+64+64"},
		{"the same twice", slices.Repeat(arena(to, 1, 64), 2), "64+64"},
		{"other class between", edit(arena(to, 4, 64), func(m []packet.Datagram) { m[1].TOS++ }), "64; 64; 128"},
		{"by SegmentSize", segmented(5), "320"},
		{"by SegmentSize, then an arena", append(segmented(5), arena(to, 2, 64)...), "320+128"},
		{"most iovecs", apart(520), strings.Repeat(strings.Repeat("64+", 62)+"64; ", 8) + strings.Repeat("64+", 7) + "64 | " + strings.Repeat("64+", 7) + "64"},
	} {
		var fills []string
		var sent, want []byte
		for at := (cursor{}); at.index < len(tt.in); {
			at, _ = s.fill(tt.in, at, true)
			var headers []string
			for i := range s.tx.end {
				h := &s.tx.hdrs[i].hdr
				var vecs []string
				for _, v := range unsafe.Slice(h.Iov, h.Iovlen) {
					vecs = append(vecs, fmt.Sprint(v.Len))
					sent = append(sent, unsafe.Slice(v.Base, v.Len)...)
				}
				headers = append(headers, strings.Join(vecs, "+"))
			}
			fills = append(fills, strings.Join(headers, "; "))
		}
		for i := range tt.in {
			want = append(want, tt.in[i].Bytes()...)
		}
		if got := strings.Join(fills, " | "); got != tt.want || !bytes.Equal(sent, want) {
			t.Errorf("%s: iovecs of %s bytes, want %s; their bytes are right: %v", tt.name, got, tt.want, bytes.Equal(sent, want))
		}
	}
}
