package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/adit-ipsec/adit/internal/packet"
	"github.com/adit-ipsec/adit/internal/tun"
)

// Sizes of the traffic of a host in memory.
const (
	segmentLen    = 1200 // bytes of payload of a packet
	segmentWindow = 128  // TCP segments under way: fewer than any queue holds
	burstWindow   = 64   // UDP datagrams that are sent before waiting for them
	memoryWait    = 10 * time.Second
)

// Ports of the hosts in memory.
const (
	tcpPort = 9000
	udpPort = 9001
)

var errMemoryWait = fmt.Errorf("nothing came for %s", memoryWait)

// memoryHost is a host with the least that a host needs to be talked to: it
// answers pings, takes UDP datagrams, and acknowledges TCP segments. There is
// no handshake and nothing is sent twice: a lost segment fails the transfer.
type memoryHost struct {
	kernel *tun.Host
	side   *memorySide
	marker []byte
	marked atomic.Uint64 // packets sent or received that hold the marker

	echoes chan struct{} // answers to pings
	acks   chan uint32   // acknowledgements
	grams  chan bool     // datagrams, with whether each is as it was sent

	mu     sync.Mutex // guards what follows: one transfer's receiving end
	digest hash.Hash
	bytes  int64
	next   uint32 // the sequence number that is expected
}

func newMemoryHost(kernel *tun.Host, side *memorySide, marker []byte) *memoryHost {
	return &memoryHost{
		kernel: kernel, side: side, marker: marker, digest: sha256.New(),
		echoes: make(chan struct{}, demoPings), acks: make(chan uint32, 2*segmentWindow), grams: make(chan bool, 2*burstWindow),
	}
}

// run takes what arrives until ctx ends.
func (h *memoryHost) run(ctx context.Context) {
	for {
		p, err := h.kernel.Receive(ctx)
		if err != nil {
			return
		}
		var head packet.Header
		var flow packet.Flow
		if packet.Parse(p, &head, &flow) != nil {
			continue
		}
		h.look(p)
		h.take(ctx, &flow, p[head.TransportOffset:head.TotalLen])
	}
}

func (h *memoryHost) look(p []byte) {
	if bytes.Contains(p, h.marker) {
		h.marked.Add(1)
	}
}

// take handles one packet: its flow, and what follows the IP header.
func (h *memoryHost) take(ctx context.Context, f *packet.Flow, b []byte) {
	switch {
	case f.Protocol == packet.ProtoICMP && b[0] == 8, f.Protocol == packet.ProtoICMPv6 && b[0] == 128:
		answer := bytes.Clone(b)
		answer[0] = map[byte]byte{8: 0, 128: 129}[b[0]]
		_ = h.send(ctx, f.DstAddr(), f.SrcAddr(), f.Protocol, answer) // lost is lost
	case f.Protocol == packet.ProtoICMP, f.Protocol == packet.ProtoICMPv6:
		offer(h.echoes, struct{}{})
	case f.Protocol == packet.ProtoUDP:
		offer(h.grams, bytes.Equal(b[8:], h.datagram(binary.BigEndian.Uint32(b[8:]))))
	case f.Protocol == packet.ProtoTCP && len(b) > 20:
		ack := tcpSegment(f.DstPort, f.SrcPort, 0, h.segment(binary.BigEndian.Uint32(b[4:]), b[20:]), nil)
		_ = h.send(ctx, f.DstAddr(), f.SrcAddr(), packet.ProtoTCP, ack)
	case f.Protocol == packet.ProtoTCP:
		offer(h.acks, binary.BigEndian.Uint32(b[8:]))
	}
}

// offer hands v over if somebody has room for it.
func offer[T any](to chan T, v T) {
	select {
	case to <- v:
	default:
	}
}

// segment takes a TCP segment and returns the number to acknowledge.
func (h *memoryHost) segment(seq uint32, data []byte) uint32 {
	h.mu.Lock()
	defer h.mu.Unlock()
	if seq == h.next {
		h.digest.Write(data)
		h.bytes += int64(len(data))
		h.next += uint32(len(data))
	}
	return h.next
}

func (h *memoryHost) address(v6 bool) netip.Addr {
	if v6 {
		return h.side.host6
	}
	return h.side.host4
}

// ping sends one echo request and waits for the answer.
func (h *memoryHost) ping(ctx context.Context, to *memoryHost, v6 bool) (time.Duration, error) {
	kind, proto := byte(8), uint8(packet.ProtoICMP)
	if v6 {
		kind, proto = 128, packet.ProtoICMPv6
	}
	request := append([]byte{kind, 0, 0, 0, 0, 1, 0, 1}, h.marker...)
	start := time.Now()
	if err := h.send(ctx, h.address(v6), to.address(v6), proto, request); err != nil {
		return 0, err
	}
	_, err := await(ctx, h.echoes)
	return time.Since(start), err
}

