package netlab

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/adit-ipsec/adit/internal/pcap"
	"golang.org/x/sys/unix"
)

// CaptureOptions say what to record.
type CaptureOptions struct {
	Iface string
	// File receives every packet as pcapng, mode 0600; "": none.
	File string
	// Keep bounds the packets held in memory, in bytes; 0: 64 MiB; negative:
	// none. Beyond it packets are still counted, searched for the marker and
	// written to the file.
	Keep int
	// Marker is searched for in every packet.
	Marker []byte
	// NATTPort is the UDP port that carries ESP and IKE; 0: 4500.
	NATTPort uint16
}

// Capture records what an interface sends and receives, at link level, until it
// is closed. Its methods first take in whatever the interface saw before the
// call: a packet that has reached an application has been recorded.
type Capture struct {
	o    CaptureOptions
	link pcap.LinkType
	file *os.File // the packet socket
	raw  syscall.RawConn
	gone chan struct{} // closed when the reader has ended

	mu      sync.Mutex // guards what follows
	buf     []byte
	oob     []byte
	out     *pcap.Writer
	kept    []pcap.Packet
	bytes   int
	sorter  sorter
	dropped uint64
	marked  uint64
	err     error
	closed  bool
}

const (
	defaultKeep   = 64 << 20
	captureBuffer = 64 << 20      // of the socket, bytes
	maxFrame      = 1<<16 + 1<<10 // a superpacket with its link header
)

// Capture starts recording at one of the node's interfaces.
func (n *Node) Capture(o CaptureOptions) (*Capture, error) {
	if o.Keep == 0 {
		o.Keep = defaultKeep
	}
	if o.NATTPort == 0 {
		o.NATTPort = 4500
	}
	c := &Capture{o: o, buf: make([]byte, maxFrame), oob: make([]byte, 256), gone: make(chan struct{})}
	c.sorter.natt = o.NATTPort
	if err := c.open(n); err != nil {
		return nil, fmt.Errorf("netlab: %s: capture %s: %w", n.name, o.Iface, err)
	}
	go c.read()
	return c, nil
}

func (c *Capture) open(n *Node) error {
	link, err := n.nl.LinkByName(c.o.Iface)
	if err != nil {
		return err
	}
	// Ethernet and loopback have a link header, a TUN has none.
	c.link = pcap.RawIP
	if t := link.Attrs().EncapType; t == "ether" || t == "loopback" {
		c.link = pcap.Ethernet
	}
	fd := -1
	err = n.Do(func() error {
		fd, err = packetSocket(link.Attrs().Index)
		return err
	})
	if err != nil {
		return err
	}
	c.file = os.NewFile(uintptr(fd), "capture "+c.o.Iface)
	if c.raw, err = c.file.SyscallConn(); err != nil {
		return errors.Join(err, c.file.Close())
	}
	if c.o.File == "" {
		return nil
	}
	if c.out, err = pcap.Create(c.o.File); err == nil {
		_, err = c.out.AddInterface(pcap.Interface{Name: c.o.Iface, Description: n.name, LinkType: c.link})
	}
	if err != nil {
		return errors.Join(err, c.file.Close())
	}
	return nil
}

// packetSocket opens a packet socket (packet(7)) on one interface: every
// protocol, because a socket for one protocol does not see what is sent.
func packetSocket(ifindex int) (fd int, err error) {
	// Protocol 0 receives nothing until bind: no packet of another
	// interface slips in between.
	fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return -1, err
	}
	all := uint16(unix.ETH_P_ALL)<<8 | uint16(unix.ETH_P_ALL)>>8 // network order
	err = errors.Join(
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, captureBuffer),
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, 1),
		unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: ifindex}))
	if err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// read takes packets in as they come, so that the socket does not overflow.
func (c *Capture) read() {
	defer close(c.gone)
	// The function never says it is done: the runtime calls it each time
	// the socket turns readable, until the socket is closed.
	_ = c.raw.Read(func(fd uintptr) bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.drainLocked(int(fd))
		return false
	})
}

// settleLocked takes in what is in the socket.
func (c *Capture) settleLocked() {
	if !c.closed {
		_ = c.raw.Control(func(fd uintptr) { c.drainLocked(int(fd)) })
	}
}

