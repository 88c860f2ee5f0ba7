package config

import (
	"fmt"
	"strings"
	"time"

	"github.com/adit-ipsec/adit/internal/replay"
	"github.com/adit-ipsec/adit/sad"
)

// minReplayWindow is the smallest window of RFC 4303 section 3.4.3 that a
// sender may assume by default: "a window size of 64 is preferred and SHOULD
// be employed as the default". 32 is not offered.
const minReplayWindow = 64

// maxLifetime bounds what a lifetime may be; nobody means more than a year.
const maxLifetime = 8760 * time.Hour

func defaultProfile(name string) Profile {
	return Profile{
		Name: name, ESN: true, ReplayWindow: DefaultReplayWindow,
		Lifetime: Lifetime{Soft: DefaultSoftLifetime, Hard: DefaultHardLifetime}, EncapAuto: true, PFS: PFS{Auto: true},
	}
}

// profileKey is the key path of a profile.
func profileKey(name string) string {
	if strings.Contains(name, ".") {
		return fmt.Sprintf("profiles[%q]", name)
	}
	return "profiles." + name
}

// readProfiles reads all profiles; one called default is always there.
func (d *decoder) readProfiles(root *object) {
	d.Profiles["default"] = defaultProfile("default")
	v, ok := d.get(root, "profiles")
	if !ok {
		return
	}
	pairs, ok := v.profiles()
	if !ok {
		return
	}
	for _, p := range pairs {
		if _, twice := d.positions[p.key]; twice {
			p.fail("the profile stands here a second time", "give each profile a name of its own")
			continue
		}
		d.readProfile(p.name, d.mark(p.value))
	}
}

func (d *decoder) readProfile(name string, v value) {
	p := defaultProfile(name)
	d.Profiles[name] = p // a peer that names it is right, even if the profile is not
	o, ok := v.object("protocol", "mode", "suites", "esn", "replay_window", "allow_no_replay", "encap", "lifetime",
		"df", "dscp", "ecn", "fragment", "tfc", "pfs", "responder_only")
	if !ok {
		return
	}
	if v, ok := d.get(o, "protocol"); ok {
		p.Protocol = d.protocols(v)
	}
	if v, ok := d.get(o, "mode"); ok {
		if word, _ := v.choice("tunnel", "transport"); word == "transport" {
			p.Mode = sad.TransportMode
		}
	}
	if v, ok := d.get(o, "suites"); ok {
		p.Suites, p.AHSuites = d.suites(v, p.Protocol)
	}
	if v, ok := d.get(o, "lifetime"); ok {
		p.Lifetime = d.lifetime(v)
	}
	p.ESN = d.flag(o, "esn", p.ESN)
	p.AllowNoReplay = d.flag(o, "allow_no_replay", false)
	if v, ok := d.get(o, "replay_window"); ok {
		p.ReplayWindow = d.replayWindow(v, p)
	}
	p.Encap, p.EncapAuto = d.encap(o, p)
	p.Tunnel = d.tunnel(o)
	if p.Mode == sad.TransportMode {
		d.warnNoOuterHeader(v.key)
	}
	p.Fragment = d.fragment(o, p)
	if v, ok := d.get(o, "tfc"); ok && !v.isWord("off") {
		p.TFC = d.tfc(v, p)
	}
	p.PFS = d.pfs(o)
	if v, ok := d.get(o, "responder_only"); ok {
		p.Responder = d.responderOnly(v)
	}
	d.Profiles[name] = p
}

// protocols reads which IPsec protocols protect a packet.
func (d *decoder) protocols(v value) Protocols {
	switch word, _ := v.choice("esp", "ah", "ah+esp"); word {
	case "ah":
		return ProtocolAH
	case "ah+esp":
		return ProtocolAHESP
	}
	return ProtocolESP
}

