package oracle

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"net/netip"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"github.com/adit-ipsec/adit/esp"
	"github.com/adit-ipsec/adit/internal/packet"
	"github.com/adit-ipsec/adit/internal/pcap"
	"github.com/adit-ipsec/adit/sad"
	"github.com/adit-ipsec/adit/test/gatewaytest"
)

// tfcBytes is how far the inner packets of these tests are padded.
const tfcBytes = 1300

// newPadding is newOne over IPv4 whose outbound SA pads.
func newPadding(t *testing.T, suite esp.Suite) *one {
	t.Helper()
	o := newOne(t, suite, 4, 0, false)
	enc, integ := suite.KeyLen()
	o.keys[0] = gatewaytest.Keys{Encryption: bytes.Repeat([]byte{0x3c}, enc), Integrity: bytes.Repeat([]byte{0xa5}, integ)}
	o.gw.Remove(sad.ID{Direction: sad.Outbound, SPI: spiOut, Peer: "scapy"})
	if err := o.gw.Install(sad.Params{Direction: sad.Outbound, SPI: spiOut, Peer: "scapy", Suite: suite,
		EncryptionKey: o.keys[0].Encryption, IntegrityKey: o.keys[0].Integrity,
		Remote: netip.MustParseAddrPort("192.0.2.2:4500"), FreshKeys: true, TFC: tfcBytes}); err != nil {
		t.Fatal(err)
	}
	return o
}

// tfcSizes are UDP payloads of the inner packets, the longest ones unpadded.
var tfcSizes = []int{0, 9, 100, 1000, tfcBytes - 48, tfcBytes - 28}

// padded is what an inner packet is sealed as.
func padded(inner []byte) []byte {
	return append(bytes.Clone(inner), make([]byte, max(tfcBytes-len(inner), 0))...)
}

// RFC 4303 2.7: what scapy decrypts is the inner packet and zeros behind it, and
// all packets that fit the TFC length are of one size.
func TestScapyOpensTFCPaddedPackets(t *testing.T) {
	p := newPeer(t, "scapy_peer.py")
	tried := 0
	for _, suite := range esp.Suites() {
		crypt, auth, icv, ok := scapyNames(suite.String())
		if !ok {
			continue
		}
		o := newPadding(t, suite)
		for _, version := range []int{4, 6} {
			for _, size := range tfcSizes {
				tried++
				plain := inner(version, true, size)
				wire := o.outbound(plain)
				if want := suite.SealedLen(max(tfcBytes, len(plain))); len(wire) != want {
					t.Errorf("%s IPv%d size %d: %d bytes on the wire, want %d", suite, version, size, len(wire), want)
				}
				got, err := p.ask(request{Op: "open", Crypt: crypt, Auth: auth, ICV: icv, Outer: 4, UDP: true,
					SPI: spiOut, Seq: binary.BigEndian.Uint32(wire[4:]), Packet: hex.EncodeToString(wire),
					Key: hex.EncodeToString(o.keys[0].Encryption), AuthKey: hex.EncodeToString(o.keys[0].Integrity)})
				if err != nil || !bytes.Equal(got, padded(plain)) {
					t.Errorf("%s IPv%d size %d: expected % x, saw % x, %v", suite, version, size, padded(plain), got, err)
				}
			}
		}
		o.close()
	}
	if tried < 200 {
		t.Errorf("only %d packets were tried", tried)
	}
}

// The same by tshark: ICVs right where it can tell, the inner packet, zeros.
func TestTsharkDecryptsTFCPaddedPackets(t *testing.T) {
	for name := range tsharkNames {
		suite, err := esp.ParseSuite(name)
		if err != nil {
			t.Fatal(err)
		}
		o := newPadding(t, suite)
		file := filepath.Join(t.TempDir(), "wire.pcapng")
		capture, err := pcap.Create(file)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := capture.AddInterface(pcap.Interface{Name: "wire", LinkType: pcap.RawIP}); err != nil {
			t.Fatal(err)
		}
		var plain [][]byte
		for _, version := range []int{4, 6} {
			for _, size := range tfcSizes {
				plain = append(plain, inner(version, true, size))
				if err := capture.Write(pcap.Packet{Time: time.Unix(1, 0), Data: inUDP(o.outbound(plain[len(plain)-1]))}); err != nil {
					t.Fatal(err)
				}
			}
		}
		if err := capture.Close(); err != nil {
			t.Fatal(err)
		}
		o.close()
		got := decrypt(t, &gatewaytest.Pair{AtoB: o.keys[0], BtoA: o.keys[1]}, gatewaytest.Options{Suite: name}, file)
		if len(got) != len(plain) {
			t.Fatalf("%s: tshark decrypted %d packets of %d", name, len(got), len(plain))
		}
		for i, want := range plain {
			if !bytes.HasPrefix(got[i], padded(want)) {
				t.Errorf("%s packet %d: expected % x, saw % x", name, i, padded(want), got[i])
			}
		}
	}
}

// inUDP is an IPv4 packet to port 4500 with that payload.
func inUDP(payload []byte) []byte {
	buf := gopacket.NewSerializeBuffer()
	if err := gopacket.SerializeLayers(buf, gopacket.SerializeOptions{FixLengths: true},
		&layers.IPv4{Version: 4, TTL: 64, Protocol: packet.ProtoUDP, SrcIP: []byte{192, 0, 2, 1}, DstIP: []byte{192, 0, 2, 2}},
		&layers.UDP{SrcPort: 4500, DstPort: 4500}, gopacket.Payload(payload)); err != nil {
		panic(err)
	}
	return bytes.Clone(buf.Bytes())
}
