package rawip

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"slices"
	"testing"

	"github.com/adit-ipsec/adit/internal/packet"
)

// icmpTo is a whole ICMP message from the loopback address to itself.
func icmpTo(loop netip.Addr, kind, code uint8, body []byte) []byte {
	message := append([]byte{kind, code, 0, 0, 0, 0, 0, 0}, body...)
	if loop.Is4() {
		binary.BigEndian.PutUint16(message[2:], ^packet.Checksum(message, 0))
		return finish(ipPacket(loop, loop, 0, packet.ProtoICMP, nil), message)
	}
	pseudo := slices.Concat(loop.AsSlice(), loop.AsSlice(), []byte{0, 0, 0, byte(len(message)), 0, 0, 0, packet.ProtoICMPv6}, message)
	binary.BigEndian.PutUint16(message[2:], ^packet.Checksum(pseudo, 0))
	return finish(ipPacket(loop, loop, 0, packet.ProtoICMPv6, nil), message)
}

func icmpMessage(b []byte) []byte {
	if b[0]>>4 == 4 {
		return b[20:]
	}
	return b[40:]
}

func listenICMP(t *testing.T, family int, address netip.Addr) *Conn {
	t.Helper()
	c, err := ListenICMP(family, address, 0)
	if err != nil {
		t.Fatalf("ListenICMP: %v", err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// TestRootICMPOnlyErrorsAboutSentPackets sends every type, and behind it a message
// that is expected.
func TestRootICMPOnlyErrorsAboutSentPackets(t *testing.T) {
	for _, tt := range families {
		t.Run(tt.name, func(t *testing.T) {
			newNamespace(t)
			c := listenICMP(t, tt.family, tt.loop)
			end := icmpTo(tt.loop, uint8(7-tt.family), 0, []byte("end")) // 3 and 1
			for kind := range 256 {
				var all, want [][]byte
				for _, code := range []uint8{0, 4, 15} {
					b := icmpTo(tt.loop, uint8(kind), code, []byte{byte(kind), code, 1, 2, 3, 4, 5, 6})
					if kind == 3 && tt.family == 4 || (kind == 1 || kind == 2) && tt.family == 6 {
						want = append(want, icmpMessage(b))
					}
					all = append(all, b)
				}
				send(t, append(all, end)...)
				for _, w := range append(want, icmpMessage(end)) {
					got := receive(t, c)
					if !bytes.Equal(got.Bytes(), w) || got.Addr.Addr() != tt.loop || got.Local != tt.loop || got.TTL != 33 {
						t.Errorf("received %x from %v to %v, TTL %d; want %x", got.Bytes(), got.Addr, got.Local, got.TTL, w)
					}
				}
			}
		})
	}
}

// TestRootICMPChecksums holds what ListenICMP's documentation says of them.
func TestRootICMPChecksums(t *testing.T) {
	for _, tt := range families {
		t.Run(tt.name, func(t *testing.T) {
			newNamespace(t)
			c := listenICMP(t, tt.family, netip.Addr{})
			kind := uint8(7 - tt.family)
			broken, good := icmpTo(tt.loop, kind, 4, []byte("broken")), icmpTo(tt.loop, kind, 4, []byte("good"))
			icmpMessage(broken)[2] ^= 1
			send(t, broken, broken, broken, good)
			if tt.family == 4 {
				for range 3 {
					if got := receive(t, c); string(got.Bytes()[8:]) != "broken" {
						t.Errorf("received %q, want \"broken\": does the kernel verify ICMPv4 now?", got.Bytes())
					}
				}
			}
			if got := receive(t, c); string(got.Bytes()[8:]) != "good" {
				t.Errorf("received %q, want \"good\"", got.Bytes())
			}
		})
	}
}

// TestRootICMPFloodTakesLittleMemory: what is not read does not pile up.
func TestRootICMPFloodTakesLittleMemory(t *testing.T) {
	for _, tt := range families {
		t.Run(tt.name, func(t *testing.T) {
			newNamespace(t)
			c := listenICMP(t, tt.family, tt.loop)
			flood := slices.Repeat([][]byte{icmpTo(tt.loop, uint8(7-tt.family), 0, make([]byte, 200))}, 2000)
			send(t, flood...)
			in, queued := packet.NewDatagrams(128), 0
			end := icmpTo(tt.loop, uint8(7-tt.family), 0, []byte("end"))
			for last := false; !last; {
				n, err := c.ReadBatch(in)
				if err != nil {
					t.Fatal(err)
				}
				if queued == 0 {
					send(t, end) // there is room again
				}
				queued += n
				last = string(in[n-1].Bytes()[8:]) == "end"
			}
			// The kernel doubles the buffer, and counts 768 bytes and more for each.
			if limit := 2 * icmpBuffer / 512; queued > limit {
				t.Errorf("%d messages were queued, want at most %d", queued, limit)
			}
		})
	}
}

func TestListenICMPRefusesWrongFamily(t *testing.T) {
	for _, tt := range []struct {
		family  int
		address netip.Addr
	}{{0, netip.Addr{}}, {5, netip.Addr{}}, {4, families[1].loop}, {6, families[0].loop}} {
		if c, err := ListenICMP(tt.family, tt.address, 0); err == nil {
			c.Close()
			t.Errorf("ListenICMP(%d, %v): no error", tt.family, tt.address)
		}
	}
}
