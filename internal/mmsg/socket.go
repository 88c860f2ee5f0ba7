package mmsg

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"
)

const (
	// MaxBatch is how many datagrams one system call moves.
	MaxBatch = 128
	// DefaultBuffer is the size asked for each socket buffer, in bytes.
	DefaultBuffer = 7 << 20
)

// Config says where a Socket listens and how it sends.
type Config struct {
	Address  netip.Addr // this end's address; invalid: any
	Port     uint16     // UDP only; 0: the kernel's choice
	Protocol int        // raw IP only
	IPv6     bool       // raw IP only: the family where Address is invalid
	Mark     uint32     // SO_MARK of everything sent; 0: none

	// Socket buffers in bytes; 0: DefaultBuffer.
	ReceiveBuffer, SendBuffer int

	Offload Offload // UDP only

	// Whole hands received packets on as whole IP packets (raw IP only): d.Off
	// is at the IP header. ICMPErrors takes no ICMP messages but the errors
	// that tell about packets of this host (raw IP only; Protocol is the
	// family's ICMP).
	Whole, ICMPErrors bool

	// Share opens one more socket of a port that Socket.Share has opened for
	// others (UDP only).
	Share bool
}

// kind is what a socket's datagrams are.
type kind uint8

const (
	kindUDP   kind = iota // UDP payloads
	kindRaw               // payloads of an IP protocol; the kernel hands IPv4 over with the IP header
	kindClear             // whole IP packets, sent only
)

// Socket is a datagram socket that moves batches. One goroutine may read while
// others write; each direction takes its lock once per batch.
type Socket struct {
	// Immutable after opening.
	kind        kind
	ipv6        bool // AF_INET6
	ipv4        bool // carries IPv4: AF_INET, or dual stack with mapped addresses
	port        uint16
	protocol    uint8 // raw IP only
	whole, icmp bool  // Config's Whole and ICMPErrors
	file        *os.File
	conn        syscall.RawConn

	closed                atomic.Bool
	truncated, fragmented atomic.Uint64
	unbuilt               atomic.Uint64
	offloads              offloads

	rx receiver // guarded by rx.mu
	tx sender   // guarded by tx.mu
}

// Skips counts received datagrams that were not handed on.
type Skips struct {
	Truncated uint64 // longer than the slot, or than its own IP header says
	Fragments uint64 // IPv4 fragments on a raw socket: the kernel should have reassembled them
	Headers   uint64 // whole IPv6 packets whose headers do not fit packet.Headroom, or were not told whole
}

// Skips returns the counters. It takes no lock.
func (s *Socket) Skips() Skips {
	return Skips{Truncated: s.truncated.Load(), Fragments: s.fragmented.Load(), Headers: s.unbuilt.Load()}
}

// ListenUDP opens a UDP socket. With no address it takes both families, or
// IPv4 alone where the host has no IPv6.
func ListenUDP(cfg Config) (*Socket, error) {
	if cfg.Address.IsValid() {
		addr := cfg.Address.Unmap()
		return open(cfg, &Socket{kind: kindUDP, ipv6: addr.Is6(), ipv4: addr.Is4()}, unix.SOCK_DGRAM, 0)
	}
	s, err := open(cfg, &Socket{kind: kindUDP, ipv6: true, ipv4: true}, unix.SOCK_DGRAM, 0)
	if NoIPv6(err) {
		return open(cfg, &Socket{kind: kindUDP, ipv4: true}, unix.SOCK_DGRAM, 0)
	}
	return s, err
}

// NoIPv6 tells whether opening failed because the host has no IPv6.
func NoIPv6(err error) bool {
	return errors.Is(err, unix.EAFNOSUPPORT) || errors.Is(err, unix.EADDRNOTAVAIL) || errors.Is(err, unix.EPROTONOSUPPORT)
}

// ListenRaw opens a raw IP socket of one family and protocol.
func ListenRaw(cfg Config) (*Socket, error) {
	v6 := cfg.IPv6
	if cfg.Address.IsValid() {
		v6 = cfg.Address.Unmap().Is6()
	}
	return open(cfg, &Socket{kind: kindRaw, ipv6: v6, ipv4: !v6, protocol: uint8(cfg.Protocol), whole: cfg.Whole, icmp: cfg.ICMPErrors}, unix.SOCK_RAW, cfg.Protocol)
}

