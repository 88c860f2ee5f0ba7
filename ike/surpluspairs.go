package ike

import (
	"slices"
)

// Two pairs for the same policy and the same selectors on one IKE SA are one too
// many. They come where both ends ask for one, and neither hears of the other's in
// time: the second request was on its way while the first pair was made. Both ends
// know the nonces of both, so RFC 7296 2.8.1's rule does: of two, the one that was
// made with the lowest nonce goes, closed by the end that has asked for it. What the
// peer has asked for is the peer's: some have several on purpose.

// watchPairs looks a while later whether there are too many pairs.
func (m *Machine) watchPairs(sa *ikeSA) {
	p := sa.peer
	if p.surplusPairs != nil || p.Role == Passive || !slices.ContainsFunc(sa.children, sa.surplusPair) {
		return
	}
	p.surplusPairs = m.after(m.timing.Grace, func() {
		p.surplusPairs = nil
		if m.peers[p.Name] != p {
			return
		}
		for _, sa := range slices.Clone(p.sas) {
			m.dropSurplusPairs(sa)
			m.watchPairs(sa)
		}
	})
}

// surplusPair tells whether a pair is ours to close because there is another.
func (sa *ikeSA) surplusPair(c *childSA) bool {
	return c.initiator && c.live() && slices.ContainsFunc(sa.children, func(o *childSA) bool {
		return o != c && o.live() && o.replaces != c && c.replaces != o &&
			o.child.Policy == c.child.Policy && o.transport == c.transport && o.ts.String() == c.ts.String() &&
			slices.Compare(c.lowest, o.lowest) < 0
	})
}

// dropSurplusPairs closes those that are too many and that nothing is going on with.
func (m *Machine) dropSurplusPairs(sa *ikeSA) {
	if !sa.alive() || sa.untried || sa.heir != nil {
		return
	}
	calm := !slices.ContainsFunc(sa.children, func(c *childSA) bool { return c.waiting != nil || c.state != childUp })
	for _, c := range slices.Clone(sa.children) {
		if calm && sa.surplusPair(c) {
			m.closeChild(c, "redundant", "there is another pair for the same traffic")
		}
	}
}
