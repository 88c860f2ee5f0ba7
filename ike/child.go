package ike

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/adit-ipsec/adit/ike/proposal"
	"github.com/adit-ipsec/adit/ike/wire"
	"github.com/adit-ipsec/adit/sad"
)

// The life of a Child SA at this end:
//
//	offer or answer -> install -> up -> rekeying -> replaced or deleting -> gone
//
// A pair has two ends that must agree which of its SAs carries packets. Inbound
// comes before anybody may send: the responder installs it before it answers, the
// initiator as soon as it has the answer. Outbound comes once the peer is known to
// have its inbound one; see deferOutbound.

// childState is where a pair of Child SAs stands.
type childState uint8

const (
	childUp        childState = iota
	childRekeying             // our request to replace it waits for its turn, or is on its way
	childReplaced             // the peer has made another in its place, and is to delete this one
	childRedundant            // the peer made it in a collision that it lost, and is to delete it
	childDeleting             // our delete waits for its turn, or is on its way
	childGone
)

func (s childState) String() string {
	return [...]string{"up", "rekeying", "replaced", "redundant", "deleting", "gone"}[s]
}

// lingering is how long the peer has to delete an SA that is its to delete. It is
// longer than any exchange takes. Then this end deletes it.
const lingering = 3 * time.Minute

// childSA is a pair of Child SAs.
type childSA struct {
	child         *Child
	sa            *ikeSA // whose it is; IKE SAs that are rekeyed hand it on
	protocol      wire.ProtocolID
	spiIn, spiOut uint32
	in, out       sad.ID
	suite         string
	ts            tsPair // what was agreed on
	transport     bool
	state         childState
	initiator     bool // this end asked for it
	receives      bool // the dataplane has its inbound SA
	sends         bool // the dataplane has its outbound SA
	awaits        bool // it receives until the delete of its IKE SA is over

	// lowest is the lower nonce of the exchange that made it (RFC 7296 2.8.1).
	lowest []byte
	// askedBy is the IKE SA on which the peer asked for it, with message askedID;
	// nil: this end asked.
	askedBy *ikeSA
	askedID uint32
	// successor is what the peer has made in its place, and replaces the other
	// way round, as long as both are there.
	successor, replaces *childSA
	// waiting is the outbound SA that is not installed yet; nil: it is.
	waiting *waitingOutbound
	linger  *timer
	retry   *timer // of a rekey that failed
	trouble backoff
}

// waitingOutbound is an outbound SA whose other end may not be there yet.
type waitingOutbound struct {
	params sad.Params
	after  *childSA // what it replaces; nil: nothing
	sa     *ikeSA   // on which the peer asked for it,
	id     uint32   // with this message
	timer  *timer
}

// live tells whether the pair is one that packets are to use.
func (c *childSA) live() bool { return c.state == childUp || c.state == childRekeying }

// spiTable are the SPIs of inbound Child SAs that are taken: of SAs, and of offers.
type spiTable map[uint32]bool

// newChildSPI draws an SPI that no other inbound SA has. The peer never chooses
// it, and RFC 4303 2.1 keeps 0 to 255.
func (m *Machine) newChildSPI() uint32 {
	if m.childSPIs == nil {
		m.childSPIs = spiTable{}
	}
	for {
		spi := binary.BigEndian.Uint32(m.random(4))
		if spi >= sad.MinSPI && !m.childSPIs[spi] {
			m.childSPIs[spi] = true
			return spi
		}
	}
}

// freeChildSPI gives an SPI back, once nothing of its old SA is on its way.
func (m *Machine) freeChildSPI(spi uint32) {
	m.after(2*m.timing.Grace, func() { delete(m.childSPIs, spi) })
}

// agreement is what two ends have agreed on for a pair.
type agreement struct {
	child     *Child
	choice    proposal.Choice
	ts        tsPair
	transport bool
	noTFC     bool // the peer takes no TFC padding
	more      bool // its policy has more than one pair can carry
	// The addresses that both ends had in front of NATs, in transport mode.
	originalLocal, originalRemote netip.Addr
}

