package main

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"time"

	"github.com/adit-ipsec/adit/internal/ctl"
	"github.com/adit-ipsec/adit/internal/netlab"
)

// Sizes of the demonstration's traffic.
const (
	demoPings    = 3
	demoProbe    = 4 << 20 // bytes of the first TCP transfer, which tells the rate
	demoMinBytes = 1 << 20
	demoMaxBytes = 4 << 30
	demoUDP      = 2000                   // datagrams of a burst
	demoUDPGap   = 200 * time.Microsecond // between them
	demoStart    = 15 * time.Second       // that a gateway may take to be ready
	demoStop     = 10 * time.Second       // and to stop
)

// labDemo is the demonstration with processes, namespaces and real sockets.
type labDemo struct {
	*demo
	net    *netlab.Topology
	dir    string
	self   string // this program
	marker []byte
	a, b   *demoProcess
}

// demoProcess is one running gateway.
type demoProcess struct {
	site    demoSite
	node    *netlab.Node
	process *netlab.Process
	log     *lockedBuffer
	client  *ctl.Client
}

func (d *demo) runLab(ctx context.Context) (err error) {
	d.step("raising two gateways, two hosts and a router in namespaces of their own")
	network, err := netlab.SiteToSite(netlab.Options{Name: "demo"})
	if err != nil {
		return fmt.Errorf("%w (`adit demo --memory` needs no namespaces)", err)
	}
	defer func() { err = errors.Join(err, network.Close()) }()
	dir, err := os.MkdirTemp("", "adit-demo-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	self, err := os.Executable()
	if err != nil {
		return err
	}
	l := &labDemo{demo: d, net: network, dir: dir, self: self, marker: demoMarker()}
	d.say("Two sites, each behind a gateway; an observer records the wire between them.\n%s\n", d.keyed())
	d.say("   host A ────────── gateway A ════ observer ════ gateway B ────────── host B\n")
	d.say("   %-17s %-27s  %-19s %s\n", network.A.Host4, network.A.Outside4, network.B.Outside4, network.B.Host4)
	d.say("   %-66s %s\n\n", network.A.Host6, network.B.Host6)
	for i, spec := range demoRounds {
		round := d.newRound(spec.title, spec.suite, spec.encap)
		err := l.round(ctx, &round)
		d.report.Rounds = append(d.report.Rounds, round)
		if err != nil {
			return fmt.Errorf("%s: %w", spec.title, err)
		}
		round.print(d.out, i+1)
	}
	if err := l.kill(ctx); err != nil {
		return fmt.Errorf("kill -9: %w", err)
	}
	d.sayKill(len(demoRounds) + 1)
	return nil
}

// round raises both gateways, sends traffic, and stops them again.
func (l *labDemo) round(ctx context.Context, r *demoRound) (err error) {
	l.step("%s: starting the gateways", r.Title)
	siteA, siteB, err := l.sites(l.dir, r.Suite, r.Over)
	if err != nil {
		return err
	}
	place(&siteA, &l.net.A, &l.net.B)
	place(&siteB, &l.net.B, &l.net.A)
	wire, err := l.net.Router.Capture(netlab.CaptureOptions{Iface: l.net.A.RouterIface, Keep: -1, Marker: l.marker})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, wire.Close()) }()
	lan, err := l.net.A.Gateway.Capture(netlab.CaptureOptions{Iface: netlab.InsideIface, Keep: -1, Marker: l.marker})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, lan.Close()) }()
	if l.a, err = l.start(ctx, siteA, l.net.A.Gateway); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.a.end()) }()
	if l.b, err = l.start(ctx, siteB, l.net.B.Gateway); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.b.end()) }()
	keyers := []demoKeyer{controlKeyer{l.a.client, siteB.Name}, controlKeyer{l.b.client, siteA.Name}}
	if r.IKE != nil {
		if err := l.first(ctx, r); err != nil {
			return err
		}
		if err := r.negotiated(ctx, []string{siteA.Name, siteB.Name}, keyers); err != nil {
			return err
		}
	}
	if err := l.traffic(ctx, r); err != nil {
		return err
	}
	if r.IKE != nil {
		l.step("%s: new keys under load", r.Title)
		if err := r.rekeyUnderLoad(ctx, keyers[0], func() (demoBurst, error) {
			return l.burst(ctx, "IPv4 B to A", l.net.B.Host, l.net.A.Host, l.net.A.Host4)
		}); err != nil {
			return err
		}
	}
	for _, p := range []*demoProcess{l.a, l.b} {
		account, err := p.account(ctx)
		if err != nil {
			return err
		}
		r.Gateways = append(r.Gateways, account)
	}
	// The gateways stop while the observer still watches.
	if err := errors.Join(l.a.stop(), l.b.stop()); err != nil {
		return err
	}
	r.Wire, r.LAN.Marked = wireOf(wire.Summary()), lan.Summary().Marked
	r.judge()
	return nil
}

