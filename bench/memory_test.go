package bench

import (
	"context"
	"net/netip"
	"slices"
	"testing"

	"github.com/adit-ipsec/adit/dataplane"
	"github.com/adit-ipsec/adit/esp"
	"github.com/adit-ipsec/adit/internal/netsim"
	"github.com/adit-ipsec/adit/internal/packet"
	"github.com/adit-ipsec/adit/internal/tun"
	"github.com/adit-ipsec/adit/sad"
	"github.com/adit-ipsec/adit/spd"
)

// BenchmarkTwoGatewaysInMemory carries packets from host to host through two
// whole gateways: outbound walk, a network in memory, inbound walk. A window of
// packets is under way at any time, as in a transfer.
func BenchmarkTwoGatewaysInMemory(b *testing.B) {
	for _, name := range []string{"aes128gcm16", "aes128-sha256"} {
		b.Run(name, func(b *testing.B) { benchmarkMemory(b, name) })
	}
}

func benchmarkMemory(b *testing.B, name string) {
	suite, err := esp.ParseSuite(name)
	if err != nil {
		b.Fatal(err)
	}
	network := netsim.NewNetwork()
	addrA, addrB := netip.MustParseAddrPort("192.0.2.1:4500"), netip.MustParseAddrPort("192.0.2.2:4500")
	sender := memoryGateway(b, network, suite, addrA, addrB, sad.Outbound)
	receiver := memoryGateway(b, network, suite, addrB, addrA, sad.Inbound)
	p := innerPacket(engineLocal, remoteOf(0), 1408)
	ctx := context.Background()
	const window = 64
	credits := make(chan struct{}, window)
	go func() {
		for range b.N {
			credits <- struct{}{}
			if sender.Send(ctx, p) != nil {
				return
			}
		}
	}()
	b.SetBytes(int64(len(p)))
	b.ReportAllocs()
	b.ResetTimer()
	for range b.N {
		got, err := receiver.Receive(ctx)
		if err != nil || len(got) != len(p) {
			b.Fatal(err)
		}
		<-credits
	}
	b.StopTimer()
}

// memoryGateway is a gateway with one SA in direction d, and its host.
func memoryGateway(b *testing.B, network *netsim.Network, suite esp.Suite, own, peer netip.AddrPort, d packet.Direction) *tun.Host {
	end, err := network.Endpoint(own)
	if err != nil {
		b.Fatal(err)
	}
	dev, host := tun.NewMemory("mem", 1500)
	gw, err := dataplane.New(dataplane.Config{TUN: dev, Wire: end, NoProbe: true})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = gw.Close() })
	e := Engine{Direction: d}.normal()
	table, err := e.table()
	if err != nil {
		b.Fatal(err)
	}
	if d == packet.Inbound { // the other end: local and remote swapped
		policies := slices.Clone(table.Policies())
		own := &policies[0].Selector
		own.Local, own.Remote = own.Remote, own.Local
		if table, err = spd.NewTable(policies); err != nil {
			b.Fatal(err)
		}
	}
	gw.ApplyPolicy(table)
	params := e.params(suite, 0, packet.Outbound) // one key for both ends
	params.Direction, params.Remote = d, peer
	if err := gw.Install(params); err != nil {
		b.Fatal(err)
	}
	return host
}
