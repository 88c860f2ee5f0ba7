package dataplane

import (
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/adit-ipsec/adit/sad"
)

// Hold says how many packets may wait for an SA. Zero values mean the defaults.
type Hold struct {
	// Packets and Bytes bound what is held in all: 8192 packets, a segment of a
	// superpacket being one, and 8 MiB of them. Beside its bytes a packet takes a
	// quarter of a KiB. At most half of it is one policy's: no policy has more
	// than is free.
	Packets, Bytes int
	// PerFlow bounds the packets of one flow: 16, which is more than a TCP
	// connection (a SYN and its retransmissions) or a QUIC one (ten packets at
	// once, RFC 9002 7.2) sends before it has heard an answer. One superpacket is
	// held however many it becomes.
	PerFlow int
	// Deadline is how long a packet waits: 10 s. A set-up that loses three
	// datagrams in a row in each of its two exchanges takes 7 s (ike.Timing), and
	// a sender that has waited longer has sent again.
	Deadline time.Duration
}

const (
	holdPackets  = 8192
	holdBytes    = 8 << 20
	holdPerFlow  = 16
	holdDeadline = 10 * time.Second
)

func (h *Hold) check() error {
	if h != nil && (h.Packets < 0 || h.Bytes < 0 || h.PerFlow < 0 || h.Deadline < 0) {
		return fmt.Errorf("dataplane: Config.Hold is %d packets, %d bytes, %d per flow, %s: use 0, the default, or more", h.Packets, h.Bytes, h.PerFlow, h.Deadline)
	}
	return nil
}

// holding is what a gateway knows of held packets; the packets themselves are the
// workers' (hold.go).
type holding struct {
	Hold // no zero values, where on
	on   bool

	packets, bytes atomic.Int64 // held now
	responderOnly  atomic.Pointer[map[string]struct{}]
	coming         sync.Map      // policy -> time.Duration: until when its outbound SA may still come
	wake           chan struct{} // one is as good as many

	mu      sync.Mutex
	refused []holdRefusal
}

// holdRefusal is one call of Refuse that no worker has heard of yet.
type holdRefusal struct {
	peer, policy string
	at           time.Duration // packets that came later are not meant
}

func (h *holding) use(cfg *Hold) {
	if cfg == nil {
		return
	}
	h.on, h.Hold, h.wake = true, *cfg, make(chan struct{}, 1)
	h.Packets = orDefault(h.Packets, holdPackets)
	h.Bytes = orDefault(h.Bytes, holdBytes)
	h.PerFlow = orDefault(h.PerFlow, holdPerFlow)
	h.Deadline = orDefault(h.Deadline, holdDeadline)
}

func orDefault[T int | time.Duration](value, otherwise T) T {
	if value == 0 {
		return otherwise
	}
	return value
}

func (h *holding) isResponderOnly(policy string) bool {
	names := h.responderOnly.Load()
	if names == nil {
		return false
	}
	_, is := (*names)[policy]
	return is
}

// comingTime is how long behind an inbound SA its outbound one is waited for.
const comingTime = time.Second

// comes notes that the outbound SA of an inbound one follows: a responder installs
// that when its answer has left, and the first packets of the peer may have been
// answered by then. It is called before the inbound SA is there.
func (h *holding) comes(now time.Duration, params []sad.Params) {
	names := h.responderOnly.Load()
	if !h.on || names == nil {
		return
	}
	for i := range params {
		if _, is := (*names)[params[i].Policy]; is && params[i].Direction == sad.Inbound {
			h.coming.Store(params[i].Policy, now+comingTime)
		}
	}
}

// isComing tells whether an SA of the policy is being made just now. It is off the
// path of packets that have one.
func (h *holding) isComing(policy string, now time.Duration) bool {
	until, ok := h.coming.Load(policy)
	return h.on && ok && now < until.(time.Duration)
}

// ResponderOnly names the policies whose SAs only the peer may begin: their packets
// without an SA are dropped as OutResponderOnly, at once unless the peer is making one
// just now (comes), and no Acquire is said.
// The names replace those of the call before, and hold for whatever table has
// policies of these names: set them before ApplyPolicy, and no packet asks in
// between.
func (g *Gateway) ResponderOnly(policies ...string) {
	names := make(map[string]struct{}, len(policies))
	for _, name := range policies {
		names[name] = struct{}{}
	}
	g.holding.responderOnly.Store(&names)
	g.holding.coming.Range(func(name, _ any) bool { // names that are gone take no room
		if _, is := names[name.(string)]; !is {
			g.holding.coming.Delete(name)
		}
		return true
	})
}

// Refuse says that there will be no SA now: what is held for the peer's policy
// ("": for all policies of the peer) is dropped as OutRefused, and answered with
// ICMP where Config.ICMP.Unreachable is set. Packets that come later are held, and
// ask, as before. It does not wait for the workers.
//
// A key source that hears an Acquire for a peer that it knows nothing of says so
// here too.
func (g *Gateway) Refuse(peer, policy string) {
	h := &g.holding
	if h.packets.Load() == 0 {
		return
	}
	h.mu.Lock()
	at, known := g.clock(), false
	for i := range h.refused {
		if r := &h.refused[i]; r.peer == peer && r.policy == policy {
			r.at, known = at, true
		}
	}
	if !known {
		h.refused = append(h.refused, holdRefusal{peer, policy, at})
	}
	h.mu.Unlock()
	g.wakeHolder()
}

func (h *holding) takeRefusals() []holdRefusal {
	h.mu.Lock()
	defer h.mu.Unlock()
	list := h.refused
	h.refused = nil
	return list
}

// wakeHolder is called behind every change of the databases that can give packets
// an SA. It never blocks.
func (g *Gateway) wakeHolder() {
	if g.holding.packets.Load() == 0 {
		return // who holds one from now on sees the change: see outboundWorker.end
	}
	select {
	case g.holding.wake <- struct{}{}:
	default:
	}
}

// tendHolds does for each worker that is free what the worker would do with its
// next batch. A worker that is not does it itself; only refusals wait for it.
func (g *Gateway) tendHolds() {
	refusals := g.holding.takeRefusals()
	if g.holding.packets.Load() == 0 {
		return
	}
	for _, w := range g.out {
		if len(refusals) > 0 {
			w.own()
		} else if !w.using.CompareAndSwap(0, anySnapshot) {
			continue
		}
		w.load()
		w.refuseHeld(refusals)
		w.tend()
		w.handOut(nil)
		w.end()
	}
}

// refuseHeld drops what the refusals are about.
func (w *outboundWorker) refuseHeld(refusals []holdRefusal) {
	if len(refusals) == 0 || len(w.hold.list) == 0 {
		return
	}
	w.sift(func(held *heldPacket) (decision, DropReason) {
		for _, r := range refusals {
			if held.policy.Peer == r.peer && (r.policy == "" || held.policy.Name == r.policy) && held.since <= r.at {
				return decision{}, OutRefused
			}
		}
		return decision{}, forwarded
	})
}
