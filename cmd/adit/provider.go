package main

import (
	"cmp"
	"context"
	"os"
	"slices"

	"github.com/adit-ipsec/adit/config"
	"github.com/adit-ipsec/adit/dataplane"
	"github.com/adit-ipsec/adit/internal/ctl/controlv1"
	"github.com/adit-ipsec/adit/sad"
)

// provider answers the control API out of a gateway. While the gateway starts
// there may be no engine yet: everything is empty then, and not ready.
type provider gateway

// config is the configuration in force.
func (g *gateway) config() *config.Config {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.cfg
}

// stats is a snapshot of the engine; ready tells that start has ended.
func (p *provider) stats() (stats dataplane.Stats, ready bool) {
	p.mu.Lock()
	ready = p.ready
	p.mu.Unlock()
	if ready {
		stats = p.engine.Stats()
	}
	return stats, ready
}

// Status answers `adit status`.
func (p *provider) Status(ctx context.Context, _ *controlv1.StatusRequest) (*controlv1.StatusResponse, error) {
	stats, ready := p.stats()
	p.mu.Lock()
	cfg, mtu, into := p.cfg, p.mtu, p.into
	p.mu.Unlock()
	installed := map[sad.ID]saKind{}
	for i := range stats.SAs {
		if s := &stats.SAs[i]; !s.Exhausted {
			installed[s.ID] = saKind{suiteName(s.Protocol, s.Suite, s.AHSuite), postureOf(s.Protocol, s.Suite), s.Bundle}
		}
	}
	expected := kindsOf(cfg.SAParams())
	status := &controlv1.StatusResponse{
		Name: cfg.Name, Version: programVersion(), Pid: int32(os.Getpid()),
		StartedUnixMs: p.started.UnixMilli(), UptimeSeconds: stats.Uptime.Seconds(),
		ConfigFile: cfg.Path, StateDir: cfg.StateDir, Control: cfg.Control,
		Tun: cfg.TUN.Name, TunMtu: int32(mtu), Guard: guardState,
		Peers:    viewPeers(cfg, installed, expected),
		Policies: int32(len(cfg.Policies)), ClearPolicies: clearPolicies(cfg.Policies),
		Traffic: viewCounters(stats.Traffic), Drops: viewCounters(stats.Drops),
		Offloads: viewOffloads(stats.Offloads, cfg.TUN.Offload), Held: viewHeld(stats),
	}
	for _, peer := range status.GetPeers() {
		peer.Source = p.madeBy(peer.GetName())
	}
	viewPeersMTU(status.GetPeers(), stats.SAs)
	for _, prefix := range into {
		status.Routes = append(status.Routes, prefix.String())
	}
	if !ready {
		status.Missing = []string{"the gateway is starting"}
		return status, nil
	}
	status.Listen = p.listens
	var err error
	if status.Ike, err = p.listIKE(ctx); err != nil {
		return nil, err
	}
	status.Missing = missingIKE(status.GetIke())
	viewNegotiated(status.GetPeers(), status.GetIke(), stats.SAs)
	for id := range expected {
		if _, up := installed[id]; !up {
			status.Missing = append(status.Missing, id.String())
		}
	}
	slices.Sort(status.Missing)
	status.Ready = len(status.Missing) == 0
	return status, nil
}

// Counters answers `adit counters`.
func (p *provider) Counters(ctx context.Context, _ *controlv1.CountersRequest) (*controlv1.CountersResponse, error) {
	stats, _ := p.stats()
	return &controlv1.CountersResponse{
		UptimeSeconds: stats.Uptime.Seconds(),
		Traffic:       viewCounters(stats.Traffic), Drops: viewCounters(stats.Drops), Ike: p.countIKE(ctx),
		Held: viewHeld(stats),
	}, nil
}

// viewHeld is what waits for its SA.
func viewHeld(stats dataplane.Stats) *controlv1.Held {
	return &controlv1.Held{Packets: uint64(max(stats.HeldPackets, 0)), Bytes: uint64(max(stats.HeldBytes, 0))}
}

// ListSAs answers `adit sa list`: by peer, then outbound before inbound.
func (p *provider) ListSAs(context.Context, *controlv1.ListSAsRequest) (*controlv1.ListSAsResponse, error) {
	stats, _ := p.stats()
	slices.SortFunc(stats.SAs, func(a, b sad.Stats) int {
		return cmp.Or(cmp.Compare(a.Peer, b.Peer), cmp.Compare(a.Direction, b.Direction), cmp.Compare(a.Protocol, b.Protocol), cmp.Compare(a.SPI, b.SPI))
	})
	list := &controlv1.ListSAsResponse{}
	for i := range stats.SAs {
		view := viewSA(&stats.SAs[i], int64(stats.Uptime))
		view.Source = p.madeBy(stats.SAs[i].Peer)
		list.Sas = append(list.Sas, view)
	}
	return list, nil
}

// ListPolicies answers `adit policy list`.
func (p *provider) ListPolicies(ctx context.Context, _ *controlv1.ListPoliciesRequest) (*controlv1.ListPoliciesResponse, error) {
	status, err := p.Status(ctx, nil)
	if err != nil {
		return nil, err
	}
	cfg := (*gateway)(p).config()
	return &controlv1.ListPoliciesResponse{Policies: viewPolicies(cfg.Policies, posturesOf(status.GetPeers()))}, nil
}

func viewCounters(list []dataplane.Counter) []*controlv1.Counter {
	var view []*controlv1.Counter
	for _, c := range list {
		view = append(view, &controlv1.Counter{Name: c.Name, Value: c.Value})
	}
	return view
}
