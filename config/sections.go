package config

import (
	"fmt"
	"net/netip"
	"time"

	"github.com/goccy/go-yaml/ast"

	"github.com/adit-ipsec/adit/spd"
)

// root reads the top level.
func (d *decoder) root(v value) {
	if !d.version(v) {
		return
	}
	o, ok := v.object("version", "name", "state_dir", "control", "metrics", "guard", "allow_legacy",
		"allow_manual_aead", "tun", "listen", "icmp", "profiles", "peers", "policies")
	if !ok {
		return
	}
	if v, ok := o.need("version", "add `version: 1` as the first line"); ok {
		d.mark(v)
	}
	d.Name = "adit"
	if v, ok := d.get(o, "name"); ok {
		d.Name, _ = v.name()
	}
	d.StateDir, d.Control = DefaultStateDir, DefaultControl
	if v, ok := d.get(o, "state_dir"); ok {
		d.StateDir, _ = v.path(4095, DefaultStateDir)
	}
	if v, ok := d.get(o, "control"); ok {
		d.Control, _ = v.path(107, DefaultControl) // sun_path of unix(7) with its closing zero
	}
	d.AllowLegacy = d.flag(o, "allow_legacy", false)
	d.AllowManualAEAD = d.flag(o, "allow_manual_aead", false)
	if v, ok := d.get(o, "metrics"); ok && !v.isWord("off") {
		v.notHere("a metrics listener", "write `metrics: off`; `adit counters --json` has the same figures")
	}
	if v, ok := d.get(o, "guard"); ok {
		if v.isWord("required") {
			v.notHere("`guard: required`", "write `guard: auto`, and let a firewall rule on the outside interfaces drop what leaves in clear")
		} else {
			v.choice("auto", "off")
		}
	}
	d.readListen(o)
	d.readICMP(o)
	d.readProfiles(o)
	d.readPeers(o)
	d.readPolicies(o)
	d.readTUN(o)
	d.checkWhole()
}

// version comes first: what any other key means hangs on it. It is false if
// the file is of another version.
func (d *decoder) version(root value) bool {
	n, ok := root.node.(*ast.MappingNode)
	if !ok {
		return true // root says so
	}
	for _, pair := range n.Values {
		if start(pair.Key).Value != "version" {
			continue
		}
		v := root.child("version", pair.Value, start(pair.Key))
		s, kind := v.scalar()
		switch {
		case kind == number && s == "1":
			return true
		case kind == number:
			v.notHere("configuration version "+s, "write `version: 1`")
		default:
			v.wrong("write `version: 1`, a number without quotes")
		}
		return false
	}
	return true
}

// flag reads a truth value that has a default.
func (d *decoder) flag(o *object, name string, otherwise bool) bool {
	if v, ok := d.get(o, name); ok {
		if b, ok := v.truth(); ok {
			return b
		}
	}
	return otherwise
}

func (d *decoder) readListen(root *object) {
	d.Listen = Listen{IKEPort: DefaultIKEPort, NATTPort: DefaultNATTPort, Raw: true, ProbeMTU: true}
	v, ok := d.get(root, "listen")
	if !ok {
		return
	}
	o, ok := v.object("address", "outside", "ike_port", "natt_port", "raw", "probe_mtu")
	if !ok {
		return
	}
	if v, ok := d.get(o, "address"); ok && !v.isWord("any") {
		d.Listen.Address, _ = v.address("write this gateway's outside address, such as 192.0.2.1, or any")
	}
	if v, ok := d.get(o, "outside"); ok {
		d.Listen.Outside = d.devices(v)
	}
	d.Listen.IKEPort = d.port(o, "ike_port", DefaultIKEPort)
	d.Listen.NATTPort = d.port(o, "natt_port", DefaultNATTPort)
	if d.Listen.IKEPort == d.Listen.NATTPort {
		d.fail("listen.natt_port", fmt.Sprintf("ike_port and natt_port are both %d", d.Listen.NATTPort), "give each a port of its own; the defaults are 500 and 4500")
	}
	if v, ok := d.get(o, "raw"); ok {
		word, _ := v.choice("auto", "off")
		d.Listen.Raw = word != "off"
	}
	if v, ok := d.get(o, "probe_mtu"); ok {
		word, _ := v.choice("auto", "off")
		d.Listen.ProbeMTU = word != "off"
	}
}

// The bounds of icmp.path_mtu_age. RFC 8201 section 4: a larger MTU is not tried
// within 5 minutes of the message that lowered it.
const (
	minPathMTUAge = 5 * time.Minute
	maxPathMTUAge = 24 * time.Hour
)

