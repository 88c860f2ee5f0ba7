package dataplane_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/adit-ipsec/adit/dataplane"
	"github.com/adit-ipsec/adit/esp"
	"github.com/adit-ipsec/adit/internal/netsim"
	"github.com/adit-ipsec/adit/internal/packet"
	"github.com/adit-ipsec/adit/internal/tun"
	"github.com/adit-ipsec/adit/sad"
	"github.com/adit-ipsec/adit/spd"
)

// pair is two whole gateways in memory, workers running: TUN A - A - network -
// B - TUN B.
type pair struct {
	a, b         *dataplane.Gateway
	hostA, hostB *tun.Host
	network      *netsim.Network
}

func ranges(t testing.TB, texts ...string) (list []spd.AddrRange) {
	t.Helper()
	for _, text := range texts {
		r, err := spd.ParseAddrRange(text)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, r)
	}
	return list
}

func newPair(t testing.TB, suiteName string) *pair {
	t.Helper()
	suite, err := esp.ParseSuite(suiteName)
	if err != nil {
		t.Fatal(err)
	}
	p := &pair{network: netsim.NewNetwork()}
	addrA, addrB := netip.MustParseAddrPort("192.0.2.1:4500"), netip.MustParseAddrPort("192.0.2.2:4500")
	lanA, lanB := ranges(t, "10.1.0.0/24"), ranges(t, "10.2.0.0/24")
	keyOf := func(fill byte) (sad.Key, sad.Key) {
		enc, integ := suite.KeyLen()
		return bytes.Repeat([]byte{fill}, enc), bytes.Repeat([]byte{fill + 1}, integ)
	}
	gateway := func(own, peer netip.AddrPort, local, remote []spd.AddrRange, outKey, inKey byte, outSPI, inSPI uint32) (*dataplane.Gateway, *tun.Host) {
		end, err := p.network.Endpoint(own)
		if err != nil {
			t.Fatal(err)
		}
		dev, host := tun.NewMemory("mem", 1500)
		gw, err := dataplane.New(dataplane.Config{TUN: dev, Wire: end})
		if err != nil {
			t.Fatal(err)
		}
		table, err := spd.NewTable([]spd.Policy{{
			Name: "lan", Action: spd.Protect, Peer: "peer",
			Selector: spd.Selector{Local: local, Remote: remote, Protocol: spd.ProtocolAny},
		}})
		if err != nil {
			t.Fatal(err)
		}
		gw.ApplyPolicy(table)
		params := func(d sad.Direction, spi uint32, fill byte) sad.Params {
			enc, integ := keyOf(fill)
			return sad.Params{Direction: d, SPI: spi, Peer: "peer", Suite: suite, EncryptionKey: enc, IntegrityKey: integ,
				ESN: true, ReplayWindow: 4096, Remote: peer, FreshKeys: true}
		}
		if err := gw.Install(params(sad.Outbound, outSPI, outKey), params(sad.Inbound, inSPI, inKey)); err != nil {
			t.Fatal(err)
		}
		return gw, host
	}
	p.a, p.hostA = gateway(addrA, addrB, lanA, lanB, 1, 3, 0x2001, 0x1001)
	p.b, p.hostB = gateway(addrB, addrA, lanB, lanA, 3, 1, 0x1001, 0x2001)
	return p
}

func (p *pair) close(t testing.TB) {
	t.Helper()
	for _, gw := range []*dataplane.Gateway{p.a, p.b} {
		if err := gw.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	}
}

// datagram is a plain UDP packet from 10.x.0.10 to 10.y.0.20 without checksum.
func datagram(from, to byte, n uint32, size int) []byte {
	b := make([]byte, 28+size)
	b[0], b[8], b[9] = 0x45, 64, packet.ProtoUDP
	b[2], b[3] = byte(len(b)>>8), byte(len(b))
	copy(b[12:], []byte{10, from, 0, 10})
	copy(b[16:], []byte{10, to, 0, 20})
	sum := ^packet.Checksum(b[:20], 0)
	b[10], b[11] = byte(sum>>8), byte(sum)
	b[24], b[25] = byte((8+size)>>8), byte(8+size)
	copy(b[28:], fmt.Appendf(nil, "%08d", n))
	return b
}

func TestPairInMemoryCarriesBothWaysInOrder(t *testing.T) {
	defer goleak.VerifyNone(t)
	for _, suite := range []string{"aes128gcm16", "chacha20poly1305", "aes256-sha512", "null-sha256"} {
		p := newPair(t, suite)
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		const packets = 2000
		var all sync.WaitGroup
		carry := func(from, to *tun.Host, src, dst byte) {
			all.Go(func() {
				for n := range uint32(packets) {
					if err := from.Send(ctx, datagram(src, dst, n, 1000)); err != nil {
						t.Errorf("send %d: %v", n, err)
						return
					}
					got, err := to.Receive(ctx)
					if err != nil || !bytes.Equal(got, datagram(src, dst, n, 1000)) {
						t.Errorf("packet %d: %v", n, err)
						return
					}
				}
			})
		}
		carry(p.hostA, p.hostB, 1, 2)
		carry(p.hostB, p.hostA, 2, 1)
		all.Wait()
		p.close(t)
		cancel()
		for name, gw := range map[string]*dataplane.Gateway{"A": p.a, "B": p.b} {
			s := gw.Stats()
			if s.Counter("OutPackets") != packets || s.Counter("InPackets") != packets {
				t.Errorf("%s %s: expected %d both ways, saw %+v", suite, name, packets, s.Traffic)
			}
			for _, c := range s.Drops {
				if c.Value != 0 {
					t.Errorf("%s %s: %s is %d", suite, name, c.Name, c.Value)
				}
			}
		}
	}
}

