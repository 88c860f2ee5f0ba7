package config

import (
	"fmt"
	"strings"
	"time"

	"github.com/adit-ipsec/adit/esp"
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
		Lifetime: Lifetime{Soft: DefaultSoftLifetime, Hard: DefaultHardLifetime},
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
		"df", "dscp", "ecn", "fragment", "tfc", "responder_only")
	if !ok {
		return
	}
	d.refuseLater(o)
	if v, ok := d.get(o, "suites"); ok {
		p.Suites = d.suites(v)
	}
	if v, ok := d.get(o, "lifetime"); ok {
		p.Lifetime = d.lifetime(v)
	}
	p.ESN = d.flag(o, "esn", p.ESN)
	p.AllowNoReplay = d.flag(o, "allow_no_replay", false)
	if v, ok := d.get(o, "replay_window"); ok {
		p.ReplayWindow = d.replayWindow(v, p)
	}
	if v, ok := d.get(o, "encap"); ok {
		if word, _ := v.choice("auto", "udp", "none"); word == "none" {
			p.Encap = sad.EncapNone
		}
	}
	p.Tunnel = d.tunnel(o)
	d.Profiles[name] = p
}

// refuseLater refuses the values of a profile that this version does not have.
func (d *decoder) refuseLater(o *object) {
	for _, r := range []struct {
		key, now string
		later    []string
		instead  string
	}{
		{"protocol", "esp", []string{"ah", "ah+esp"}, "write `protocol: esp`; a null-sha256 or gmac suite gives integrity without encryption"},
		{"mode", "tunnel", []string{"transport"}, "write `mode: tunnel`"},
		{"fragment", "before", []string{"after"}, "write `fragment: before`"},
		{"responder_only", "off", []string{"never-initiate", "never-rekey", "full", "passive"}, "write `responder_only: off`; manual keys start no negotiation"},
	} {
		v, ok := d.get(o, r.key)
		if !ok || v.isWord(r.now) {
			continue
		}
		later := false
		for _, word := range r.later {
			later = later || v.isWord(word)
		}
		if later {
			v.notHere(fmt.Sprintf("`%s: %s`", r.key, v.node.GetToken().Value), r.instead)
		} else {
			v.choice(r.now)
		}
	}
	if v, ok := d.get(o, "tfc"); ok && !v.isWord("off") {
		if _, kind := v.scalar(); kind == number || v.isWord("mtu") {
			v.notHere("traffic flow confidentiality padding", "write `tfc: off`")
		} else {
			v.choice("off")
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

// suites reads a list of suites to propose.
func (d *decoder) suites(v value) []esp.Suite {
	items, ok := v.list("suites, such as [aes128gcm16, chacha20poly1305]")
	if !ok {
		return nil
	}
	if len(items) == 0 {
		v.fail("the list is empty", "name at least one suite, or leave the key out")
	}
	var list []esp.Suite
	seen := map[esp.Suite]bool{}
	for _, item := range items {
		suite, ok := d.suite(d.mark(item))
		if ok && seen[suite] {
			item.fail(fmt.Sprintf("%s stands in the list twice", suite), "name each suite once")
		}
		if ok {
			seen[suite] = true
			list = append(list, suite)
		}
	}
	return list
}

// lifetime reads when an SA is renewed and when it ends.
func (d *decoder) lifetime(v value) Lifetime {
	l := Lifetime{Soft: DefaultSoftLifetime, Hard: DefaultHardLifetime}
	o, ok := v.object("soft", "hard", "soft_bytes", "hard_bytes", "soft_packets", "hard_packets")
	if !ok {
		return l
	}
	before := len(d.s.errs.List)
	for _, t := range []struct {
		key string
		to  *time.Duration
	}{{"soft", &l.Soft}, {"hard", &l.Hard}} {
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
