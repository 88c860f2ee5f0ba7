package bench

import (
	"fmt"
	"runtime"
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
			e := Engine{Policies: policies}.normal()
			table, err := e.table()
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
				e := Engine{Size: size, Direction: packet.Inbound}.normal()
				p := e.params(suite, 0, packet.Inbound)
				transform, err := esp.New(suite, p.EncryptionKey, p.IntegrityKey, p.ESN)
				if err != nil {
					b.Fatal(err)
				}
				source, err := e.source(suite)
				if err != nil {
					b.Fatal(err)
				}
				sealed, err := source.turn(suite, 1)
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
						n := copy(mem, sealed.packets[0])
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

// turnOfWalk is how many packets a turn has: inbound ones are sealed beforehand
// and take memory.
const turnOfWalk = 1 << 14

func runWalk(b *testing.B, e Engine) {
	b.SetBytes(int64(e.Size))
	b.ReportAllocs()
	b.StopTimer()
	run, err := e.prepare(newThreadClock(nil))
	if err != nil {
		b.Fatal(err)
	}
	var sum engineMeasure
	for left := b.N; left > 0; left -= turnOfWalk {
		t, err := run.source.turn(run.suite, min(left, turnOfWalk))
		if err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
		m, err := run.walk.carry(t)
		b.StopTimer()
		if err != nil {
			b.Fatal(err)
		}
		sum.add(m)
	}
	b.ReportMetric(float64(sum.cpu.Nanoseconds())/float64(sum.packets), "cpu-ns/op")
	if err := run.close(); err != nil {
		b.Fatal(err)
	}
}

// BenchmarkIKEHandshake is an IKE SA with its first Child SA, between two machines
// in one thread; their end is in it too. cpu-us/op of each end is of the thread.
func BenchmarkIKEHandshake(b *testing.B) {
	for _, group := range IKEGroups() {
		b.Run("group="+group+"/auth=ecdsa-p256", func(b *testing.B) { benchmarkIKE(b, IKEHandshake, group, "ecdsa-p256") })
	}
	for _, auth := range IKEAuths()[1:] {
		b.Run("group=x25519/auth="+auth, func(b *testing.B) { benchmarkIKE(b, IKEHandshake, "x25519", auth) })
	}
}

// BenchmarkIKERekey is new keys, with the delete of the old SA.
func BenchmarkIKERekey(b *testing.B) {
	for _, c := range [][2]string{{"child", IKERekeyChild}, {"child-pfs", IKERekeyChildPFS}, {"ike", IKERekeyIKE}} {
		b.Run("of="+c[0], func(b *testing.B) { benchmarkIKE(b, c[1], "x25519", "psk") })
	}
}

// BenchmarkIKECookie is an IKE_SA_INIT of a flood, answered with a cookie.
func BenchmarkIKECookie(b *testing.B) { benchmarkIKE(b, IKECookie, "x25519", "psk") }

// benchmarkIKE counts in batches: the last one may be longer than what is left.
func benchmarkIKE(b *testing.B, work, group, auth string) {
	b.StopTimer()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	row := &ikeRow{work: work, load: IKELoad{Group: group, Auth: auth, PFS: work == IKERekeyChildPFS, Pairs: min(b.N, ikeBatch)}}
	if err := row.prepare(); err != nil {
		b.Fatal(err)
	}
	var sum ikeMeasure
	b.ReportAllocs()
	b.StartTimer()
	for sum.count < b.N {
		m, err := row.once()
		if err != nil {
			b.Fatal(err)
		}
		sum.add(m)
	}
	b.StopTimer()
	n := float64(sum.count)
	b.ReportMetric(us(sum.initiator)/n, "initiator-cpu-us/op")
	b.ReportMetric(us(sum.responder)/n, "responder-cpu-us/op")
}
