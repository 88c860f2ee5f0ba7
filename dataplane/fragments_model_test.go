package dataplane

import (
	"encoding/binary"
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/adit-ipsec/adit/internal/packet"
	"github.com/adit-ipsec/adit/sad"
	"github.com/adit-ipsec/adit/spd"
)

// The reference model: a host that reassembles what passed, in the plainest way.

// modelKey is what the host tells datagrams apart by.
type modelKey struct {
	v6       bool
	protocol uint8 // IPv4
	id       uint32
}

// modelPiece is a fragment on its way.
type modelPiece struct {
	key        modelKey
	port       uint16 // in the packet that it was cut from
	protocol   uint8  // by its own header
	start, end int    // in units of 8 bytes
	more       bool
}

// passed is a fragment that passed, and the way that it took.
type passed struct {
	modelPiece
	way string
}

// The datagrams are 64 bytes long.
const modelUnits = 8

// whole is the packet that the piece was cut from.
func (p *modelPiece) whole() []byte {
	f := families()["IPv4"]
	if p.key.v6 {
		f = families()["IPv6"]
	}
	b := f.datagramTo(p.port, modelUnits*8-8)
	if b[0]>>4 == 4 {
		b[9] = p.protocol
	} else {
		b[6] = p.protocol
	}
	return b
}

func (p *modelPiece) bytes() []byte { return pieceOf(p.whole(), p.key.id, p.start*8, p.end*8, p.more) }

// flow is what policies see of the whole packet.
func (p *modelPiece) flow() (f packet.Flow) {
	var h packet.Header
	if err := packet.Parse(p.whole(), &h, &f); err != nil {
		panic(err)
	}
	return f
}

// want is the way of piece when initial is its datagram's initial fragment: the
// first policy that matches the ports, or opaque where the piece has none.
func want(policies []spd.Policy, initial, piece *modelPiece) string {
	flow := initial.flow()
	opaque := flow
	opaque.SrcPort, opaque.DstPort, opaque.PortsOpaque = 0, 0, true
	for i := range policies {
		s := &policies[i].Selector
		if s.Match(spd.Outbound, &flow) || piece.start > 0 && s.Match(spd.Outbound, &opaque) {
			return wayOf(&policies[i])
		}
	}
	return "dropped"
}

func wayOf(p *spd.Policy) string {
	switch p.Action {
	case spd.Bypass:
		return "clear"
	case spd.Protect:
		return p.Peer
	}
	return "dropped"
}

// genTable makes tables in which ports, protocols and opaque decide.
var genTable = rapid.Custom(func(t *rapid.T) []spd.Policy {
	policies := make([]spd.Policy, rapid.IntRange(1, 5).Draw(t, "policies"))
	for i := range policies {
		p := &policies[i]
		p.Name = fmt.Sprint(i)
		p.Selector = spd.Selector{Local: lanA, Remote: lanB, Protocol: rapid.SampledFrom([]spd.Protocol{packet.ProtoUDP, packet.ProtoTCP, packet.ProtoGRE, spd.ProtocolAny}).Draw(t, "protocol")}
		if p.Selector.Protocol.HasPorts() {
			for _, port := range modelPorts {
				if rapid.Bool().Draw(t, "port") {
					p.Selector.RemotePorts.Ranges = append(p.Selector.RemotePorts.Ranges, spd.PortRange{From: port, To: port})
				}
			}
			p.Selector.RemotePorts.Opaque = rapid.IntRange(0, 3).Draw(t, "opaque") == 0
		}
		p.Action = rapid.SampledFrom([]spd.Action{spd.Protect, spd.Protect, spd.Bypass, spd.Discard}).Draw(t, "action")
		if p.Action == spd.Protect {
			p.Peer = rapid.SampledFrom([]string{"b", "c"}).Draw(t, "peer")
		}
	}
	return policies
})

var modelPorts = []uint16{22, 80, 99}

