package hostnet

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// ipv6Mode is what the host can do of IPv6.
type ipv6Mode struct {
	stack    bool // the kernel has IPv6
	loopback bool // it is on at the loopback: routes that refuse need that
	tun      bool // it is on at the TUN
}

// tables tells whether rules and routes can be set. Where the TUN alone has
// IPv6 off, protected prefixes are refused: other interfaces may have it on, and
// would carry protected traffic in clear.
func (m ipv6Mode) tables() bool { return m.stack && m.loopback }

// device tells whether the TUN takes IPv6 addresses and routes.
func (m ipv6Mode) device() bool { return m.tables() && m.tun }

const ipv6Conf = "/proc/sys/net/ipv6/conf"

// ipv6Of reads the mode in the namespace of the calling thread.
func ipv6Of(device string) ipv6Mode {
	_, err := os.Stat(ipv6Conf)
	return ipv6Mode{
		stack:    err == nil,
		loopback: sysctl(ipv6Conf, "lo", "disable_ipv6") == 0,
		tun:      sysctl(ipv6Conf, device, "disable_ipv6") == 0,
	}
}

// genMode reads how the kernel makes link-local addresses on the device; -1
// where it has no say in it.
func genMode(device string) int { return sysctl(ipv6Conf, device, "addr_gen_mode") }

// sysctl reads a number in the namespace of the calling thread; -1: none there.
func sysctl(path ...string) int {
	b, err := os.ReadFile(filepath.Join(path...))
	if err != nil {
		return -1
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		return -1
	}
	return n
}

func (m ipv6Mode) notes(p Plan) []string {
	any6 := false
	for _, list := range [][]netip.Prefix{p.Routes, p.Addresses} {
		for _, v := range list {
			any6 = any6 || v.Addr().Is6()
		}
	}
	switch {
	case !any6 || m.device():
		return nil
	case !m.stack:
		return []string{"this kernel has no IPv6: the IPv6 policies have no routes and no addresses"}
	case !m.loopback:
		return []string{"IPv6 is disabled on this host (net.ipv6.conf.lo.disable_ipv6=1): the IPv6 policies have no routes and no addresses; enable IPv6 and restart the gateway"}
	}
	return []string{fmt.Sprintf("IPv6 is disabled on %[1]s: protected IPv6 prefixes are refused as unreachable; set net.ipv6.conf.%[1]s.disable_ipv6=0 and restart the gateway", p.Device)}
}
