// Package restart holds what a gateway may not do when it is killed: use a
// sequence number, and with it a nonce, a second time.
package restart

import (
	"context"
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/adit-ipsec/adit/internal/netlab"
	"github.com/adit-ipsec/adit/internal/packet"
	"github.com/adit-ipsec/adit/test/gatewaytest"
)

func TestMain(m *testing.M) { os.Exit(gatewaytest.Main(m)) }

// kills is how often the gateway is killed under traffic; fewest is how many packets
// it has sent in all these lives, or the test proves nothing.
const (
	kills  = 100
	fewest = 20 * kills
)

// observer remembers every (SPI, IV) that it saw on the wire. An SPI of the
// test has one key for its whole life, so that a pair seen twice is a nonce
// used twice.
type observer struct {
	seen    map[[12]byte]uint32 // SPI and IV -> sequence number
	numbers map[[8]byte]bool    // SPI and low half of the number
	repeats int
	packets int
}

// see takes one IPv4 packet from the wire that carries ESP in UDP 4500.
func (o *observer) see(t *testing.T, ip []byte) {
	var h packet.Header
	var f packet.Flow
	if packet.Parse(ip, &h, &f) != nil || f.Protocol != packet.ProtoUDP || f.DstPort != 4500 {
		return
	}
	esp := ip[h.PayloadOffset:h.TotalLen]
	if len(esp) < 16 || binary.BigEndian.Uint32(esp) != gatewaytest.SPIAtoB {
		return
	}
	o.packets++
	pair := [12]byte(append(append([]byte{}, esp[:4]...), esp[8:16]...))
	number := [8]byte(esp[:8])
	seq := binary.BigEndian.Uint32(esp[4:])
	if before, twice := o.seen[pair]; twice || o.numbers[number] {
		o.repeats++
		if o.repeats <= 5 {
			t.Errorf("SPI %x IV %x twice on the wire: sequence numbers %d and %d", esp[:4], esp[8:16], before, seq)
		}
	}
	o.seen[pair], o.numbers[number] = seq, true
}

// sends waits until B has taken n more packets from A.
func sends(t *testing.T, p *gatewaytest.Pair, n uint64) {
	t.Helper()
	before := p.GatewayB.Counters()["InPackets"]
	for deadline := time.Now().Add(20 * time.Second); p.GatewayB.Counters()["InPackets"]-before < n; {
		if time.Now().After(deadline) {
			t.Fatalf("the gateway that was started again has not sent %d packets in 20 s", n)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func TestRootKill100TimesUnderTrafficNeverRepeatsANonce(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: namespaces")
	}
	p := gatewaytest.NewPair(t, gatewaytest.Options{Suite: "aes128gcm16"})
	p.Start()
	wire, err := p.Router.Capture(netlab.CaptureOptions{Iface: p.A.RouterIface, Keep: 1 << 30})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = wire.Close() }()

	stop := make(chan struct{})
	var traffic sync.WaitGroup
	conn, err := p.A.Host.ListenPacket(netip.AddrPortFrom(p.A.Host4, 0))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	traffic.Go(func() {
		to := netip.AddrPortFrom(p.B.Host4, 9)
		tick := time.NewTicker(500 * time.Microsecond)
		defer tick.Stop()
		for {
			select {
			case <-stop:
				return
			case <-tick.C: // refused sends while there is no route are part of it
				_, _ = conn.WriteToUDPAddrPort(make([]byte, 64), to)
			}
		}
	})
	random := rand.New(rand.NewPCG(1, uint64(time.Now().UnixNano())))
	for i := range kills {
		// Some kills hit a gateway in the middle of its start: in the middle of a
		// reservation, of routes, of the first packets. The others hit one that
		// has sent some, however slow the machine is.
		if i%2 == 0 {
			time.Sleep(time.Duration(random.IntN(200)) * time.Millisecond)
		} else {
			sends(t, p, 2*fewest/kills)
		}
		p.GatewayA.Kill()
		p.GatewayA.Launch()
	}
	p.GatewayA.Kill()
	p.GatewayA.Start()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	ping, err := netlab.Ping(ctx, p.A.Host, netlab.PingOptions{Dst: p.B.Host4, Count: 5})
	if err != nil || ping.Lost() != 0 {
		t.Errorf("after %d kills: ping: %s, %v", kills, ping, err)
	}
	close(stop)
	traffic.Wait()

	o := observer{seen: map[[12]byte]uint32{}, numbers: map[[8]byte]bool{}}
	for _, ip := range wire.IPPackets() {
		o.see(t, ip)
	}
	s := wire.Summary()
	t.Logf("%d kills, %d packets of A on the wire, %d distinct nonces, %d repeated; wire: %s", kills, o.packets, len(o.seen), o.repeats, s)
	if o.packets < fewest {
		t.Errorf("the observer saw %d packets only: too few to prove anything", o.packets)
	}
	if o.repeats != 0 {
		t.Errorf("nonces used twice: expected 0, saw %d", o.repeats)
	}
	if s.Dropped != 0 || uint64(s.Kept) != s.Total() {
		t.Errorf("the observer missed packets: %s", s)
	}
}