// genPieces makes datagrams cut at random, mixed with each other, reordered a
// little, with fragments lost, doubled, and of anybody's making between them.
var genPieces = rapid.Custom(func(t *rapid.T) (list []modelPiece) {
	protocols := []uint8{packet.ProtoUDP, packet.ProtoUDP, packet.ProtoTCP, packet.ProtoGRE}
	v6 := rapid.Bool().Draw(t, "v6")
	draw := func() modelPiece {
		p := modelPiece{port: rapid.SampledFrom(modelPorts).Draw(t, "port"), protocol: rapid.SampledFrom(protocols).Draw(t, "protocol")}
		p.key = modelKey{v6: v6, id: uint32(rapid.IntRange(1, 2).Draw(t, "id"))}
		if !v6 {
			p.key.protocol = p.protocol
		}
		return p
	}
	for range rapid.IntRange(1, 5).Draw(t, "datagrams") {
		p := draw()
		for p.start < modelUnits {
			p.end = min(p.start+rapid.IntRange(1, 4).Draw(t, "length"), modelUnits)
			p.more = p.end < modelUnits
			list = append(list, p)
			p.start = p.end
		}
	}
	for range rapid.IntRange(0, 4).Draw(t, "strangers") {
		p := draw()
		p.start = rapid.IntRange(0, modelUnits-1).Draw(t, "start")
		p.end = rapid.IntRange(p.start+1, modelUnits).Draw(t, "end")
		p.more = rapid.Bool().Draw(t, "more")
		if p.start == 0 {
			p.more = true
		}
		list = slices.Insert(list, rapid.IntRange(0, len(list)).Draw(t, "at"), p)
	}
	for range rapid.IntRange(0, 3).Draw(t, "swaps") {
		i, j := rapid.IntRange(0, len(list)-1).Draw(t, "i"), rapid.IntRange(0, len(list)-1).Draw(t, "j")
		list[i], list[j] = list[j], list[i]
	}
	return list
})

// RFC 4301 7.3 and 7.4: whatever is sent, in whatever order: what passes never
// overlaps, and the packet that it makes up is one that policy would have sent
// the way that each of its fragments went.
func TestCP06_WhatPassesMakesUpPacketsThatPolicyAllows(t *testing.T) {
	r := fragmentRig(t, nil)
	c := r.params(sad.Outbound)
	c.Peer, c.SPI = "c", outSPI+1
	c.EncryptionKey, c.IntegrityKey = key("c enc", len(c.EncryptionKey)), key("c int", len(c.IntegrityKey))
	if err := r.gw.Install(c); err != nil {
		t.Fatal(err)
	}
	ways := map[string]int{}
	rapid.Check(t, func(t *rapid.T) {
		r.now += time.Minute // forget what was
		policies := genTable.Draw(t, "table")
		table, err := spd.NewTable(policies)
		if err != nil {
			t.Fatal(err)
		}
		r.gw.ApplyPolicy(table)
		host := map[modelKey][]passed{}
		for _, p := range genPieces.Draw(t, "fragments") {
			way := wayOut(r.send(p.bytes()))
			if way == "dropped" {
				ways["dropped"]++
				continue
			}
			got := append(host[p.key], passed{p, way})
			check(t, policies, got)
			if host[p.key] = got; wholeOf(got) {
				ways["whole by "+way]++
				delete(host, p.key)
			}
		}
	})
	for _, way := range []string{"whole by b", "whole by c", "whole by clear", "dropped"} {
		if ways[way] == 0 {
			t.Errorf("%s: never seen (%v): the test proves nothing", way, ways)
		}
	}
}

// wayOut is how the one packet left.
func wayOut(list []sent) string {
	switch {
	case len(list) == 0:
		return "dropped"
	case list[0].wire == wireKinds:
		return "clear"
	case binary.BigEndian.Uint32(list[0].Bytes()) == outSPI+1:
		return "c"
	}
	return "b"
}

// check is the property, for all that passed of one datagram.
func check(t *rapid.T, policies []spd.Policy, got []passed) {
	last := &got[len(got)-1]
	for i := range got[:len(got)-1] {
		if p := &got[i]; p.start < last.end && last.start < p.end {
			t.Fatalf("%+v overlaps %+v, and both passed", *last, *p)
		}
	}
	i := slices.IndexFunc(got, func(p passed) bool { return p.start == 0 })
	if i < 0 {
		return
	}
	for j := range got {
		if w := want(policies, &got[i].modelPiece, &got[j].modelPiece); got[j].way != w {
			t.Fatalf("%+v went by %s, and behind the initial fragment %+v it is to go by %s", got[j].modelPiece, got[j].way, got[i].modelPiece, w)
		}
	}
}

// wholeOf tells whether the fragments, which do not overlap, are a whole.
func wholeOf(got []passed) bool {
	length, end := 0, -1
	for _, p := range got {
		length += p.end - p.start
		if !p.more {
			end = p.end
		}
	}
	return length == end
}
