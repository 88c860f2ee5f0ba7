package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"github.com/adit-ipsec/adit/config"
	"github.com/adit-ipsec/adit/dataplane"
	"github.com/adit-ipsec/adit/internal/netsim"
	"github.com/adit-ipsec/adit/internal/tun"
	"github.com/adit-ipsec/adit/natt"
)

// memoryMTU is the MTU of the TUNs in memory, in bytes.
const memoryMTU = 1400

// memoryDemo is the demonstration without privileges: the same gateways, over
// TUNs and a network in memory, between two hosts that are a few lines of code.
type memoryDemo struct {
	*demo
	marker []byte
	a, b   *memoryHost
	wire   wireTap
}

// memorySide is one end's addresses, those of the demonstration in namespaces.
type memorySide struct {
	outside, host4, host6 netip.Addr
	lan4, lan6            string
}

var (
	memoryA = memorySide{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("10.1.0.10"), netip.MustParseAddr("2001:db8:a::10"), "10.1.0.0/24", "2001:db8:a::/64"}
	memoryB = memorySide{netip.MustParseAddr("198.51.100.1"), netip.MustParseAddr("10.2.0.10"), netip.MustParseAddr("2001:db8:b::10"), "10.2.0.0/24", "2001:db8:b::/64"}
)

func (d *demo) runMemory(ctx context.Context) error {
	d.say("Two gateways in one process, over a network in memory: as root, `adit demo` shows\nthe same with real sockets.\n\n")
	d.say("   host A ────────── gateway A ════ observer ════ gateway B ────────── host B\n")
	d.say("   %-17s %-27s  %-19s %s\n", memoryA.host4, memoryA.outside, memoryB.outside, memoryB.host4)
	d.say("   %-66s %s\n\n", memoryA.host6, memoryB.host6)
	for i, spec := range demoRounds {
		m := &memoryDemo{demo: d, marker: demoMarker()}
		round := newDemoRound(spec.title, spec.suite, spec.encap)
		err := m.round(ctx, &round)
		d.report.Rounds = append(d.report.Rounds, round)
		if err != nil {
			return fmt.Errorf("%s: %w", spec.title, err)
		}
		round.print(d.out, i+1)
	}
	return nil
}

// round raises both gateways, sends traffic, and stops them again.
func (m *memoryDemo) round(ctx context.Context, r *demoRound) (err error) {
	m.step("%s: two gateways in memory", r.Title)
	siteA, siteB, err := demoSites("/nowhere", r.Suite, r.Over)
	if err != nil {
		return err
	}
	network := netsim.NewNetwork()
	m.wire.marker = m.marker
	network.Observe(m.wire.see)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var hosts sync.WaitGroup
	var gateways []*dataplane.Gateway
	defer func() {
		cancel()
		for _, g := range gateways {
			err = errors.Join(err, g.Close())
		}
		hosts.Wait()
	}()
	for _, end := range []struct {
		site       *demoSite
		own, other *memorySide
		host       **memoryHost
	}{{&siteA, &memoryA, &memoryB, &m.a}, {&siteB, &memoryB, &memoryA, &m.b}} {
		end.site.Address, end.site.PeerAddress = end.own.outside.String(), end.other.outside.String()
		end.site.Local = []string{end.own.lan4, end.own.lan6}
		end.site.Remote = []string{end.other.lan4, end.other.lan6}
		device, kernel := tun.NewMemory("adit0", memoryMTU)
		g, err := memoryGateway(end.site, end.own, network, device)
		if err != nil {
			return err
		}
		gateways = append(gateways, g)
		host := newMemoryHost(kernel, end.own, m.marker)
		*end.host = host
		hosts.Go(func() { host.run(ctx) })
	}
	if err := m.traffic(ctx, r); err != nil {
		return err
	}
	for i, name := range []string{siteA.Name, siteB.Name} {
		r.Gateways = append(r.Gateways, memoryAccount(name, gateways[i].Stats()))
	}
	r.Wire, r.LAN.Marked = m.wire.summary(), m.a.marked.Load()
	r.judge()
	return nil
}

