package netlab

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"

	"github.com/adit-ipsec/adit/internal/packet"
	"github.com/adit-ipsec/adit/internal/pcap"
)

// Kind is what a packet on the wire is, as an observer without keys sees it.
type Kind uint8

// Kinds.
const (
	KindOther     Kind = iota // anything that is none of the others: clear traffic
	KindESP                   // IP protocol 50
	KindAH                    // IP protocol 51
	KindUDPESP                // ESP in UDP 4500 (RFC 3948 2.1)
	KindKeepalive             // NAT keepalive: one byte 0xFF on UDP 4500 (RFC 3948 2.3)
	KindIKE                   // UDP 500, or UDP 4500 behind four zero bytes (RFC 3948 2.2)
	KindNeighbour             // ARP, IPv6 neighbour and router discovery, group membership
	KindICMPError             // an ICMP error that quotes one of the protected kinds
	kinds
)

// String names the kind for people.
func (k Kind) String() string {
	return [...]string{"OTHER", "ESP", "AH", "UDP 4500 ESP", "UDP 4500 keepalive", "IKE", "neighbour discovery", "ICMP about protected", "?"}[min(k, kinds)]
}

// Summary counts a capture's packets by kind.
type Summary struct {
	Packets [kinds]uint64
	Bytes   [kinds]uint64 // frames, link header included
	Others  []string      // what the first few different OTHER packets were
	Marked  uint64        // packets that held the marker
	Kept    int           // packets held in memory
	Dropped uint64        // packets the socket had no room for: the counts are short of them
}

const maxOthers = 8

// Count is the number of packets of a kind.
func (s Summary) Count(k Kind) uint64 { return s.Packets[k] }

// Total is the number of packets seen.
func (s Summary) Total() (n uint64) {
	for _, v := range s.Packets {
		n += v
	}
	return n
}

// OnlyProtected tells whether everything on the wire was ESP, AH, keepalives,
// IKE, ICMP errors about those, or neighbour discovery, none held the marker, and
// no packet was missed.
func (s Summary) OnlyProtected() bool {
	return s.Packets[KindOther] == 0 && s.Marked == 0 && s.Dropped == 0
}

// String is one line, with the first OTHER packets where there are any.
func (s Summary) String() string {
	var parts []string
	for k := range kinds {
		if s.Packets[k] > 0 || k == KindOther {
			parts = append(parts, fmt.Sprintf("%s %d", k, s.Packets[k]))
		}
	}
	parts = append(parts, fmt.Sprintf("with the marker %d", s.Marked))
	if s.Dropped > 0 {
		parts = append(parts, fmt.Sprintf("MISSED %d", s.Dropped))
	}
	text := strings.Join(parts, ", ")
	if len(s.Others) > 0 {
		text += " (" + strings.Join(s.Others, "; ") + ")"
	}
	return text
}

// sorter counts packets by kind. Fragments behind the first show no ports; they
// are counted as what their first fragment is, in whichever order they come.
type sorter struct {
	natt      uint16
	s         Summary
	fragments map[fragmentKey]*fragmentState
}

type fragmentKey struct {
	src, dst [16]byte
	id       uint32
	version  uint8
}

type fragmentState struct {
	kind           Kind
	known          bool // the first fragment has come
	packets, bytes uint64
}

const maxFragments = 4096 // datagrams remembered; then all are forgotten

func (t *sorter) summary() Summary {
	s := t.s
	s.Others = append([]string(nil), t.s.Others...)
	return s
}

func (t *sorter) add(frame []byte, link pcap.LinkType) {
	kind, what := t.kind(frame, link)
	t.s.Packets[kind]++
	t.s.Bytes[kind] += uint64(len(frame))
	if kind == KindOther && what != "" && len(t.s.Others) < maxOthers && !slices.Contains(t.s.Others, what) {
		t.s.Others = append(t.s.Others, what)
	}
}

// ipOf returns the IP packet in a frame.
func ipOf(frame []byte, link pcap.LinkType) ([]byte, bool) {
	if link == pcap.RawIP {
		return frame, len(frame) > 0
	}
	if len(frame) < 14 {
		return nil, false
	}
	switch binary.BigEndian.Uint16(frame[12:]) {
	case 0x0800, 0x86dd:
		return frame[14:], true
	}
	return nil, false
}

