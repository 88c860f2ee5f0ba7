package ikeload

import (
	"crypto/rand"
	"encoding/binary"
	"fmt"
	mathrand "math/rand/v2"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/adit-ipsec/adit/ike/proposal"
	"github.com/adit-ipsec/adit/ike/wire"
	"github.com/adit-ipsec/adit/internal/netlab"
	"github.com/adit-ipsec/adit/test/gatewaytest"
)

// floodRate is how many spoofed IKE_SA_INIT a second are sent, if a core can.
const floodRate = 20_000

// maxGrowth is how much the gateway may grow under it, in bytes.
const maxGrowth = 16 << 20

// flood is what TestRootFloodOfStrangers measures.
type flood struct {
	Seconds    float64   `json:"seconds"`
	Sent       uint64    `json:"ike_sa_init_sent"`
	PerSecond  float64   `json:"sent_per_second"`
	BytesIn    uint64    `json:"bytes_in"`
	BytesOut   uint64    `json:"bytes_out"`
	Received   uint64    `json:"messages_taken"`
	Cookies    uint64    `json:"cookies_demanded"`
	Lost       [2]int    `json:"lost_in_the_tunnel"`
	Connects   []float64 `json:"genuine_peer_connects_ms"`
	Grown      int       `json:"memory_grown_bytes"`
	LostBefore [2]int    `json:"sent_in_the_tunnel"`
}

// 20,000 first messages a second from invented addresses: a tunnel loses nothing, a
// genuine peer gets in, the gateway stays small, and it says no more than it is told.
func TestRootFloodOfStrangers(t *testing.T) {
	ctx := root(t, 4*time.Minute, 10*time.Minute)
	during := scaled(2*time.Second, 30*time.Second)
	p := newPair(t, gatewaytest.IKEOptions{IKE: "dpd: off"})
	third := newThird(t, p)
	p.start()
	third.start()
	p.first(ctx, t)
	check(t, p.Router.NFT(fmt.Sprintf(`table ip flood {
 counter in { }
 counter out { }
 chain o { type filter hook output priority 0; policy accept;
  oifname %[1]q udp dport 500 ip saddr 10.128.0.0/9 counter name in
 }
 chain p { type filter hook prerouting priority -300; policy accept;
  iifname %[1]q ip daddr 10.128.0.0/9 counter name out drop
 }
}
`, p.A.RouterIface)))
	load := p.bothWays(ctx, maxDatagrams, scaled(200, 1000))
	connect := func(limit time.Duration) (time.Duration, bool) {
		check(t, third.change(ctx, "initiate", ""))
		began := time.Now()
		ok := eventually(ctx, limit, func() bool { _, ok := third.tunnel(ctx); return ok })
		took := time.Since(began)
		check(t, third.change(ctx, "terminate", ""))
		return took, ok && eventually(ctx, limit, func() bool { return len(third.sas(ctx)) == 0 })
	}
	// What it needs for all of this without a flood is not the flood's.
	for range 20 {
		_, ok := connect(slack)
		if !ok {
			t.Fatalf("a peer does not connect, and there is no flood:\n%s", tail(third.Log(), 20))
		}
	}
	before, memory := p.a.counters(ctx), p.a.memory()
	var r flood
	start := time.Now()
	stop := make(chan struct{})
	sent := make(chan uint64, 1)
	go func() { sent <- spoof(p.Router, p.A.Outside4, stop) }()
	peak := memory
	limit := scaled(20*time.Second, 3*time.Second) // the is 3 s; a shared machine takes longer
	for time.Since(start) < during {
		took, ok := connect(limit)
		if !ok {
			t.Errorf("a genuine peer has not connected in %s:\n%s", limit, tail(third.Log(), 20))
			break
		}
		r.Connects = append(r.Connects, milliseconds(took))
		peak = max(peak, p.a.memory())
		wait(ctx, during/10)
	}
	close(stop)
	r.Sent, r.Seconds = <-sent, time.Since(start).Seconds()
	r.PerSecond = float64(r.Sent) / r.Seconds
	p.intact(ctx, t, load)
	for i, d := range load.results {
		r.Lost[i], r.LostBefore[i] = d.Lost(), d.Sent
	}
	peak = max(peak, p.a.memory())
	now := p.a.counters(ctx)
	r.Received, r.Cookies = now["IKEReceived"]-before["IKEReceived"], now["IKECookieDemanded"]-before["IKECookieDemanded"]
	r.Grown = peak - memory
	r.BytesIn, r.BytesOut = p.counted(t, "in"), p.counted(t, "out")
	figures(t, r)
	if r.Grown >= maxGrowth {
		t.Errorf("the gateway has grown by %d bytes", r.Grown)
	}
	if r.BytesOut > r.BytesIn || r.BytesOut == 0 {
		t.Errorf("bytes: %d in, %d out", r.BytesIn, r.BytesOut)
	}
	if r.Cookies == 0 || r.Sent < 1000 {
		t.Errorf("%d sent, %d cookies demanded: nothing is proved", r.Sent, r.Cookies)
	}
}

