package main

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/adit-ipsec/adit/config"
	"github.com/adit-ipsec/adit/dataplane"
	"github.com/adit-ipsec/adit/internal/ctl"
	"github.com/adit-ipsec/adit/internal/hostnet"
	"github.com/adit-ipsec/adit/internal/packet"
	"github.com/adit-ipsec/adit/internal/rawip"
	"github.com/adit-ipsec/adit/internal/seqstore"
	"github.com/adit-ipsec/adit/internal/tun"
	"github.com/adit-ipsec/adit/sad"
	"github.com/adit-ipsec/adit/spd"
)

// ownMark is the SO_MARK of everything that the gateway itself sends: by it the
// host's routing rules tell outer packets from those that belong into the TUN.
const ownMark = 0x0ad10173

// guardState is what status says of the kernel guard.
const guardState = "off (not in this version)"

// sequenceDir is where below state_dir the reservations of sequence numbers are.
const sequenceDir = "sequence"

// gateway is what `adit run` holds: the packages wired together for one
// configuration file.
type gateway struct {
	log     *slog.Logger
	started time.Time
	undo    []func() error // what start has done, for stop; last first
	// keepRoutes: stop leaves routes and rules in place. Their unicast routes
	// go with the TUN, and the unreachable ones behind them refuse what was
	// protected until the next start takes them over.
	keepRoutes bool

	store   *seqstore.Store // nil: it could not be opened, and no SA needs it
	clear   *rawip.Clear    // nil: no socket to bypass with
	engine  *dataplane.Gateway
	host    *hostnet.Applied
	listens []string // open sockets, in words

	mu    sync.Mutex  // guards what follows; held only to read or swap it
	ike   *ikeService // nil: no peer is keyed by IKE; set once, at start
	cfg   *config.Config
	mtu   int
	into  []netip.Prefix // prefixes led into the TUN
	ready bool           // start has come to its end
}

// startGateway brings a gateway up, or changes nothing and says why. The order
// lets nothing out in clear: first sockets and engine, which discards
// everything, then SAs, then policies, and only then the routes that bring
// traffic.
func startGateway(cfg *config.Config, log *slog.Logger) (g *gateway, err error) {
	g = &gateway{log: log, started: time.Now(), cfg: cfg}
	defer func() {
		if err != nil {
			err = errors.Join(err, g.stop())
		}
	}()
	// The control socket first: a second gateway is refused here, before it
	// has touched anything, and whoever asks meanwhile hears "not ready".
	control, err := ctl.Serve(cfg.Control, (*provider)(g))
	if err != nil {
		return g, err
	}
	g.defers(control.Close)
	if err := g.openStore(); err != nil {
		return g, err
	}
	if err := g.openEngine(); err != nil {
		return g, err
	}
	if err := g.engine.Install(g.params(cfg)...); err != nil {
		return g, err
	}
	table, err := cfg.Table()
	if err != nil {
		return g, err
	}
	peers := g.ikePeers(cfg)
	g.know(peers)
	g.engine.ApplyPolicy(table)
	if err := g.startIKE(peers); err != nil {
		return g, err
	}
	if err := g.openHost(); err != nil {
		return g, err
	}
	g.mu.Lock()
	g.ready = true
	g.mu.Unlock()
	return g, nil
}

func (g *gateway) defers(undo func() error) { g.undo = append(g.undo, undo) }

// stop takes everything back, the last thing first: the routes go when the
// engine can no longer carry what they bring. It may be called twice.
func (g *gateway) stop() error {
	var errs []error
	for _, undo := range slices.Backward(g.undo) {
		errs = append(errs, undo())
	}
	g.undo = nil
	return errors.Join(errs...)
}

// openStore opens the reservations of sequence numbers. SAs in a counter mode
// need them; the others use them where they can, so that their numbers go on
// after a restart instead of being refused by the peer's replay window.
func (g *gateway) openStore() error {
	store, err := seqstore.Open(filepath.Join(g.cfg.StateDir, sequenceDir))
	if err == nil {
		g.store = store
		g.defers(store.Close)
		return nil
	}
	if g.cfg.NeedsSequenceStore() || errors.Is(err, seqstore.ErrLocked) {
		return fmt.Errorf("state_dir %s: %w", g.cfg.StateDir, err)
	}
	g.log.Warn("sequence numbers will not survive a restart: the peers' replay windows will refuse packets then", "state_dir", g.cfg.StateDir, "error", err)
	return nil
}

// params is the SAs of cfg, ready for Install.
func (g *gateway) params(cfg *config.Config) []sad.Params {
	params := cfg.SAParams()
	for i := range params {
		if g.store != nil && params[i].Direction == packet.Outbound {
			params[i].Sequence = g.store
		}
	}
	return params
}

