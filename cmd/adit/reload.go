package main

import (
	"crypto/subtle"
	"errors"
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strings"

	"github.com/adit-ipsec/adit/config"
	"github.com/adit-ipsec/adit/sad"
	"github.com/adit-ipsec/adit/spd"
)

// change is what a reload does to the SAs. SAs in neither list are not touched.
type change struct {
	remove  []sad.ID
	install []sad.Params
	// back is what removed SAs were made of, for a reload that fails.
	back []sad.Params
}

// diffSAs compares SAs by ID; one that says anything else than before is
// removed and installed again.
func diffSAs(before, after []sad.Params) change {
	var c change
	old := map[sad.ID]*sad.Params{}
	for i := range before {
		old[before[i].ID()] = &before[i]
	}
	for i := range after {
		id := after[i].ID()
		was, there := old[id]
		delete(old, id)
		if there && sameSA(was, &after[i]) {
			continue
		}
		if there {
			c.remove, c.back = append(c.remove, id), append(c.back, *was)
		}
		c.install = append(c.install, after[i])
	}
	for i := range before { // in the order of the file
		if was, gone := old[before[i].ID()]; gone {
			c.remove, c.back = append(c.remove, was.ID()), append(c.back, *was)
		}
	}
	return c
}

func sameSA(a, b *sad.Params) bool {
	keys := subtle.ConstantTimeCompare(a.EncryptionKey, b.EncryptionKey) & subtle.ConstantTimeCompare(a.IntegrityKey, b.IntegrityKey)
	x, y := *a, *b
	x.EncryptionKey, x.IntegrityKey, y.EncryptionKey, y.IntegrityKey = nil, nil, nil, nil
	return keys == 1 && reflect.DeepEqual(x, y)
}

// fixedBy names what a reload would have to change and cannot.
func fixedBy(old, cfg *config.Config) []string {
	var keys []string
	listen := old.Listen
	listen.Raw = cfg.Listen.Raw // what of it follows from the peers has its own line
	for _, k := range []struct {
		key  string
		same bool
	}{
		{"tun", reflect.DeepEqual(old.TUN, cfg.TUN)},
		{"listen", reflect.DeepEqual(listen, cfg.Listen) && old.RawAllowed == cfg.RawAllowed},
		// The first peer without UDP, or with AH, needs sockets of its own.
		{"listen.raw", old.Listen.Raw == cfg.Listen.Raw && (old.UsesAH() || !cfg.UsesAH())},
		// The first peer with IKE needs sockets, and a machine.
		{"peers", old.UsesIKE() || !cfg.UsesIKE()},
		{"icmp", old.ICMP == cfg.ICMP},
		{"state_dir", old.StateDir == cfg.StateDir},
		{"control", old.Control == cfg.Control},
	} {
		if k.same {
			continue
		}
		text := fmt.Sprintf("%s (%s)", k.key, cfg.Position(k.key))
		if k.key == "listen.raw" {
			text += ", which follows from `encap` and `protocol` in the peers' profiles"
		}
		if k.key == "peers" {
			text = "keying to `ike`, which no peer had before"
		}
		keys = append(keys, text)
	}
	return keys
}

// reload applies the file again. Either everything that it says is in force
// afterwards, or nothing has changed and the error says why.
func (g *gateway) reload(path string) error {
	cfg, err := config.Load(path)
	if err != nil {
		return err
	}
	old := g.config()
	if keys := fixedBy(old, cfg); len(keys) > 0 {
		return fmt.Errorf("a reload cannot change %s: restart the gateway for that", strings.Join(keys, ", "))
	}
	if names := clearPolicies(cfg.Policies); len(names) > 0 && g.clear == nil {
		return fmt.Errorf("policy %s bypasses, and there is no socket to bypass with: restart the gateway with CAP_NET_RAW", names[0])
	}
	if g.store == nil && cfg.NeedsSequenceStore() {
		return errors.New("an SA in a counter mode needs durable sequence numbers, and the gateway runs without: restart it with a writable state_dir")
	}
	table, err := cfg.Table()
	if err != nil {
		return err
	}
	before, err := old.Table()
	if err != nil {
		return err
	}
	sas := diffSAs(g.params(old), g.params(cfg))
	if err := g.swap(cfg, sas, before, table); err != nil {
		return err
	}
	for _, w := range cfg.Warnings {
		g.log.Warn(w.String())
	}
	warnCertificates(g.log, cfg)
	g.log.Info("the file is applied again", "file", path,
		"sas_removed", len(sas.remove), "sas_installed", len(sas.install), "policies_changed", !policiesEqual(old.Policies, cfg.Policies))
	return nil
}

// swap puts SAs, policies and routes in force, in the order that lets nothing
// out in clear: an SA that a new policy needs is there before the policy, and
// the policy before the route. A route that goes, goes last.
func (g *gateway) swap(cfg *config.Config, sas change, before, table *spd.Table) error {
	mtu := g.chooseMTU(cfg)
	plan, err := g.hostPlan(cfg, mtu)
	if err != nil {
		return err
	}
	g.engine.Remove(sas.remove...)
	if err := g.engine.Install(sas.install...); err != nil {
		return g.putBack(err, sas, nil)
	}
	peers := g.ikePeers(cfg)
	g.know(peers)
	if !policiesEqual(before.Policies(), table.Policies()) {
		g.engine.ApplyPolicy(table)
	}
	if err := g.host.Update(plan); err != nil {
		g.know(g.ikePeers(g.config()))
		g.engine.ApplyPolicy(before)
		return g.putBack(err, sas, sas.install)
	}
	if err := g.configureIKE(peers); err != nil {
		return err // the gateway is being stopped
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	lost := slices.DeleteFunc(slices.Clone(g.into), func(p netip.Prefix) bool { return slices.Contains(plan.Routes, p) })
	if len(lost) > 0 {
		g.log.Warn("these prefixes are no longer led into the TUN: what goes there now follows the host's own routes", "prefixes", fmt.Sprint(lost))
	}
	g.cfg, g.mtu, g.into = cfg, mtu, plan.Routes
	return nil
}

// putBack undoes the SAs of a reload that failed with err.
func (g *gateway) putBack(err error, sas change, installed []sad.Params) error {
	for i := range installed {
		g.engine.Remove(installed[i].ID())
	}
	if e := g.engine.Install(sas.back...); e != nil {
		return fmt.Errorf("%w; and the SAs of before could not be put back: %w", err, e)
	}
	return err
}
