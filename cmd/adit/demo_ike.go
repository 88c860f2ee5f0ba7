package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/adit-ipsec/adit/internal/ctl"
	"github.com/adit-ipsec/adit/internal/ctl/controlv1"
)

// demoIKE is what the two gateways of a round negotiated.
type demoIKE struct {
	Ends       []demoEnd `json:"ends"`
	IKESuite   string    `json:"ike_suite"`
	ChildSuite string    `json:"child_suite"`
	// First is the first packet of all: nothing was negotiated when it was sent.
	First demoPing  `json:"first"`
	Rekey demoRekey `json:"rekey"`
}

// demoEnd is who a gateway found at the other end.
type demoEnd struct {
	Gateway string `json:"gateway"`
	Peer    string `json:"peer"`
	Proof   string `json:"proved_by"`
}

// demoRekey is what new keys cost under load.
type demoRekey struct {
	ChildSAs int       `json:"child_sas"` // pairs that were replaced
	IKESAs   int       `json:"ike_sas"`
	Load     demoBurst `json:"load"` // what was sent meanwhile
}

// demoFirstWait is how long the first packet may take: the gateway holds it for 10
// seconds.
const demoFirstWait = 10 * time.Second

// demoKeyer is IKE of one gateway of the demonstration, which speaks with one peer.
type demoKeyer interface {
	peer(ctx context.Context) (*controlv1.IKEPeer, error)
	// renew asks for new keys of the IKE SA, or of all Child SAs.
	renew(ctx context.Context, children bool) error
}

// controlKeyer is a demoKeyer through the control socket.
type controlKeyer struct {
	client *ctl.Client
	name   string // of the peer
}

func (k controlKeyer) peer(ctx context.Context) (*controlv1.IKEPeer, error) {
	list, err := k.client.IKE(ctx)
	if err != nil {
		return nil, err
	}
	return onlyPeer(list.GetPeers())
}

func (k controlKeyer) renew(ctx context.Context, children bool) error {
	change := &controlv1.ChangeIKERequest{Action: ikeRenew, Peer: k.name}
	if children {
		change.Policy = "*"
	}
	return k.client.ChangeIKE(ctx, change)
}

func onlyPeer(list []*controlv1.IKEPeer) (*controlv1.IKEPeer, error) {
	if len(list) != 1 {
		return nil, fmt.Errorf("IKE speaks with %d peers, want one", len(list))
	}
	return list[0], nil
}

// demoSPIs are the SPIs of the IKE SA and of the Child SA that are in use; "" where
// there is not exactly one that is established.
func demoSPIs(p *controlv1.IKEPeer) (ike, child string) {
	if len(p.GetSas()) != 1 || p.GetState() != ikeUp {
		return "", ""
	}
	sa := p.GetSas()[0]
	if len(sa.GetChildren()) != 1 {
		return sa.GetSpiI() + sa.GetSpiR(), ""
	}
	c := sa.GetChildren()[0]
	return sa.GetSpiI() + sa.GetSpiR(), fmt.Sprint(c.GetSpiIn(), " ", c.GetSpiOut())
}

// negotiated notes what both ends say of each other.
func (r *demoRound) negotiated(ctx context.Context, names []string, keyers []demoKeyer) error {
	r.IKE.Ends = []demoEnd{}
	for i, k := range keyers {
		p, err := k.peer(ctx)
		if err != nil {
			return err
		}
		if ike, child := demoSPIs(p); ike == "" || child == "" {
			return fmt.Errorf("gateway %s has not one IKE SA with one Child SA, but %v", names[i], p)
		}
		sa := p.GetSas()[0]
		r.IKE.Ends = append(r.IKE.Ends, demoEnd{names[i], sa.GetRemoteId(), sa.GetAuthentication()})
		r.IKE.IKESuite, r.IKE.ChildSuite = sa.GetSuite(), sa.GetChildren()[0].GetSuite()
	}
	return nil
}

// Times of the rekeys under load.
const (
	demoRekeyWait = 10 * time.Second // that one may take
	demoRekeyPoll = 5 * time.Millisecond
)