// OpenClear opens a socket that sends whole IP packets of one family.
func OpenClear(ipv6 bool, mark uint32) (*Socket, error) {
	// raw(7): "An IPPROTO_RAW socket is send only"; it implies IP_HDRINCL.
	// The smallest receive buffer bounds what strays into it all the same.
	cfg := Config{Mark: mark, ReceiveBuffer: 1}
	return open(cfg, &Socket{kind: kindClear, ipv6: ipv6, ipv4: !ipv6}, unix.SOCK_RAW, unix.IPPROTO_RAW)
}

func open(cfg Config, s *Socket, typ, protocol int) (*Socket, error) {
	domain := unix.AF_INET
	if s.ipv6 {
		domain = unix.AF_INET6
	}
	fd, err := unix.Socket(domain, typ|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, protocol)
	if err != nil {
		return nil, explain("open socket", err)
	}
	if err := s.setup(fd, cfg); err != nil {
		unix.Close(fd)
		return nil, err
	}
	// A non-blocking descriptor goes into the runtime's poller here, so that
	// Close wakes whoever waits.
	s.file = os.NewFile(uintptr(fd), "adit socket")
	if s.conn, err = s.file.SyscallConn(); err != nil {
		s.file.Close()
		return nil, fmt.Errorf("put socket into the poller: %w", err)
	}
	s.rx.init(s)
	s.tx.init(s)
	return s, nil
}

func (s *Socket) setup(fd int, cfg Config) error {
	if err := s.setOptions(fd, cfg); err != nil {
		return err
	}
	if s.kind == kindClear {
		return nil
	}
	if err := unix.Bind(fd, s.bindAddr(cfg)); err != nil {
		return explainBind(describe(cfg), err)
	}
	bound, err := unix.Getsockname(fd)
	if err != nil {
		return fmt.Errorf("read the socket's own port: %w", err)
	}
	if s.kind == kindUDP {
		switch b := bound.(type) {
		case *unix.SockaddrInet4:
			s.port = uint16(b.Port)
		case *unix.SockaddrInet6:
			s.port = uint16(b.Port)
		}
	}
	return nil
}

func describe(cfg Config) string {
	if cfg.Address.IsValid() {
		return netip.AddrPortFrom(cfg.Address, cfg.Port).String()
	}
	return fmt.Sprintf("any address, port %d", cfg.Port)
}

func (s *Socket) bindAddr(cfg Config) unix.Sockaddr {
	addr := cfg.Address.Unmap()
	if s.ipv6 {
		sa := &unix.SockaddrInet6{Port: int(cfg.Port)}
		if addr.IsValid() {
			sa.Addr = addr.As16()
		}
		return sa
	}
	sa := &unix.SockaddrInet4{Port: int(cfg.Port)}
	if addr.IsValid() {
		sa.Addr = addr.As4()
	}
	return sa
}

func (s *Socket) setOptions(fd int, cfg Config) error {
	set := func(what string, level, option, value int) error {
		if err := unix.SetsockoptInt(fd, level, option, value); err != nil {
			return explain("set "+what, err)
		}
		return nil
	}
	errs := make([]error, 0, 8)
	if cfg.Mark != 0 {
		errs = append(errs, set("SO_MARK", unix.SOL_SOCKET, unix.SO_MARK, int(cfg.Mark)))
	}
	if s.ipv6 && s.kind == kindUDP {
		v6only := 1
		if s.ipv4 {
			v6only = 0
		}
		errs = append(errs, set("IPV6_V6ONLY", unix.SOL_IPV6, unix.IPV6_V6ONLY, v6only))
	}
	if s.ipv6 && s.kind != kindClear {
		// For a mapped IPv4 datagram, IPV6_PKTINFO holds the mapped address.
		errs = append(errs, set("IPV6_RECVPKTINFO", unix.SOL_IPV6, unix.IPV6_RECVPKTINFO, 1),
			set("IPV6_RECVTCLASS", unix.SOL_IPV6, unix.IPV6_RECVTCLASS, 1))
	}
	if s.kind == kindRaw {
		errs = append(errs, s.setRawOptions(fd, set))
	}
	if s.ipv4 && s.kind == kindUDP {
		if !s.ipv6 {
			errs = append(errs, set("IP_PKTINFO", unix.SOL_IP, unix.IP_PKTINFO, 1))
		}
		errs = append(errs, set("IP_RECVTOS", unix.SOL_IP, unix.IP_RECVTOS, 1))
	}
	if cfg.Share {
		errs = append(errs, set("SO_REUSEPORT", unix.SOL_SOCKET, unix.SO_REUSEPORT, 1))
	}
	s.startOffloads(fd, cfg.Offload)
	setBuffer(fd, unix.SO_RCVBUFFORCE, unix.SO_RCVBUF, cfg.ReceiveBuffer)
	setBuffer(fd, unix.SO_SNDBUFFORCE, unix.SO_SNDBUF, cfg.SendBuffer)
	return errors.Join(errs...)
}

