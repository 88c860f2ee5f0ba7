package netlab

import (
	"context"
	"net"
	"net/netip"
)

// Sockets made inside a node stay in its namespace for life. Addresses are
// literals: a name would be resolved on other threads, outside the node.

// ListenPacket opens a UDP socket in the node. An invalid address: any, of both
// families; port 0: the kernel's choice.
func (n *Node) ListenPacket(addr netip.AddrPort) (conn *net.UDPConn, err error) {
	err = n.Do(func() error {
		conn, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(addr))
		return err
	})
	return conn, err
}

// Listen opens a TCP listener in the node.
func (n *Node) Listen(addr netip.AddrPort) (l *net.TCPListener, err error) {
	err = n.Do(func() error {
		l, err = net.ListenTCP("tcp", net.TCPAddrFromAddrPort(addr))
		return err
	})
	return l, err
}

// Dial connects from the node, as net.Dialer.DialContext does.
func (n *Node) Dial(ctx context.Context, network string, addr netip.AddrPort) (conn net.Conn, err error) {
	err = n.Do(func() error {
		var d net.Dialer
		d.SetMultipathTCP(false)
		conn, err = d.DialContext(ctx, network, addr.String())
		return err
	})
	return conn, err
}