// place gives a site its addresses and networks.
func place(s *demoSite, own, other *netlab.Side) {
	s.Address, s.PeerAddress = own.Outside4.String(), other.Outside4.String()
	s.Local = []string{own.LAN4.String(), own.LAN6.String()}
	s.Remote = []string{other.LAN4.String(), other.LAN6.String()}
}

func wireOf(s netlab.Summary) demoWire {
	w := demoWire{
		Packets: s.Total(), UDPESP: s.Count(netlab.KindUDPESP), ESP: s.Count(netlab.KindESP),
		IKE: s.Count(netlab.KindIKE), Neighbour: s.Count(netlab.KindNeighbour), Keepalive: s.Count(netlab.KindKeepalive),
		Marked: s.Marked, Missed: s.Dropped, Others: append([]string{}, s.Others...),
	}
	// Whatever is none of these is clear traffic, kinds without a name here
	// included.
	w.Other = w.Packets - w.UDPESP - w.ESP - w.IKE - w.Neighbour - w.Keepalive - s.Count(netlab.KindICMPError)
	for _, n := range s.Bytes {
		w.Bytes += n
	}
	return w
}

// start runs `adit run` in the node and waits until it is ready.
func (l *labDemo) start(ctx context.Context, site demoSite, node *netlab.Node) (*demoProcess, error) {
	if err := site.write(); err != nil {
		return nil, err
	}
	p := &demoProcess{site: site, node: node, log: &lockedBuffer{}, client: ctl.NewClient(site.Control)}
	cmd := exec.Command(l.self, "run", "-c", site.File)
	cmd.Stdout, cmd.Stderr = p.log, p.log
	var err error
	if p.process, err = node.Start(cmd); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		select {
		case <-p.process.Done(): // it will never be ready
			cancel()
		case <-ctx.Done():
		}
	}()
	if _, err := waitStatus(ctx, p.client, demoStart); err != nil {
		return nil, errors.Join(fmt.Errorf("gateway %s did not come up: %w; its log:\n%s", site.Name, err, p.log), p.end())
	}
	return p, nil
}

// account asks the gateway for its own figures.
func (p *demoProcess) account(ctx context.Context) (demoGateway, error) {
	status, err := p.client.Status(ctx)
	if err != nil {
		return demoGateway{}, fmt.Errorf("gateway %s: %w; its log:\n%s", p.site.Name, err, p.log)
	}
	g := demoGateway{Name: p.site.Name, Drops: map[string]uint64{}}
	for _, c := range status.GetTraffic() {
		switch c.GetName() {
		case "OutPackets":
			g.OutPackets = c.GetValue()
		case "InPackets":
			g.InPackets = c.GetValue()
		}
	}
	for _, c := range status.GetDrops() {
		if c.GetValue() > 0 {
			g.Drops[c.GetName()] = c.GetValue()
		}
	}
	return g, nil
}

// stop ends the gateway in an orderly way and sees that it took its changes
// back.
func (p *demoProcess) stop() error {
	defer p.client.Close()
	if err := p.process.Stop(demoStop); err != nil {
		return fmt.Errorf("gateway %s did not stop in good order: %w; its log:\n%s", p.site.Name, err, p.log)
	}
	return p.node.Do(func() error {
		if _, err := net.InterfaceByName("adit0"); err == nil {
			return fmt.Errorf("gateway %s has stopped and its TUN is still there", p.site.Name)
		}
		return nil
	})
}

