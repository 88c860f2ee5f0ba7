package config

import (
	"bytes"
	"crypto"
	"errors"
	"fmt"
	"slices"

	"github.com/adit-ipsec/adit/ike/auth"
	"github.com/adit-ipsec/adit/ike/proposal"
)

// keyings compares where the keys of two peers come from; with IKE, all that is
// negotiated. It is false if they are not both manual.
func (m *mirror) keyings(keyA, keyB string, pa, pb *Peer) (manual bool) {
	word := func(p *Peer) string {
		if p.IKE != nil {
			return "ike"
		}
		return "manual"
	}
	if (pa.IKE == nil) != (pb.IKE == nil) {
		m.differ(keyA+".keying", keyB+".keying", "%s here, %s at the other end", word(pa), word(pb))
		return false
	}
	if pa.IKE == nil {
		return true
	}
	m.addresses(keyA, keyB, pa, pb)
	m.ike(keyA+".ike", keyB+".ike", pa, pb)
	m.children(pa, pb)
	m.policies(pa, pb)
	return false
}

// ike compares what the IKE SA of two peers hangs on.
func (m *mirror) ike(keyA, keyB string, pa, pb *Peer) {
	a, b := pa.IKE, pb.IKE
	m.ikePorts(keyA, keyB, pa, pb)
	m.identity(keyA+".local_id", keyB+".remote_id", "local_id", "remote_id", a.Local.Identity(), b.Remote.ID)
	m.identity(keyA+".remote_id", keyB+".local_id", "remote_id", "local_id", b.Local.Identity(), a.Remote.ID)
	m.proofs(keyA+".auth", keyB+".auth", a, b)
	m.ppks(keyA+".ppk", keyB+".ppk", a, b)
	if text := noCommon(a.Proposals, b.Proposals); text != "" {
		m.differ(keyA+".proposals", keyB+".proposals", "%s", text)
	}
	starts := func(p *Peer) bool { return p.IKE.Responder.initiates() && p.Address.IsValid() }
	if !starts(pa) && !starts(pb) {
		m.differ(profileKey(pa.Profile)+".responder_only", profileKey(pb.Profile)+".responder_only", "%s here, %s at the other end: neither end starts", waits(pa), waits(pb))
	}
}

// anywhere: the peer has no fixed address.
func (p *Peer) anywhere() bool { return p.IKE != nil && !p.Address.IsValid() }

// waits says why an end does not start.
func waits(p *Peer) string {
	if !p.Address.IsValid() {
		return "`address: any`"
	}
	return "responder_only: " + p.IKE.Responder.String()
}

// ikePorts: each end sends to the ports on which the other one listens, unless a
// NAT gives that one others.
func (m *mirror) ikePorts(keyA, keyB string, pa, pb *Peer) {
	a, b := pa.IKE, pb.IKE
	for _, p := range []struct {
		ike, listen string
		to, at      uint16 // of a to b
		back, here  uint16 // of b to a
	}{
		{"port", "ike_port", a.Port, m.b.Listen.IKEPort, b.Port, m.a.Listen.IKEPort},
		{"natt_port", "natt_port", a.NATTPort, m.b.Listen.NATTPort, b.NATTPort, m.a.Listen.NATTPort},
	} {
		if p.to != p.at && !pb.BehindNAT && !pa.anywhere() {
			m.differ(keyA+"."+p.ike, "listen."+p.listen, "this end sends to port %d, the other end listens on %d", p.to, p.at)
		}
		if p.back != p.here && !pa.BehindNAT && !pb.anywhere() {
			m.differ("listen."+p.listen, keyB+"."+p.ike, "this end listens on port %d, the other end sends to %d", p.here, p.back)
		}
	}
}

// identity: what one end says of itself is what the other one wants to hear.
func (m *mirror) identity(keyA, keyB, nameA, nameB string, says, wants auth.Identity) {
	if wants.IsZero() || wants.Equal(says) {
		return
	}
	here, there := says, wants
	if nameA == "remote_id" {
		here, there = wants, says
	}
	m.differ(keyA, keyB, "%s is %s here, %s is %s at the other end", nameA, here, nameB, there)
}

// proofs: what one end proves itself by is what the other one believes.
func (m *mirror) proofs(keyA, keyB string, a, b *IKE) {
	pskA, pskB := len(a.Local.PSK) > 0, len(b.Local.PSK) > 0
	switch {
	case pskA != pskB:
		way := map[bool]string{true: "a pre-shared key", false: "a private key"}
		m.differ(keyA, keyB, "%s here, %s at the other end", way[pskA], way[pskB])
		return
	case pskA:
		if !equalKeys(a.Local.PSK, b.Remote.PSK) {
			m.differ(m.a.secretKey(keyA, "psk"), m.b.secretKey(keyB, "psk"), "the pre-shared key here is not that of the other end")
		}
		return
	}
	if !believes(b.Remote, a.Local) {
		m.differ(keyA+proofKey(a), keyB+trustKey(b), "the other end does not believe the %s of this end", proofWord(a))
	}
	if !believes(a.Remote, b.Local) {
		m.differ(keyA+trustKey(a), keyB+proofKey(b), "this end does not believe the %s of the other end", proofWord(b))
	}
}

