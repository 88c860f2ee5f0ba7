package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"sync"
	"time"

	"github.com/adit-ipsec/adit/config"
	"github.com/adit-ipsec/adit/dataplane"
	"github.com/adit-ipsec/adit/internal/netsim"
	"github.com/adit-ipsec/adit/internal/packet"
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
	d.say("Two gateways in one process, over a network in memory: as root, `adit demo` shows\nthe same with real sockets.\n%s\n", d.keyed())
	d.say("   host A ────────── gateway A ════ observer ════ gateway B ────────── host B\n")
	d.say("   %-17s %-27s  %-19s %s\n", memoryA.host4, memoryA.outside, memoryB.outside, memoryB.host4)
	d.say("   %-66s %s\n\n", memoryA.host6, memoryB.host6)
	for i, spec := range demoRounds {
		m := &memoryDemo{demo: d, marker: demoMarker()}
		round := d.newRound(spec.title, spec.suite, spec.encap)
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
	dir, err := os.MkdirTemp("", "adit-demo-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	siteA, siteB, err := m.sites(dir, r.Suite, r.Over)
	if err != nil {
		return err
	}
	network := netsim.NewNetwork()
	m.wire.marker = m.marker
	network.Observe(m.wire.see)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var hosts sync.WaitGroup
	var gateways []*memoryGateway
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
		g, err := newMemoryGateway(end.site, end.own, network, device)
		if err != nil {
			return err
		}
		gateways = append(gateways, g)
		host := newMemoryHost(kernel, end.own, m.marker)
		*end.host = host
		hosts.Go(func() { host.run(ctx) })
	}
	if r.IKE != nil {
		err = m.keyed(ctx, r, gateways)
	} else {
		err = m.traffic(ctx, r)
	}
	if err != nil {
		return err
	}
	for i, name := range []string{siteA.Name, siteB.Name} {
		r.Gateways = append(r.Gateways, memoryAccount(name, gateways[i].Stats()))
	}
	r.Wire, r.LAN.Marked = m.wire.summary(), m.a.marked.Load()
	r.judge()
	return nil
}

// keyed is a round whose keys are negotiated with the first packet, and renewed under
// load behind the traffic.
func (m *memoryDemo) keyed(ctx context.Context, r *demoRound, gateways []*memoryGateway) error {
	m.step("%s: the first packet", r.Title)
	r.IKE.First = demoPing{Path: "IPv4 A to B", Sent: 1}
	if rtt, err := m.a.ping(ctx, m.b, false); err == nil {
		r.IKE.First.Received, r.IKE.First.RTTSeconds = 1, rtt.Seconds()
	}
	keyers := []demoKeyer{gateways[0].ike, gateways[1].ike}
	if err := r.negotiated(ctx, []string{"site-a", "site-b"}, keyers); err != nil {
		return err
	}
	if err := m.traffic(ctx, r); err != nil {
		return err
	}
	m.step("%s: new keys under load", r.Title)
	return r.rekeyUnderLoad(ctx, keyers[0], func() (demoBurst, error) {
		b, err := m.b.burst(ctx, m.a, false, demoUDP)
		b.Path = "IPv4 B to A"
		return b, err
	})
}

// newMemoryGateway makes a gateway of the same configuration file that `adit run`
// would read.
func newMemoryGateway(site *demoSite, own *memorySide, network *netsim.Network, device tun.Device) (*memoryGateway, error) {
	if err := site.write(); err != nil {
		return nil, err
	}
	cfg, err := config.Load(site.File)
	if err != nil {
		return nil, err
	}
	g := &memoryGateway{}
	engine := dataplane.Config{TUN: device}
	raw, err := network.Endpoint(netip.AddrPortFrom(own.outside, 0))
	if err != nil {
		return nil, err
	}
	engine.Raw4 = memoryRaw{raw}
	udp, err := network.Endpoint(netip.AddrPortFrom(own.outside, cfg.Listen.NATTPort))
	if err != nil {
		return nil, err
	}
	engine.Wire = udp
	if site.Identity != nil {
		if g.ike, err = openMemoryIKE(cfg, own.outside, network, udp, &engine); err != nil {
			return nil, err
		}
	}
	if g.Gateway, err = dataplane.New(engine); err != nil {
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
	if err == nil {
		g.ApplyPolicy(table)
		if g.ike != nil {
			err = g.ike.start(cfg, g.Gateway)
		}
	}
	if err != nil {
		return nil, errors.Join(err, g.Close())
	}
	return g, nil
}

// memoryRaw is protocol 50, which has no ports: what an SA says of one is for UDP.
type memoryRaw struct{ *netsim.Endpoint }

func (r memoryRaw) WriteBatch(grams []packet.Datagram) (int, error) {
	for i := range grams {
		grams[i].Addr = netip.AddrPortFrom(grams[i].Addr.Addr(), 0)
	}
	return r.Endpoint.WriteBatch(grams)
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

// ikePort is the port of IKE without NAT traversal.
const ikePort = 500

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
	case d.Addr.Port() == ikePort && len(b) >= natt.IKEHeaderLen, kind == natt.IKE:
		w.seen.IKE++
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
