package bench

import (
	"fmt"
	"testing"

	"github.com/adit-ipsec/adit/esp"
	"github.com/adit-ipsec/adit/internal/packet"
	"github.com/adit-ipsec/adit/spd"
)

// The ladder. Run with `make bench`, or one rung with
// go test -run '^$' -bench 'Walk' ./bench

var suites = []string{"aes128gcm16", "aes256gcm16", "chacha20poly1305", "aes128-sha256", "aes128ctr-sha256", "aes128ccm16", "null-sha256", "aes128gmac"}

func BenchmarkParse(b *testing.B) {
	p := innerPacket(engineLocal, engineRemote, 1408)
	var h packet.Header
	var f packet.Flow
	b.ReportAllocs()
	for b.Loop() {
		if err := packet.Parse(p, &h, &f); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkLookup(b *testing.B) {
	for _, policies := range []int{1, 100, 10000} {
		b.Run(fmt.Sprintf("policies=%d", policies), func(b *testing.B) {
			table, err := Engine{Policies: policies}.table()
			if err != nil {
				b.Fatal(err)
			}
			var h packet.Header
			var f packet.Flow
			if err := packet.Parse(innerPacket(engineLocal, engineRemote, 64), &h, &f); err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			for b.Loop() {
				if table.Lookup(spd.Outbound, &f) == nil {
					b.Fatal("no match")
				}
			}
		})
	}
}

func BenchmarkSeal(b *testing.B) { benchmarkESP(b, true) }
func BenchmarkOpen(b *testing.B) { benchmarkESP(b, false) }

func benchmarkESP(b *testing.B, seal bool) {
	for _, name := range suites {
		for _, size := range []int{64, 1408} {
			b.Run(fmt.Sprintf("%s/size=%d", name, size), func(b *testing.B) {
				suite, err := esp.ParseSuite(name)
				if err != nil {
					b.Fatal(err)
				}
				e := Engine{Size: size}
				p := e.params(suite)
				transform, err := esp.New(suite, p.EncryptionKey, p.IntegrityKey, p.ESN)
				if err != nil {
					b.Fatal(err)
				}
				wires, err := e.sealed(p, 1)
				if err != nil {
					b.Fatal(err)
				}
				mem := make([]byte, packet.SlotLen)
				front := esp.HeaderLen + suite.IVLen()
				inner := innerPacket(engineLocal, engineRemote, size)
				scratch := esp.NewScratch()
				job := make([]esp.Packet, 1)
				b.SetBytes(int64(size))
				b.ReportAllocs()
				for b.Loop() {
					if seal {
						copy(mem[front:], inner)
						job[0] = esp.Packet{Seq: 1, NextHeader: packet.ProtoIPv4, Payload: mem[front : front+size], Wire: mem}
						transform.Seal(scratch, p.SPI, job)
					} else {
						n := copy(mem, wires[0])
						job[0] = esp.Packet{Seq: 1, Wire: mem[:n]}
						transform.Open(scratch, job)
					}
					if job[0].Err != nil {
						b.Fatal(job[0].Err)
					}
				}
			})
		}
	}
}

func BenchmarkOutboundWalk(b *testing.B) { benchmarkWalk(b, packet.Outbound) }
func BenchmarkInboundWalk(b *testing.B)  { benchmarkWalk(b, packet.Inbound) }

// inboundRound is how many packets an inbound run is made of: each needs a
// number of its own, so they are sealed beforehand and take memory.
const inboundRound = 1 << 14

func benchmarkWalk(b *testing.B, d packet.Direction) {
	for _, name := range suites {
		for _, size := range []int{64, 1408} {
			b.Run(fmt.Sprintf("%s/size=%d", name, size), func(b *testing.B) {
				runWalk(b, Engine{Suite: name, Size: size, Policies: 1, Direction: d})
			})
		}
	}
	b.Run("aes128gcm16/size=1408/policies=10000", func(b *testing.B) {
		runWalk(b, Engine{Suite: "aes128gcm16", Size: 1408, Policies: 10000, Direction: d})
	})
}

func runWalk(b *testing.B, e Engine) {
	b.SetBytes(int64(e.Size))
	b.ReportAllocs()
	b.StopTimer()
	for left := b.N; left > 0; {
		n := left
		if e.Direction == packet.Inbound {
			n = min(n, inboundRound)
		}
		run, err := e.prepare(n)
		if err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
		_, err = run.run()
		b.StopTimer()
		if err != nil {
			b.Fatal(err)
		}
		left -= n
	}
}

// The ladder's own test: the rungs that need no benchmark run carry what they
// claim to.
func TestEngineCarriesEveryPacket(t *testing.T) {
	for _, d := range []packet.Direction{packet.Outbound, packet.Inbound} {
		for _, name := range suites {
			took, err := Engine{Suite: name, Size: 1408, Policies: 3, Direction: d}.Run(1000)
			if err != nil || took <= 0 {
				t.Errorf("%s %s: %v after %v", d, name, err, took)
			}
		}
	}
}
