package dataplane

import (
	"github.com/adit-ipsec/adit/ah"
	"github.com/adit-ipsec/adit/esp"
	"github.com/adit-ipsec/adit/internal/packet"
	"github.com/adit-ipsec/adit/sad"
)

// One packet inbound of protocol 51. The wire hands it on whole, for AH covers
// the IP header in front:
//
//	inboundAH              in the place of inbound (inbound.go)
//	 1 ah.ParseHeader      SPI, low 32 bits of the sequence number       drop InMalformed
//	 2 sas.InboundAH       SA by SPI, and its endpoint                   drop InNoSA, InEndpoint   RFC 4302 3.4.2
//	   - it joins the run: consecutive packets of one SA -
//	 3 sa.Check            lifetime; sequence number, cheap reject       drop InExpired, InReplay  3.4.3
//	 4 transform.Verify    ICV over header and all                       drop InMalformed, InAuth  3.4.4
//	 5 sa.Mark             only now                                      drop InReplay
//	 6 delivered           of a bundle: ESP, on to the other SA          drop InBundle
//	                       tunnel mode: decapsulate, as of ESP
//	                       transport mode: rebuild, the header without AH
//	 7 … 9                 selectors, Touch, commit: as in inbound.go
//
// In transport mode, of ESP too, the packet is built again in the arena: the IP
// header as it came, or where the socket has kept it one like it, then what was
// protected (RFC 4303 3.1.1).

// wholeTaker is what an inbound worker needs for whole packets.
type wholeTaker struct {
	sa      *sad.SA      // of the run; nil: none
	jobs    []esp.Packet // the numbers of the run, for Check and Mark
	packets []ah.Packet  // packets[i] is jobs[i]'s
	from    []origin
	scratch *ah.Scratch

	arena []byte // packets that were built again
	used  int    // bytes of it
}

func newWholeTaker(covered bool) wholeTaker {
	t := wholeTaker{arena: make([]byte, arenaLen)}
	if covered {
		t.jobs = make([]esp.Packet, 0, inboundBatch)
		t.packets = make([]ah.Packet, 0, inboundBatch)
		t.from = make([]origin, 0, inboundBatch)
		t.scratch = ah.NewScratch()
	}
	return t
}

// inboundAH finds the SA of one packet and adds it to that SA's run.
func (w *inboundWorker) inboundAH(from origin) DropReason {
	d := from.gram
	b := d.Mem[from.start:from.end]
	spi, low, ok := ah.ParseHeader(b)
	if !ok {
		return InMalformed
	}
	t := &w.taker
	sa := t.sa
	if sa == nil || sa.SPI != spi {
		if sa = w.cache.sas.InboundAH(spi); sa == nil {
			w.unknownSPI(spi, d.Addr)
			return InNoSA
		}
	}
	if !w.endpoint(sa, d) {
		return InEndpoint
	}
	if t.sa != sa || len(t.jobs) == cap(t.jobs) {
		w.openAH()
		t.sa = sa
	}
	n := len(t.jobs)
	t.jobs, t.packets, t.from = t.jobs[:n+1], t.packets[:n+1], append(t.from, from)
	j := &t.jobs[n]
	j.Seq, j.Err = uint64(low), nil
	t.packets[n].Wire = b
	return forwarded
}

