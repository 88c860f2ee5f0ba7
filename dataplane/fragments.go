package dataplane

import (
	"time"

	"github.com/adit-ipsec/adit/internal/packet"
	"github.com/adit-ipsec/adit/sad"
	"github.com/adit-ipsec/adit/spd"
)

// Inner packets that are fragments (RFC 4301 7).
//
// Only the initial fragment of a datagram has ports. A policy matches another
// fragment if it matches OPAQUE, or if it matches the ports of the datagram's
// initial fragment; the first such policy decides, as ever. So fragments go the
// way of their initial fragment, unless an earlier policy names opaque: "All
// implementations MUST support DISCARDing of fragments using the normal SPD
// packet classification mechanisms" (7.4).
//
// While the initial fragment is not known (it comes later, or was lost, or came
// too long ago), what is decided has to be right whatever its ports are: a
// policy that might match them, and would decide otherwise, ends it. "BYPASS of
// a cleartext, non-initial fragment ... could undermine the security afforded
// IPsec-protected traffic directed to the same destination" (7.4).
//
// Section 7.3 has both ends agree on this in IKE (NON_FIRST_FRAGMENTS_ALSO).
// Manual keys negotiate nothing. Here both ends do it, and it is safe by itself:
// inbound, what rides on ports rides on an initial fragment of the same SA.
//
// What host stacks may put together in a way of their own never passes: overlap,
// first fragments without a whole transport header, and more; see broken and
// datagram.add. The rest of such a datagram is dropped too. Nothing is held or
// reassembled here: fragments leave in the order in which they came.

// undecided is what stands in the place of a policy that depends on fields that
// the packet lacks. It discards, whoever forgets to ask for it.
var undecided = &spd.Policy{Name: "fragment", Action: spd.Discard}

// fragment is step 2 for a fragment.
func (w *outboundWorker) fragment(p *packet.Buffer) decision {
	return w.cache.fragment(w.gateway.fragments[spd.Outbound], w.now, sad.ID{}, p)
}

// malformed is why a packet that Parse did not take is dropped.
func (w *outboundWorker) malformed(p *packet.Buffer, err error) DropReason {
	if w.gateway.fragments[spd.Outbound].spoiled(w.now, sad.ID{}, p, err) {
		return OutFragment
	}
	return OutMalformed
}

// fragment finds the policy in step 7 for a fragment.
func (w *inboundWorker) fragment(sa *sad.SA, p *packet.Buffer) decision {
	return w.cache.fragment(w.gateway.fragments[spd.Inbound], w.now, sa.ID(), p)
}

// malformed is why an inner packet that Parse did not take is dropped.
func (w *inboundWorker) malformed(sa *sad.SA, p *packet.Buffer, err error) DropReason {
	if w.gateway.fragments[spd.Inbound].spoiled(w.now, sa.ID(), p, err) {
		return InFragment
	}
	return InInner
}

// spoiled tells whether p is a fragment that Parse refused for being one: it
// overwrites TCP's flags, or reaches beyond 65535 bytes.
func (t *datagrams) spoiled(now time.Duration, sa sad.ID, p *packet.Buffer, err error) bool {
	if err != packet.ErrFragment { //nolint:errorlint // handed over bare
		return false
	}
	if f, ok := packet.ReadFragment(p.Bytes()); ok {
		t.poison(now, &datagramKey{f.Datagram, sa})
	}
	return true
}

// fragment decides about p, a fragment, and leaves in p.Flow the flow that the
// decision is about: with the ports of the initial fragment where those decide.
// The policy is undecided where p must not pass.
func (c *flowCache) fragment(t *datagrams, now time.Duration, sa sad.ID, p *packet.Buffer) decision {
	f, ok := packet.ReadFragment(p.Bytes())
	if !ok {
		return decision{policy: undecided}
	}
	key := datagramKey{f.Datagram, sa}
	if broken(&f, p) {
		t.poison(now, &key)
		return decision{policy: undecided}
	}
	var d decision
	var initial *packet.Flow
	if f.Start == 0 {
		d, initial = c.lookup(&p.Flow), &p.Flow
	} else if d = c.later(t, now, &key, p); d.policy == undecided {
		return d
	}
	switch {
	case d.policy != nil && d.policy.Action != spd.Discard:
		if !t.admit(now, &key, &f, initial) {
			return decision{policy: undecided}
		}
	case initial != nil:
		t.discarded(now, &key, initial)
	}
	return d
}

