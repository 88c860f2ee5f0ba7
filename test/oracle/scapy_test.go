// Package oracle holds the dataplane to programs that nobody here wrote: scapy
// makes and opens ESP, tshark decrypts what two gateways put on the wire.
package oracle

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/adit-ipsec/adit/dataplane"
	"github.com/adit-ipsec/adit/esp"
	"github.com/adit-ipsec/adit/internal/netsim"
	"github.com/adit-ipsec/adit/internal/packet"
	"github.com/adit-ipsec/adit/internal/tun"
	"github.com/adit-ipsec/adit/sad"
	"github.com/adit-ipsec/adit/spd"
	"github.com/adit-ipsec/adit/test/gatewaytest"
)

func TestMain(m *testing.M) { os.Exit(gatewaytest.Main(m)) }

// python is the interpreter that Debian's python3-scapy is installed for.
const python = "/usr/bin/python3"

// peer is a running scapy_peer.py or plain_peer.py.
type peer struct {
	t   *testing.T
	in  io.WriteCloser
	out *bufio.Reader
}

func newPeer(t *testing.T, script string) *peer {
	t.Helper()
	cmd := exec.Command(python, "-B", script) // -B: no __pycache__
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = in.Close()
		if err := cmd.Wait(); err != nil {
			t.Errorf("%s: %v", script, err)
		}
	})
	return &peer{t, in, bufio.NewReader(out)}
}

// request is one line for a peer: the algorithms by scapy's names, or the suite.
type request struct {
	Op      string  `json:"op"`
	Suite   string  `json:"suite"`
	Crypt   string  `json:"crypt"`
	Key     string  `json:"key"`
	ICV     *int    `json:"icv"`
	Auth    string  `json:"auth"`
	AuthKey string  `json:"auth_key"`
	SPI     uint32  `json:"spi"`
	Seq     uint32  `json:"seq"`
	ESN     *uint32 `json:"esn"`
	Outer   int     `json:"outer"`
	UDP     bool    `json:"udp"`
	Packet  string  `json:"packet"`
}

func (p *peer) ask(r request) ([]byte, error) { return p.answer(r) }

func (p *peer) askWhole(r wholeRequest) ([]byte, error) { return p.answer(r) }

func (p *peer) answer(r any) ([]byte, error) {
	line, err := json.Marshal(r)
	if err != nil {
		return nil, err
	}
	if _, err := p.in.Write(append(line, '\n')); err != nil {
		return nil, err
	}
	text, err := p.out.ReadBytes('\n')
	if err != nil {
		return nil, err
	}
	var answer struct{ Packet, Error string }
	if err := json.Unmarshal(text, &answer); err != nil {
		return nil, err
	}
	if answer.Error != "" {
		return nil, fmt.Errorf("the peer: %s", answer.Error)
	}
	return hex.DecodeString(answer.Packet)
}

// scapyNames translates a suite; ok is false for those that scapy does not know.
func scapyNames(suite string) (crypt, auth string, icv *int, ok bool) {
	cipher, mac, hasMAC := strings.Cut(suite, "-")
	auth = "NULL"
	if hasMAC {
		auth = map[string]string{"sha1": "HMAC-SHA1-96", "sha256": "SHA2-256-128", "sha384": "SHA2-384-192", "sha512": "SHA2-512-256"}[mac]
	}
	switch {
	case suite == "chacha20poly1305":
		return "CHACHA20-POLY1305", auth, nil, true
	case strings.Contains(cipher, "gmac"):
		return "", "", nil, false
	case strings.Contains(cipher, "gcm"): // tags of 16 bytes only
		return "AES-GCM", auth, nil, strings.HasSuffix(cipher, "gcm16")
	case strings.Contains(cipher, "ccm"):
		n := 16
		for _, s := range []int{12, 8} {
			if strings.HasSuffix(cipher, fmt.Sprintf("ccm%d", s)) {
				n = s
			}
		}
		return "AES-CCM", auth, &n, true
	case strings.HasSuffix(cipher, "ctr"):
		return "AES-CTR", auth, nil, true
	case cipher == "null":
		return "NULL", auth, nil, true
	}
	return "AES-CBC", auth, nil, true
}

// esnWorks: scapy 2.5 puts the high half of the number in the wrong place for
// HMAC suites; with combined modes it is right.
func esnWorks(suite esp.Suite) bool {
	_, integrity := suite.KeyLen()
	return integrity == 0
}

// one is a gateway in memory whose peer is the test.
type one struct {
	t    *testing.T
	gw   *dataplane.Gateway
	host *tun.Host
	wire *netsim.Endpoint // the peer's end
	addr netip.AddrPort   // the gateway's
	keys [2]gatewaytest.Keys
}

const (
	spiOut = 0x2001
	spiIn  = 0x1001
)

