package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"connectrpc.com/connect"

	"github.com/adit-ipsec/adit/ike"
	"github.com/adit-ipsec/adit/internal/ctl/controlv1"
	"github.com/adit-ipsec/adit/sad"
)

// The states of a peer that IKE speaks with.
const (
	ikeUp          = "up"          // there is an IKE SA that works
	ikeNegotiating = "negotiating" // there is one that is being made
	ikeDown        = "down"        // there is none
)

// Who made an SA.
const (
	madeByHand = "manual"
	madeByIKE  = "ike"
)

// service is IKE, where it runs; nil: it does not, or not yet.
func (p *provider) service() *ikeService {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.ready || p.ike == nil {
		return nil
	}
	return p.ike
}

// keyed tells whether IKE makes the peer's SAs.
func (p *provider) keyed(peer string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.ike != nil && p.ike.peers[peer]
}

// madeBy is who makes the SAs of a peer.
func (p *provider) madeBy(peer string) string {
	if p.keyed(peer) {
		return madeByIKE
	}
	return madeByHand
}

// ListIKE answers `adit ike list`.
func (p *provider) ListIKE(ctx context.Context, _ *controlv1.ListIKERequest) (*controlv1.ListIKEResponse, error) {
	list, err := p.listIKE(ctx)
	return &controlv1.ListIKEResponse{Peers: list}, err
}

func (p *provider) listIKE(ctx context.Context) (list []*controlv1.IKEPeer, err error) {
	s := p.service()
	if s == nil {
		return nil, nil
	}
	status, err := s.driver.Status(ctx)
	if err != nil {
		return nil, stopping(err)
	}
	for i := range status {
		list = append(list, viewIKEPeer(&status[i]))
	}
	stats, _ := p.stats()
	viewSelectors(list, stats.SAs)
	viewCarried(list, stats.SAs, int64(stats.Uptime))
	return list, nil
}

// viewSelectors puts into the Child SAs' views what the SAD says that they carry.
func viewSelectors(peers []*controlv1.IKEPeer, sas []sad.Stats) {
	type inbound struct {
		peer string
		spi  uint32
	}
	of := map[inbound]*sad.Stats{}
	for i := range sas {
		if sas[i].Direction == sad.Inbound {
			of[inbound{sas[i].Peer, sas[i].SPI}] = &sas[i]
		}
	}
	for _, p := range peers {
		for _, sa := range p.GetSas() {
			for _, c := range sa.GetChildren() {
				if s := of[inbound{p.GetName(), c.GetSpiIn()}]; s != nil {
					for i := range s.Selectors {
						c.Selectors = append(c.Selectors, s.Selectors[i].String())
					}
				}
			}
		}
	}
}

// countIKE is the machine's counters, by name, and those of its sockets.
func (p *provider) countIKE(ctx context.Context) (list []*controlv1.Counter) {
	s := p.service()
	if s == nil {
		return nil
	}
	counts, err := s.driver.Stats(ctx)
	if err != nil {
		return nil
	}
	wire := s.conn.Stats()
	counts["malformed"] += wire.Malformed
	for name, n := range counts {
		list = append(list, &controlv1.Counter{Name: ikeCounterName(name), Value: n})
	}
	slices.SortFunc(list, func(a, b *controlv1.Counter) int { return cmp.Compare(a.GetName(), b.GetName()) })
	return list
}

// ikeCounterName is a counter of the machine as counters are called: "send_errors" is
// IKESendErrors.
func ikeCounterName(name string) string {
	var b strings.Builder
	b.WriteString("IKE")
	for word := range strings.SplitSeq(name, "_") {
		if word != "" {
			b.WriteString(strings.ToUpper(word[:1]) + word[1:])
		}
	}
	return b.String()
}

// missingIKE names what is to be up at once and is not.
func missingIKE(peers []*controlv1.IKEPeer) (list []string) {
	for _, p := range peers {
		switch {
		case p.GetStart() != startNames[ike.AtOnce]:
		case p.GetState() != ikeUp:
			list = append(list, fmt.Sprintf("IKE SA with peer %q", p.GetName()))
		default:
			for _, policy := range p.GetMissing() {
				list = append(list, fmt.Sprintf("Child SA of policy %q with peer %q", policy, p.GetName()))
			}
		}
	}
	return list
}

var startNames = map[ike.Start]string{ike.OnTraffic: "traffic", ike.AtOnce: "now"}

func viewIKEPeer(s *ike.PeerStatus) *controlv1.IKEPeer {
	view := &controlv1.IKEPeer{
		Name: s.Name, State: ikeDown, Role: s.Role, Start: startNames[s.Start], Verbose: s.Verbose,
		Waiting: s.Wanted, RetrySeconds: -1, Policies: s.Policies, Missing: s.Missing(), Trouble: viewTrouble(s.Trouble),
	}
	switch {
	case s.Up():
		view.State = ikeUp
	case len(s.SAs) > 0:
		view.State = ikeNegotiating
	}
	if s.RetryIn > 0 {
		view.RetrySeconds = s.RetryIn.Seconds()
	}
	for i := range s.SAs {
		view.Sas = append(view.Sas, viewIKESA(&s.SAs[i]))
	}
	return view
}