// end makes sure that the process is gone.
func (p *demoProcess) end() error {
	p.client.Close()
	p.process.Kill()
	<-p.process.Done()
	return nil
}

// traffic sends everything of a round.
func (l *labDemo) traffic(ctx context.Context, r *demoRound) error {
	a, b := &l.net.A, &l.net.B
	l.step("%s: ping", r.Title)
	for _, p := range []struct {
		path string
		from *netlab.Node
		to   netip.Addr
	}{
		{"IPv4 A to B", a.Host, b.Host4}, {"IPv6 B to A", b.Host, a.Host6},
	} {
		stats, err := netlab.Ping(ctx, p.from, netlab.PingOptions{Dst: p.to, Count: demoPings, Marker: l.marker})
		if err != nil {
			return err
		}
		r.Pings = append(r.Pings, demoPing{p.path, stats.Sent, stats.Received, stats.Mean.Seconds()})
	}
	if err := l.tcp(ctx, r); err != nil {
		return err
	}
	l.step("%s: UDP", r.Title)
	for _, u := range []struct {
		path     string
		from, to *netlab.Node
		address  netip.Addr
	}{
		{"IPv4 B to A", b.Host, a.Host, a.Host4}, {"IPv6 A to B", a.Host, b.Host, b.Host6},
	} {
		burst, err := l.burst(ctx, u.path, u.from, u.to, u.address)
		if err != nil {
			return err
		}
		r.UDP = append(r.UDP, burst)
	}
	return nil
}

// first is the packet that brings the tunnel up.
func (l *labDemo) first(ctx context.Context, r *demoRound) error {
	l.step("%s: the first packet", r.Title)
	stats, err := netlab.Ping(ctx, l.net.A.Host, netlab.PingOptions{Dst: l.net.B.Host4, Timeout: demoFirstWait, Marker: l.marker})
	r.IKE.First = demoPing{"IPv4 A to B", stats.Sent, stats.Received, stats.Mean.Seconds()}
	return err
}

// burst is one run of UDP.
func (l *labDemo) burst(ctx context.Context, path string, from, to *netlab.Node, address netip.Addr) (demoBurst, error) {
	burst, err := netlab.UDPBurst(ctx, from, to, netlab.BurstOptions{
		To: netip.AddrPortFrom(address, 0), Count: demoUDP, Size: 1200, Interval: demoUDPGap, Marker: l.marker})
	return demoBurst{path, burst.Sent, burst.Received, burst.Mismatched == 0}, err
}

// tcp sends for about the round's share of the time, half of it each way.
func (l *labDemo) tcp(ctx context.Context, r *demoRound) error {
	a, b := &l.net.A, &l.net.B
	share := time.Duration(l.seconds) * time.Second / time.Duration(2*len(demoRounds))
	l.step("%s: TCP, about %s", r.Title, 2*share)
	for _, t := range []struct {
		path     string
		from, to *netlab.Node
		address  netip.Addr
	}{
		{"IPv4 A to B", a.Host, b.Host, b.Host4}, {"IPv6 B to A", b.Host, a.Host, a.Host6},
	} {
		options := netlab.TransferOptions{To: netip.AddrPortFrom(t.address, 0), Bytes: demoProbe, Marker: l.marker}
		probe, err := netlab.TCPTransfer(ctx, t.from, t.to, options)
		if err != nil {
			return err
		}
		if !probe.Intact() {
			r.fail("TCP %s: SHA-256 differs at the two ends", t.path)
		}
		options.Bytes = int64(probe.BitsPerSecond() / 8 * share.Seconds())
		options.Bytes = min(max(options.Bytes, demoMinBytes), demoMaxBytes)
		result, err := netlab.TCPTransfer(ctx, t.from, t.to, options)
		if err != nil {
			return err
		}
		r.TCP = append(r.TCP, demoTransfer{
			Path: t.path, Bytes: result.Bytes, Seconds: result.Duration.Seconds(), BitsPerSecond: result.BitsPerSecond(),
			SHA256Sent: hex.EncodeToString(result.SentSHA256[:]), SHA256Got: hex.EncodeToString(result.ReceivedSHA256[:]),
		})
	}
	return nil
}
