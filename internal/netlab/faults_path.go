package netlab

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/vishvananda/netlink"
)

// PathFaults is what the path between the gateways of a Topology does to outer
// packets, ESP and UDP, in both directions and of both families. The zero value
// only counts.
type PathFaults struct {
	LossPercent float64 // dropped at random, in steps of a tenth
	// LatePercent of what is not dropped is sent on one to two LateStep later,
	// at random, in steps of a tenth: the packets behind it overtake it.
	LatePercent float64
}

// PathCounts are the packets that came to the router from the gateways. While
// superpackets are not split, one counts as one.
type PathCounts struct {
	Packets  uint64 `json:"packets"`
	Long     uint64 `json:"long"` // longer than the outside's MTU: superpackets
	Lost     uint64 `json:"lost"`
	Late     uint64 `json:"late"`
	Returned uint64 `json:"returned"` // of the late ones, those sent on by now
	// LongIn came to the gateways and were longer than the outside's MTU:
	// superpackets that crossed whole, or that the kernel made of several packets.
	LongIn uint64 `json:"long_in"`
}

// Path is the faults and counters that Disturb has put between two gateways.
type Path struct {
	t    *Topology
	late *lateLine // nil: no packet is late
}

// latePath is the mark and the routing table of late packets.
const latePath = 8

// Disturb puts faults and counters on the path between the gateways. A fault
// falls on single packets, as on a wire: with any, the gateways' kernels split
// UDP superpackets before they send them, and the router coalesces nothing.
// Close it before the topology.
func (t *Topology) Disturb(f PathFaults) (*Path, error) {
	p := &Path{t: t}
	mtu, err := t.outsideMTU()
	if err != nil {
		return nil, err
	}
	long := fmt.Sprintf("meta length > %d counter name ", mtu)
	rules := []string{"counter name seen", long + "long"}
	if f != (PathFaults{}) {
		if err := t.onePacketAtATime(); err != nil {
			return nil, err
		}
	}
	if f.LossPercent > 0 {
		rules = append(rules, chance(f.LossPercent)+"counter name lost drop")
	}
	if f.LatePercent > 0 {
		if p.late, err = t.Router.newLateLine(); err != nil {
			return nil, err
		}
		rules = append(rules, chance(f.LatePercent)+fmt.Sprintf("counter name late meta mark set %d", latePath))
	}
	err = errors.Join(
		t.Router.pathTable(rules, t.A.RouterIface, t.B.RouterIface),
		t.A.Gateway.pathTable([]string{long + "long_in"}, OutsideIface),
		t.B.Gateway.pathTable([]string{long + "long_in"}, OutsideIface))
	if err != nil {
		return nil, errors.Join(err, p.Close())
	}
	return p, nil
}

// pathTable has rules for outer packets that come in at the interfaces.
func (n *Node) pathTable(rules []string, ifaces ...string) error {
	return n.NFT(without("path") + fmt.Sprintf(`table inet %spath {
 counter seen { }
 counter long { }
 counter lost { }
 counter late { }
 counter long_in { }
 chain c {
  %s
  iifname != { %s } accept
  meta l4proto != { udp, esp } accept
  %s
 }
}
`, faultTable, hookPrerouting, strings.Join(ifaces, ", "), strings.Join(rules, "\n  ")))
}

// chance matches this share of the packets.
func chance(percent float64) string {
	if percent >= 100 {
		return ""
	}
	return fmt.Sprintf("numgen random mod 1000 < %d ", int(percent*10+0.5))
}

func (t *Topology) outsideMTU() (mtu int, err error) {
	err = t.Router.withLink(t.A.RouterIface, "mtu", func(l netlink.Link) error {
		mtu = l.Attrs().MTU
		return nil
	})
	return mtu, err
}

// onePacketAtATime keeps superpackets off the outside links. A gateway may still
// coalesce what it receives: a veth does that (rx-gro) for packets of a peer
// without segmentation offload alone.
func (t *Topology) onePacketAtATime() error {
	var errs []error
	for _, s := range []*Side{&t.A, &t.B} {
		errs = append(errs,
			s.Gateway.SetOffload(OutsideIface, false, "tx-udp-segmentation"),
			t.Router.OffloadsOff(s.RouterIface))
	}
	return errors.Join(errs...)
}

// Counts are the counters since Disturb.
func (p *Path) Counts() (c PathCounts, err error) {
	all := map[string]*uint64{"seen": &c.Packets, "long": &c.Long, "lost": &c.Lost, "late": &c.Late, "long_in": &c.LongIn}
	for _, n := range p.nodes() {
		if err := n.addCounters(all); err != nil {
			return c, err
		}
	}
	if p.late != nil {
		c.Returned = p.late.returned.Load()
	}
	return c, nil
}

func (p *Path) nodes() []*Node { return []*Node{p.t.Router, p.t.A.Gateway, p.t.B.Gateway} }

// addCounters adds the counters of the node's table to those of the same name.
func (n *Node) addCounters(sums map[string]*uint64) error {
	out, err := n.Run("nft", "-j", "list", "counters", "table", "inet", faultTable+"path")
	if err != nil {
		return err
	}
	var list struct {
		Nftables []struct {
			Counter struct {
				Name    string
				Packets uint64
			}
		}
	}
	if err := json.Unmarshal([]byte(out), &list); err != nil {
		return fmt.Errorf("netlab: %s: nft list counters: %w", n.name, err)
	}
	for _, item := range list.Nftables {
		if sum := sums[item.Counter.Name]; sum != nil {
			*sum += item.Counter.Packets
		}
	}
	return nil
}

// Close heals the path. What is late just now is lost.
func (p *Path) Close() error {
	var errs []error
	for _, n := range p.nodes() {
		errs = append(errs, n.Heal("path"))
	}
	if p.late != nil {
		errs = append(errs, p.late.close())
	}
	return errors.Join(errs...)
}
