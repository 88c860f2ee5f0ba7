package mtu

import (
	"encoding/binary"
	"net"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"github.com/adit-ipsec/adit/test/gatewaytest"
)

// forge sends from the router to gateway A what a stranger would say who knows
// addresses, ports and perhaps the SPI, and not how far the numbers are.
func forge(t *testing.T, p *gatewaytest.Pair, spi uint32) {
	t.Helper()
	esp := binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(nil, spi), 4_000_000)
	inner := &layers.IPv4{Version: 4, IHL: 5, Length: 1500, Flags: layers.IPv4DontFragment, TTL: 60, Protocol: layers.IPProtocolUDP,
		SrcIP: p.A.Outside4.AsSlice(), DstIP: p.B.Outside4.AsSlice()}
	quoted := gopacket.NewSerializeBuffer()
	if err := gopacket.SerializeLayers(quoted, gopacket.SerializeOptions{}, inner,
		&layers.UDP{SrcPort: 4500, DstPort: 4500, Length: 1480}, gopacket.Payload(append(esp, make([]byte, 32)...))); err != nil {
		t.Fatal(err)
	}
	message := gopacket.NewSerializeBuffer()
	if err := gopacket.SerializeLayers(message, gopacket.SerializeOptions{ComputeChecksums: true},
		&layers.ICMPv4{TypeCode: layers.CreateICMPv4TypeCode(3, 4), Seq: 600}, gopacket.Payload(quoted.Bytes())); err != nil {
		t.Fatal(err)
	}
	err := p.Router.Do(func() error {
		c, err := net.DialIP("ip4:icmp", nil, &net.IPAddr{IP: p.A.Outside4.AsSlice()})
		if err != nil {
			return err
		}
		defer c.Close()
		_, err = c.Write(message.Bytes())
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}
