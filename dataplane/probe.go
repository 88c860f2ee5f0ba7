package dataplane

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/adit-ipsec/adit/internal/packet"
	"github.com/adit-ipsec/adit/sad"
)

// Probes of the path MTU inside the SA. A probe is a dummy packet (RFC 4303 2.6:
// next header 59, which every receiver "MUST be prepared to discard ... without
// indicating an error"), so that a peer that does not know probes is not disturbed.
// Its text is encrypted and authenticated as any other:
//
//	0   "adit-mtu"
//	8   version: 1
//	9   kind: 1 request, 2 reply
//	10  0, 0
//	12  identifier, 8 bytes: chosen at random by who asks, repeated by who answers
//	20  zeros, up to the length that is asked about
//
// A request leaves with DF set and goes no further than the path is wide. Whoever
// gets one through authentication and replay window answers with a reply of 20
// bytes, by its own SA towards that peer. The machine behind it is pathProbe.

const (
	probeMagic   = "adit-mtu"
	probeVersion = 1
	probeRequest = 1
	probeReply   = 2
	probeLen     = 20 // bytes of text without zeros

	// probeTick is how often SAs in use are looked at.
	probeTick = 50 * time.Millisecond
	// probeFresh is how long behind an SA's last long packet a probe is begun, and
	// probeUse how long a doubt is pursued: longer than TCP waits before it tries
	// a third time.
	probeFresh = 300 * time.Millisecond
	probeUse   = 5 * time.Second
	// probeBudget is what one SA's confirmations cost the others: with very many
	// SAs in use each is confirmed less often.
	probeBudget = 2500 * time.Microsecond
	// probeReplies is how many requests are answered in an eventInterval.
	probeReplies = 2000
	// probeQueue is how many requests and replies wait for the prober.
	probeQueue = 256
)

// heardProbe is a probe that an inbound walk has opened.
type heardProbe struct {
	sa   *sad.SA // inbound
	kind uint8
	id   uint64
	at   time.Duration
}

// probeCounters count probes.
type probeCounters struct {
	sent, answers, replies, lost atomic.Uint64
}

// prober owns the machines of the SAs in use.
type prober struct {
	gateway  *Gateway
	heard    chan heardProbe
	snapshot *sad.Snapshot
	paths    map[*sad.SA]*pathProbe
	flights  map[uint64]*sad.SA // who asked; rebuilt when too much of it is stale
	now      time.Duration
	replies  limiter
	active   int // SAs in use in the last round

	text []byte // of the probe that is being sent
}

func newProber(g *Gateway) *prober {
	return &prober{
		gateway: g, heard: make(chan heardProbe, probeQueue),
		paths: make(map[*sad.SA]*pathProbe), flights: make(map[uint64]*sad.SA),
		text: make([]byte, packet.MaxLen),
	}
}

// dummy is what decapsulate makes of next header 59: a probe is handed to the
// prober if it has room, and whatever it is ends here.
func (w *inboundWorker) dummy(sa *sad.SA, text []byte) DropReason {
	prober := w.gateway.path.prober
	if prober == nil || len(text) < probeLen || string(text[:len(probeMagic)]) != probeMagic || text[8] != probeVersion {
		return InDummy
	}
	select {
	case prober.heard <- heardProbe{sa: sa, kind: text[9], id: binary.BigEndian.Uint64(text[12:]), at: w.now}:
	default: // one probe lost
	}
	return probed
}

// run works until the gateway stops.
func (p *prober) run(ticks <-chan time.Time) {
	for {
		select {
		case <-p.gateway.stop:
			return
		case h := <-p.heard:
			p.now = p.gateway.clock()
			p.hear(h)
		case <-ticks:
			p.round()
		}
	}
}

// hear takes in what the peer asked or answered.
func (p *prober) hear(h heardProbe) {
	switch h.kind {
	case probeRequest:
		if p.replies.allow(p.now, probeReplies) {
			p.reply(h)
		}
	case probeReply:
		sa := p.flights[h.id]
		if sa == nil || sa.Peer != h.sa.Peer {
			return // late, or not an answer to anything
		}
		delete(p.flights, h.id)
		if path := p.paths[sa]; path != nil {
			is := sa.PathMTU() // a router may have spoken since the last round
			path.told(is.MTU, is.Link, p.now)
			p.gateway.path.probes.answers.Add(1)
			if path.answered(h.id, max(h.at, path.sentAt(h.id))) {
				sa.SetPathMTU(path.size, sad.MTUProbe, int64(p.now))
			}
		}
	}
}

