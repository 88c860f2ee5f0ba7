// Package replace holds what becomes of traffic while SAs change under it, and
// while several carry it side by side: two gateways in this process, with the
// kernel's TUN, sockets and queues in namespaces. Keys come from the tests, as
// they would from an IKE: the configuration file has none that change.
package replace

import (
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/adit-ipsec/adit/dataplane"
	"github.com/adit-ipsec/adit/esp"
	"github.com/adit-ipsec/adit/internal/netlab"
	"github.com/adit-ipsec/adit/internal/tun"
	"github.com/adit-ipsec/adit/natt"
	"github.com/adit-ipsec/adit/sad"
	"github.com/adit-ipsec/adit/spd"
	"github.com/adit-ipsec/adit/test/gatewaytest"
)

const (
	tunName = "adit0"
	// Buffers that hold all that may wait while a busy machine looks
	// elsewhere: what is lost is then the gateways' fault.
	socketBuffer = 64 << 20
	tunQueue     = 100_000 // packets
)

// site is one gateway.
type site struct {
	*netlab.Side
	gw   *dataplane.Gateway
	wire *natt.Conn
}

func root(t *testing.T) context.Context {
	t.Helper()
	return gatewaytest.Root(t, 90*time.Second)
}

// raise builds the network and both gateways, without SAs.
func raise(t *testing.T) (lab *netlab.Topology, a, b *site) {
	t.Helper()
	lab, err := netlab.SiteToSite(netlab.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := lab.Close(); err != nil {
			t.Errorf("closing the network: %v", err)
		}
	})
	a, b = &site{Side: &lab.A}, &site{Side: &lab.B}
	a.start(t, b)
	b.start(t, a)
	return lab, a, b
}

func (s *site) start(t *testing.T, peer *site) {
	t.Helper()
	var dev tun.Device
	err := s.Gateway.Do(func() (err error) {
		if dev, err = tun.Create(tunName, 1400); err != nil {
			return err
		}
		s.wire, err = natt.Listen(natt.Config{Address: s.Outside4, Port: 4500, ReceiveBuffer: socketBuffer, SendBuffer: socketBuffer})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if s.gw, err = dataplane.New(dataplane.Config{TUN: dev, Wire: s.wire}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.gw.Close(); err != nil {
			t.Errorf("closing the gateway in %s: %v", s.Gateway.Name(), err)
		}
	})
	err = s.Gateway.Netlink(func(h *netlink.Handle) error {
		link, err := h.LinkByName(tunName)
		if err != nil {
			return err
		}
		if err := h.LinkSetTxQLen(link, tunQueue); err != nil {
			return err
		}
		if err := h.LinkSetUp(link); err != nil {
			return err
		}
		lan := net.IPNet{IP: peer.LAN4.Addr().AsSlice(), Mask: net.CIDRMask(peer.LAN4.Bits(), 32)}
		return h.RouteAdd(&netlink.Route{LinkIndex: link.Attrs().Index, Dst: &lan})
	})
	if err != nil {
		t.Fatal(err)
	}
	local, err := spd.ParseAddrRange(s.LAN4.String())
	if err != nil {
		t.Fatal(err)
	}
	remote, err := spd.ParseAddrRange(peer.LAN4.String())
	if err != nil {
		t.Fatal(err)
	}
	table, err := spd.NewTable([]spd.Policy{{
		Name: "lan", Action: spd.Protect, Peer: "peer",
		Selector: spd.Selector{Local: []spd.AddrRange{local}, Remote: []spd.AddrRange{remote}, Protocol: spd.ProtocolAny},
	}})
	if err != nil {
		t.Fatal(err)
	}
	s.gw.ApplyPolicy(table)
}

// association makes both ends' Params of one SA from one site to another, with a key
// of its own.
func association(t *testing.T, from, to *site, spi uint32) (out, in sad.Params) {
	t.Helper()
	suite, err := esp.ParseSuite("aes128gcm16")
	if err != nil {
		t.Fatal(err)
	}
	key := make(sad.Key, 20)
	binary.BigEndian.PutUint32(key, spi)
	out = sad.Params{
		Direction: sad.Outbound, SPI: spi, Peer: "peer", Suite: suite, EncryptionKey: key, FreshKeys: true,
		Remote: netip.AddrPortFrom(to.Outside4, 4500), ReplayWindow: 4096,
	}
	in = out
	in.Direction, in.Remote = sad.Inbound, netip.AddrPortFrom(from.Outside4, 4500)
	return out, in
}

// counters is what may have lost a packet on its way: the gateways' drops, and the
// drops of sockets and interfaces that are the machine's.
func (s *site) counters() string {
	var b strings.Builder
	for _, c := range s.gw.Stats().Drops {
		if c.Value != 0 {
			fmt.Fprintf(&b, " %s=%d", c.Name, c.Value)
		}
	}
	fmt.Fprintf(&b, "; the machine's: skipped=%d", s.wire.Skipped())
	for _, n := range []*netlab.Node{s.Gateway, s.Host} {
		_ = n.Do(func() error {
			fmt.Fprintf(&b, " %s:", n.Name())
			machineDrops(&b)
			return nil
		})
	}
	return b.String()
}

// machineDrops writes what the namespace of this thread has dropped at sockets and
// interfaces (proc(5)).
func machineDrops(b *strings.Builder) {
	text, _ := os.ReadFile("/proc/thread-self/net/udp")
	for line := range strings.Lines(string(text)) {
		if f := strings.Fields(line); len(f) > 12 && f[12] != "0" && f[0] != "sl" {
			fmt.Fprintf(b, " socket=%s", f[12])
		}
	}
	text, _ = os.ReadFile("/proc/thread-self/net/dev")
	for line := range strings.Lines(string(text)) {
		if f := strings.Fields(line); len(f) == 17 && (f[4] != "0" || f[12] != "0") {
			fmt.Fprintf(b, " %s in=%s out=%s", f[0], f[4], f[12])
		}
	}
}