// transfer sends for that long.
func (h *memoryHost) transfer(ctx context.Context, to *memoryHost, v6 bool, long time.Duration) (demoTransfer, error) {
	to.mu.Lock()
	to.digest, to.bytes, to.next = sha256.New(), 0, 0
	to.mu.Unlock()
	data := make([]byte, 64<<10)
	_, _ = rand.Read(data) // never fails
	for i := 0; i+len(h.marker) < len(data); i += 512 {
		copy(data[i:], h.marker)
	}
	digest := sha256.New()
	start := time.Now()
	var seq, acked uint32
	sent := int64(0)
	for time.Since(start) < long {
		at := int(sent % int64(len(data)-segmentLen))
		chunk := data[at : at+segmentLen]
		digest.Write(chunk)
		if err := h.send(ctx, h.address(v6), to.address(v6), packet.ProtoTCP, tcpSegment(tcpPort, tcpPort, seq, 0, chunk)); err != nil {
			return demoTransfer{}, err
		}
		seq += segmentLen
		sent += segmentLen
		for seq-acked >= segmentWindow*segmentLen {
			var err error
			if acked, err = await(ctx, h.acks); err != nil {
				return demoTransfer{}, err
			}
		}
	}
	for acked != seq {
		var err error
		if acked, err = await(ctx, h.acks); err != nil {
			return demoTransfer{}, err
		}
	}
	took := time.Since(start).Seconds()
	to.mu.Lock()
	defer to.mu.Unlock()
	return demoTransfer{
		Bytes: to.bytes, Seconds: took, BitsPerSecond: float64(to.bytes) * 8 / took,
		SHA256Sent: hex.EncodeToString(digest.Sum(nil)), SHA256Got: hex.EncodeToString(to.digest.Sum(nil)),
	}, nil
}

// burst sends numbered datagrams, a window at a time.
func (h *memoryHost) burst(ctx context.Context, to *memoryHost, v6 bool, count int) (demoBurst, error) {
	b := demoBurst{Intact: true}
	for b.Sent < count {
		window := min(burstWindow, count-b.Sent)
		for range window {
			payload := h.datagram(uint32(b.Sent))
			if err := h.send(ctx, h.address(v6), to.address(v6), packet.ProtoUDP, udpDatagram(udpPort, udpPort, payload)); err != nil {
				return b, err
			}
			b.Sent++
		}
		for range window {
			intact, err := await(ctx, to.grams)
			switch {
			case errors.Is(err, errMemoryWait): // lost
				return b, nil
			case err != nil:
				return b, err
			}
			b.Received++
			b.Intact = b.Intact && intact
		}
	}
	return b, nil
}

// datagram is the payload of the datagram with this number.
func (h *memoryHost) datagram(number uint32) []byte {
	payload := binary.BigEndian.AppendUint32(nil, number)
	for len(payload) < segmentLen {
		payload = append(payload, h.marker...)
	}
	return payload
}

func await[T any](ctx context.Context, from chan T) (v T, err error) {
	timeout := time.NewTimer(memoryWait)
	defer timeout.Stop()
	select {
	case v = <-from:
		return v, nil
	case <-timeout.C:
		return v, errMemoryWait
	case <-ctx.Done():
		return v, ctx.Err()
	}
}

// send builds an IP packet around payload, whose checksum field it fills in, and
// hands it to the gateway.
func (h *memoryHost) send(ctx context.Context, from, to netip.Addr, protocol uint8, payload []byte) error {
	p := ipPacket(from, to, protocol, payload)
	h.look(p)
	return h.kernel.Send(ctx, p)
}

func tcpSegment(from, to uint16, seq, ack uint32, data []byte) []byte {
	b := make([]byte, 20, 20+len(data))
	binary.BigEndian.PutUint16(b[0:], from)
	binary.BigEndian.PutUint16(b[2:], to)
	binary.BigEndian.PutUint32(b[4:], seq)
	binary.BigEndian.PutUint32(b[8:], ack)
	b[12], b[13] = 5<<4, 0x10 // a header of 20 bytes, ACK
	binary.BigEndian.PutUint16(b[14:], 0xffff)
	return append(b, data...)
}

func udpDatagram(from, to uint16, data []byte) []byte {
	b := make([]byte, 8, 8+len(data))
	binary.BigEndian.PutUint16(b[0:], from)
	binary.BigEndian.PutUint16(b[2:], to)
	binary.BigEndian.PutUint16(b[4:], uint16(8+len(data)))
	return append(b, data...)
}

// checksumAt is where the checksum stands behind the IP header.
var checksumAt = map[uint8]int{packet.ProtoICMP: 2, packet.ProtoICMPv6: 2, packet.ProtoTCP: 16, packet.ProtoUDP: 6}

// ipPacket is an IPv4 or IPv6 packet with right checksums.
func ipPacket(from, to netip.Addr, protocol uint8, payload []byte) []byte {
	f := packet.Flow{Src: from.As16(), Dst: to.As16(), Version: 4}
	var head []byte
	if from.Is4() {
		head = make([]byte, 20)
		head[0], head[8], head[9] = 0x45, 64, protocol
		binary.BigEndian.PutUint16(head[2:], uint16(20+len(payload)))
		copy(head[12:], from.AsSlice())
		copy(head[16:], to.AsSlice())
		binary.BigEndian.PutUint16(head[10:], ^packet.Checksum(head, 0))
	} else {
		f.Version = 6
		head = make([]byte, 40)
		head[0], head[6], head[7] = 0x60, protocol, 64
		binary.BigEndian.PutUint16(head[4:], uint16(len(payload)))
		copy(head[8:], from.AsSlice())
		copy(head[24:], to.AsSlice())
	}
	sum := uint16(0)
	if protocol != packet.ProtoICMP { // the one without a pseudo header
		sum = packet.PseudoChecksum(&f, protocol, len(payload))
	}
	field := payload[checksumAt[protocol]:]
	binary.BigEndian.PutUint16(field, 0)
	sum = ^packet.Checksum(payload, sum)
	if sum == 0 && protocol == packet.ProtoUDP {
		sum = 0xffff // RFC 768: zero says that there is none
	}
	binary.BigEndian.PutUint16(field, sum)
	return append(head, payload...)
}