// Share lets more sockets of this user have the port; the kernel spreads the
// peers over them. It comes after the bind, so that the first socket's bind has
// told whether another program has the port.
func (s *Socket) Share() error {
	var refused error
	err := s.conn.Control(func(fd uintptr) {
		refused = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1)
	})
	if err != nil {
		return s.pollError(err)
	}
	if refused != nil {
		return explain("set SO_REUSEPORT", refused)
	}
	return nil
}

// setBuffer asks for a buffer of size bytes, past the system's limit where the
// privilege allows it, else up to the limit. A small buffer is slower, not
// wrong, so there is no error.
func setBuffer(fd, force, plain, size int) {
	if size == 0 {
		size = DefaultBuffer
	}
	if unix.SetsockoptInt(fd, unix.SOL_SOCKET, force, size) != nil {
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, plain, size)
	}
}

// explain adds what the operator can do about a refused privilege.
func explain(what string, err error) error {
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) {
		return fmt.Errorf("%s: %w (run as root, or with CAP_NET_ADMIN and CAP_NET_RAW)", what, err)
	}
	return fmt.Errorf("%s: %w", what, err)
}

// explainBind adds what the operator can do about an address or port that is not to be
// had.
func explainBind(at string, err error) error {
	hint := ""
	switch {
	case errors.Is(err, unix.EADDRINUSE):
		hint = " (another program has this port: `ss -lunp` names it; two IKE daemons cannot share port 500)"
	case errors.Is(err, unix.EACCES):
		hint = " (ports below 1024 are for root, or with CAP_NET_BIND_SERVICE)"
	case errors.Is(err, unix.EADDRNOTAVAIL):
		hint = " (no interface of this host has this address)"
	}
	return fmt.Errorf("listen on %s: %w%s", at, err, hint)
}

// LocalPort is the UDP port that the socket is bound to; 0 on raw IP.
func (s *Socket) LocalPort() uint16 { return s.port }

// Close ends the socket, wakes its readers and writers, and returns once they
// have left.
func (s *Socket) Close() error {
	if s.closed.Swap(true) {
		return net.ErrClosed
	}
	return s.file.Close()
}

// pollError is what the poller's err means to callers: once the socket is
// closed there is only one reason.
func (s *Socket) pollError(err error) error {
	if s.closed.Load() {
		return net.ErrClosed
	}
	return err
}

// SetOption sets an integer option of the socket.
func (s *Socket) SetOption(level, option, value int) error {
	var errno error
	err := s.conn.Control(func(fd uintptr) { errno = unix.SetsockoptInt(int(fd), level, option, value) })
	return errors.Join(err, errno)
}

// Option is an integer option of the socket as the kernel holds it.
func (s *Socket) Option(level, option int) (value int, err error) {
	var errno error
	err = s.conn.Control(func(fd uintptr) { value, errno = unix.GetsockoptInt(int(fd), level, option) })
	return value, errors.Join(err, errno)
}

// Queued is how many bytes of the send buffer are in use, bookkeeping
// included (SIOCOUTQ).
func (s *Socket) Queued() (n int, err error) {
	var errno error
	err = s.conn.Control(func(fd uintptr) { n, errno = unix.IoctlGetInt(int(fd), unix.SIOCOUTQ) })
	return n, errors.Join(err, errno)
}
