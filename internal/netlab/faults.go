package netlab

import (
	"fmt"
	"net/netip"
	"strings"
)

// NFT runs an nftables script in the node. It needs the `nft` program; the
// error says so where it is missing.
func (n *Node) NFT(script string) error {
	if _, err := n.RunInput(script, "nft", "-f", "-"); err != nil {
		return fmt.Errorf("%w (faults need the nftables package)", err)
	}
	return nil
}

// Faults of a node, each in an nftables table of its own, so that it is taken
// away alone: Heal(name). The kernel here has no netem; these are the recipes
// of the design's reliability page, section 6. iface limits a fault to one
// interface; "" means every one.
const faultTable = "adit_fault_"

// Heal takes a fault away; name is the one that the method's comment gives.
func (n *Node) Heal(name string) error { return n.NFT(without(name)) }

// without is a script that removes the fault's tables, whichever there are:
// adding a table that exists changes nothing.
func without(name string) (script string) {
	for _, family := range []string{"inet", "ip", "ip6"} {
		script += fmt.Sprintf("add table %[1]s %[2]s%[3]s\ndelete table %[1]s %[2]s%[3]s\n", family, faultTable, name)
	}
	return script
}

// fault replaces the fault's table by one with a single chain.
func (n *Node) fault(name, hook, rule string) error { return n.familyFault("inet", name, hook, rule) }

func (n *Node) familyFault(family, name, hook, rule string) error {
	return n.NFT(without(name) + fmt.Sprintf("table %s %s%s {\n chain c {\n  %s\n  %s\n }\n}\n",
		family, faultTable, name, hook, rule))
}

const (
	hookPrerouting = "type filter hook prerouting priority -300; policy accept;"
	hookSNAT       = "type nat hook postrouting priority 100; policy accept;"
)

func in(iface string) string {
	if iface == "" {
		return ""
	}
	return fmt.Sprintf("iifname %q ", iface)
}

func out(iface string) string {
	if iface == "" {
		return ""
	}
	return fmt.Sprintf("oifname %q ", iface)
}

// Loss drops this share of the packets that come in at iface, 0 to 100 percent
// in steps of a tenth, at random. Fault "loss".
func (n *Node) Loss(iface string, percent float64) error {
	return n.fault("loss", hookPrerouting,
		in(iface)+fmt.Sprintf("numgen random mod 1000 < %d counter drop", int(percent*10+0.5)))
}

// DropEvery drops each n-th packet that comes in at iface and matches, counted
// exactly; match is an nftables expression such as "esp sequence 5" or "". Fault
// "every".
func (n *Node) DropEvery(iface, match string, every int) error {
	return n.fault("every", hookPrerouting,
		in(iface)+fmt.Sprintf("%s numgen inc mod %d %d counter drop", match, every, every-1))
}

// Drop drops the packets that come in at iface and match. Fault "drop".
func (n *Node) Drop(iface, match string) error {
	return n.fault("drop", hookPrerouting, in(iface)+match+" counter drop")
}

// DropOutput drops the node's own packets that match: its sockets see EPERM.
// Fault "output".
func (n *Node) DropOutput(match string) error {
	return n.fault("output", "type filter hook output priority -300; policy accept;", match+" counter drop")
}

// DropLongerThan drops packets of more than length bytes, IP header included,
// without a word to the sender: a path MTU black hole. Fault "blackhole".
func (n *Node) DropLongerThan(iface string, length int) error {
	return n.fault("blackhole", hookPrerouting, in(iface)+fmt.Sprintf("meta length > %d counter drop", length))
}

// Corrupt overwrites four bytes of each n-th matching packet that comes in at
// iface: the 32 bits at the given bit offset of the transport header. match says
// which packets, for instance "udp dport 4500" (bit 64: the payload's first) or
// "meta l4proto esp". So that UDP still arrives, a match that names udp also
// clears the UDP checksum, which IPv4 takes as "none" and IPv6 refuses (RFC 8200
// 8.1). Fault "corrupt".
func (n *Node) Corrupt(iface, match string, bit, every int) error {
	rule := in(iface) + fmt.Sprintf("%s numgen inc mod %d 0 counter @th,%d,32 set 0xffffffff", match, every, bit)
	if strings.Contains(match, "udp") {
		rule += " udp checksum set 0"
	}
	return n.fault("corrupt", hookPrerouting, rule)
}

// Masquerade gives what leaves through iface that interface's address and a
// random port: a NAT. Fault "nat". FlushNAT makes it forget.
func (n *Node) Masquerade(iface string) error {
	return n.fault("nat", hookSNAT, out(iface)+"counter masquerade random")
}

// SNAT gives UDP that leaves through iface this address and a port of the
// range. Fault "nat"; a second call replaces the first.
func (n *Node) SNAT(iface string, addr netip.Addr, fromPort, toPort uint16) error {
	family := "ip"
	if addr.Is6() {
		family = "ip6"
	}
	to := addr.String()
	if addr.Is6() {
		to = "[" + to + "]"
	}
	return n.fault("nat", hookSNAT,
		out(iface)+fmt.Sprintf("meta l4proto udp counter snat %s to %s:%d-%d", family, to, fromPort, toPort))
}

// Duplicate sends each n-th IP packet of the next hop's family that leaves
// through iface a second time, to that next hop. Fault "duplicate".
func (n *Node) Duplicate(iface string, nextHop netip.Addr, every int) error {
	family := "ip" // "dup" is not to be had in tables of family inet
	if nextHop.Is6() {
		family = "ip6"
	}
	return n.familyFault(family, "duplicate", "type filter hook postrouting priority 0; policy accept;",
		out(iface)+fmt.Sprintf("numgen inc mod %d 0 counter dup to %s device %q", every, nextHop, iface))
}