// encap reads what carries the packets. RFC 3948 section 1 puts ESP alone into
// UDP, and RFC 3715 section 2.1 a) says why AH cannot follow: "Since the AH header
// incorporates the IP source and destination addresses in the keyed message
// integrity check, NAT or reverse NAT devices making changes to address fields
// will invalidate the message integrity check."
func (d *decoder) encap(o *object, p Profile) (e sad.Encapsulation, auto bool) {
	word := "auto"
	if v, ok := d.get(o, "encap"); ok {
		word, _ = v.choice("auto", "udp", "none")
		if word == "udp" && p.Protocol.Uses(sad.AH) {
			v.fail(fmt.Sprintf("found udp, and this profile has `protocol: %s`: AH does not pass a NAT, because it covers the outer addresses, and RFC 3948 puts ESP alone into UDP", p.Protocol), "write auto or none, or `protocol: esp`")
		}
	}
	if word == "none" || p.Protocol.Uses(sad.AH) {
		return sad.EncapNone, false
	}
	return sad.EncapUDP, word == "auto"
}

// fragment reads where a packet that is too long is cut. RFC 4303 section 3.3.4:
// "fragmentation is performed after ESP processing within an IPsec
// implementation. Thus, transport mode ESP is applied only to whole IP datagrams
// (not to IP fragments)"; RFC 4302 section 3.3.4 says so of AH.
func (d *decoder) fragment(o *object, p Profile) sad.FragmentMode {
	word := ""
	if v, ok := d.get(o, "fragment"); ok {
		word, _ = v.choice("before", "after")
		if word == "before" && p.Mode == sad.TransportMode {
			v.fail("found before, and this profile has `mode: transport`, which protects whole datagrams only (RFC 4303 section 3.3.4)", "write `fragment: after`, or leave the key out")
		}
	}
	if word == "after" || p.Mode == sad.TransportMode {
		return sad.FragmentAfter
	}
	return sad.FragmentBefore
}

// maxTFC is the longest IP packet in bytes: nothing is padded further.
const maxTFC = 65535

// tfc reads tfc where it is not off. RFC 4303 section 2.7: "this padding ... can
// be added only if the Payload Data field contains a specification of the length
// of the IP datagram. This is always true in tunnel mode". Deviation: transport
// mode, where it is true of some protocols, goes without.
func (d *decoder) tfc(v value, p Profile) sad.TFC {
	tfc := sad.TFCMTU
	if !v.isWord("mtu") {
		n, ok := v.integer(1, maxTFC, "write off, mtu, or a number of bytes, 1 to 65535")
		if !ok {
			return sad.TFCOff
		}
		tfc = sad.TFC(n)
	}
	switch {
	case p.Protocol == ProtocolAH:
		v.fail(fmt.Sprintf("found %s, and this profile has `protocol: ah`: AH hides nothing, and has no padding against traffic analysis", tfc), "write `tfc: off`, or use ESP")
	case p.Protocol == ProtocolAHESP:
		v.notHere("padding against traffic analysis with `protocol: ah+esp`", "write `tfc: off`, or `protocol: esp`")
	case p.Mode == sad.TransportMode:
		v.fail(fmt.Sprintf("found %s, and this profile has `mode: transport`: the padding needs a whole IP packet inside, whose length tells it apart (RFC 4303 section 2.7)", tfc), "write `tfc: off`, or `mode: tunnel`")
	default:
		return tfc
	}
	return sad.TFCOff
}

// warnNoOuterHeader: in transport mode the packet's own header is the outer one.
func (d *decoder) warnNoOuterHeader(profile string) {
	for _, key := range []string{"df", "dscp", "ecn"} {
		if _, written := d.positions[profile+"."+key]; written {
			d.warn(profile+"."+key, "has no effect with `mode: transport`: the packet keeps its own IP header")
		}
	}
}