// memoryGateway makes a gateway of the same configuration file that `adit run`
// would read.
func memoryGateway(site *demoSite, own *memorySide, network *netsim.Network, device tun.Device) (*dataplane.Gateway, error) {
	text, err := site.render()
	if err != nil {
		return nil, err
	}
	cfg, err := config.Parse(site.File, text)
	if err != nil {
		return nil, err
	}
	engine := dataplane.Config{TUN: device}
	port := cfg.Listen.NATTPort
	if cfg.Listen.Raw {
		port = 0
	}
	end, err := network.Endpoint(netip.AddrPortFrom(own.outside, port))
	if err != nil {
		return nil, err
	}
	if engine.Wire = end; cfg.Listen.Raw {
		engine.Wire, engine.Raw4 = nil, end
	}
	g, err := dataplane.New(engine)
	if err != nil {
		return nil, err
	}
	params := cfg.SAParams()
	for i := range params {
		params[i].FreshKeys = true // made for this run, and forgotten with it
	}
	table, err := cfg.Table()
	if err == nil {
		err = g.Install(params...)
	}
	if err != nil {
		return nil, errors.Join(err, g.Close())
	}
	g.ApplyPolicy(table)
	return g, nil
}

func memoryAccount(name string, stats dataplane.Stats) demoGateway {
	g := demoGateway{Name: name, OutPackets: stats.Counter("OutPackets"), InPackets: stats.Counter("InPackets"), Drops: map[string]uint64{}}
	for _, c := range stats.Drops {
		if c.Value > 0 {
			g.Drops[c.Name] = c.Value
		}
	}
	return g
}

// traffic sends everything of a round.
func (m *memoryDemo) traffic(ctx context.Context, r *demoRound) error {
	for _, p := range []struct {
		path     string
		from, to *memoryHost
		v6       bool
	}{{"IPv4 A to B", m.a, m.b, false}, {"IPv6 B to A", m.b, m.a, true}} {
		ping := demoPing{Path: p.path}
		for range demoPings {
			ping.Sent++
			rtt, err := p.from.ping(ctx, p.to, p.v6)
			if err == nil {
				ping.Received++
				ping.RTTSeconds += rtt.Seconds() / demoPings
			}
		}
		r.Pings = append(r.Pings, ping)
	}
	share := time.Duration(m.seconds) * time.Second / time.Duration(2*len(demoRounds))
	m.step("%s: TCP, about %s", r.Title, 2*share)
	for _, t := range []struct {
		path     string
		from, to *memoryHost
		v6       bool
	}{{"IPv4 A to B", m.a, m.b, false}, {"IPv6 B to A", m.b, m.a, true}} {
		result, err := t.from.transfer(ctx, t.to, t.v6, share)
		if err != nil {
			return fmt.Errorf("TCP %s: %w", t.path, err)
		}
		result.Path = t.path
		r.TCP = append(r.TCP, result)
	}
	for _, u := range []struct {
		path     string
		from, to *memoryHost
		v6       bool
	}{{"IPv4 B to A", m.b, m.a, false}, {"IPv6 A to B", m.a, m.b, true}} {
		burst, err := u.from.burst(ctx, u.to, u.v6, demoUDP)
		if err != nil {
			return fmt.Errorf("UDP %s: %w", u.path, err)
		}
		burst.Path = u.path
		r.UDP = append(r.UDP, burst)
	}
	return nil
}

// maxOthers is how many packets in clear a report tells of.
const maxOthers = 8

// wireTap is the observer of the network in memory.
type wireTap struct {
	marker []byte
	mu     sync.Mutex
	seen   demoWire
}

func (w *wireTap) see(d *netsim.Message) {
	w.mu.Lock()
	defer w.mu.Unlock()
	b := d.Bytes()
	w.seen.Packets++
	w.seen.Bytes += uint64(len(b))
	if bytes.Contains(b, w.marker) {
		w.seen.Marked++
	}
	switch kind := natt.Classify(b); {
	case d.Addr.Port() == 0: // raw IP is protocol 50 here
		w.seen.ESP++
	case kind == natt.ESP:
		w.seen.UDPESP++
	case kind == natt.Keepalive:
		w.seen.Keepalive++
	default:
		w.seen.Other++
		if len(w.seen.Others) == maxOthers {
			return
		}
		w.seen.Others = append(w.seen.Others, fmt.Sprintf("%s > %s, %d bytes", d.Local, d.Addr, len(b)))
	}
}

func (w *wireTap) summary() demoWire {
	w.mu.Lock()
	defer w.mu.Unlock()
	seen := w.seen
	seen.Others = append([]string{}, w.seen.Others...)
	return seen
}
