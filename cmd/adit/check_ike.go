package main

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/adit-ipsec/adit/config"
	"github.com/adit-ipsec/adit/ike"
	"github.com/adit-ipsec/adit/ike/auth"
)

// checkIKE is what the file says about a peer that is keyed by IKE, without a secret.
type checkIKE struct {
	Peer          string       `json:"peer"`
	Address       string       `json:"address"` // "": any
	Start         string       `json:"start"`   // traffic | now
	ResponderOnly string       `json:"responder_only"`
	OurID         string       `json:"our_id"`
	ProvedBy      string       `json:"proved_by"` // this end
	PeerID        string       `json:"peer_id"`   // "": any that it is believed by
	BelievedBy    string       `json:"believed_by"`
	PPK           bool         `json:"ppk"`
	RekeySeconds  float64      `json:"rekey_seconds"`
	DPDSeconds    float64      `json:"dpd_seconds"` // 0: off
	MOBIKE        bool         `json:"mobike"`
	Proposals     []string     `json:"proposals"` // of the IKE SA
	Children      []checkChild `json:"children"`
}

// checkChild is one pair of Child SAs that may come to be.
type checkChild struct {
	Policy    string   `json:"policy"`
	Mode      string   `json:"mode"`
	Proposals []string `json:"proposals"`
}

func checkIKEOf(cfg *config.Config) []checkIKE {
	list := []checkIKE{}
	for i := range cfg.Peers {
		p := &cfg.Peers[i]
		if p.IKE == nil {
			continue
		}
		k := p.IKE
		view := checkIKE{
			Peer: p.Name, Start: k.Start.String(), ResponderOnly: ikeRoles[k.Responder].String(),
			OurID: k.Local.Identity().String(), ProvedBy: provedBy(&k.Local), PeerID: idText(k.Remote.ID), BelievedBy: believedBy(&k.Remote),
			PPK: len(k.PPK.Key) > 0, RekeySeconds: k.Rekey.Seconds(), DPDSeconds: k.DPD.Seconds(), MOBIKE: k.MOBIKE,
			Proposals: []string{}, Children: []checkChild{},
		}
		if p.Address.IsValid() {
			view.Address = p.Address.String()
		}
		for _, x := range k.Proposals {
			view.Proposals = append(view.Proposals, x.String())
		}
		for j := range k.Children {
			c := &k.Children[j]
			child := checkChild{Policy: c.Policy, Mode: c.Mode.String(), Proposals: []string{}}
			for _, x := range c.Proposals {
				child.Proposals = append(child.Proposals, x.String())
			}
			view.Children = append(view.Children, child)
		}
		list = append(list, view)
	}
	return list
}

// begins says who begins with the peer, and when.
func (c *checkIKE) begins() string {
	switch c.ResponderOnly {
	case ike.Both.String(), ike.NeverRekey.String():
		switch {
		case c.Address == "":
			return "the peer"
		case c.Start == config.StartNow.String():
			return "at once"
		}
		return "with traffic"
	}
	return "the peer"
}

func idText(id auth.Identity) string {
	if id.IsZero() {
		return ""
	}
	return id.String()
}

func provedBy(l *auth.Local) string {
	switch {
	case l.RawKey:
		return "raw key"
	case len(l.Chain) > 0:
		return "certificate until " + l.Chain[0].NotAfter.UTC().Format(time.DateOnly)
	}
	return "psk"
}

func believedBy(r *auth.Remote) string {
	var ways []string
	if len(r.PSK) > 0 {
		ways = append(ways, "psk")
	}
	if n := len(r.Trust); n > 0 {
		ways = append(ways, "certificate of "+count(n, "authority", "authorities"))
	}
	if n := len(r.Keys); n > 0 {
		ways = append(ways, count(n, "raw key", "raw keys"))
	}
	return strings.Join(ways, " or ")
}

// printCheckIKE writes the peers of IKE, if there are any.
func printCheckIKE(w io.Writer, list []checkIKE) error {
	if len(list) == 0 {
		return nil
	}
	var who, what table
	who.row("PEER", "ADDRESS", "BEGINS", "OUR ID", "PROVED BY", "PEER ID", "BELIEVED BY", "REKEY", "DPD", "NOTE")
	what.row("PEER", "FOR", "MODE", "PROPOSED, THE FIRST THAT BOTH HAVE")
	for i := range list {
		c := &list[i]
		address, peer, dpd := c.Address, c.PeerID, "off"
		if address == "" {
			address = "any"
		}
		if peer == "" {
			peer = "any"
		}
		if c.DPDSeconds > 0 {
			dpd = lasted(c.DPDSeconds)
		}
		who.row(c.Peer, address, c.begins(), c.OurID, c.ProvedBy, peer, c.BelievedBy, lasted(c.RekeySeconds), dpd, c.note())
		proposed(&what, c.Peer, "IKE SA", "", c.Proposals)
		for _, child := range c.Children {
			proposed(&what, c.Peer, "policy "+child.Policy, child.Mode, child.Proposals)
		}
	}
	fmt.Fprintln(w)
	if err := who.write(w, ""); err != nil {
		return err
	}
	fmt.Fprintln(w)
	return what.write(w, "")
}

// proposed adds a row for each proposal.
func proposed(t *table, peer, use, mode string, proposals []string) {
	for n, text := range proposals {
		if n > 0 {
			peer, use, mode = " ", " ", " "
		}
		t.row(peer, use, mode, text)
	}
}

// note is what of the peer is not the default.
func (c *checkIKE) note() string {
	var notes []string
	if c.ResponderOnly != ike.Both.String() {
		notes = append(notes, "responder_only "+c.ResponderOnly)
	}
	if c.PPK {
		notes = append(notes, "PPK")
	}
	if !c.MOBIKE {
		notes = append(notes, "no MOBIKE")
	}
	return strings.Join(notes, "; ")
}

// ikePostures is the weakest posture of what IKE may come to, by peer.
func ikePostures(cfg *config.Config) map[string]string {
	postures := map[string]string{}
	for _, p := range ikeParams(cfg) {
		if posture := postureOf(p.Protocol, p.Suite); postures[p.Peer] != postureAuthenticated {
			postures[p.Peer] = posture
		}
	}
	return postures
}