// replayWindow reads the window; turning it off must be said twice.
func (d *decoder) replayWindow(v value, p Profile) int {
	n, ok := v.integer(0, replay.MaxSize, "write the window in packets, 64 to 1048576")
	switch {
	case !ok:
	case n == 0 && !p.AllowNoReplay:
		v.fail("found 0, which lets anyone replay captured packets", "write 64 to 1048576, or add `allow_no_replay: true` to this profile")
	case n == 0 && p.ESN:
		// RFC 4303 section 3.3.3: "Use of ESN creates a need for the
		// receiver to manage the anti-replay window (in order to
		// determine the correct value for the high-order bits of the
		// ESN".
		v.fail("found 0 together with `esn: true`, which needs the window (RFC 4303 section 3.3.3)", "write `esn: false`, or a window of 64 to 1048576")
	case n != 0 && n < minReplayWindow:
		v.fail(fmt.Sprintf("found the number %d", n), "write 64 to 1048576 packets (RFC 4303 section 3.4.3)")
	default:
		return int(n)
	}
	return DefaultReplayWindow
}

// tunnel reads how the outer header follows from the inner one.
func (d *decoder) tunnel(o *object) (t sad.Tunnel) {
	if v, ok := d.get(o, "df"); ok {
		switch word, _ := v.choice("copy", "set", "clear"); word {
		case "set":
			t.DF = sad.DFSet
		case "clear":
			t.DF = sad.DFClear
		}
	}
	if v, ok := d.get(o, "dscp"); ok && !v.isWord("copy") {
		if v.isWord("off") {
			t.DSCP = sad.DSCPOff
		} else if n, ok := v.integer(0, 63, "write copy, off, or a code point, 0 to 63"); ok {
			t.DSCP = sad.FixedDSCP(uint8(n))
		}
	}
	if v, ok := d.get(o, "ecn"); ok {
		if word, _ := v.choice("normal", "compat"); word == "compat" {
			t.ECN = sad.ECNCompat
		}
	}
	return t
}

// lifetime reads when an SA is renewed and when it ends.
func (d *decoder) lifetime(v value) Lifetime {
	l := Lifetime{Soft: DefaultSoftLifetime, Hard: DefaultHardLifetime}
	o, ok := v.object("soft", "hard", "soft_bytes", "hard_bytes", "soft_packets", "hard_packets", "idle")
	if !ok {
		return l
	}
	before := len(d.s.errs.List)
	for _, t := range []struct {
		key string
		to  *time.Duration
	}{{"soft", &l.Soft}, {"hard", &l.Hard}, {"idle", &l.Idle}} {
		if v, ok := d.get(o, t.key); ok {
			if n, kind := v.scalar(); kind == number && n == "0" {
				*t.to = 0
			} else if n, ok := v.duration(time.Second, maxLifetime, "0 for no limit, or "); ok {
				*t.to = n
			}
		}
	}
	for _, t := range []struct {
		key  string
		to   *uint64
		read func(value) (uint64, bool)
	}{
		{"soft_bytes", &l.SoftBytes, value.size},
		{"hard_bytes", &l.HardBytes, value.size},
		{"soft_packets", &l.SoftPackets, value.packets},
		{"hard_packets", &l.HardPackets, value.packets},
	} {
		if v, ok := d.get(o, t.key); ok {
			*t.to, _ = t.read(v)
		}
	}
	if len(d.s.errs.List) == before {
		d.checkLifetime(v.key, l)
	}
	return l
}

// checkLifetime: renewing starts before the end.
func (d *decoder) checkLifetime(key string, l Lifetime) {
	for _, c := range []struct {
		name       string
		soft, hard uint64
	}{
		{"soft", uint64(l.Soft), uint64(l.Hard)},
		{"soft_bytes", l.SoftBytes, l.HardBytes},
		{"soft_packets", l.SoftPackets, l.HardPackets},
	} {
		if c.hard != 0 && c.soft >= c.hard {
			d.fail(key+"."+c.name, "the soft limit is not below the hard one, so that nothing is renewed in time", "make the soft limit the smaller one")
		}
	}
}
