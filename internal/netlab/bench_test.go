package netlab

import (
	"context"
	"net/netip"
	"testing"
)

// BenchmarkRootWire is what two veths and a router carry without a gateway: the
// ceiling of every measurement made in a lab.
func BenchmarkRootWire(b *testing.B) {
	for _, offloads := range []bool{false, true} {
		name := "offloads off"
		if offloads {
			name = "offloads on"
		}
		b.Run(name, func(b *testing.B) {
			net, err := SiteToSite(Options{Offloads: offloads})
			if err != nil {
				b.Skip(err)
			}
			defer net.Close()
			var bits float64
			for b.Loop() {
				r, err := TCPTransfer(context.Background(), net.A.Gateway, net.B.Gateway,
					TransferOptions{To: netip.AddrPortFrom(net.B.Outside4, 0), Bytes: 64 << 20})
				if err != nil || !r.Intact() {
					b.Fatal(err, r)
				}
				bits = r.BitsPerSecond()
			}
			b.ReportMetric(bits/1e9, "Gbit/s")
		})
	}
}

// BenchmarkRootSetup is the price of a topology in a test.
func BenchmarkRootSetup(b *testing.B) {
	for b.Loop() {
		net, err := SiteToSite(Options{})
		if err != nil {
			b.Skip(err)
		}
		if err := net.Close(); err != nil {
			b.Fatal(err)
		}
	}
}
