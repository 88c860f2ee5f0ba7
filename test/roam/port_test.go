package roam

import (
	"bytes"
	"fmt"
	"net"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/adit-ipsec/adit/test/gatewaytest"
)

// withoutChecksum makes the socket send UDP with a checksum of zero, over IPv4.
func withoutChecksum(t *testing.T, conn net.Conn) {
	t.Helper()
	raw, err := conn.(*net.UDPConn).SyscallConn()
	check(t, err)
	var failed error
	check(t, raw.Control(func(fd uintptr) { failed = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_NO_CHECK, 1) }))
	check(t, failed)
}

// C-R25: what arrives on UDP 4500 and is no ESP, over IPv4 without a checksum and
// over IPv6: each datagram has its counter, and none of them moves the peer.
func TestRootCR25_WhatArrivesOnPort4500(t *testing.T) {
	for _, v6 := range []bool{false, true} {
		t.Run(fmt.Sprintf("outer6=%v", v6), func(t *testing.T) {
			t.Parallel()
			root(t)
			p := gatewaytest.NewPair(t, gatewaytest.Options{OuterV6: v6})
			p.GatewayB.Start()
			to := p.B.Outside4
			if v6 {
				to = p.B.Outside6
			}
			var conn net.Conn
			check(t, p.A.Gateway.Do(func() (err error) {
				conn, err = net.Dial("udp", netip.AddrPortFrom(to, 4500).String())
				return err
			}))
			defer conn.Close()
			if !v6 {
				withoutChecksum(t, conn)
			}
			where := remoteOf(t, p.GatewayB)
			for _, d := range [][]byte{
				{}, {1}, {1, 2}, {1, 2, 3}, {0, 0, 0, 0}, make([]byte, 31), // InMalformed
				{0xff},           // InKeepalives
				make([]byte, 32), // InNoIKE
				append([]byte{0, 0, 0xad, 0xad}, bytes.Repeat([]byte{1}, 60)...),             // InNoSA
				append([]byte{0, 0, 0x20, 0x01, 0, 0, 0, 1}, bytes.Repeat([]byte{1}, 60)...), // InAuth: A's SPI
			} {
				_, err := conn.Write(d)
				check(t, err)
			}
			waitFor(t, p.GatewayB, "InAuth", 1) // the last of them
			c := p.GatewayB.Counters()
			for name, want := range map[string]uint64{"InMalformed": 6, "InKeepalives": 1, "InNoIKE": 1, "InNoSA": 1, "InAuth": 1, "InPackets": 0, "InPeerMoves": 0, "InPeerElsewhere": 0} {
				if got, known := c[name]; got != want || !known {
					t.Errorf("%s: expected %d, saw %d", name, want, got)
				}
			}
			if got := remoteOf(t, p.GatewayB); got != where {
				t.Errorf("the peer was at %s, and is at %s", where, got)
			}
		})
	}
}