// readICMP reads what ICMP may do. RFC 4301 section 6.1.1: "a compliant IPsec
// implementation MUST permit a local administrator to configure an IPsec
// implementation to accept or reject unauthenticated ICMP traffic." This is about
// the kind that changes what an SA does; the kernel answers the others.
func (d *decoder) readICMP(root *object) {
	d.ICMP = ICMP{PathMTUAge: DefaultPathMTUAge}
	v, ok := d.get(root, "icmp")
	if !ok {
		return
	}
	o, ok := v.object("path_mtu", "path_mtu_age", "check_quoted", "unreachable")
	if !ok {
		return
	}
	if v, ok := d.get(o, "path_mtu"); ok {
		word, _ := v.choice("accept", "ignore")
		d.ICMP.IgnorePathMTU = word == "ignore"
	}
	if v, ok := d.get(o, "path_mtu_age"); ok {
		if age, ok := v.duration(minPathMTUAge, maxPathMTUAge, ""); ok {
			d.ICMP.PathMTUAge = age
		}
	}
	d.ICMP.CheckQuoted = d.flag(o, "check_quoted", false)
	d.ICMP.Unreachable = d.flag(o, "unreachable", false)
}

// devices reads a list of interface names.
func (d *decoder) devices(v value) []string {
	items, ok := v.list("interface names, such as [eth0]")
	if !ok {
		return nil
	}
	var names []string
	seen := map[string]bool{}
	for _, item := range items {
		name, ok := d.mark(item).device()
		if ok && seen[name] {
			item.fail(fmt.Sprintf("%q stands in the list twice", name), "name each interface once")
		}
		seen[name] = true
		names = append(names, name)
	}
	return names
}

func (d *decoder) port(o *object, name string, otherwise uint16) uint16 {
	if v, ok := d.get(o, name); ok {
		if n, ok := v.integer(1, 65535, "write a UDP port, 1 to 65535"); ok {
			return uint16(n)
		}
	}
	return otherwise
}

func (d *decoder) readTUN(root *object) {
	d.TUN = TUN{Name: DefaultTUN, Routes: true, Offload: true}
	v, ok := d.get(root, "tun")
	if !ok {
		return
	}
	o, ok := v.object("name", "mtu", "addresses", "routes", "queues", "offload")
	if !ok {
		return
	}
	if v, ok := d.get(o, "name"); ok {
		d.TUN.Name, _ = v.device()
	}
	if v, ok := d.get(o, "addresses"); ok {
		d.TUN.Addresses = d.tunAddresses(v)
	}
	if v, ok := d.get(o, "mtu"); ok && !v.isWord("auto") {
		d.readMTU(v)
	}
	if v, ok := d.get(o, "routes"); ok {
		word, _ := v.choice("auto", "off")
		d.TUN.Routes = word != "off"
	}
	if v, ok := d.get(o, "queues"); ok && !v.isWord("auto") {
		d.readQueues(v)
	}
	if v, ok := d.get(o, "offload"); ok {
		word, _ := v.choice("auto", "off")
		d.TUN.Offload = word != "off"
	}
}

// readQueues reads tun.queues where it is no word.
func (d *decoder) readQueues(v value) {
	n, ok := v.integer(1, MaxQueues, fmt.Sprintf("write auto, or the number of queues, 1 to %d", MaxQueues))
	if ok {
		d.TUN.Queues = int(n)
	}
}

// readMTU reads tun.mtu once addresses and policies are known.
func (d *decoder) readMTU(v value) {
	// RFC 791 section 3.2: "Every internet destination must be able to
	// receive a datagram of 576 octets".
	n, ok := v.integer(576, 65535, "write auto, or the MTU in bytes, 576 to 65535")
	if !ok {
		return
	}
	d.TUN.MTU = int(n)
	// RFC 8200 section 5: "IPv6 requires that every link in the Internet
	// have an MTU of 1280 octets or greater."
	if n < 1280 && d.carriesIPv6() {
		v.fail(fmt.Sprintf("found the number %d, and IPv6 passes the device", n), "write auto, or at least 1280 (RFC 8200 section 5)")
	}
}

// carriesIPv6 tells whether an address of the device is IPv6, or a policy lets
// IPv6 pass.
func (d *decoder) carriesIPv6() bool {
	for _, p := range d.TUN.Addresses {
		if p.Addr().Is6() {
			return true
		}
	}
	for _, p := range d.Policies {
		if p.Action != spd.Discard && both(p.Selector, netip.Addr.Is6) {
			return true
		}
	}
	return false
}

// tunAddresses reads the device's addresses, each with its prefix length.
func (d *decoder) tunAddresses(v value) []netip.Prefix {
	const fix = "write an address with its prefix length, such as 10.1.0.1/24 or 2001:db8::1/64"
	items, ok := v.list("addresses with prefix lengths, such as [10.1.0.1/24]")
	if !ok {
		return nil
	}
	var list []netip.Prefix
	seen := map[netip.Addr]bool{}
	for _, item := range items {
		s, ok := d.mark(item).word(fix)
		if !ok {
			continue
		}
		p, err := netip.ParsePrefix(s)
		switch {
		case err != nil, p.Addr().Is4In6():
			item.fail("found "+item.found(), fix)
		case p.Addr().IsUnspecified(), p.Addr().IsMulticast():
			item.fail("found "+item.found()+", which is no address of one host", fix)
		case seen[p.Addr()]:
			item.fail("found "+item.found()+" a second time", "write each address once")
		default:
			seen[p.Addr()] = true
			list = append(list, p)
		}
	}
	return list
}