// childKeying is what the keys of a pair are made of.
type childKeying struct {
	initiator bool // this end asked
	ni, nr    []byte
	secrets   [][]byte // of the key exchanges; none: there was none
}

// newChild makes a pair of what was agreed on, and the parameters of its SAs.
func (m *Machine) newChild(sa *ikeSA, a *agreement, spiIn uint32, k childKeying) (*childSA, []sad.Params, error) {
	c := &childSA{
		child: a.child, sa: sa, protocol: a.choice.Protocol, spiIn: spiIn, initiator: k.initiator,
		lowest: lower(k.ni, k.nr), suite: a.choice.Keyword(), ts: a.ts, transport: a.transport,
	}
	if len(a.choice.SPI) != 4 {
		return nil, nil, fmt.Errorf("its SPI has %d bytes, not 4", len(a.choice.SPI))
	}
	c.spiOut = binary.BigEndian.Uint32(a.choice.SPI)
	p, err := m.commonParams(sa, a)
	if err != nil {
		return nil, nil, err
	}
	encryption, integrity := p.Suite.KeyLen()
	if p.Protocol == sad.AH {
		encryption, integrity = 0, p.AHSuite.KeyLen()
	}
	out, in := sa.keys.ChildKeys(encryption, integrity, k.ni, k.nr, k.secrets...)
	if !k.initiator {
		out, in = in, out
	}
	inbound, outbound := p, p
	inbound.Direction, inbound.SPI, inbound.EncryptionKey, inbound.IntegrityKey = sad.Inbound, c.spiIn, in.Encryption, in.Integrity
	inbound.DSCPs = nil // a receiver does not look at them
	outbound.Direction, outbound.SPI, outbound.EncryptionKey, outbound.IntegrityKey = sad.Outbound, c.spiOut, out.Encryption, out.Integrity
	c.in, c.out = inbound.ID(), outbound.ID()
	both := []sad.Params{inbound, outbound}
	if err := errors.Join(inbound.Validate(), outbound.Validate()); err != nil {
		wipeParams(both)
		return nil, nil, err
	}
	return c, both, nil
}

func wipeParams(params []sad.Params) {
	for i := range params {
		params[i].EncryptionKey.Wipe()
		params[i].IntegrityKey.Wipe()
	}
}

// commonParams is what both directions have in common.
func (m *Machine) commonParams(sa *ikeSA, a *agreement) (p sad.Params, err error) {
	p = a.child.Template
	p.Peer, p.Policy, p.FreshKeys, p.Sequence = sa.peer.Name, a.child.Policy, true, nil
	p.Mode = sad.TunnelMode
	if a.transport {
		p.Mode = sad.TransportMode
	}
	p.ESN = a.choice.ESN()
	if a.noTFC {
		p.TFC = sad.TFCOff
	}
	if a.choice.Protocol == wire.ProtocolAH {
		p.Protocol = sad.AH
		p.AHSuite, err = a.choice.AHSuite()
	} else {
		p.Protocol = sad.ESP
		p.Suite, err = a.choice.Suite()
	}
	if err != nil {
		return p, err
	}
	if p.Selectors, err = saSelectors(a.ts); err != nil {
		return p, err
	}
	p.Encap = sa.encapsulation()
	p.Local, p.Remote = m.espPath(sa)
	p.BehindNAT = sa.behindNAT && p.Encap == sad.EncapUDP
	if a.transport && p.Encap == sad.EncapUDP {
		p.OriginalLocal, p.OriginalRemote = a.originalLocal, a.originalRemote
	}
	return p, nil
}

// espPath is where the SA's ESP goes: RFC 7296 2.23 has it use the ports of IKE on
// 4500.
func (m *Machine) espPath(sa *ikeSA) (local, remote netip.AddrPort) {
	if p := sa.carried; p.natt {
		return p.local, p.remote
	}
	return netip.AddrPortFrom(sa.carried.local.Addr(), m.natt), netip.AddrPortFrom(sa.carried.remote.Addr(), natPort(sa.peer))
}