// later decides about a fragment that is not the initial one.
func (c *flowCache) later(t *datagrams, now time.Duration, key *datagramKey, p *packet.Buffer) decision {
	var first packet.Flow
	known, poisoned := t.first(now, key, &first)
	switch {
	case poisoned:
		return decision{policy: undecided}
	case known:
		return c.follow(&first, p)
	case key.Version == 6:
		// RFC 8200 4.5: "The Next Header values in the Fragment headers
		// of different fragments of the same original packet may differ.
		// Only the value from the Offset zero fragment packet is used
		// for reassembly." So this one proves nothing.
		p.Flow.Protocol, p.Flow.ProtocolOpaque = 0, true
	}
	return c.lookup(&p.Flow)
}

// follow decides about p, a fragment behind an initial one of the flow first.
func (c *flowCache) follow(first *packet.Flow, p *packet.Buffer) decision {
	d := c.lookup(first)
	p.Flow.Protocol, p.Flow.ProtocolOpaque = first.Protocol, false
	if opaque := c.opaque(&p.Flow); opaque != nil && (d.policy == nil || opaque.Index() < d.policy.Index()) {
		return c.apply(opaque, &p.Flow)
	}
	p.Flow = *first
	return d
}

// opaque is the first policy that matches flow, whose ports are opaque.
func (c *flowCache) opaque(flow *packet.Flow) *spd.Policy {
	if c.table == nil {
		return nil
	}
	return c.table.Lookup(c.direction, flow)
}

// maxClaims bounds the policies by port that are asked about one flow without
// ports; with more of them for the same addresses it is not decided.
const maxClaims = 256

// decideOpaque decides about a flow that lacks ports, or even the protocol:
// only what is right whatever they are.
func (c *flowCache) decideOpaque(flow *packet.Flow) decision {
	var first *spd.Policy
	claims := c.table.Claims(c.direction, flow)
	for range maxClaims {
		p, certain := claims.Next()
		switch {
		case p == nil && (first == nil || first.Action == spd.Discard):
			return decision{} // no match is discard
		case p == nil:
			return decision{policy: undecided}
		case first == nil:
			first = p
		case !c.alike(first, p):
			return decision{policy: undecided}
		}
		if certain {
			return c.apply(p, flow)
		}
	}
	return decision{policy: undecided}
}

// alike tells whether two policies do the same to a packet. Inbound the SA was
// the sender's choice; that it is the policy's is seen in selected.
func (c *flowCache) alike(a, b *spd.Policy) bool {
	switch {
	case a.Action != b.Action || a.Peer != b.Peer:
		return false
	case a.Action != spd.Protect || c.direction == spd.Inbound:
		return true
	}
	return c.sameSAs(a, b)
}

// sameSAs tells whether the same SAs carry what two policies protect: the one, and
// all classes. The AH of a bundle follows from its ESP.
func (c *flowCache) sameSAs(a, b *spd.Policy) bool {
	one, classes := c.sas.OutboundClasses(a.Peer, a.Name)
	other, others := c.sas.OutboundClasses(b.Peer, b.Name)
	return one == other && classes == others
}

// broken tells whether a fragment is one that no host's stack makes, and that
// some might take in a way of their own.
func broken(f *packet.Fragment, p *packet.Buffer) bool {
	switch length := f.End - f.Start; {
	case f.Nested:
		return true
	case length == 0, f.More && length%8 != 0:
		// RFC 8200 4.5: "If the length of a fragment ... is not a
		// multiple of 8 octets and the M flag of that fragment packet is
		// 1, then that fragment must be discarded". RFC 791 3.2 cuts
		// "on a 8 octet (64 bit) boundary" too.
		return true
	}
	least := transportHeader(p.Flow.Protocol)
	if f.Start > 0 {
		// RFC 4301 7.2: "Receivers MUST perform a minimum offset check on
		// IPv4 (non-initial) fragments to protect against overlapping
		// fragment attacks". What is not in the initial fragment must not
		// come here.
		return f.Start < least
	}
	// RFC 1858 3.1 and RFC 3128 for IPv4: a first fragment holds what is
	// looked at. For IPv6 RFC 7112 5: "the First Fragment MUST contain the
	// entire IPv6 Header Chain", the transport header included.
	return p.Flow.ProtocolOpaque || p.Flow.PortsOpaque || p.Header.TotalLen-p.Header.TransportOffset < least
}

// transportHeader is the length in bytes of a protocol's header without options;
// 0 where policies see nothing of it.
func transportHeader(protocol uint8) int {
	switch protocol {
	case packet.ProtoTCP:
		return 20
	case packet.ProtoSCTP:
		return 12
	case packet.ProtoUDP, packet.ProtoUDPLite, packet.ProtoICMP, packet.ProtoICMPv6:
		return 8
	}
	return 0
}
