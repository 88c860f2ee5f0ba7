package dataplane

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/adit-ipsec/adit/esp"
	"github.com/adit-ipsec/adit/internal/packet"
	"github.com/adit-ipsec/adit/sad"
)

// The largest packets, the fullest batches, and what no walk should ever see.

// ofLength is an IPv4 packet of n bytes between the LANs, filled with fill.
func ofLength(src, dst netip.Addr, n int, fill byte) []byte {
	b := bytes.Repeat([]byte{fill}, n)
	clear(b[:20])
	b[0], b[8], b[9] = 0x45, 64, 253
	binary.BigEndian.PutUint16(b[2:], uint16(n))
	copy(b[12:], src.AsSlice())
	copy(b[16:], dst.AsSlice())
	binary.BigEndian.PutUint16(b[10:], ^packet.Checksum(b[:20], 0))
	return b
}

// The longest packet that an outer datagram can hold passes both walks in every
// suite and on every wire, without a byte of its neighbours in the batch
// changing; one byte more is OutTooBig.
func TestLongestPacketsInEverySuite(t *testing.T) {
	for _, wire := range []struct {
		kind    wireKind
		encap   sad.Encapsulation
		remote  netip.AddrPort
		longest int // payload of the outer packet, in bytes
	}{
		{wireUDP, sad.EncapUDP, gwB4, 65535 - 20 - 8},
		{wireUDP, sad.EncapUDP, gwB6, 65535 - 8},
		{wireRaw4, sad.EncapNone, gwB4, 65535 - 20},
		{wireRaw6, sad.EncapNone, gwB6, 65535},
	} {
		for _, suite := range esp.Suites() {
			t.Run(fmt.Sprintf("%s over %d to %s", suite, wire.kind, wire.remote), func(t *testing.T) {
				r := newRig(t, options{suite: suite.String(), encap: wire.encap, remote: wire.remote})
				n := suite.MaxPayload(wire.longest)
				out := [][]byte{ofLength(hostA, hostB, n, 1), ofLength(hostA, hostB, n, 2), ofLength(hostA, hostB, n, 3)}
				r.counts(nil, func() {
					got := r.send(out...)
					if len(got) != len(out) {
						t.Fatalf("%d bytes: expected %d datagrams, saw %d", n, len(out), len(got))
					}
					for i := range got {
						open, err := r.opened(got[i], uint64(i+1))
						if err != nil || !bytes.Equal(open.Payload, out[i]) || got[i].wire != wire.kind || got[i].Len > wire.longest {
							t.Errorf("packet %d: %d bytes on wire %d, %v", i, got[i].Len, got[i].wire, err)
						}
					}
				})
				long := ofLength(hostA, hostB, n+1, 4)
				long[6] = 0x40 // Don't Fragment
				r.dropped(OutTooBig, func() { r.send(long) })
				r.tun.take() // the sender hears of it

				in := make([][]byte, 3)
				var grams []packet.Datagram
				for i := range in {
					in[i] = ofLength(hostB, hostA, n, byte(i+1))
					b := r.sealed(uint64(i+1), packet.ProtoIPv4, in[i])
					grams = append(grams, packet.Datagram{Mem: b, Len: len(b)})
				}
				r.counts(nil, func() {
					got := r.receive(wire.kind, grams...)
					r.delivers(len(in), got)
					for i := range got {
						if !bytes.Equal(got[i], in[i]) {
							t.Errorf("inbound packet %d of %d bytes arrived changed", i, n)
						}
					}
				})
			})
		}
	}
}