func (t *sorter) kind(frame []byte, link pcap.LinkType) (Kind, string) {
	ip, ok := ipOf(frame, link)
	if !ok {
		if len(frame) >= 14 && binary.BigEndian.Uint16(frame[12:]) == 0x0806 {
			return KindNeighbour, ""
		}
		return KindOther, fmt.Sprintf("frame % x", frame[:min(14, len(frame))])
	}
	var h packet.Header
	var f packet.Flow
	if err := packet.Parse(ip, &h, &f); err != nil {
		return KindOther, err.Error()
	}
	ip = ip[:h.TotalLen]
	if !h.Fragment {
		return t.whole(ip, &h, &f)
	}
	return t.fragment(ip, &h, &f, uint64(len(frame)))
}

// fragment decides by the first fragment of the same datagram.
func (t *sorter) fragment(ip []byte, h *packet.Header, f *packet.Flow, frame uint64) (Kind, string) {
	if t.fragments == nil || len(t.fragments) > maxFragments {
		t.fragments = make(map[fragmentKey]*fragmentState)
	}
	key := fragmentKey{src: f.Src, dst: f.Dst, version: f.Version, id: uint32(binary.BigEndian.Uint16(ip[4:]))}
	if f.Version == 6 { // the identification ends the fragment header
		key.id = binary.BigEndian.Uint32(ip[h.TransportOffset-4:])
	}
	state := t.fragments[key]
	if state == nil {
		state = new(fragmentState)
		t.fragments[key] = state
	}
	if h.FragmentOffset != 0 {
		if state.known {
			return state.kind, ""
		}
		state.packets++
		state.bytes += frame
		return KindOther, ""
	}
	kind, what := t.whole(ip, h, f)
	state.kind, state.known = kind, true
	t.s.Packets[KindOther] -= state.packets
	t.s.Bytes[KindOther] -= state.bytes
	t.s.Packets[kind] += state.packets
	t.s.Bytes[kind] += state.bytes
	state.packets, state.bytes = 0, 0
	return kind, what
}

// whole decides by a packet that shows its transport header.
func (t *sorter) whole(ip []byte, h *packet.Header, f *packet.Flow) (Kind, string) {
	payload := ip[min(h.PayloadOffset, len(ip)):]
	switch {
	case f.ProtocolOpaque:
	case f.Protocol == packet.ProtoESP:
		return KindESP, ""
	case f.Protocol == packet.ProtoAH:
		return KindAH, ""
	case f.Protocol == packet.ProtoUDP && !f.PortsOpaque && (f.SrcPort == t.natt || f.DstPort == t.natt):
		return nattKind(payload, f)
	case f.Protocol == packet.ProtoUDP && !f.PortsOpaque && (f.SrcPort == 500 || f.DstPort == 500): // a NAT may have changed the other
		return KindIKE, ""
	case f.Protocol == packet.ProtoICMPv6 && !f.PortsOpaque && isNeighbour(uint8(f.SrcPort>>8)):
		return KindNeighbour, ""
	case f.Version == 4 && f.Protocol == 2: // IGMP
		return KindNeighbour, ""
	case t.quotesProtected(ip[h.TransportOffset:], f):
		return KindICMPError, ""
	}
	return KindOther, f.String()
}

// quotesProtected tells whether message is an ICMP error about a protected packet:
// what it shows of that is an outer header and ciphertext.
func (t *sorter) quotesProtected(message []byte, f *packet.Flow) bool {
	if f.Protocol != packet.ProtoICMP && f.Protocol != packet.ProtoICMPv6 {
		return false
	}
	e, ok := packet.ParseICMPError(message, int(f.Version))
	if !ok {
		return false
	}
	q, ok := packet.QuotedFlow(e.Quoted)
	if !ok || q.ProtocolOpaque {
		return false
	}
	switch q.Protocol {
	case packet.ProtoESP, packet.ProtoAH:
		return true
	case packet.ProtoUDP:
		return !q.PortsOpaque && (q.SrcPort == t.natt || q.DstPort == t.natt)
	}
	return false
}

// nattKind tells what a UDP payload on the NAT traversal port is (RFC 3948 2).
func nattKind(b []byte, f *packet.Flow) (Kind, string) {
	switch {
	case len(b) == 1 && b[0] == 0xff:
		return KindKeepalive, ""
	case len(b) < 8:
		return KindOther, fmt.Sprintf("%s: %d bytes", f, len(b))
	case bytes.HasPrefix(b, []byte{0, 0, 0, 0}):
		return KindIKE, ""
	}
	return KindUDPESP, ""
}

// isNeighbour tells the ICMPv6 types that keep a link alive: multicast listener
// (130-132, 143: RFC 2710, 3810) and neighbour discovery (133-137: RFC 4861).
func isNeighbour(icmpType uint8) bool {
	return icmpType >= 130 && icmpType <= 137 || icmpType == 143
}
