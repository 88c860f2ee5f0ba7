package natt

import (
	"fmt"
	"testing"

	"github.com/adit-ipsec/adit/internal/packet"
)

// BenchmarkLoopback sends batches over UDP on the loopback interface and reads
// them back in the same goroutine: the cost of both system calls and of the
// kernel between them, per datagram. The offloads are the sender's and the
// receiver's: "off-auto" is what it costs to be ready for superpackets when
// none come.
func BenchmarkLoopback(b *testing.B) {
	for _, size := range []int{64, 1400} {
		for _, batch := range []int{1, 32, 128} {
			for _, o := range []struct {
				name     string
				from, to Offload
			}{{"off-off", OffloadOff, OffloadOff}, {"off-auto", OffloadOff, OffloadAuto}, {"auto-auto", OffloadAuto, OffloadAuto}} {
				b.Run(fmt.Sprintf("bytes=%d/batch=%d/offload=%s", size, batch, o.name), func(b *testing.B) {
					benchmarkLoopback(b, size, batch, o.from, o.to)
				})
			}
		}
	}
}

func benchmarkLoopback(b *testing.B, size, batch int, send, receive Offload) {
	from := listen(b, Config{Address: loop4, Offload: send})
	to := listen(b, Config{Address: loop4, Offload: receive})
	out, in := packet.NewDatagrams(batch), packet.NewDatagrams(128)
	for i := range out {
		out[i].Len, out[i].Addr, out[i].DF = size, to.at(loop4), true
	}
	b.SetBytes(int64(size * batch))
	for b.Loop() {
		if n, err := from.WriteBatch(out); err != nil {
			b.Fatalf("WriteBatch = %d, %v", n, err)
		}
		for want := batch; want > 0; {
			n, err := to.ReadBatch(in)
			if err != nil {
				b.Fatal(err)
			}
			want -= countAll(in[:n])
		}
	}
	b.ReportMetric(float64(b.N)*float64(batch)/b.Elapsed().Seconds(), "pps")
}