// counted is a counter's bytes at the router.
func (p *pair) counted(t *testing.T, name string) (bytes uint64) {
	t.Helper()
	out := must(p.Router.Run("nft", "list", "counter", "ip", "flood", name))(t)
	fields := strings.Fields(out)
	for i := range len(fields) - 1 {
		if fields[i] == "bytes" {
			_, _ = fmt.Sscan(fields[i+1], &bytes)
		}
	}
	return bytes
}

// newThird is one more gateway beyond the router, without a LAN of its own, and a peer
// of A.
func newThird(t *testing.T, p *pair) *end {
	t.Helper()
	node := must(p.Node("gwC"))(t)
	check(t, p.Link(node, netlab.OutsideIface, p.Router, "c0", 0))
	own, router := netip.MustParseAddr("203.0.113.1"), netip.MustParseAddr("203.0.113.254")
	check(t, node.AddAddr(netlab.OutsideIface, netip.PrefixFrom(own, 24)))
	check(t, p.Router.AddAddr("c0", netip.PrefixFrom(router, 24)))
	check(t, node.AddDefault(router))
	secret := gatewaytest.RandomSecret()
	peer := func(name, other, at string) string {
		return fmt.Sprintf("  - name: %[1]s\n    address: %[2]s\n    keying: ike\n    ike: {local_id: %[3]s.example.net, remote_id: %[1]s.example.net, auth: {psk: %[4]q}, dpd: off}\n", other, at, name, secret)
	}
	text := "version: 1\nname: site-c\nstate_dir: $STATE\ncontrol: $CONTROL\n" +
		fmt.Sprintf("listen: {address: %s, outside: [%s]}\n", own, netlab.OutsideIface) +
		"peers:\n" + peer("site-c", "site-a", p.A.Outside4.String()) +
		fmt.Sprintf("policies:\n  - name: lan\n    local: [10.3.0.0/24]\n    remote: [%s]\n    action: protect\n    peer: site-a\n", p.A.LAN4)
	// Whoever comes may be C: each first message could cost a key exchange.
	withC := strings.Replace(p.ConfigA, "policies:\n", peer("site-a", "site-c", "any")+"policies:\n", 1) +
		fmt.Sprintf("  - name: third\n    local: [%s]\n    remote: [10.3.0.0/24]\n    action: protect\n    peer: site-c\n", p.A.LAN4)
	p.GatewayA.Configure(withC)
	return newEnd(t, gatewaytest.New(t, node, text), &netlab.Side{Host: node, Gateway: node}, "site-a")
}

// spoof sends first messages to a gateway from random addresses of 10.128.0.0/9, each
// from another initiator, at floodRate or as fast as it goes. It returns how many.
func spoof(from *netlab.Node, to netip.Addr, stop <-chan struct{}) uint64 {
	fd := -1
	err := from.Do(func() (err error) {
		fd, err = unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
		return err
	})
	if err != nil {
		return 0
	}
	defer func() { _ = unix.Close(fd) }()
	packet, message := spoofed(to)
	address := &unix.SockaddrInet4{Addr: to.As4()}
	random := mathrand.New(mathrand.NewPCG(1, 2))
	var sent atomic.Uint64
	start := time.Now()
	for {
		select {
		case <-stop:
			return sent.Load()
		default:
		}
		if due := uint64(time.Since(start).Seconds() * floodRate); sent.Load() >= due {
			time.Sleep(time.Millisecond) // a rate, not a wait for anything
			continue
		}
		binary.BigEndian.PutUint32(packet[12:], 10<<24|1<<23|random.Uint32N(1<<23))
		binary.BigEndian.PutUint64(message, random.Uint64()|1)
		binary.BigEndian.PutUint64(message[len(message)-8:], random.Uint64()) // of the nonce
		if unix.Sendto(fd, packet, 0, address) == nil {
			sent.Add(1)
		}
	}
}

// spoofed is an IPv4 packet with an IKE_SA_INIT request that a gateway takes, and the
// message in it.
func spoofed(to netip.Addr) (packet, message []byte) {
	p, err := proposal.Parse(wire.ProtocolIKE, "aes128gcm16-prfsha256-x25519", false)
	if err != nil {
		panic(err)
	}
	public, nonce := make([]byte, 32), make([]byte, 32)
	_, _ = rand.Read(public)
	_, _ = rand.Read(nonce)
	h := wire.Header{Initiator: 1, Major: wire.Version, Exchange: wire.IKESAInit, Flags: wire.FlagInitiator}
	message = wire.Append(nil, h, &wire.SA{Proposals: []wire.Proposal{p.Wire(1, nil)}},
		&wire.KE{Method: uint16(proposal.KEX25519), Data: public}, &wire.Nonce{Data: nonce})
	packet = make([]byte, 28, 28+len(message))
	packet[0], packet[8], packet[9] = 0x45, 64, unix.IPPROTO_UDP
	a := to.As4()
	copy(packet[16:], a[:])
	binary.BigEndian.PutUint16(packet[2:], uint16(28+len(message)))
	binary.BigEndian.PutUint16(packet[20:], 500)
	binary.BigEndian.PutUint16(packet[22:], 500)
	binary.BigEndian.PutUint16(packet[24:], uint16(8+len(message))) // no UDP checksum (RFC 768)
	packet = append(packet, message...)
	return packet, packet[28:]
}
