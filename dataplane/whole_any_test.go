package dataplane

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"testing"

	"github.com/adit-ipsec/adit/ah"
	"github.com/adit-ipsec/adit/esp"
	"github.com/adit-ipsec/adit/internal/packet"
	"github.com/adit-ipsec/adit/sad"
	"github.com/adit-ipsec/adit/spd"
)

// anyHeader is an IP header from a to b that a peer may have made: options or
// extension headers, in any order, of random bytes; protocol is what follows.
func anyHeader(rng *rand.Rand, a, b netip.Addr, protocol uint8) []byte {
	if a.Is4() {
		h := make([]byte, 20+4*rng.IntN(11))
		h[0], h[8], h[9] = 0x40|byte(len(h)/4), 64, protocol
		h[1], h[5] = uint8(rng.Uint32()), 7
		copy(h[12:], a.AsSlice())
		copy(h[16:], b.AsSlice())
		for at := 20; at < len(h); {
			n := min(2+rng.IntN(8), len(h)-at)
			if n < 2 || rng.IntN(3) == 0 {
				h[at] = 1
				at++
				continue
			}
			h[at], h[at+1] = uint8(rng.Uint32()), byte(n)
			at += n
		}
		return h
	}
	h := make([]byte, 40, 128)
	h[0], h[7] = 0x60, 64
	copy(h[8:], a.AsSlice())
	copy(h[24:], b.AsSlice())
	at := 6
	for range rng.IntN(4) {
		kind := []byte{packet.ProtoHopByHop, packet.ProtoRouting, packet.ProtoDestination, packet.ProtoFragment}[rng.IntN(4)]
		h[at] = kind
		at = len(h)
		e := make([]byte, 8*(1+rng.IntN(2)))
		if kind == packet.ProtoFragment {
			e = e[:8]
		} else {
			e[1], e[2], e[3] = byte(len(e)/8-1), 1, byte(len(e)-4)
		}
		h = append(h, e...)
	}
	h[at] = protocol
	return h
}

// What a peer with the keys sends is delivered or dropped, once each, whatever
// its header, what it carries and what it says that this is.
func TestAuthenticWholePacketsOfAnyBytes(t *testing.T) {
	every := mustRanges("0.0.0.0/0", "::/0")
	rng := rand.New(rand.NewPCG(3, 4))
	for _, s := range wholeSets() {
		if s.esn || s.ah != "" && s.ah != "sha256" || s.esp != "" && s.esp != "aes128gcm16" {
			continue
		}
		_, b := newWholePair(t, s)
		table, err := spd.NewTable([]spd.Policy{{Name: "p", Selector: spd.Selector{Local: every, Remote: every, Protocol: spd.ProtocolAny}, Action: spd.Protect, Peer: "peer"}})
		if err != nil {
			t.Fatal(err)
		}
		b.gw.ApplyPolicy(table)
		in, inAH := b.gw.sas.Load().Inbound(0x3000), b.gw.sas.Load().InboundAH(0x3000)
		i := index6(s.v6)
		const n = 500
		delivered := 0
		for seq := uint64(1); seq <= n; seq++ {
			payload := make([]byte, rng.IntN(100))
			for k := range payload {
				payload[k] = byte(rng.Uint32())
			}
			if rng.IntN(2) == 0 {
				payload = append(anyHeader(rng, outerA[i], outerB[i], packet.ProtoUDP), payload...)
				if payload[0]>>4 == 4 {
					binary.BigEndian.PutUint16(payload[2:], uint16(len(payload)))
				} else {
					binary.BigEndian.PutUint16(payload[4:], uint16(len(payload)-40))
				}
			}
			next := []uint8{4, 41, 6, 17, 1, 58, 44, 50, 51, 59, 60, 0, 43, uint8(rng.Uint32())}[rng.IntN(14)]
			if in != nil {
				payload = append(make([]byte, 0, len(payload)+in.Suite.TrailerLen(len(payload))), payload...)
				job := []esp.Packet{{Seq: seq, NextHeader: next, Payload: payload, Wire: make([]byte, in.Suite.SealedLen(len(payload)))}}
				in.Transform.Seal(esp.NewScratch(), 0x3000, job)
				if job[0].Err != nil {
					t.Fatal(job[0].Err)
				}
				payload, next = job[0].Wire, packet.ProtoESP
			}
			g := sent{packet.Datagram{Mem: payload, Len: len(payload), Addr: netip.AddrPortFrom(outerB[i], 4500), Local: outerA[i]}, wireUDP}
			if inAH != nil || s.encap == sad.EncapNone {
				protocol := uint8(packet.ProtoESP)
				if inAH != nil {
					protocol = packet.ProtoAH
				}
				h := anyHeader(rng, outerA[i], outerB[i], protocol)
				var wire []byte
				if inAH == nil {
					wire = append(bytes.Clone(h), payload...)
				} else {
					wire = make([]byte, len(h)+inAH.AHSuite.HeaderLen(4+2*i)+len(payload))
					copy(wire, h)
				}
				packet.SetLength(wire[:len(h)], len(wire))
				if inAH != nil {
					job := []ah.Packet{{Seq: seq, NextHeader: next, Payload: payload, Wire: wire}}
					inAH.AHTransform.Sign(ah.NewScratch(), 0x3000, job)
				}
				g.Mem, g.Len, g.wire = wire, len(wire), wireWhole
			}
			delivered += len(b.receive(g))
		}
		dropped := uint64(0)
		for _, c := range nonzero(b.gw) {
			dropped += c.Value
		}
		if uint64(delivered)+dropped != n || delivered == 0 {
			t.Errorf("%s: %d delivered of %d, dropped %v", s, delivered, n, nonzero(b.gw))
		}
	}
}