// reply answers by the SA that serves what h's serves, or by any towards the peer.
func (p *prober) reply(h heardProbe) {
	sas := p.gateway.sas.Load()
	sa := sas.Outbound(h.sa.Peer, h.sa.Policy)
	if sa == nil || sa.Protocol != sad.ESP {
		sa = nil
		for other := range sas.All() {
			if other.Direction == sad.Outbound && other.Protocol == sad.ESP && other.Peer == h.sa.Peer {
				sa = other
				break
			}
		}
	}
	if sa != nil && p.send(sa, probeReply, h.id, probeLen) == nil {
		p.gateway.path.probes.replies.Add(1)
	}
}

// round looks at every SA in use.
func (p *prober) round() {
	p.now = p.gateway.clock()
	sas := p.gateway.sas.Load()
	if sas != p.snapshot {
		p.snapshot = sas
		p.forget(sas)
	}
	interval := max(probeInterval, time.Duration(p.active)*probeBudget)
	p.active = 0
	for sa := range sas.All() {
		if sa.Direction == sad.Outbound && sa.Protocol == sad.ESP && !sa.Bundle && sa.SentLong(int64(p.now-probeUse)) {
			p.active++
			p.step(sa, interval)
		}
	}
	if len(p.flights) > 8*len(p.paths)+probeQueue {
		p.prune()
	}
}

// forget drops the machines of SAs that are gone.
func (p *prober) forget(sas *sad.Snapshot) {
	live := make(map[*sad.SA]bool, len(p.paths))
	for sa := range sas.All() {
		live[sa] = true
	}
	for sa := range p.paths {
		if !live[sa] {
			delete(p.paths, sa)
		}
	}
	p.prune()
}

// prune drops the names of probes that nobody waits for.
func (p *prober) prune() {
	for id, sa := range p.flights {
		if path := p.paths[sa]; path == nil || path.small.id != id && path.large.id != id {
			delete(p.flights, id)
		}
	}
}

// step moves one SA's machine on and sends what it asks for.
func (p *prober) step(sa *sad.SA, interval time.Duration) {
	path := p.paths[sa]
	if path == nil {
		path = &pathProbe{}
		p.paths[sa] = path
	}
	path.floor = sa.MinPathMTU() // another family's, perhaps, where the peer has moved
	is := sa.PathMTU()
	path.told(is.MTU, is.Link, p.now)
	ask, n, news := path.poll(p.now, interval, sa.SentLong(int64(p.now-probeFresh)), p.id)
	if news {
		p.gateway.path.probes.lost.Add(1)
		sa.SetPathMTU(path.size, sad.MTUProbe, int64(p.now))
	}
	for _, f := range ask[:n] {
		p.flights[f.id] = sa
		p.gateway.path.probes.sent.Add(1)
		// What the kernel refuses is lost; the link's MTU is looked at, for it
		// may be the reason.
		if err := p.send(sa, probeRequest, f.id, sa.MaxText(f.size)); errors.Is(err, syscall.EMSGSIZE) {
			p.gateway.path.refused(sa, f.size, p.now)
		}
	}
}

// sentAt is when the probe of that id was sent; 0: it is none in flight.
func (p *pathProbe) sentAt(id uint64) time.Duration {
	switch id {
	case p.small.id:
		return p.small.sent
	case p.large.id:
		return p.large.sent
	}
	return 0
}

// id is a name that nobody can guess and that is not 0.
func (p *prober) id() uint64 {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails: crypto/rand
	return binary.BigEndian.Uint64(b[:]) | 1
}

var errNoProbe = errors.New("dataplane: the SA cannot send a probe of that length")

// send sends a probe with a text of that many bytes. A request has DF set: its
// outer packet is as long as the one that is asked about.
func (p *prober) send(sa *sad.SA, kind uint8, id uint64, length int) error {
	if length < probeLen || length > len(p.text) {
		return errNoProbe
	}
	text := p.text[:length]
	clear(text)
	copy(text, probeMagic)
	text[8], text[9] = probeVersion, kind
	binary.BigEndian.PutUint64(text[12:], id)
	return p.gateway.sendDummy(sa, text, kind == probeRequest)
}
