package mmsg

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/adit-ipsec/adit/internal/packet"
)

// ipv4 is a datagram as a raw socket delivers it: header with options, payload.
func ipv4(options int, fragField uint16, payload string, padding int) []byte {
	headerLen := 20 + options
	b := make([]byte, headerLen, headerLen+len(payload)+padding)
	b = append(b, payload...)
	b[0], b[1] = 0x40|byte(headerLen/4), 0xb9
	binary.BigEndian.PutUint16(b[2:], uint16(len(b)))
	binary.BigEndian.PutUint16(b[6:], fragField)
	copy(b[12:], []byte{192, 0, 2, 1, 192, 0, 2, 2})
	return append(b, make([]byte, padding)...)
}

func TestRawIPv4HeaderIsStripped(t *testing.T) {
	edit := func(b []byte, f func(b []byte)) []byte { f(b); return b }
	tests := []struct {
		name     string
		in       []byte
		want     string
		accepted bool
		skips    Skips
	}{
		{"plain", ipv4(0, 0, "payload", 0), "payload", true, Skips{}},
		{"DF", ipv4(0, 0x4000, "payload", 0), "payload", true, Skips{}},
		{"most options", ipv4(40, 0, "payload", 0), "payload", true, Skips{}},
		{"bytes behind the packet", ipv4(4, 0, "payload", 9), "payload", true, Skips{}},
		{"no payload", ipv4(0, 0, "", 0), "", true, Skips{}},
		{"more fragments", ipv4(0, 0x2000, "payload", 0), "", false, Skips{Fragments: 1}},
		{"last fragment", ipv4(0, 0x0001, "payload", 0), "", false, Skips{Fragments: 1}},
		{"cut header", ipv4(0, 0, "", 0)[:19], "", false, Skips{Truncated: 1}},
		{"header length below 20", edit(ipv4(0, 0, "payload", 0), func(b []byte) { b[0] = 0x44 }), "", false, Skips{Truncated: 1}},
		{"header beyond the total length", edit(ipv4(0, 0, "payload", 0), func(b []byte) { b[0] = 0x4f }), "", false, Skips{Truncated: 1}},
		{"total length beyond the packet", edit(ipv4(0, 0, "payload", 0), func(b []byte) { b[3]++ }), "", false, Skips{Truncated: 1}},
		{"not version 4", edit(ipv4(0, 0, "payload", 0), func(b []byte) { b[0] = 0x65 }), "", false, Skips{Truncated: 1}},
	}
	for _, tt := range tests {
		s := &Socket{kind: kindRaw, ipv4: true}
		d := packet.NewDatagrams(1)[0]
		d.Len = copy(d.Mem[packet.Headroom:], tt.in)
		if got := s.acceptIPv4(&d); got != tt.accepted {
			t.Errorf("%s: accepted = %v, want %v", tt.name, got, tt.accepted)
			continue
		}
		if got := s.Skips(); got != tt.skips {
			t.Errorf("%s: skips = %+v, want %+v", tt.name, got, tt.skips)
		}
		if !tt.accepted {
			continue
		}
		if got := string(d.Bytes()); got != tt.want {
			t.Errorf("%s: payload = %q, want %q", tt.name, got, tt.want)
		}
		if d.Addr != netip.MustParseAddrPort("192.0.2.1:0") || d.Local != netip.MustParseAddr("192.0.2.2") || d.TOS != 0xb9 {
			t.Errorf("%s: from %v to %v, class %#x; want from 192.0.2.1:0 to 192.0.2.2, 0xb9", tt.name, d.Addr, d.Local, d.TOS)
		}
	}
}

// TestControlMessagesRoundTrip writes what is sent and reads it as if received:
// the two forms share addresses' places except in IP_PKTINFO.
func TestControlMessagesRoundTrip(t *testing.T) {
	var c control
	v6 := netip.MustParseAddr("2001:db8::7")
	rest := putTrafficClass(putLocal(c.bytes(), v6), false, 0xb9)
	var d packet.Datagram
	readControl(c.bytes()[:len(c.bytes())-len(rest)], &d, nil)
	if d.Local != v6 || d.TOS != 0xb9 {
		t.Errorf("IPv6: local %v, class %#x; want %v, 0xb9", d.Local, d.TOS, v6)
	}
	c = control{}
	d = packet.Datagram{}
	v4 := netip.MustParseAddr("192.0.2.7")
	rest = putLocal(c.bytes(), v4)
	used := c.bytes()[:len(c.bytes())-len(rest)]
	// The receiver reads ipi_addr, the sender sets ipi_spec_dst.
	data := used[unix.CmsgLen(0):]
	copy(data[8:12], data[4:8])
	readControl(used, &d, nil)
	if d.Local != v4 {
		t.Errorf("IPv4: local %v, want %v", d.Local, v4)
	}
	mapped := netip.AddrFrom16(v4.As16())
	d = packet.Datagram{}
	c = control{}
	readControl(c.bytes()[:len(c.bytes())-len(putLocal(c.bytes(), mapped))], &d, nil)
	if d.Local != v4 {
		t.Errorf("mapped: local %v, want %v", d.Local, v4)
	}
}