// believes tells whether what an end shows can be believed: a raw key that is known,
// or a certificate below an authority, or that is trusted itself.
func believes(r auth.Remote, l auth.Local) bool {
	if l.RawKey {
		public, ok := l.Signer.Public().(interface{ Equal(crypto.PublicKey) bool })
		return ok && slices.ContainsFunc(r.Keys, func(k crypto.PublicKey) bool { return public.Equal(k) })
	}
	for _, t := range r.Trust {
		for i, c := range l.Chain {
			if t.Equal(c) || i == len(l.Chain)-1 && c.CheckSignatureFrom(t) == nil {
				return true
			}
		}
	}
	return false
}

func proofKey(k *IKE) string {
	if k.Local.RawKey {
		return ".private_key"
	}
	return ".certificate"
}

func proofWord(k *IKE) string {
	if k.Local.RawKey {
		return "raw key"
	}
	return "certificate"
}

func trustKey(k *IKE) string {
	if len(k.Remote.Trust) == 0 {
		return ".public_key"
	}
	return ".trust"
}

// ppks: an end that requires a key has it from the other one.
func (m *mirror) ppks(keyA, keyB string, a, b *IKE) {
	hasA, hasB := len(a.PPK.Key) > 0, len(b.PPK.Key) > 0
	switch {
	case !hasA && !hasB:
	case hasA != hasB:
		if hasA && a.PPK.Required || hasB && b.PPK.Required {
			m.differ(keyA, keyB, "one end requires a post-quantum pre-shared key, the other end has none")
		}
	case !bytes.Equal(a.PPK.ID, b.PPK.ID):
		m.differ(keyA+".id", keyB+".id", "%q here, %q at the other end", a.PPK.ID, b.PPK.ID)
	case !equalKeys(a.PPK.Key, b.PPK.Key):
		m.differ(keyA+".key_file", keyB+".key_file", "the post-quantum pre-shared key here is not that of the other end")
	}
}

// children compares what two profiles make of Child SAs. What an end chooses alone
// (windows, lifetimes, fragments) is not compared.
func (m *mirror) children(pa, pb *Peer) {
	fa, fb := m.a.Profiles[pa.Profile], m.b.Profiles[pb.Profile]
	profileA, profileB := profileKey(pa.Profile), profileKey(pb.Profile)
	if fa.Mode != fb.Mode {
		m.differ(profileA+".mode", profileB+".mode", "%s here, %s at the other end", fa.Mode, fb.Mode)
	}
	if pa.IKE.ForceUDP && pb.IKE.NoUDP || pa.IKE.NoUDP && pb.IKE.ForceUDP {
		m.differ(profileA+".encap", profileB+".encap", "%s here, %s at the other end", fa.Encap, fb.Encap)
	}
	if fa.Protocol != fb.Protocol {
		m.differ(profileA+".protocol", profileB+".protocol", "%s here, %s at the other end", fa.Protocol, fb.Protocol)
		return
	}
	as, bs := childProposals(fa, pa.IKE.Proposals), childProposals(fb, pb.IKE.Proposals)
	if text := noCommon(proposal.WithoutKEs(as), proposal.WithoutKEs(bs)); text != "" {
		m.differ(profileA+".suites", profileB+".suites", "%s", text)
	} else if text := noCommon(as, bs); text != "" {
		m.differ(profileA+".pfs", profileB+".pfs", "%s", text)
	}
}

// noCommon says why two ends would not agree; "" if they would.
func noCommon(ours, theirs []proposal.Proposal) string {
	_, err := proposal.Choose(ours, proposal.Offer(theirs, nil))
	var m *proposal.Mismatch
	switch {
	case err == nil:
		return ""
	case errors.As(err, &m):
		return fmt.Sprintf("no common proposal: %s here, %s at the other end; nearest fix: %s", m.Ours, m.Theirs, m.Nearest)
	}
	return err.Error()
}

// ikeScore counts what speaks for two peers being the ends of one IKE SA.
func ikeScore(pa, pb *Peer) (n int) {
	if pa.IKE == nil || pb.IKE == nil {
		return 0
	}
	for _, side := range [][2]auth.Identity{
		{pa.IKE.Local.Identity(), pb.IKE.Remote.ID}, {pb.IKE.Local.Identity(), pa.IKE.Remote.ID},
	} {
		if !side[1].IsZero() && side[0].Equal(side[1]) {
			n += 2
		}
	}
	return n
}