// rekeyUnderLoad renews the Child SA, the IKE SA, and the Child SA once more, while
// burst after burst is on its way: the last one ends behind the last rekey.
func (r *demoRound) rekeyUnderLoad(ctx context.Context, k demoKeyer, burst func() (demoBurst, error)) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	done := make(chan error, 1)
	go func() {
		for _, children := range []bool{true, false, true} {
			if err := renewed(ctx, k, children); err != nil {
				done <- err
				return
			}
			if children {
				r.IKE.Rekey.ChildSAs++
			} else {
				r.IKE.Rekey.IKESAs++
			}
		}
		done <- nil
	}()
	load := &r.IKE.Rekey.Load
	load.Intact = true
	for {
		b, err := burst()
		load.Path, load.Sent, load.Received, load.Intact = b.Path, load.Sent+b.Sent, load.Received+b.Received, load.Intact && b.Intact
		if err != nil {
			cancel()
			return errors.Join(err, <-done)
		}
		select {
		case err := <-done:
			return err
		default:
		}
	}
}

// renewed asks for new keys and waits until they are there and the old SA is gone.
func renewed(ctx context.Context, k demoKeyer, children bool) error {
	ctx, cancel := context.WithTimeout(ctx, demoRekeyWait)
	defer cancel()
	before, err := k.peer(ctx)
	if err != nil {
		return err
	}
	oldIKE, oldChild := demoSPIs(before)
	if err := k.renew(ctx, children); err != nil {
		return err
	}
	tick := time.NewTicker(demoRekeyPoll)
	defer tick.Stop()
	for {
		now, err := k.peer(ctx)
		if err != nil {
			return err
		}
		ike, child := demoSPIs(now)
		if ike != "" && child != "" && (children && child != oldChild || !children && ike != oldIKE) {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("no new keys: %w", ctx.Err())
		}
	}
}

// judge says what of the negotiation did not hold.
func (i *demoIKE) judge(r *demoRound) {
	if i.First.Received != i.First.Sent || i.First.Sent == 0 {
		r.fail("the first packet was lost: %d of %d pings answered", i.First.Received, i.First.Sent)
	}
	if len(i.Ends) != 2 {
		r.fail("%d gateways know their peer", len(i.Ends))
	}
	for _, e := range i.Ends {
		if e.Peer == "" || e.Proof != "ecdsa" {
			r.fail("gateway %s: peer %q has proved itself by %q", e.Gateway, e.Peer, e.Proof)
		}
	}
	switch k := &i.Rekey; {
	case k.ChildSAs == 0 || k.IKESAs == 0:
		r.fail("%d Child SAs and %d IKE SAs were rekeyed", k.ChildSAs, k.IKESAs)
	case k.Load.Received != k.Load.Sent || !k.Load.Intact:
		r.fail("rekeys under load: %d of %d datagrams came, all intact: %t", k.Load.Received, k.Load.Sent, k.Load.Intact)
	}
	if r.Wire.IKE == 0 {
		r.fail("the wire carried no IKE message")
	}
}

// print writes the negotiation for people, in front of the traffic.
func (i *demoIKE) print(w io.Writer) {
	for n, e := range i.Ends {
		fmt.Fprintf(w, "   %-7s%s: the peer is %s, by its certificate and a signature (%s)\n", first(n, "who"), e.Gateway, e.Peer, e.Proof)
	}
	fmt.Fprintf(w, "   %-7sIKE SA    %s\n          Child SA  %s\n", "keys", i.IKESuite, i.ChildSuite)
	fmt.Fprintf(w, "   %-7sa ping before there were any: held, and answered after %s\n", "first", short(i.First.RTTSeconds))
}

// row is what rekeys cost, behind the traffic.
func (k *demoRekey) row(t *table) {
	t.row("rekey", k.Load.Path, fmt.Sprintf("%s of %s arrived", grouped(uint64(k.Load.Received)), grouped(uint64(k.Load.Sent))),
		fmt.Sprintf("meanwhile new keys: %d for the Child SA, %d for the IKE SA", k.ChildSAs, k.IKESAs))
}