func newOne(t *testing.T, suite esp.Suite, outer int, start uint64, esn bool) *one {
	t.Helper()
	own, theirs := netip.MustParseAddrPort("192.0.2.1:4500"), netip.MustParseAddrPort("192.0.2.2:4500")
	if outer == 6 {
		own, theirs = netip.MustParseAddrPort("[2001:db8:1::1]:4500"), netip.MustParseAddrPort("[2001:db8:2::2]:4500")
	}
	network := netsim.NewNetwork()
	end, err := network.Endpoint(own)
	if err != nil {
		t.Fatal(err)
	}
	o := &one{t: t, addr: own}
	if o.wire, err = network.Endpoint(theirs); err != nil {
		t.Fatal(err)
	}
	dev, host := tun.NewMemory("mem", 1500)
	o.host = host
	if o.gw, err = dataplane.New(dataplane.Config{TUN: dev, Wire: end, NoProbe: true}); err != nil {
		t.Fatal(err)
	}
	var local, remote []spd.AddrRange
	for _, pair := range [][2]string{{"10.1.0.0/24", "10.2.0.0/24"}, {"2001:db8:a::/64", "2001:db8:b::/64"}} {
		l, err := spd.ParseAddrRange(pair[0])
		if err != nil {
			t.Fatal(err)
		}
		r, err := spd.ParseAddrRange(pair[1])
		if err != nil {
			t.Fatal(err)
		}
		local, remote = append(local, l), append(remote, r)
	}
	table, err := spd.NewTable([]spd.Policy{{Name: "lan", Action: spd.Protect, Peer: "scapy",
		Selector: spd.Selector{Local: local, Remote: remote, Protocol: spd.ProtocolAny}}})
	if err != nil {
		t.Fatal(err)
	}
	o.gw.ApplyPolicy(table)
	for i, d := range []sad.Direction{sad.Outbound, sad.Inbound} {
		enc, integ := suite.KeyLen()
		o.keys[i] = gatewaytest.Keys{Encryption: make([]byte, enc), Integrity: make([]byte, integ)}
		_, _ = rand.Read(o.keys[i].Encryption)
		_, _ = rand.Read(o.keys[i].Integrity)
		p := sad.Params{Direction: d, SPI: []uint32{spiOut, spiIn}[i], Peer: "scapy", Suite: suite,
			EncryptionKey: o.keys[i].Encryption, IntegrityKey: o.keys[i].Integrity,
			ESN: esn, ReplayWindow: 64, Remote: theirs, FreshKeys: start == 0}
		if d == sad.Outbound && start > 0 {
			p.Sequence = &startAt{start}
		}
		if err := o.gw.Install(p); err != nil {
			t.Fatal(err)
		}
	}
	return o
}

// startAt is a sequence store that says how far a key's numbers were used.
type startAt struct{ reserved uint64 }

func (s *startAt) Reserved(sad.KeyID) (uint64, error) { return s.reserved, nil }
func (s *startAt) Reserve(_ sad.KeyID, until uint64) error {
	s.reserved = until
	return nil
}

func (o *one) close() {
	_ = o.gw.Close()
	_ = o.wire.Close()
}

// outbound is the ESP packet that the gateway makes of an inner packet.
func (o *one) outbound(inner []byte) []byte {
	o.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := o.host.Send(ctx, inner); err != nil {
		o.t.Fatal(err)
	}
	grams := packet.NewDatagrams(1)
	if _, err := o.wire.ReadBatch(grams); err != nil {
		o.t.Fatal(err)
	}
	return bytes.Clone(grams[0].Bytes())
}

// inbound is the packet that the gateway makes of an ESP packet.
func (o *one) inbound(sealed []byte) ([]byte, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	d := packet.Datagram{Mem: sealed, Len: len(sealed), Addr: o.addr}
	if _, err := o.wire.WriteBatch([]packet.Datagram{d}); err != nil {
		return nil, err
	}
	got, err := o.host.Receive(ctx)
	if err != nil {
		return nil, fmt.Errorf("%w: drops %v", err, o.gw.Stats().Drops)
	}
	return got, nil
}

// inner is a UDP packet between the two LANs, from A or from B, of the version.
func inner(version int, fromA bool, size int) []byte {
	a, b := netip.MustParseAddr("10.1.0.10"), netip.MustParseAddr("10.2.0.20")
	if version == 6 {
		a, b = netip.MustParseAddr("2001:db8:a::10"), netip.MustParseAddr("2001:db8:b::20")
	}
	if !fromA {
		a, b = b, a
	}
	payload := make([]byte, size)
	for i := range payload {
		payload[i] = byte(i * 7)
	}
	udp := binary.BigEndian.AppendUint16(nil, 4000)
	udp = binary.BigEndian.AppendUint16(udp, 5000)
	udp = binary.BigEndian.AppendUint16(udp, uint16(8+size))
	udp = append(append(udp, 0, 0), payload...)
	var ip []byte
	if version == 4 {
		ip = make([]byte, 20)
		ip[0], ip[1], ip[8], ip[9] = 0x45, 0x2e<<2, 61, packet.ProtoUDP
		binary.BigEndian.PutUint16(ip[2:], uint16(20+len(udp)))
		binary.BigEndian.PutUint16(ip[4:], 0x1234)
		copy(ip[12:], a.AsSlice())
		copy(ip[16:], b.AsSlice())
		binary.BigEndian.PutUint16(ip[10:], ^packet.Checksum(ip, 0))
	} else {
		ip = make([]byte, 40)
		ip[0], ip[6], ip[7] = 0x60, packet.ProtoUDP, 61
		binary.BigEndian.PutUint16(ip[4:], uint16(len(udp)))
		copy(ip[8:], a.AsSlice())
		copy(ip[24:], b.AsSlice())
	}
	whole := append(ip, udp...)
	var h packet.Header
	var f packet.Flow
	if err := packet.Parse(whole, &h, &f); err != nil {
		panic(err)
	}
	sum := ^packet.Checksum(udp, packet.PseudoChecksum(&f, packet.ProtoUDP, len(udp)))
	binary.BigEndian.PutUint16(whole[len(ip)+6:], sum)
	return whole
}

