package bench

import (
	"context"
	"encoding/binary"
	"errors"
	"math"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/adit-ipsec/adit/config"
	"github.com/adit-ipsec/adit/esp"
	"github.com/adit-ipsec/adit/internal/netlab"
	"github.com/adit-ipsec/adit/internal/packet"
)

// TestJitterIsThatOfRFC3550: by hand, with the formulas of 6.4.1.
func TestJitterIsThatOfRFC3550(t *testing.T) {
	var j jitter
	want := 0.0
	transits := []int64{1000, 1160, 1160, 840, 5000}
	for i, transit := range transits {
		j.add(transit)
		if i > 0 {
			want += (math.Abs(float64(transit-transits[i-1])) - want) / 16
		}
		if j.value != want {
			t.Errorf("after %d packets: %v, want %v", i+1, j.value, want)
		}
	}
	if j.packets != len(transits) {
		t.Errorf("%d packets", j.packets)
	}
}

// TestCallPacketsAreG711: what goes out is a whole IPv4 packet with right
// checksums, of PCMU with the numbers of RTP.
func TestCallPacketsAreG711(t *testing.T) {
	load := &callLoad{calls: 7, peers: 3, packets: 100000, run: 42}
	hostA := netip.MustParseAddr("10.1.0.10")
	for _, forward := range []bool{true, false} {
		b := load.packetOf(4, hostA, forward)
		stampCall(b, 70000, 1234567890)
		binary.BigEndian.PutUint16(b[10:], ^packet.Checksum(b[:20], 0)) // the kernel's part
		var h packet.Header
		var f packet.Flow
		if err := packet.Parse(b, &h, &f); err != nil {
			t.Fatal(err)
		}
		src, dst := hostA, callHost(1)
		if !forward {
			src, dst = dst, src
		}
		if len(b) != 200 || f.Src != src.As16() || f.Dst != dst.As16() || f.SrcPort != firstCallPort+1 || f.DstPort != callPort || h.TrafficClass != 46<<2 {
			t.Errorf("%d bytes, %s, traffic class %d", len(b), &f, h.TrafficClass)
		}
		pseudo := packet.Checksum(b[12:20], packet.ProtoUDP+uint16(len(b)-20))
		if sum := packet.Checksum(b[20:], pseudo); sum != 0xffff {
			t.Errorf("UDP checksum: %#x", sum)
		}
		rtp := b[28:]
		if rtp[0] != 0x80 || rtp[1] != 0 || binary.BigEndian.Uint16(rtp[2:]) != 70000-65536 ||
			binary.BigEndian.Uint32(rtp[4:]) != 70000*160 || binary.BigEndian.Uint32(rtp[8:]) != 4 {
			t.Errorf("RTP header % x", rtp[:12])
		}
	}
}

// TestCallReceiverAccountsForEveryPacket: what came, what came twice, what is
// none of it, and the delays.
func TestCallReceiverAccountsForEveryPacket(t *testing.T) {
	load := &callLoad{calls: 2, peers: 1, packets: 60, run: 7}
	r := &callReceiver{load: load, seen: make([]uint64, 2), jitter: make([]jitter, 2)}
	b := load.packetOf(1, netip.MustParseAddr("10.1.0.10"), true)
	for k := range 60 {
		if k == 30 {
			continue // lost
		}
		stampCall(b, k, int64(k)*1000)
		r.arrived(b[28:], int64(k)*1000+500)
	}
	r.arrived(b[28:], 99999) // again
	r.arrived(b[28:100], 1)  // too short
	stampCall(b, 60, 0)      // beyond the last
	r.arrived(b[28:], 1)     //
	other := load.packetOf(2, netip.MustParseAddr("10.1.0.10"), true)
	r.arrived(other[28:], 1) // no such call
	load.run = 8
	stampCall(b, 30, 0)
	r.arrived(b[28:], 1) // of another run
	if r.delivered != 59 || r.duplicated != 1 || r.foreign != 4 || len(r.delays) != 59 || len(r.jitters) != 1 {
		t.Errorf("delivered %d, duplicated %d, foreign %d, delays %d, jitters %v", r.delivered, r.duplicated, r.foreign, len(r.delays), r.jitters)
	}
	for _, d := range r.delays {
		if d != 500 {
			t.Errorf("a delay of %d ns", d)
		}
	}
}

