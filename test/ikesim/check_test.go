package ikesim

import (
	"fmt"
	"slices"
	"time"

	"github.com/adit-ipsec/adit/ike"
	"github.com/adit-ipsec/adit/ike/wire"
	"github.com/adit-ipsec/adit/sad"
	"github.com/adit-ipsec/adit/spd"
)

// What must hold in every step.

// checkKey holds that keys never repeat: the only two SAs with one key are the two
// ends of one SA.
func (h *host) checkKey(p *entry) {
	w, key := h.w, p.key
	for _, u := range w.keys[key] {
		if u.host == h.index || u.id.Direction == p.Direction || u.id.SPI != p.SPI || len(w.keys[key]) > 1 {
			w.fail("the key of %s of %s was that of %s of host %d, life %d", p.ID(), h.name, u.id, u.host, u.incarnation)
			return
		}
	}
	w.keys[key] = append(w.keys[key], keyUse{h.index, h.incarnation, p.ID()})
}

// checkOwners holds that each SA belongs to an IKE SA whose peer has proved who it
// is.
func (h *host) checkOwners() {
	owned := map[sad.ID]bool{}
	for _, p := range h.m.Status() {
		for _, sa := range p.SAs {
			if sa.Authentication == "" || sa.PeerID != identityOf(p.Name) || !slices.Contains([]string{"established", "replaced", "deleting"}, sa.State) {
				continue
			}
			for _, c := range sa.ChildSAs {
				owned[sad.ID{Direction: sad.Inbound, SPI: c.SPIIn, Peer: p.Name}] = true
				owned[sad.ID{Direction: sad.Outbound, SPI: c.SPIOut, Peer: p.Name}] = true
			}
		}
	}
	for id, e := range h.sad {
		if e.gone == 0 && !owned[id] {
			h.w.fail("%s has %s, which belongs to no authenticated IKE SA", h.name, id)
		}
	}
	for id := range h.sad {
		if h == h.w.rogue && !h.certified(id.Peer) {
			h.w.fail("the attacker has an SA with %s", id.Peer)
		}
	}
}

// event looks at what a machine says.
func (h *host) event(e ike.Event) {
	h.w.log.event(h, e)
	peer := h.indexOf(e.Peer)
	if e.Reason == "panic_recovered" {
		h.w.fail("%s panics at a message", h.name)
	}
	if (e.Stage == ike.StageMobility || e.Stage == ike.StageAuth) && e.Outcome == ike.Done {
		// RFC 7296 2.23 follows what is authentic and new, and 2.11 answers it where
		// it came from, also where somebody on the path has kept it back and sends it
		// from elsewhere.
		delete(h.w.spoofed, e.Remote.Addr())
		h.w.followed[e.Remote.Addr()] = true
	}
	switch {
	case e.Stage == ike.StageAuth && e.Outcome == ike.Done:
		h.checkProved(e, peer)
	case e.Outcome == ike.Failed && e.Stage != ike.StageInit && e.Stage != ike.StageAuth,
		e.Stage == ike.StageDelete && !quiet(e.Reason):
		h.excuse(peer, 45*time.Second)
	case e.Stage == ike.StageDelete && (e.Reason == "duplicate" || e.Reason == "reauthenticated") && h.w.now < h.w.lossy:
		h.excuse(peer, 45*time.Second)
	}
}

// quiet tells whether SAs that go for this reason go without a packet lost.
func quiet(reason string) bool {
	return slices.Contains([]string{"", "rekeyed", "redundant", "duplicate", "reauthenticated"}, reason)
}

// checkProved holds that who is believed is who they say: their SPI is one that the
// true host has said. An attacker's is its own.
func (h *host) checkProved(e ike.Event, peer int) {
	theirs := e.SPIi
	if e.Initiator {
		theirs = e.SPIr
	}
	switch {
	case h == h.w.rogue:
		if !h.certified(e.Peer) {
			h.w.fail("the attacker is established with %s", e.Peer)
		}
	case peer < 0 || !h.w.hosts[peer].spis[wire.SPI(theirs)]:
		h.w.fail("%s believes somebody to be %s who is not", h.name, e.Peer)
	}
}