// exchange sends packets of both families and many sizes both ways between a
// gateway with that suite and the peer, and returns how many went each way. r
// holds what names the suite to the peer.
func (p *peer) exchange(suite esp.Suite, esn bool, r request) (tried int) {
	const high, low = 5, 6
	for _, outer := range []int{4, 6} {
		start := uint64(0)
		if esn {
			start = high<<32 | low
		}
		o := newOne(p.t, suite, outer, start, esn)
		r.Outer = outer
		for n, version := range []int{4, 6} {
			r.UDP = n == 0
			for _, size := range []int{0, 1, 2, 3, 100, 1300} {
				tried++
				name := fmt.Sprintf("%s esn=%v outer%d inner%d size %d", suite, esn, outer, version, size)
				p.theirsOpensOurs(name, o, r, esn, high, inner(version, true, size))
				p.oursOpensTheirs(name, o, r, esn, uint32(tried), inner(version, false, size))
				if p.t.Failed() {
					o.close()
					return tried
				}
			}
		}
		o.close()
	}
	return tried
}

func (p *peer) theirsOpensOurs(name string, o *one, r request, esn bool, high uint32, packet []byte) {
	wire := o.outbound(packet)
	r.Op, r.SPI, r.Seq, r.Packet = "open", spiOut, binary.BigEndian.Uint32(wire[4:]), hex.EncodeToString(wire)
	r.Key, r.AuthKey = hex.EncodeToString(o.keys[0].Encryption), hex.EncodeToString(o.keys[0].Integrity)
	if esn {
		r.ESN = &high
	}
	if got, err := p.ask(r); err != nil || !bytes.Equal(got, packet) {
		p.t.Errorf("%s: it opens ours: expected %.100x, saw %.100x, %v", name, packet, got, err)
	}
}

func (p *peer) oursOpensTheirs(name string, o *one, r request, esn bool, seq uint32, packet []byte) {
	r.Op, r.SPI, r.Seq, r.Packet = "seal", spiIn, seq, hex.EncodeToString(packet)
	r.Key, r.AuthKey = hex.EncodeToString(o.keys[1].Encryption), hex.EncodeToString(o.keys[1].Integrity)
	if esn {
		r.ESN = new(uint32)
	}
	sealed, err := p.ask(r)
	if err != nil {
		p.t.Errorf("%s: it seals: %v", name, err)
		return
	}
	if got, err := o.inbound(sealed); err != nil || !bytes.Equal(got, packet) {
		p.t.Errorf("%s: we open its: expected %.100x, saw %.100x, %v", name, packet, got, err)
	}
}

// Every suite that scapy knows, both directions, both inner and outer families,
// with and without ESN: what scapy seals we deliver, what we seal scapy opens.
func TestScapyAgreesInBothDirections(t *testing.T) {
	p := newPeer(t, "scapy_peer.py")
	tried, unknown := 0, []string{}
	for _, suite := range esp.Suites() {
		crypt, auth, icv, ok := scapyNames(suite.String())
		if !ok {
			unknown = append(unknown, suite.String())
			continue
		}
		for _, esn := range []bool{false, true} {
			if !esn || esnWorks(suite) {
				tried += p.exchange(suite, esn, request{Crypt: crypt, Auth: auth, ICV: icv})
			}
		}
	}
	t.Logf("%d packets each way; scapy does not know %v", tried, unknown)
	if tried < 1000 {
		t.Errorf("only %d packets were tried", tried)
	}
}

// The same with a peer made of the RFCs and Python's cryptography: every suite,
// with and without ESN.
func TestPlainPeerAgreesInBothDirections(t *testing.T) {
	p := newPeer(t, "plain_peer.py")
	tried := 0
	for _, suite := range esp.Suites() {
		for _, esn := range []bool{false, true} {
			tried += p.exchange(suite, esn, request{Suite: suite.String()})
		}
	}
	t.Logf("%d packets each way", tried)
	if want := 2 * 24 * len(esp.Suites()); tried != want {
		t.Errorf("packets tried: expected %d, saw %d", want, tried)
	}
}