// openAH takes the collected run of one SA's packets through steps 3 to 9.
func (w *inboundWorker) openAH() {
	t := &w.taker
	if len(t.jobs) == 0 {
		t.sa = nil
		return
	}
	t.sa.Check(t.jobs)
	for i := range t.jobs {
		t.packets[i].Seq, t.packets[i].Err = t.jobs[i].Seq, t.jobs[i].Err
	}
	t.sa.AHTransform.Verify(t.scratch, t.packets)
	for i := range t.jobs {
		if t.jobs[i].Err == nil {
			t.jobs[i].Err, t.jobs[i].Payload = errorOfESP(t.packets[i].Err), t.packets[i].Payload
		}
	}
	t.sa.Mark(t.jobs)
	packets, bytes, others := 0, 0, 0
	for i := range t.jobs {
		reason := w.deliverAH(t.sa, t.jobs[i].Err, &t.packets[i], &t.from[i])
		switch {
		case reason == forwarded:
			packets++
			bytes += len(t.packets[i].Payload)
		case reason != InReplay && reason != InAuth: // Check and Mark have counted those
			others++
		}
		if reason != forwarded {
			w.drop(reason, 1)
			about := t.sa
			if reason == InNoSA { // the SPI inside a bundle is the one without
				about = nil
			}
			w.audit(reason, t.from[i], about, &t.jobs[i])
		}
	}
	if packets > 0 {
		t.sa.Touch(int64(w.now), packets, bytes)
	}
	if others > 0 {
		t.sa.CountDrop(others)
	}
	t.jobs, t.packets, t.from, t.sa = t.jobs[:0], t.packets[:0], t.from[:0], nil
}

// errorOfESP is what sad and refused know for an error of ah.
func errorOfESP(err error) error {
	//nolint:errorlint // sentinels handed over bare, on the packet path
	switch err {
	case nil:
		return nil
	case ah.ErrAuth:
		return esp.ErrAuth
	}
	return esp.ErrMalformed
}

// deliverAH takes one verified packet through steps 6 to 9.
func (w *inboundWorker) deliverAH(sa *sad.SA, err error, job *ah.Packet, from *origin) DropReason {
	if err != nil {
		return refused(err)
	}
	start := from.start + len(job.Wire) - len(job.Payload)
	end := from.start + len(job.Wire)
	if sa.Bundle {
		*from = origin{gram: from.gram, start: start, end: end, header: job.Header}
		return w.enclosed(sa, job.NextHeader, *from)
	}
	if len(w.out) == cap(w.out) {
		w.flush()
	}
	var p *packet.Buffer
	var reason DropReason
	if sa.Mode == sad.TransportMode {
		p, reason = w.rebuild(job.Wire[:job.Header], job.NextHeader, job.Payload)
	} else {
		p, reason = w.inner(sa, job.NextHeader, from.gram, start, len(job.Payload), end)
	}
	if reason != forwarded {
		return reason
	}
	return w.admit(sa, p)
}

// enclosed hands what a bundle's AH protected to its SA of ESP.
func (w *inboundWorker) enclosed(around *sad.SA, next uint8, from origin) DropReason {
	if next != packet.ProtoESP {
		return InBundle
	}
	spi, low, ok := esp.ParseHeader(from.gram.Mem[from.start:from.end])
	if !ok {
		return InMalformed
	}
	sa := w.cache.sas.Inbound(spi)
	if sa == nil {
		w.unknownSPI(spi, from.gram.Addr)
		return InNoSA
	}
	if !sa.Bundle || sa.Peer != around.Peer || sa.Policy != around.Policy {
		return InBundle
	}
	w.join(sa, low, from)
	return forwarded
}

// transported builds the packet of a transport mode SA of ESP again.
func (w *inboundWorker) transported(sa *sad.SA, job *esp.Packet, from *origin) (*packet.Buffer, DropReason) {
	if job.NextHeader == packet.ProtoNone {
		return nil, w.dummy(sa, job.Payload) // as in decapsulate
	}
	d := from.gram
	// ESP does not sign the addresses that become the packet's own. Before the
	// ICV endpoint lets UDP come from anywhere; here the SA says between whom it is.
	if at := sa.Endpoint().Addr(); at.IsValid() && !at.IsUnspecified() && d.Addr.Addr() != at {
		return nil, InEndpoint
	}
	var made [40]byte
	var header []byte
	switch {
	case from.header > 0:
		header = d.Mem[d.Off : d.Off+from.header]
	case !w.udp && d.Off > packet.Headroom && d.Mem[packet.Headroom]>>4 == 4:
		header = d.Mem[packet.Headroom:d.Off] // what the raw socket has stepped over
	default:
		header = synthesize(made[:], d)
	}
	if header == nil {
		return nil, InInner
	}
	p, reason := w.rebuild(header, job.NextHeader, job.Payload)
	if reason == forwarded && sa.OriginalRemote.IsValid() {
		restoreChecksum(sa, p)
	}
	return p, reason
}