// certified tells whether a host has a certificate for a peer: then an attacker may
// well believe a true one that begins, who has still to believe it.
func (h *host) certified(peer string) bool {
	p := h.peer(peer)
	return p != nil && len(p.Auth.Chain) > 0
}

// checkRole holds that no end sends a request that its role forbids.
func (h *host) checkRole(x wire.Header) {
	var role ike.Role
	for i := range h.peers {
		if i > 0 && h.peers[i].Role != role {
			return // the header does not say whom it is for
		}
		role = h.peers[i].Role
	}
	bad := false
	switch x.Exchange {
	case wire.IKESAInit, wire.IKEAuth, wire.IKEIntermediate:
		bad = !initiates(role)
	case wire.CreateChildSA:
		bad = role == ike.ResponderOnly || role == ike.Passive
	default:
		bad = role == ike.Passive
	}
	if bad {
		h.w.fail("%s sends %s, and its role is %s", h.name, x.Exchange, role)
	}
}

// perfect tells what is missing to: exactly one IKE SA and one pair per policy with
// each peer, the same at both ends, and nothing else anywhere. "": nothing.
func (w *world) perfect() string {
	for _, h := range w.hosts {
		want := 0
		if n := h.m.HalfOpen(); n > 0 {
			return fmt.Sprintf("%s has %d half-open IKE SAs", h.name, n)
		}
		for _, p := range h.status() {
			if why := h.settled(&p); why != "" {
				return why
			}
			want += 2*len(h.peer(p.Name).Children) + h.unheardOf(p.Name)
		}
		if len(h.sad) != want {
			return fmt.Sprintf("%s has %d SAs and not %d", h.name, len(h.sad), want)
		}
	}
	for _, h := range w.hosts {
		for _, p := range h.status() {
			if why := h.mirrored(&p); why != "" {
				return why
			}
		}
	}
	return ""
}

// status is the machine's, without what a passive end keeps of a peer that has given it
// up. Such an end asks nothing, so an IKE SA that the peer has no answers on, and so
// gives up without a Delete, is there until its lifetime, which some plans have not.
func (h *host) status() []ike.PeerStatus {
	list := h.m.Status()
	for i := range list {
		list[i].SAs = slices.DeleteFunc(list[i].SAs, func(sa ike.SAStatus) bool { return h.givenUp(list[i].Name, &sa) })
	}
	return list
}

// givenUp tells whether a passive end has an IKE SA that its peer has not any more.
func (h *host) givenUp(peer string, sa *ike.SAStatus) bool {
	if h.peer(peer).Role != ike.Passive || sa.State != "established" {
		return false
	}
	for _, p := range h.w.hosts[h.indexOf(peer)].m.Status() {
		if p.Name == h.name && slices.ContainsFunc(p.SAs, func(s ike.SAStatus) bool { return s.SPIi == sa.SPIi && s.SPIr == sa.SPIr }) {
			return false
		}
	}
	return true
}

// unheardOf is how many SAs hang on what was given up.
func (h *host) unheardOf(peer string) (n int) {
	for _, p := range h.m.Status() {
		for i := range p.SAs {
			if p.Name == peer && h.givenUp(peer, &p.SAs[i]) {
				n += 2 * len(p.SAs[i].ChildSAs)
			}
		}
	}
	return n
}

// settled looks at one peer from one end.
func (h *host) settled(p *ike.PeerStatus) string {
	bad := func(format string, args ...any) string {
		return h.name + " with " + p.Name + ": " + fmt.Sprintf(format, args...)
	}
	if len(p.Wanted) > 0 || p.RetryIn > 0 || len(p.SAs) != 1 {
		return bad("%d IKE SAs %s, wanted %v, retry in %s", len(p.SAs), states(p), p.Wanted, p.RetryIn)
	}
	sa := &p.SAs[0]
	policies := h.peer(p.Name).Children
	if sa.State != "established" || sa.Waiting > 0 || len(sa.ChildSAs) != len(policies) {
		return bad("IKE SA %s, %d exchanges wait, pairs %v", sa.State, sa.Waiting, sa.ChildSAs)
	}
	for i := range policies {
		if !slices.ContainsFunc(sa.ChildSAs, func(c ike.ChildStatus) bool { return c.Policy == policies[i].Policy && c.State == "up" }) {
			return bad("no pair of %s among %v", policies[i].Policy, sa.ChildSAs)
		}
	}
	return ""
}