func (c *Capture) drainLocked(fd int) {
	for {
		n, oobn, flags, from, err := unix.Recvmsg(fd, c.buf, c.oob, unix.MSG_DONTWAIT|unix.MSG_TRUNC)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.EAGAIN):
			c.countDropsLocked(fd)
			return
		case err != nil: // ENETDOWN: the interface went down; it may come back
			if !errors.Is(err, unix.ENETDOWN) && c.err == nil {
				c.err = err
			}
			return
		case flags&unix.MSG_TRUNC != 0 && c.err == nil:
			c.err = fmt.Errorf("frame of %d bytes: cut", n)
		}
		length := n
		p := pcap.Packet{Time: stamp(c.oob[:oobn]), Data: c.buf[:min(n, len(c.buf))], Length: length, Direction: pcap.Received}
		if ll, ok := from.(*unix.SockaddrLinklayer); ok && ll.Pkttype == unix.PACKET_OUTGOING {
			p.Direction = pcap.Sent
		}
		c.takeLocked(p)
	}
}

// countDropsLocked adds what the socket had no room for; reading the counter
// resets it.
func (c *Capture) countDropsLocked(fd int) {
	if s, err := unix.GetsockoptTpacketStats(fd, unix.SOL_PACKET, unix.PACKET_STATISTICS); err == nil {
		c.dropped += uint64(s.Drops)
	}
}

// stamp is the kernel's time of the packet: seconds and nanoseconds, two words
// of the machine's size.
func stamp(oob []byte) time.Time {
	msgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return time.Now()
	}
	for _, m := range msgs {
		if m.Header.Level != unix.SOL_SOCKET || m.Header.Type != unix.SO_TIMESTAMPNS {
			continue
		}
		ne := binary.NativeEndian
		switch len(m.Data) {
		case 16:
			return time.Unix(int64(ne.Uint64(m.Data)), int64(ne.Uint64(m.Data[8:])))
		case 8:
			return time.Unix(int64(ne.Uint32(m.Data)), int64(ne.Uint32(m.Data[4:])))
		}
	}
	return time.Now()
}

func (c *Capture) takeLocked(p pcap.Packet) {
	c.sorter.add(p.Data, c.link)
	if len(c.o.Marker) > 0 && bytes.Contains(p.Data, c.o.Marker) {
		c.marked++
	}
	if c.out != nil {
		if err := c.out.Write(p); err != nil && c.err == nil {
			c.err = err
		}
	}
	if c.bytes+len(p.Data) <= c.o.Keep {
		p.Data = bytes.Clone(p.Data)
		c.bytes += len(p.Data)
		c.kept = append(c.kept, p)
	}
}

// Packets returns the packets held so far, oldest first, link header included
// (see LinkType).
func (c *Capture) Packets() []pcap.Packet {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.settleLocked()
	return append([]pcap.Packet(nil), c.kept...)
}

// IPPackets returns the IP packets held so far, without link header. ARP and
// the like are left out.
func (c *Capture) IPPackets() [][]byte {
	var ips [][]byte
	for _, p := range c.Packets() {
		if ip, ok := ipOf(p.Data, c.link); ok {
			ips = append(ips, ip)
		}
	}
	return ips
}

// LinkType says what a packet starts with.
func (c *Capture) LinkType() pcap.LinkType { return c.link }

// Contains tells whether a packet held in memory contains b. Where Summary says
// that not every packet was held, give the marker in the options instead.
func (c *Capture) Contains(b []byte) bool {
	for _, p := range c.Packets() {
		if bytes.Contains(p.Data, b) {
			return true
		}
	}
	return false
}

// Summary counts what was seen so far.
func (c *Capture) Summary() Summary {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.settleLocked()
	s := c.sorter.summary()
	s.Kept, s.Marked, s.Dropped = len(c.kept), c.marked, c.dropped
	return s
}

// Close takes in what is left, ends the recording and closes the file. What was
// recorded can still be read. The error is the first that spoiled the record.
func (c *Capture) Close() error {
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		<-c.gone
		return nil
	}
	c.settleLocked()
	c.closed = true
	err := c.err
	c.mu.Unlock()
	err = errors.Join(err, c.file.Close())
	<-c.gone
	if c.out != nil {
		err = errors.Join(err, c.out.Close())
	}
	if err != nil {
		return fmt.Errorf("netlab: capture %s: %w", c.o.Iface, err)
	}
	return nil
}