// TestControlNeverReadsPastItsEnd cuts a list of messages at every length, and
// sets every length field to nonsense.
func TestControlNeverReadsPastItsEnd(t *testing.T) {
	whole := func() []byte {
		c := new(control)
		return c.bytes()[:len(c.bytes())-len(putTrafficClass(putLocal(c.bytes(), netip.MustParseAddr("2001:db8::7")), true, 1))]
	}
	var d packet.Datagram
	for n := range len(whole()) {
		cut := append([]byte(nil), whole()[:n]...)
		readControl(cut, &d, nil)
	}
	for _, length := range []uint64{0, 1, 15, 16, 17, 41, 1 << 31, 1<<63 - 1, 1<<64 - 1} {
		b := whole()
		binary.NativeEndian.PutUint64(b, length)
		readControl(b, &d, nil)
	}
}

func TestErrorsQueuedByICMPAreKnown(t *testing.T) {
	for _, errno := range []syscall.Errno{unix.ECONNREFUSED, unix.EHOSTUNREACH, unix.ENETUNREACH, unix.EMSGSIZE, unix.EPROTO, unix.EACCES} {
		if !queuedByICMP(errno) {
			t.Errorf("%v stops reading", errno)
		}
	}
	for _, errno := range []syscall.Errno{unix.EBADF, unix.EFAULT, unix.EINVAL, unix.ENOMEM, unix.ENOTSOCK} {
		if queuedByICMP(errno) {
			t.Errorf("%v would be read again for ever", errno)
		}
	}
}

func TestNoIPv6IsToldFromOtherErrors(t *testing.T) {
	for _, errno := range []syscall.Errno{unix.EAFNOSUPPORT, unix.EADDRNOTAVAIL} {
		if !NoIPv6(explain("open socket", errno)) {
			t.Errorf("%v does not fall back to IPv4", errno)
		}
	}
	for _, err := range []error{nil, explain("open socket", unix.EADDRINUSE), explain("open socket", unix.EACCES)} {
		if NoIPv6(err) {
			t.Errorf("%v falls back to IPv4", err)
		}
	}
	if err := explain("set SO_MARK", unix.EPERM); !bytes.Contains([]byte(err.Error()), []byte("CAP_NET_ADMIN")) {
		t.Errorf("%q does not say what is needed", err)
	}
}

// TestAPortThatIsNotToBeHadIsExplained: the one that is taken by a second socket, the
// others by what the kernel says.
func TestAPortThatIsNotToBeHadIsExplained(t *testing.T) {
	local := netip.MustParseAddr("127.0.0.1")
	first, err := ListenUDP(Config{Address: local})
	if err != nil {
		t.Fatal(err)
	}
	defer first.Close()
	_, err = ListenUDP(Config{Address: local, Port: first.LocalPort()})
	if !errors.Is(err, unix.EADDRINUSE) || !strings.Contains(err.Error(), "another program has this port") {
		t.Errorf("a port twice: %v", err)
	}
	_, err = ListenUDP(Config{Address: netip.MustParseAddr("192.0.2.77")})
	if !NoIPv6(err) || !strings.Contains(err.Error(), "no interface of this host has this address") {
		t.Errorf("an address of another host: %v", err)
	}
	if err := explainBind("any address, port 500", unix.EACCES); !strings.Contains(err.Error(), "CAP_NET_BIND_SERVICE") {
		t.Errorf("a port below 1024: %v", err)
	}
}

// TestIPv4AloneWhereThereIsNoIPv6 opens what ListenUDP falls back to.
func TestIPv4AloneWhereThereIsNoIPv6(t *testing.T) {
	s, err := open(Config{}, &Socket{kind: kindUDP, ipv4: true}, unix.SOCK_DGRAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	d := packet.NewDatagrams(1)
	d[0].Addr = netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), s.LocalPort())
	d[0].Local, d[0].TOS, d[0].DF, d[0].Len = netip.MustParseAddr("127.0.0.1"), 3, true, 5
	if n, err := s.WriteBatch(d); n != 1 || err != nil {
		t.Fatalf("WriteBatch = %d, %v; want 1, nil", n, err)
	}
	if n, err := s.ReadBatch(d); n != 1 || err != nil || d[0].TOS != 3 || d[0].Local != netip.MustParseAddr("127.0.0.1") {
		t.Fatalf("ReadBatch = %d, %v, class %d, local %v; want 1, nil, 3, 127.0.0.1", n, err, d[0].TOS, d[0].Local)
	}
}

// TestFillSplitsRunsByDF counts the runs that reach the kernel.
func TestFillSplitsRunsByDF(t *testing.T) {
	s, err := open(Config{}, &Socket{kind: kindUDP, ipv4: true}, unix.SOCK_DGRAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for _, tt := range []struct {
		df   string
		runs string
	}{
		{"0", "1"}, {"000", "3"}, {"0011", "2 2"}, {"0101", "1 1 1 1"}, {"1110", "3 1"},
	} {
		m := packet.NewDatagrams(len(tt.df))
		for i := range m {
			m[i].Addr, m[i].DF, m[i].Len = netip.MustParseAddrPort("127.0.0.1:9"), tt.df[i] == '1', 1
		}
		runs := ""
		for at := (cursor{}); at.index < len(m); {
			at, _ = s.fill(m, at, false)
			runs += fmt.Sprintf(" %d", s.tx.end)
		}
		if runs[1:] != tt.runs {
			t.Errorf("DF %s: runs of %s, want %s", tt.df, runs[1:], tt.runs)
		}
	}
}