// synthesize makes in b an IP header like the one that the socket has taken off.
// What the socket does not tell, options, flow label, and over UDP the hop limit,
// is not there. The hop limit of a raw packet is: RFC 5082 3 judges by it how far
// away the sender is.
func synthesize(b []byte, d *packet.Datagram) []byte {
	src, dst := d.Addr.Addr(), d.Local
	hops := d.TTL
	if hops == 0 {
		hops = outerTTL
	}
	if !src.IsValid() || !dst.IsValid() || src.Is4() != dst.Is4() {
		return nil
	}
	if src.Is4() {
		h := b[:20]
		h[0], h[1], h[6], h[8] = 0x45, d.TOS, 0x40, hops
		s, t := src.As4(), dst.As4()
		copy(h[12:], s[:])
		copy(h[16:], t[:])
		return h
	}
	h := b[:40]
	h[0], h[1], h[7] = 0x60|d.TOS>>4, d.TOS<<4, hops
	s, t := src.As16(), dst.As16()
	copy(h[8:], s[:])
	copy(h[24:], t[:])
	return h
}

// rebuild puts an IP header and what follows it together in the arena. RFC 4303
// 3.4.4.1 step 5: "The receiver reconstructs the original IP datagram from: - for
// transport mode -- outer IP header plus the original next layer protocol
// information in the ESP Payload field".
func (w *inboundWorker) rebuild(header []byte, next uint8, payload []byte) (*packet.Buffer, DropReason) {
	t := &w.taker
	total := len(header) + len(payload)
	if total > packet.MaxLen {
		return nil, InInner
	}
	if room := packet.Headroom + total; len(t.arena)-t.used < room {
		w.flush()
	}
	mem := t.arena[t.used : t.used+packet.Headroom+total]
	t.used += len(mem)
	b := mem[packet.Headroom:]
	copy(b[copy(b, header):], payload)
	packet.SetProtocol(b[:len(header)], next)
	packet.SetLength(b[:len(header)], total)
	packet.SetChecksum(b[:len(header)])
	w.out = w.out[:len(w.out)+1]
	p := &w.out[len(w.out)-1]
	p.Mem, p.Off, p.Len, p.SegmentSize = mem[:len(mem):len(mem)], packet.Headroom, total, 0
	if p.Parse() != nil {
		w.out = w.out[:len(w.out)-1]
		return nil, InInner
	}
	return p, forwarded
}

// restoreChecksum is RFC 3948 3.1.2: the sums of TCP and UDP are over the
// addresses that the peer sent from and to, and NATs have changed those.
//
//	"Subtract the IP source address in the received packet from the checksum.
//	Add the real IP source address received via IKE to the checksum" ...
//	"Subtract the IP destination address in the received packet from the
//	checksum. Add the real IP destination address received via IKE to the
//	checksum"
func restoreChecksum(sa *sad.SA, p *packet.Buffer) {
	b := p.Bytes()[p.Header.TransportOffset:]
	at := 0
	switch {
	case p.Flow.Protocol == packet.ProtoTCP && len(b) >= 20:
		at = 16
	case p.Flow.Protocol == packet.ProtoUDP && len(b) >= 8 && b[6]|b[7] != 0:
		at = 6
	default:
		return
	}
	field := b[at : at+2]
	replaceAddress(field, &p.Flow.Src, sa.OriginalRemote.As16())
	replaceAddress(field, &p.Flow.Dst, sa.OriginalLocal.As16())
	if p.Flow.Protocol == packet.ProtoUDP && field[0]|field[1] == 0 {
		field[0], field[1] = 0xff, 0xff // RFC 768: 0 would say that there is none
	}
}

// replaceAddress takes the original address out of a sum and puts the present
// one in. An IPv4 address is mapped on both sides, which adds the same to both.
func replaceAddress(field []byte, present *[16]byte, original [16]byte) {
	packet.ReplaceInChecksum(field, original[:], present[:])
}