func viewIKESA(sa *ike.SAStatus) *controlv1.IKESA {
	view := &controlv1.IKESA{
		SpiI: fmt.Sprintf("%016x", sa.SPIi), SpiR: fmt.Sprintf("%016x", sa.SPIr), State: sa.State, Initiator: sa.Initiator,
		Local: validText(sa.Local), Remote: validText(sa.Remote), Suite: sa.Suite,
		LocalId: sa.LocalID, RemoteId: sa.PeerID, Authentication: sa.Authentication,
		AgeSeconds: sa.Age.Seconds(), RenewSeconds: secondsOrNever(sa.RekeyIn), EndSeconds: secondsOrNever(sa.EndIn),
		BehindNat: sa.BehindNAT, PeerBehindNat: sa.PeerBehindNAT, Mobike: sa.Mobike, Fragmentation: sa.Fragmentation,
		HeardSeconds: sa.Heard.Seconds(), Asking: sa.Asking, Transmissions: int32(sa.Transmissions),
	}
	for i := range sa.ChildSAs {
		c := &sa.ChildSAs[i]
		view.Children = append(view.Children, &controlv1.IKEChild{
			Policy: c.Policy, SpiIn: c.SPIIn, SpiOut: c.SPIOut, Suite: c.Suite, AgeSeconds: -1, RenewSeconds: -1,
		})
	}
	return view
}

// secondsOrNever: 0 is never, and -1 where people and programs read it.
func secondsOrNever(d time.Duration) float64 {
	if d <= 0 {
		return -1
	}
	return d.Seconds()
}

// ChangeIKE answers the commands that begin, renew and end what IKE negotiates. It
// returns when the machine has begun.
func (p *provider) ChangeIKE(ctx context.Context, r *controlv1.ChangeIKERequest) (*controlv1.ChangeIKEResponse, error) {
	s := p.service()
	if s == nil {
		return nil, connect.NewError(connect.CodeFailedPrecondition, errors.New("IKE does not run: no peer has `keying: ike`, or the gateway is starting"))
	}
	in, err := p.change(ctx, s, r)
	var said *connect.Error
	switch {
	case errors.As(err, &said):
		return nil, err
	case err != nil:
		return nil, connect.NewError(connect.CodeInvalidArgument, err)
	}
	p.log.Info("asked to change IKE", "action", r.GetAction(), "peer", r.GetPeer(), "policy", r.GetPolicy())
	if err := s.driver.Do(ctx, in); err != nil {
		return nil, stopping(err)
	}
	return &controlv1.ChangeIKEResponse{}, nil
}

// stopping is an error of the driver's for whoever asks.
func stopping(err error) error {
	if errors.Is(err, ike.ErrStopped) {
		return connect.NewError(connect.CodeFailedPrecondition, errors.New("the gateway is stopping"))
	}
	return err
}

// change is what a request means to the machine, if it names what there is.
func (p *provider) change(ctx context.Context, s *ikeService, r *controlv1.ChangeIKERequest) (ike.Input, error) {
	action, peer, policy := r.GetAction(), r.GetPeer(), r.GetPolicy()
	if err := p.known(ctx, s, action, peer, policy); err != nil {
		return nil, err
	}
	switch action {
	case ikeInitiate:
		return ike.Initiate{Peer: peer, Policy: policy}, nil
	case ikeRenew:
		return ike.Rekey{Peer: peer, Policy: policy}, nil
	case ikeTerminate:
		return ike.Terminate{Peer: peer, Policy: policy}, nil
	case ikeVerbose, ikeQuiet:
		return ike.Verbose{Peer: peer, On: action == ikeVerbose}, nil
	}
	return nil, fmt.Errorf("action %q is not known", action)
}

// known refuses names that nobody has, and what would come to nothing.
func (p *provider) known(ctx context.Context, s *ikeService, action, peer, policy string) error {
	all := action == ikeTerminate || action == ikeVerbose || action == ikeQuiet
	switch {
	case peer == "" && policy != "":
		return fmt.Errorf("policy %q of which peer?", policy)
	case peer == "" && all:
		return nil
	case peer == "":
		return errors.New("which peer?")
	}
	status, err := s.driver.Status(ctx)
	if err != nil {
		return stopping(err)
	}
	var names []string
	for i := range status {
		if names = append(names, status[i].Name); status[i].Name != peer {
			continue
		}
		if policy == "" || policy == "*" && action == ikeRenew || slices.Contains(status[i].Policies, policy) {
			return p.comesToNothing(&status[i], action, policy)
		}
		return fmt.Errorf("peer %q has no policy %q; it has %s", peer, policy, strings.Join(status[i].Policies, ", "))
	}
	return fmt.Errorf("IKE speaks with no peer %q; it speaks with %s", peer, strings.Join(names, ", "))
}

// viewNegotiated puts into the peers' views what IKE has found out: which of them
// should have SAs, where they are, and what carries their packets.
func viewNegotiated(peers []*controlv1.Peer, negotiated []*controlv1.IKEPeer, sas []sad.Stats) {
	of := map[string]*controlv1.IKEPeer{}
	for _, p := range negotiated {
		of[p.GetName()] = p
	}
	for _, view := range peers {
		p := of[view.GetName()]
		if p == nil {
			continue
		}
		view.SasExpected = view.GetSasInstalled()
		if p.GetStart() == startNames[ike.AtOnce] || p.GetState() == ikeUp {
			view.SasExpected = 2 * int32(len(p.GetPolicies()))
		}
		for _, sa := range p.GetSas() {
			view.BehindNat = view.GetBehindNat() || sa.GetBehindNat()
		}
		for i := range sas {
			if s := &sas[i]; s.Peer == view.GetName() && s.Direction == sad.Outbound {
				view.Address, view.Port, view.Encapsulation = s.Remote.Addr().String(), 0, s.Encap.String()
				if s.Encap == sad.EncapUDP {
					view.Port = uint32(s.Remote.Port())
				}
			}
		}
	}
}