// A full batch that changes its SA with every packet, forgeries between: each
// packet has its own fate, and each SA keeps its order.
func TestFullBatchOfTwoSAs(t *testing.T) {
	r := newRig(t, options{window: 256})
	second := r.params(sad.Inbound)
	second.SPI, second.EncryptionKey = 0x1002, key("second", len(second.EncryptionKey))
	if err := r.gw.Install(second); err != nil {
		t.Fatal(err)
	}
	peer2, err := esp.New(second.Suite, second.EncryptionKey, nil, true)
	if err != nil {
		t.Fatal(err)
	}
	var batch, want [][]byte
	var forged uint64
	for i := range inboundBatch {
		seq, inner := uint64(i/2+1), fromB(fmt.Sprint(i))
		b := r.sealed(seq, packet.ProtoIPv4, inner)
		if i%2 == 1 {
			job := []esp.Packet{{Seq: seq, NextHeader: packet.ProtoIPv4, Payload: append(make([]byte, 0, 2000), inner...), Wire: make([]byte, len(b))}}
			peer2.Seal(esp.NewScratch(), second.SPI, job)
			b = job[0].Wire
		}
		if i%7 == 3 {
			b = flip(b, 300)
			forged++
		} else {
			want = append(want, inner)
		}
		batch = append(batch, b)
	}
	r.counts(map[DropReason]uint64{InAuth: forged}, func() {
		got := r.arrive(batch...)
		r.delivers(len(want), got)
		for i := range got {
			if !bytes.Equal(got[i], want[i]) {
				t.Errorf("packet %d: expected % x, saw % x", i, want[i], got[i])
			}
		}
	})
	r.counts(map[DropReason]uint64{InReplay: inboundBatch - forged, InAuth: forged}, func() { r.delivers(0, r.arrive(batch...)) })
}

// countingQueue counts what reaches the TUN, from any worker.
type countingQueue struct {
	captureQueue
	packets atomic.Uint64
}

func (q *countingQueue) WriteBatch(bufs []*packet.Buffer) (int, error) {
	q.packets.Add(uint64(len(bufs)))
	return len(bufs), nil
}

// The same packets through two wires at once: each is delivered once.
func TestOneSAThroughTwoWiresAtOnce(t *testing.T) {
	const batches = 20
	r := newRig(t, options{window: 4096})
	queue := &countingQueue{}
	r.gw.useQueue(queue)
	sealed := make([][]byte, batches*inboundBatch)
	for i := range sealed {
		sealed[i] = r.good(uint64(i + 1))
	}
	var all sync.WaitGroup
	for _, kind := range []wireKind{wireUDP, wireRaw4} {
		all.Go(func() {
			w := r.in[kind]
			for batch := range batches {
				for i := range inboundBatch {
					d := &w.grams[i]
					d.Off, d.Addr = packet.Headroom, gwB4
					d.Len = copy(d.Mem[packet.Headroom:], sealed[batch*inboundBatch+i])
				}
				w.walk(inboundBatch)
			}
		})
	}
	all.Wait()
	s := r.gw.Stats()
	if got := queue.packets.Load(); got != uint64(len(sealed)) || s.Counter("InPackets") != got || s.Counter("InReplay") != got {
		t.Errorf("expected %d delivered, counted and as many replays, saw %d, %d and %d", len(sealed), got, s.Counter("InPackets"), s.Counter("InReplay"))
	}
}

// What esp will not seal is counted and does not leave, sealed or not.
func TestWhatESPRefusesToSealNeverLeaves(t *testing.T) {
	r := newRig(t, options{})
	long, err := esp.ParseSuite("aes256-sha512")
	if err != nil {
		t.Fatal(err)
	}
	enc, integ := long.KeyLen()
	// A transform that is not the SA's suite: its packets are longer than
	// the walk has made room for.
	if r.outSA().Transform, err = esp.New(long, key("enc", enc), key("int", integ), true); err != nil {
		t.Fatal(err)
	}
	r.counts(map[DropReason]uint64{OutSeal: 2}, func() {
		if got := r.send(fromA("1"), fromA("2")); len(got) != 0 {
			t.Errorf("expected nothing on the wire, saw %d", len(got))
		}
	})
	if s := r.gw.Stats(); s.Counter("OutPackets") != 0 || s.Counter("OutBypass") != 0 {
		t.Errorf("expected no packet out, saw %+v", s.Traffic)
	}
}