func TestKernelTimeReadsOnlyTimes(t *testing.T) {
	oob := make([]byte, unix.CmsgSpace(16))
	binary.NativeEndian.PutUint64(oob, uint64(unix.CmsgLen(16)))
	binary.NativeEndian.PutUint32(oob[8:], unix.SOL_SOCKET)
	binary.NativeEndian.PutUint32(oob[12:], unix.SO_TIMESTAMPNS)
	binary.NativeEndian.PutUint64(oob[16:], 3)
	binary.NativeEndian.PutUint64(oob[24:], 14)
	if at, ok := kernelTime(oob); !ok || at != 3_000_000_014 {
		t.Errorf("got %d, %v", at, ok)
	}
	for _, broken := range [][]byte{nil, oob[:24], append([]byte{0, 0, 0, 0, 0, 0, 0, 0, 0}, oob...)} {
		if at, ok := kernelTime(broken); ok {
			t.Errorf("% x: got %d", broken, at)
		}
	}
}

// TestPlanBandwidthIsThatOfTheSuite: RFC 4303 2 by hand: SPI and number 8, IV,
// text with padding and the two bytes behind it, ICV; and UDP 8, IPv4 20.
func TestPlanBandwidthIsThatOfTheSuite(t *testing.T) {
	for name, want := range map[string]int{
		"aes128gcm16":      20 + 8 + 8 + 8 + 204 + 16,
		"chacha20poly1305": 20 + 8 + 8 + 8 + 204 + 16,
		"aes128-sha256":    20 + 8 + 8 + 16 + 208 + 16,
		"aes128gcm8":       20 + 8 + 8 + 8 + 204 + 8,
	} {
		suite, err := esp.ParseSuite(name)
		if err != nil {
			t.Fatal(err)
		}
		b := bandwidthOf(suite, 10)
		if b.OuterBytes != want || b.InnerBytes != 200 || b.InnerKbit != 80 || !near(b.OuterKbit, float64(want)*0.4) || !near(b.OuterMbit, b.OuterKbit/100) {
			t.Errorf("%s: %+v, want %d bytes", name, b, want)
		}
	}
}

func TestPercentile(t *testing.T) {
	sorted := make([]uint32, 1000)
	for i := range sorted {
		sorted[i] = uint32(i)
	}
	for share, want := range map[float64]float64{0: 0, 0.5: 500, 0.99: 990, 1: 999} {
		if got := percentile(sorted, share); got != want {
			t.Errorf("%v: %v, want %v", share, got, want)
		}
	}
	if got := percentile([]float64(nil), 0.5); got != 0 {
		t.Errorf("of nothing: %v", got)
	}
}

// TestPlanFigures: loads, processor time for a packet and a call, and the
// capacity that follows.
func TestPlanFigures(t *testing.T) {
	c := callResult{took: 2 * time.Second, offered: 2000, delivered: 1990, delays: []uint32{1000, 2000, 3000}, jitters: []float64{500},
		late: []uint32{9000}, gatewayCPU: [2]time.Duration{20 * time.Millisecond, 10 * time.Millisecond}, generator: 300 * time.Millisecond}
	p := planRunOf(10, []callResult{c})
	for name, pair := range map[string][2]float64{
		"offered": {p.Offered.Median, 1000}, "delivered": {p.Delivered.Median, 995}, "loss": {p.Loss.Median, 0.5},
		"delay": {p.DelayMedian.Median, 2}, "p99": {p.DelayP99.Median, 3}, "jitter": {p.JitterMedian.Median, 0.5}, "late": {p.LateP99.Median, 9},
		"A": {p.GatewayA.Median, 1}, "B": {p.GatewayB.Median, 0.5}, "CPU": {p.CPU.Median, 20000.0 / 1990}, "call": {p.PerCall.Median, 2000000.0 / 1990},
		"generator": {p.Generator.Median, 15},
	} {
		if !near(pair[0], pair[1]) {
			t.Errorf("%s: %v, want %v", name, pair[0], pair[1])
		}
	}
	var capacity PlanCapacity
	capacity.take(&p, 70)
	if capacity.Calls != 696 || capacity.MeasuredAt != 10 || capacity.Carried != 0 { // 0.7 s by 1.005 ms; half a percent is lost
		t.Errorf("%+v", capacity)
	}
	added := p.less(PlanDelays{DelayMedian: Summarize([]float64{0.5}), DelayP99: Summarize([]float64{1}), JitterMedian: Summarize([]float64{1}), JitterP99: Summarize([]float64{0})})
	if added.DelayMedian.Median != 1.5 || added.DelayP99.Median != 2 || added.JitterMedian.Median != -0.5 || added.JitterP99.Median != 0.5 {
		t.Errorf("added %+v", added)
	}
}

