package bench

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"github.com/adit-ipsec/adit/esp"
	"github.com/adit-ipsec/adit/internal/netlab"
)

// planNamespaces is a network for calls: host A behind gateway A, and behind
// gateway B as many hosts as there are peers, all of them addresses of host B.
// Without a program the gateways forward in clear.
//
// UDP segmentation is off on the outside links, as with a network card that
// lacks it: what a gateway sends is on the wire packet by packet.
func planNamespaces(ctx context.Context, binary string, suite esp.Suite, peers int) (*Namespaces, error) {
	net, err := netlab.SiteToSite(netlab.Options{Name: "plan", Offloads: true})
	if err != nil {
		return nil, err
	}
	n := &Namespaces{net: net, binary: binary}
	err = errors.Join(
		n.noUDPSegmentation(),
		// The loopback takes a whole network for its own.
		net.B.Host.AddAddr("lo", netip.PrefixFrom(callHost(0), callHosts.Bits())),
		net.B.Gateway.AddRoute(callHosts, net.B.Host4))
	switch {
	case err != nil:
	case binary == "":
		err = errors.Join(n.routeInClear(), net.Router.AddRoute(callHosts, net.B.Outside4))
	default:
		err = n.startPlanGateways(ctx, suite, peers)
	}
	if err != nil {
		return nil, errors.Join(err, n.Close())
	}
	return n, nil
}

func (n *Namespaces) startPlanGateways(ctx context.Context, suite esp.Suite, peers int) (err error) {
	if n.dir, err = os.MkdirTemp("", "adit-bench-"); err != nil {
		return err
	}
	a, b := n.planConfigs(suite, peers)
	if err := n.startGateway(ctx, n.net.A.Gateway, "a", a); err != nil {
		return err
	}
	return n.startGateway(ctx, n.net.B.Gateway, "b", b)
}

// firstPlanSPI is that of the first peer; the others count on. Both directions
// have the same, for SPIs belong to their receiver.
const firstPlanSPI = 0x1000

// planConfigs are the two files: each peer has an SA pair with keys of its own,
// and a policy for its host.
func (n *Namespaces) planConfigs(suite esp.Suite, peers int) (a, b string) {
	var texts [2]string
	type end struct {
		name      string
		own, peer *netlab.Side
	}
	keys := make([][2]keyPair, peers) // A to B, B to A
	for i := range keys {
		keys[i] = [2]keyPair{randomKeys(suite), randomKeys(suite)}
	}
	for side, e := range []end{{"a", &n.net.A, &n.net.B}, {"b", &n.net.B, &n.net.A}} {
		var text, policies strings.Builder
		fmt.Fprintf(&text, "version: 1\nname: plan-%s\nstate_dir: %q\ncontrol: %q\nallow_manual_aead: true\nallow_legacy: true\n",
			e.name, filepath.Join(n.dir, e.name), n.control(e.name))
		fmt.Fprintf(&text, "listen: {address: %q, outside: [%s]}\nprofiles:\n  default: {encap: udp}\npeers:\n", e.own.Outside4, netlab.OutsideIface)
		for i := range peers {
			fmt.Fprintf(&text, "  - name: peer%d\n    address: %q\n    keying: manual\n    sas:\n      - %s\n      - %s\n", i, e.peer.Outside4,
				securityAssociation("out", firstPlanSPI+uint32(i), suite, keys[i][side]),
				securityAssociation("in", firstPlanSPI+uint32(i), suite, keys[i][1-side]))
			local, remote := n.net.A.LAN4, netip.PrefixFrom(callHost(i), 32)
			if side == 1 {
				local, remote = remote, local
			}
			fmt.Fprintf(&policies, "  - {name: peer%d, local: [%q], remote: [%q], action: protect, peer: peer%d}\n", i, local, remote, i)
		}
		texts[side] = text.String() + "policies:\n" + policies.String()
	}
	return texts[0], texts[1]
}