// dropChild takes a pair out, at once and for good. reason and text are those of
// its event; reason "" is one that goes without saying, as after a rekey.
func (m *Machine) dropChild(sa *ikeSA, c *childSA, reason, text string) {
	if c.state == childGone {
		return
	}
	// First the one that packets are to use from now on.
	m.switchFrom(c)
	replaced := c.successor != nil || c.state == childRekeying || m.hasSibling(c) || m.asking(c.sa, c.child.Policy)
	c.state = childGone
	c.unlink()
	c.linger.stop()
	c.retry.stop()
	if w := c.waiting; w != nil {
		w.timer.stop()
		w.params.EncryptionKey.Wipe()
		w.params.IntegrityKey.Wipe()
		c.waiting = nil
	}
	sa.removeChild(c)
	m.freeChildSPI(c.spiIn)
	m.removeOutbound(c)
	if c.receives {
		grace := time.Duration(0)
		if replaced {
			grace = m.timing.Grace // what is on its way still arrives
		}
		m.do(Remove{IDs: []sad.ID{c.in}, Grace: grace})
	}
	if reason != "" {
		m.childEvent(c, Event{Stage: StageDelete, Outcome: Done, Reason: reason, Text: text})
	}
}

// awaitsDelete has a pair of an IKE SA that another one has replaced receive until the
// delete of that IKE SA is over. The peer may send on it until it hears of the delete,
// which may be lost for longer than any grace.
func (m *Machine) awaitsDelete(c *childSA) {
	elsewhere := slices.ContainsFunc(c.sa.peer.sas, func(sa *ikeSA) bool {
		return sa != c.sa && slices.ContainsFunc(sa.children, func(o *childSA) bool { return o.live() && o.child.Policy == c.child.Policy })
	})
	if !elsewhere || !c.receives {
		return
	}
	m.switchFrom(c)
	if w := c.waiting; w != nil {
		w.timer.stop()
		wipeParams([]sad.Params{w.params})
		c.waiting = nil
	}
	c.state, c.awaits = childDeleting, true
	c.linger.stop()
	c.retry.stop()
	m.removeOutbound(c)
}

// unlink takes a pair that is gone out of its succession. If it is the new one, the
// old one is what packets use, as before.
func (c *childSA) unlink() {
	if c.successor != nil {
		c.successor.replaces, c.successor = nil, nil
	}
	old := c.replaces
	if old == nil || old.successor != c {
		return
	}
	c.replaces, old.successor = nil, nil
	if old.state == childReplaced {
		old.state = childUp
		old.linger.stop()
	}
}

func (m *Machine) removeOutbound(c *childSA) {
	if c.sends {
		m.do(Remove{IDs: []sad.ID{c.out}})
	}
	c.sends = false
}

// hasSibling tells whether packets use another pair of the same policy, or are about
// to: the peer may be renewing the very pair that has replaced c.
func (m *Machine) hasSibling(c *childSA) bool {
	for _, sa := range c.sa.peer.sas {
		for _, other := range sa.children {
			if other != c && other.child.Policy == c.child.Policy && other.live() {
				return true
			}
		}
	}
	return false
}

// liveChild is a pair of a policy that packets use, other than except.
func (m *Machine) liveChild(p *peer, policy string, except *childSA) *childSA {
	for _, sa := range p.sas {
		for _, c := range sa.children {
			if c != except && c.child.Policy == policy && c.live() && c.waiting == nil {
				return c
			}
		}
	}
	return nil
}

// hasPair tells whether there is a pair of a policy that packets use, or will.
func (p *peer) hasPair(policy string) bool {
	return slices.ContainsFunc(p.sas, func(sa *ikeSA) bool {
		return slices.ContainsFunc(sa.children, func(c *childSA) bool { return c.child.Policy == policy && c.live() })
	})
}

