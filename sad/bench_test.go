package sad

import (
	"fmt"
	"testing"

	"github.com/adit-ipsec/adit/esp"
)

// BenchmarkInstall10000 installs ten thousand SAs one by one.
func BenchmarkInstall10000(b *testing.B) {
	sas := make([]*SA, 10_000)
	for i := range sas {
		p := numbered(b, Direction(i%2), i)
		p.ReplayWindow = 32
		sas[i] = newSA(b, p)
	}
	for b.Loop() {
		d := NewDatabase()
		for _, sa := range sas {
			if err := d.Install(sa); err != nil {
				b.Fatal(err)
			}
		}
	}
}

func BenchmarkLookup(b *testing.B) {
	for _, n := range []int{2, 100, 10_000} {
		d := NewDatabase()
		peers := make([]string, n)
		for i := range n {
			p := numbered(b, Direction(i%2), i)
			p.ReplayWindow = 32
			peers[i] = p.Peer
			install(b, d, newSA(b, p))
		}
		b.Run(fmt.Sprintf("inbound/%d", n), func(b *testing.B) {
			i := 1
			for b.Loop() {
				if d.Load().Inbound(uint32(0x1000+i)) == nil {
					b.Fatal("not found")
				}
				if i += 2; i >= n {
					i = 1
				}
			}
		})
		b.Run(fmt.Sprintf("outbound/%d", n), func(b *testing.B) {
			i := 0
			for b.Loop() {
				if d.Load().Outbound(peers[i], "lan") == nil {
					b.Fatal("not found")
				}
				if i += 2; i >= n {
					i = 0
				}
			}
		})
	}
}

func BenchmarkReserve(b *testing.B) {
	p := outbound(b)
	p.ESN = true
	b.Run("one", func(b *testing.B) {
		sa := newSA(b, p)
		for b.Loop() {
			sa.Reserve(1)
		}
	})
	b.Run("parallel", func(b *testing.B) {
		sa := newSA(b, p)
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				sa.Reserve(1)
			}
		})
	})
}

// BenchmarkCheckMark is one batch of 64 packets; a parallel worker has an own one.
func BenchmarkCheckMark(b *testing.B) {
	p := inbound(b)
	p.ESN = true
	run := func(sa *SA, batch []esp.Packet, next uint32) uint32 {
		for i := range batch {
			next++
			batch[i] = esp.Packet{Seq: uint64(next)}
		}
		sa.Check(batch)
		sa.Mark(batch)
		return next
	}
	b.Run("one", func(b *testing.B) {
		sa, batch, next := newSA(b, p), make([]esp.Packet, 64), uint32(0)
		for b.Loop() {
			next = run(sa, batch, next)
		}
	})
	b.Run("parallel", func(b *testing.B) {
		sa := newSA(b, p)
		b.RunParallel(func(pb *testing.PB) {
			batch, next := make([]esp.Packet, 64), uint32(0)
			for pb.Next() {
				next = run(sa, batch, next)
			}
		})
	})
}
