package ike

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"strings"

	"github.com/adit-ipsec/adit/ike/auth"
	"github.com/adit-ipsec/adit/ike/proposal"
	"github.com/adit-ipsec/adit/ike/wire"
)

// Who a stranger may be. With thousands of peers a first message costs no more than
// with one, and so does what is kept of it: peers are put together when they are
// configured, by the address that they come from, and there by what they propose.

// origins are all peers by where they come from.
type origins struct {
	at  map[netip.Addr]*origin // those configured with an address
	any origin                 // those that come from any
}

// origin is the peers that come from one address, or from any.
type origin struct {
	kinds []*kind
	work  allowance // that nobody has paid for who is authenticated
}

// kind is the peers of an origin that have the same proposals, and all that an answer
// to IKE_SA_INIT needs to know of them.
type kind struct {
	proposals []proposal.Proposal
	peers     []*peer            // in the order of the configuration
	named     map[string][]*peer // those of an identity, by nameKey
	anybody   []*peer            // those of any identity

	fragmentation, childless, forceUDP, ppk bool // one of them at least
	trusts                                  auth.Remote
}

// newOrigins puts peers together, in the order of their names. It sets their rank.
func newOrigins(names []string, peers map[string]*peer) origins {
	o := origins{at: map[netip.Addr]*origin{}}
	found := map[string]*kind{}
	for i, name := range names {
		p := peers[name]
		from, rank := &o.any, len(names)+i
		if p.Remote.IsValid() {
			a := p.Remote.Unmap()
			if o.at[a] == nil {
				o.at[a] = &origin{}
			}
			from, rank = o.at[a], i
		}
		p.rank = rank
		// An address that is not valid is no text of one that is.
		key := p.Remote.Unmap().String() + " " + proposalsKey(p.Proposals)
		k := found[key]
		if k == nil {
			k = &kind{proposals: p.Proposals, named: map[string][]*peer{}}
			found[key], from.kinds = k, append(from.kinds, k)
		}
		k.add(p)
	}
	return o
}

// keep takes over what addresses that are still there have had computed.
func (o *origins) keep(old *origins) {
	o.any.work = old.any.work
	for a, from := range o.at {
		if was := old.at[a]; was != nil {
			from.work = was.work
		}
	}
}

func (k *kind) add(p *peer) {
	k.peers = append(k.peers, p)
	if p.Remotely.ID.IsZero() {
		k.anybody = append(k.anybody, p)
	} else {
		key := nameKey(p.Remotely.ID)
		k.named[key] = append(k.named[key], p)
	}
	k.fragmentation = k.fragmentation || p.Fragmentation
	k.childless = k.childless || p.Childless
	k.forceUDP = k.forceUDP || p.ForceUDP
	k.ppk = k.ppk || len(p.PPK.ID) > 0
	addTrust(&k.trusts, p.Remotely)
}

// proposalsKey is the same for proposals that are the same.
func proposalsKey(list []proposal.Proposal) string {
	var b []byte
	for _, p := range list {
		b = append(b, byte(p.Protocol), byte(len(p.Transforms)))
		for _, t := range p.Transforms {
			b = append(b, byte(t.Type))
			b = binary.BigEndian.AppendUint16(b, t.ID)
			b = binary.BigEndian.AppendUint16(b, t.KeyBits)
			if t.Unknown {
				b = append(b, 1)
			}
		}
	}
	return string(b)
}

// nameKey is the same for identities that are equal; some that are not have the same.
func nameKey(id auth.Identity) string {
	switch id.Kind {
	case wire.IDFQDN:
		return "fqdn:" + strings.ToLower(string(id.Data))
	case wire.IDDERASN1DN:
		return "dn" // equal ones may be written in different ways
	}
	return id.Kind.String() + ":" + string(id.Data)
}

// from are the kinds of peers that may come from an address: those configured with it,
// then those that come from any.
func (o *origins) from(a netip.Addr) []*kind {
	if known := o.at[a.Unmap()]; known != nil {
		return slices.Concat(known.kinds, o.any.kinds)
	}
	return slices.Clone(o.any.kinds)
}

// candidatesFor are the peers that may come from an address and accept a choice.
func (m *Machine) candidatesFor(a netip.Addr, choice proposal.Choice) []*kind {
	return slices.DeleteFunc(m.origins.from(a), func(k *kind) bool { return !proposal.Agrees(k.proposals, choice) })
}

// anyOf tells whether one of the peers has something.
func anyOf(candidates []*kind, has func(*kind) bool) bool {
	return slices.ContainsFunc(candidates, has)
}

// onlyPeer is the only peer of all; nil if there are several.
func onlyPeer(candidates []*kind) *peer {
	if len(candidates) == 1 && len(candidates[0].peers) == 1 {
		return candidates[0].peers[0]
	}
	return nil
}

// onlyName is the name of the only one; "" if there are several.
func onlyName(candidates []*kind) string {
	if p := onlyPeer(candidates); p != nil {
		return p.Name
	}
	return ""
}

// identified are those that a peer of this identity may be: those of that very
// identity, then those of any, each in the order in which they are to be tried.
func identified(candidates []*kind, id auth.Identity) []*peer {
	var exact, anybody []*peer
	for _, k := range candidates {
		anybody = append(anybody, k.anybody...)
		for _, p := range k.named[nameKey(id)] {
			if p.Remotely.ID.Equal(id) {
				exact = append(exact, p)
			}
		}
	}
	byRank := func(a, b *peer) int { return a.rank - b.rank }
	slices.SortFunc(exact, byRank)
	slices.SortFunc(anybody, byRank)
	return append(exact, anybody...)
}

// trustsOf is what candidates are believed by, as far as CERTREQ payloads say it.
func trustsOf(candidates []*kind) (all auth.Remote) {
	for _, k := range candidates {
		addTrust(&all, k.trusts)
	}
	return all
}

// maxAuthorities bounds a CERTREQ, and what a stranger's certificate is held against.
const maxAuthorities = 16

// addTrust adds what one more peer is believed by, as far as CERTREQ payloads say it.
func addTrust(all *auth.Remote, r auth.Remote) {
	for _, c := range r.Trust {
		if len(all.Trust) < maxAuthorities && !slices.ContainsFunc(all.Trust, c.Equal) {
			all.Trust = append(all.Trust, c)
		}
	}
	if len(all.Keys) == 0 {
		all.Keys = r.Keys // that there is one is all that is said of raw keys
	}
}