// childEvent gives an event about a pair.
func (m *Machine) childEvent(c *childSA, e Event) {
	e.Policy, e.SPIIn, e.SPIOut, e.Suite, e.Initiator = c.child.Policy, c.spiIn, c.spiOut, c.suite, c.initiator
	m.event(c.sa, e)
}

// childMade is the end of a negotiation that went well.
func (m *Machine) childMade(c *childSA, stage Stage, a *agreement) {
	delete(c.sa.peer.wanted, c.child.Policy)
	delete(c.sa.peer.flows, c.child.Policy)
	m.childEvent(c, Event{Stage: stage, Outcome: Done, Text: a.ts.String()})
}

// expired is a limit that an SA has reached in the dataplane.
func (m *Machine) expired(in Expired) {
	c := m.findChild(in.ID)
	if c == nil {
		return
	}
	if in.Soft {
		// A pair that is being replaced already is left alone.
		if c.state == childUp {
			m.rekeyChild(c.sa, c)
		}
		return
	}
	// It is gone already.
	if in.ID == c.out {
		c.sends = false
	} else {
		c.receives = false
	}
	if c.state == childDeleting {
		return
	}
	m.closeChild(c, "expired", "it has reached its hard lifetime")
	m.restore(c)
}

// findChild is the pair that has the SA with this ID.
func (m *Machine) findChild(id sad.ID) *childSA {
	p := m.peers[id.Peer]
	if p == nil {
		return nil
	}
	for _, sa := range p.sas {
		for _, c := range sa.children {
			if c.in == id || c.out == id {
				return c
			}
		}
	}
	return nil
}

// restore asks for a new pair where the policy is to be up always.
func (m *Machine) restore(c *childSA) {
	sa := c.sa
	if sa.peer.Start == AtOnce && sa.peer.Role.initiates() && sa.alive() && m.liveChild(sa.peer, c.child.Policy, nil) == nil {
		m.wantChild(sa, c.child.Policy)
	}
}

// closeChild ends a pair: packets stop using it now, and the peer is told.
func (m *Machine) closeChild(c *childSA, reason, text string) {
	if c.state == childGone || c.state == childDeleting {
		return
	}
	if c.sa.peer.Role == Passive || !c.sa.alive() {
		m.dropChild(c.sa, c, reason, text)
		return
	}
	m.switchFrom(c)
	c.state = childDeleting
	c.linger.stop()
	c.retry.stop()
	m.removeOutbound(c)
	m.enqueue(c.sa, &closeTask{child: c, reason: reason, text: text})
}

// closeTask tells the peer that a pair is closed: "INFORMATIONAL {D}" with the SPI
// of our inbound SA (RFC 7296 1.4.1).
type closeTask struct {
	child        *childSA
	reason, text string
}

func (t *closeTask) kind() wire.ExchangeType { return wire.Informational }

func (t *closeTask) request(*Machine, *ikeSA) ([]wire.Payload, error) {
	if t.child.state == childGone {
		return nil, errors.New("the peer has closed it meanwhile")
	}
	return []wire.Payload{&wire.Delete{Protocol: t.child.protocol, SPIs: []uint32{t.child.spiIn}}}, nil
}

// RFC 7296 1.4.1: "Normally, the response in the INFORMATIONAL exchange will
// contain Delete payloads for the paired SAs going in the other direction. There
// is one exception. If, by chance, both ends of a set of SAs independently decide
// to close them, each may send a Delete payload and the two requests may cross in
// the network." Either way the pair is gone.
func (t *closeTask) response(m *Machine, sa *ikeSA, _ []wire.Payload) {
	m.dropChild(sa, t.child, t.reason, t.text)
}

func (t *closeTask) failed(m *Machine, sa *ikeSA, _ failure) {
	m.dropChild(sa, t.child, t.reason, t.text)
}

// lingers gives the peer time to delete a pair that is its to delete.
func (m *Machine) lingers(c *childSA, s childState) {
	c.state = s
	c.retry.stop()
	c.linger.stop()
	c.linger = m.after(lingering, func() {
		m.closeChild(c, "lingering", "the peer has not deleted what it has replaced")
	})
}
