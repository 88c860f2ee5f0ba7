package natt

import (
	"net"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"
)

// TestRFC3948_2_1_ZeroUDPChecksumIsReceived: "receivers MUST NOT depend upon the
// UDP checksum being a zero value", and over IPv4 must take one that is (RFC 768).
// Datagrams too short for anything arrive all the same, for Classify to judge.
func TestRFC3948_2_1_ZeroUDPChecksumIsReceived(t *testing.T) {
	for _, address := range []netip.Addr{{}, loop4} {
		c := listen(t, Config{Address: address})
		from, err := net.DialUDP("udp4", nil, net.UDPAddrFromAddrPort(c.at(loop4)))
		if err != nil {
			t.Fatal(err)
		}
		defer from.Close()
		raw, err := from.SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		for _, off := range []int{0, 1} {
			if e := raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_NO_CHECK, off) }); e != nil || err != nil {
				t.Fatal(e, err)
			}
			for _, d := range []struct {
				payload []byte
				want    Kind
			}{
				{[]byte{0, 0, 0x10, 1, 0, 0, 0, 1, 9, 9}, ESP},
				{[]byte{0xff}, Keepalive},
				{make([]byte, NonESPMarkerLen+IKEHeaderLen), IKE},
				{[]byte{1, 2, 3}, Malformed}, {[]byte{1, 2}, Malformed}, {[]byte{1}, Malformed}, {nil, Malformed},
			} {
				if _, err := from.Write(d.payload); err != nil {
					t.Fatal(err)
				}
				got := receive(t, c, 1)[0]
				if string(got.Bytes()) != string(d.payload) || Classify(got.Bytes()) != d.want {
					t.Errorf("listening on %v, no checksum %d: sent %x, a %s, received %x, a %s", address, off, d.payload, d.want, got.Bytes(), Classify(got.Bytes()))
				}
			}
		}
	}
}