func states(p *ike.PeerStatus) (out []string) {
	for _, sa := range p.SAs {
		out = append(out, fmt.Sprintf("%s %d pairs", sa.State, len(sa.ChildSAs)))
	}
	return out
}

// mirrored compares one end with the other.
func (h *host) mirrored(p *ike.PeerStatus) string {
	other := h.w.hosts[h.indexOf(p.Name)]
	for _, q := range other.status() {
		if q.Name == h.name && (q.SAs[0].SPIi != p.SAs[0].SPIi || q.SAs[0].SPIr != p.SAs[0].SPIr || q.SAs[0].Initiator == p.SAs[0].Initiator) {
			return fmt.Sprintf("%s and %s have different IKE SAs", h.name, p.Name)
		}
	}
	for _, c := range p.SAs[0].ChildSAs {
		out := h.newest(p.Name, c.Policy, sad.Outbound)
		in := other.newest(h.name, c.Policy, sad.Inbound)
		switch {
		case out == nil || in == nil:
			return fmt.Sprintf("no SA of %s from %s to %s", c.Policy, h.name, p.Name)
		case out.SPI != in.SPI || out.SPI != c.SPIOut:
			return fmt.Sprintf("%s sends %s on another SA than %s takes", h.name, c.Policy, p.Name)
		case !slices.Equal(out.EncryptionKey, in.EncryptionKey) || !slices.Equal(out.IntegrityKey, in.IntegrityKey):
			return fmt.Sprintf("%s: the keys of %s and %s differ", c.Policy, h.name, p.Name)
		case out.Encap != in.Encap && !h.w.relayed:
			// IKE_SA_INIT says who sees a NAT, and who relays the answer to it from
			// elsewhere has one end see one. RFC 7296 2.23 has both ends take packets
			// in UDP and without "at any time", and the dataplane does.
			return fmt.Sprintf("%s: one of %s and %s has it in UDP", c.Policy, h.name, p.Name)
		case out.Suite != in.Suite || out.ESN != in.ESN || out.Mode != in.Mode || out.Protocol != in.Protocol:
			return fmt.Sprintf("%s: the parameters of %s and %s differ: %+v %+v", c.Policy, h.name, p.Name, out.Params, in.Params)
		case !mirroredSelectors(out.Selectors, in.Selectors):
			return fmt.Sprintf("%s: the selectors of %s and %s differ", c.Policy, h.name, p.Name)
		}
	}
	return ""
}

func mirroredSelectors(a, b []spd.Selector) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if !slices.Equal(a[i].Local, b[i].Remote) || !slices.Equal(a[i].Remote, b[i].Local) || a[i].Protocol != b[i].Protocol {
			return false
		}
	}
	return true
}

// left tells what is left where nothing should be. "": nothing.
func (w *world) left() string {
	for _, h := range w.hosts {
		for _, p := range h.m.Status() {
			if len(p.SAs) > 0 || len(p.Wanted) > 0 || p.RetryIn > 0 {
				return fmt.Sprintf("%s has IKE SAs with %s: %v, wanted %v, retry in %s", h.name, p.Name, states(&p), p.Wanted, p.RetryIn)
			}
		}
		if n := h.m.HalfOpen(); n > 0 || len(h.sad) > 0 {
			return fmt.Sprintf("%s has %d half-open IKE SAs and %d SAs", h.name, n, len(h.sad))
		}
		if due, set := h.m.Deadline(); set {
			return fmt.Sprintf("%s has a timer that is due in %s", h.name, due-h.clock())
		}
	}
	return ""
}