// openEngine opens sockets and TUN and starts the dataplane over them.
func (g *gateway) openEngine() (err error) {
	wires := wires{g: g, engine: dataplane.Config{
		NoOffload: !g.cfg.TUN.Offload, LinkMTU: hostnet.LinkMTU,
		NoProbe: !g.cfg.Listen.ProbeMTU, IgnoreICMP: g.cfg.ICMP.IgnorePathMTU, PathMTUAge: g.cfg.ICMP.PathMTUAge,
		ICMP: dataplane.ICMP{CheckQuoted: g.cfg.ICMP.CheckQuoted, Unreachable: g.cfg.ICMP.Unreachable},
	}}
	defer func() {
		if err != nil {
			wires.close()
		}
	}()
	if err := wires.open(); err != nil {
		return err
	}
	mtu := g.chooseMTU(g.cfg)
	g.mu.Lock()
	g.mtu = mtu
	g.mu.Unlock()
	device, err := tun.CreateQueues(g.cfg.TUN.Name, mtu, queues(g.cfg))
	if err != nil {
		return err
	}
	wires.add(device)
	wires.engine.TUN = device
	if g.engine, err = dataplane.New(wires.engine); err != nil {
		return err
	}
	g.defers(g.engine.Close)
	g.logOffloads()
	return nil
}

// chooseMTU is the TUN's MTU in bytes: the file's, or what leaves every SA room
// on the path to the peers.
func (g *gateway) chooseMTU(cfg *config.Config) int {
	if cfg.TUN.MTU != 0 {
		return cfg.TUN.MTU
	}
	path, why := hostnet.DefaultMTU(cfg.Listen.Outside, peerAddresses(cfg), 0)
	mtu, ok := tunnelMTU(allParams(cfg), func(*sad.Params) int { return path })
	if !ok {
		return path
	}
	why = strings.TrimSuffix(why, ", less 0 for the outer packet")
	if mtu < minIPv6MTU {
		g.log.Warn("full packets are fragmented on the outside: the path leaves less than IPv6 needs", "path_mtu", path, "room", mtu, "tun_mtu", minIPv6MTU, "why", why)
		return minIPv6MTU
	}
	g.log.Debug("MTU chosen", "tun_mtu", mtu, "path_mtu", path, "why", why)
	return mtu
}

func peerAddresses(cfg *config.Config) []netip.Addr {
	var list []netip.Addr
	for i := range cfg.Peers {
		if cfg.Peers[i].Address.IsValid() {
			list = append(list, cfg.Peers[i].Address)
		}
	}
	return list
}

// hostPlan is what cfg wants of the host.
func (g *gateway) hostPlan(cfg *config.Config, mtu int) (hostnet.Plan, error) {
	plan := hostnet.Plan{
		Device: cfg.TUN.Name, MTU: mtu, Addresses: cfg.TUN.Addresses,
		Mark: ownMark, Peers: peerAddresses(cfg),
	}
	if !cfg.TUN.Routes {
		return plan, nil
	}
	connected, err := connectedNetworks(cfg.TUN.Name)
	if err != nil {
		return plan, fmt.Errorf("this host's networks: %w", err)
	}
	routes := planRoutes(cfg.Policies, connected)
	plan.Routes, plan.Throw = routes.into, routes.throw
	plan.Sources = transportSources(cfg, plan.Routes)
	return plan, nil
}

// transportSources: the peers of transport mode are spoken with from the address
// that their SAs take packets from.
func transportSources(cfg *config.Config, routes []netip.Prefix) (list []hostnet.Source) {
	for i := range cfg.Peers {
		p := &cfg.Peers[i]
		to := netip.PrefixFrom(p.Address, p.Address.BitLen())
		if cfg.Profiles[p.Profile].Mode == sad.TransportMode && slices.Contains(routes, to) {
			list = append(list, hostnet.Source{To: p.Address, From: cfg.Listen.Address})
		}
	}
	return list
}

// openHost changes the host: MTU, addresses, routes and rules.
func (g *gateway) openHost() error {
	plan, err := g.hostPlan(g.cfg, g.mtu)
	if err != nil {
		return err
	}
	if g.host, err = hostnet.Apply(plan); err != nil {
		return err
	}
	g.defers(func() error {
		if g.keepRoutes {
			return nil
		}
		return g.host.Remove()
	})
	stop, err := g.host.Watch(func(err error) {
		if err != nil {
			g.log.Error("the routes into the TUN are not back: what is protected is refused until a reload (SIGHUP)", "error", err)
			return
		}
		g.log.Warn("the TUN was down; its routes are back", "device", plan.Device)
	})
	if err != nil {
		return err
	}
	g.defers(stop)
	for _, note := range g.host.Notes() {
		g.log.Warn(note)
	}
	g.mu.Lock()
	g.into = plan.Routes
	g.mu.Unlock()
	return nil
}

func listenAddress(address netip.Addr) string {
	if !address.IsValid() {
		return "any address"
	}
	return address.String()
}

// policiesEqual tells whether two tables say the same.
func policiesEqual(a, b []spd.Policy) bool {
	return slices.EqualFunc(a, b, func(x, y spd.Policy) bool {
		return x.Name == y.Name && x.Action == y.Action && x.Peer == y.Peer && x.Selector.String() == y.Selector.String()
	})
}