// TestPlanConfigsMirrorEachOther: what the gateways are started with is valid,
// one file the other's mirror, with a pair and a policy for each peer.
func TestPlanConfigsMirrorEachOther(t *testing.T) {
	suite, err := esp.ParseSuite("aes128-sha256")
	if err != nil {
		t.Fatal(err)
	}
	n := &Namespaces{dir: t.TempDir(), net: &netlab.Topology{
		A: netlab.Side{LAN4: netip.MustParsePrefix("10.1.0.0/24"), Outside4: netip.MustParseAddr("192.0.2.1")},
		B: netlab.Side{LAN4: netip.MustParsePrefix("10.2.0.0/24"), Outside4: netip.MustParseAddr("198.51.100.1")},
	}}
	const peers = 300
	var sides [2]*config.Config
	a, b := n.planConfigs(suite, peers)
	for i, text := range []string{a, b} {
		if sides[i], err = config.Parse("plan.yaml", []byte(text)); err != nil {
			t.Fatal(err)
		}
		if len(sides[i].Peers) != peers || len(sides[i].Policies) != peers {
			t.Errorf("%d peers, %d policies", len(sides[i].Peers), len(sides[i].Policies))
		}
	}
	for _, d := range config.Mirror(sides[0], sides[1]) {
		t.Errorf("not mirrored: %+v", d)
	}
}

// TestRootPlanCarriesCalls: calls over a few peers arrive whole, with figures
// for everything, and nothing is left.
func TestRootPlanCarriesCalls(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Fatal("needs root: run the unprivileged tier with -skip Root")
	}
	suite, err := esp.ParseSuite("aes128gcm16")
	if err != nil {
		t.Fatal(err)
	}
	for name, binary := range map[string]string{"clear": "", "tunnel": buildGateway(t)} {
		t.Run(name, func(t *testing.T) {
			n, err := planNamespaces(t.Context(), binary, suite, 3)
			if err != nil {
				t.Fatal(err)
			}
			c, err := n.calls(t.Context(), &callLoad{calls: 20, peers: 3, packets: 50})
			if err != nil || c.offered != 2000 || c.delivered != 2000 || c.duplicated != 0 || len(c.delays) != 2000 || len(c.jitters) != 40 ||
				(c.gatewayCPU[0] > 0) != (binary != "") || (c.gatewayCPU[1] > 0) != (binary != "") || c.generator <= 0 {
				t.Errorf("%v: %s, %d delays, %d jitters, gateways %v", err, c.line(), len(c.delays), len(c.jitters), c.gatewayCPU)
			}
			if binary != "" {
				asked := errors.New("asked to end")
				ctx, cancel := context.WithCancelCause(t.Context())
				time.AfterFunc(100*time.Millisecond, func() { cancel(asked) })
				began := time.Now()
				if _, err := n.calls(ctx, &callLoad{calls: 20, peers: 3, packets: 50 * 60}); !errors.Is(err, asked) || time.Since(began) > 30*time.Second {
					t.Errorf("an interrupted run: %v after %v", err, time.Since(began))
				}
			}
			dir := n.dir
			if err := n.Close(); err != nil {
				t.Errorf("close: %v", err)
			}
			if _, err := os.Stat(dir); dir != "" && !errors.Is(err, os.ErrNotExist) {
				t.Errorf("%s is left: %v", dir, err)
			}
		})
	}
}

func TestPlanOptionsCheck(t *testing.T) {
	good := PlanOptions{Suite: "aes128gcm16", Peers: 10, Calls: 100, Load: 70, Duration: 10 * time.Second}
	if err := good.Check(); err != nil {
		t.Error(err)
	}
	for want, change := range map[string]func(o *PlanOptions){
		"0 peers: write a number from 1 to 2000":      func(o *PlanOptions) { o.Peers = 0 },
		"20001 calls: write a number from 1 to 20000": func(o *PlanOptions) { o.Calls = 20001 },
		"a load of 101 percent":                       func(o *PlanOptions) { o.Load = 101 },
		"0.5 seconds: write a number from 1 to 600":   func(o *PlanOptions) { o.Duration = time.Second / 2 },
		"fewer calls, or fewer seconds":               func(o *PlanOptions) { o.Calls, o.Duration = 20000, time.Minute },
		"des":                                         func(o *PlanOptions) { o.Suite = "des" },
	} {
		o := good
		change(&o)
		if err := o.Check(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}