func TestCloseEndsEverythingAndMayBeCalledTwice(t *testing.T) {
	defer goleak.VerifyNone(t)
	p := newPair(t, "aes128gcm16")
	p.close(t)
	p.close(t)
	if _, open := <-p.a.Events(); open {
		t.Error("Events is still open after Close")
	}
	if err := p.a.Err(); err != nil {
		t.Errorf("Err after Close: expected nil, saw %v", err)
	}
}

// A wire or TUN that goes away under the gateway ends it, and says so: half a
// gateway would look alive.
func TestGatewayEndsWhenAWireIsGone(t *testing.T) {
	defer goleak.VerifyNone(t)
	network := netsim.NewNetwork()
	end, err := network.Endpoint(netip.MustParseAddrPort("192.0.2.1:4500"))
	if err != nil {
		t.Fatal(err)
	}
	dev, _ := tun.NewMemory("mem", 1500)
	gw, err := dataplane.New(dataplane.Config{TUN: dev, Wire: end})
	if err != nil {
		t.Fatal(err)
	}
	_ = end.Close()
	select {
	case <-gw.Done():
	case <-time.After(10 * time.Second):
		t.Fatal("the gateway did not end")
	}
	if gw.Err() == nil {
		t.Error("Err: expected the reason, saw nil")
	}
	_ = gw.Close()
}

func TestNewRefusesWhatCannotWork(t *testing.T) {
	defer goleak.VerifyNone(t)
	dev, _ := tun.NewMemory("mem", 1500)
	defer func() { _ = dev.Close() }()
	end, err := netsim.NewNetwork().Endpoint(netip.MustParseAddrPort("192.0.2.1:4500"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = end.Close() }()
	for name, cfg := range map[string]dataplane.Config{
		"no TUN":          {Wire: end},
		"no wire":         {TUN: dev},
		"several workers": {TUN: dev, Wire: end, Workers: 2},
		"siblings alone":  {TUN: dev, Raw4: end, Siblings: []dataplane.Wire{end}},
		"negative":        {TUN: dev, Wire: end, Workers: -1},
	} {
		if gw, err := dataplane.New(cfg); err == nil {
			t.Errorf("%s: expected an error", name)
			_ = gw.Close()
		}
	}
}

// Databases change under traffic: no race, no panic, and no packet in clear.
func TestDatabasesChangeUnderTraffic(t *testing.T) {
	defer goleak.VerifyNone(t)
	p := newPair(t, "aes128gcm16")
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	stop := make(chan struct{})
	var all sync.WaitGroup
	all.Go(func() {
		for n := uint32(0); ; n++ {
			select {
			case <-stop:
				return
			default:
			}
			if err := p.hostA.Send(ctx, datagram(1, 2, n, 100)); err != nil && !errors.Is(err, context.Canceled) {
				t.Errorf("send: %v", err)
				return
			}
		}
	})
	all.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				p.hostB.Drain(func([]byte) {})
				p.a.Stats()
			}
		}
	})
	table := p.a.Policy()
	for i := range 300 {
		other, err := spd.NewTable(table.Policies())
		if err != nil {
			t.Fatal(err)
		}
		p.a.ApplyPolicy(other)
		params := sad.Params{Direction: sad.Outbound, SPI: uint32(0x3000 + i), Peer: "other", Suite: p.a.Stats().SAs[0].Suite,
			EncryptionKey: append(bytes.Repeat([]byte{9}, 18), byte(i), byte(i>>8)), ESN: true,
			Remote: netip.MustParseAddrPort("192.0.2.2:4500"), FreshKeys: true}
		if err := p.a.Install(params); err != nil {
			t.Fatal(err)
		}
		p.a.Remove(params.ID())
	}
	close(stop)
	all.Wait()
	p.close(t)
}

// skippingWire is a wire that had to skip what it received.
type skippingWire struct{ *netsim.Endpoint }

func (skippingWire) Skipped() uint64 { return 7 }

func TestStatsShowWhatWiresSkipped(t *testing.T) {
	defer goleak.VerifyNone(t)
	end, err := netsim.NewNetwork().Endpoint(netip.MustParseAddrPort("192.0.2.1:4500"))
	if err != nil {
		t.Fatal(err)
	}
	dev, _ := tun.NewMemory("mem", 1500)
	gw, err := dataplane.New(dataplane.Config{TUN: dev, Wire: skippingWire{end}})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = gw.Close() }()
	if got := gw.Stats().Counter("InSkipped"); got != 7 {
		t.Errorf("InSkipped: expected 7, saw %d", got)
	}
}
