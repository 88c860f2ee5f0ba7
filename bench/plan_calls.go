package bench

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/adit-ipsec/adit/internal/netlab"
	"github.com/adit-ipsec/adit/internal/packet"
)

// One direction of a G.711 call (RFC 3551 4.5.14, PCMU): 64 kbit/s, a packet
// every 20 ms ("default packetization interval", RFC 3551 4.2), in bytes.
const (
	callInterval = 20 * time.Millisecond
	callRate     = 50 // packets a second
	callVoice    = 64000 / 8 / callRate
	rtpLen       = 12 // RFC 3550 5.1, without CSRC
	udpLen       = 8
	ipv4Len      = 20
	callPacket   = ipv4Len + udpLen + rtpLen + callVoice
)

// 50 packets of 200 bytes a second, as every voice engineer knows it.
const (
	_ = uint(time.Second - callRate*callInterval)
	_ = uint(callRate*callInterval - time.Second)
	_ = uint(callPacket-200) + uint(200-callPacket)
)

// callPort is where both hosts listen; calls differ by the port that they come
// from, and by the peer's address.
const (
	callPort      = 5004
	firstCallPort = 16384
)

// callHosts are the hosts behind the peers: one address each, all at host B.
var callHosts = netip.MustParsePrefix("10.128.0.0/9")

func callHost(peer int) netip.Addr {
	a := callHosts.Addr().As4()
	binary.BigEndian.PutUint32(a[:], binary.BigEndian.Uint32(a[:])+uint32(peer)+1)
	return netip.AddrFrom4(a)
}

// callLoad is calls at once between host A and the hosts behind the peers, by
// turns over the peers.
type callLoad struct {
	calls, peers int
	packets      int // of each call in each direction
	run          uint64
}

// A call's packet behind the RTP header: number in 32 bits, time of sending in
// ns in 64, run in 64. What follows is PCMU silence.
const (
	callNumberAt = ipv4Len + udpLen + rtpLen
	callSentAt   = callNumberAt + 4
	callRunAt    = callSentAt + 8
	pcmuSilence  = 0xff
)

// packetOf is a call's first packet, towards the peer or from it.
func (l *callLoad) packetOf(call int, hostA netip.Addr, forward bool) []byte {
	b := make([]byte, callPacket)
	src, dst := hostA, callHost(call%l.peers)
	if !forward {
		src, dst = dst, src
	}
	b[0], b[8], b[9] = 0x45, 64, packet.ProtoUDP
	b[1] = 46 << 2 // DSCP EF, as voice has it (RFC 4594 4.1)
	binary.BigEndian.PutUint16(b[2:], callPacket)
	copy(b[12:], src.AsSlice())
	copy(b[16:], dst.AsSlice())
	udp := b[ipv4Len:]
	binary.BigEndian.PutUint16(udp, firstCallPort+uint16(call/l.peers))
	binary.BigEndian.PutUint16(udp[2:], callPort)
	binary.BigEndian.PutUint16(udp[4:], callPacket-ipv4Len)
	rtp := udp[udpLen:]
	rtp[0] = 2 << 6 // version 2; payload type 0: PCMU
	binary.BigEndian.PutUint32(rtp[8:], uint32(call))
	for i := callNumberAt; i < len(b); i++ {
		b[i] = pcmuSilence
	}
	binary.BigEndian.PutUint64(b[callRunAt:], l.run)
	return b
}

// stampCall makes b the call's k-th packet, sent now.
func stampCall(b []byte, k int, now int64) {
	rtp := b[ipv4Len+udpLen:]
	binary.BigEndian.PutUint16(rtp[2:], uint16(k))
	binary.BigEndian.PutUint32(rtp[4:], uint32(k*callVoice))
	binary.BigEndian.PutUint32(b[callNumberAt:], uint32(k))
	binary.BigEndian.PutUint64(b[callSentAt:], uint64(now))
	udp := b[ipv4Len:]
	udp[6], udp[7] = 0, 0
	pseudo := packet.Checksum(b[12:20], packet.ProtoUDP+callPacket-ipv4Len)
	if sum := ^packet.Checksum(udp, pseudo); sum != 0 {
		binary.BigEndian.PutUint16(udp[6:], sum)
	} else {
		udp[6], udp[7] = 0xff, 0xff // RFC 768: 0 would say that there is none
	}
}

// callSender sends one direction of all calls.
type callSender struct {
	load    *callLoad
	fd      int // raw socket
	dst     []unix.SockaddrInet4
	packets [][]byte
	phases  []time.Duration // of each call in the interval, ascending

	sent int
	late []uint32 // behind its time, ns, for every packet
}

func (l *callLoad) sender(node *netlab.Node, hostA netip.Addr, forward bool) (*callSender, error) {
	s := &callSender{load: l, fd: -1, late: make([]uint32, 0, l.calls*l.packets)}
	err := node.Do(func() (err error) {
		s.fd, err = unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("bench: raw socket in %s: %w", node.Name(), err)
	}
	// Calls begin whenever people make them: at random within the interval,
	// and alike in every run.
	rng := rand.New(rand.NewPCG(uint64(l.calls), 1))
	for call := range l.calls {
		p := l.packetOf(call, hostA, forward)
		s.packets = append(s.packets, p)
		s.dst = append(s.dst, unix.SockaddrInet4{Addr: [4]byte(p[16:20])})
		s.phases = append(s.phases, time.Duration(rng.Int64N(int64(callInterval))))
	}
	slices.Sort(s.phases)
	return s, nil
}

// send sends everything at its time, counted from start. The thread is its own:
// the runtime's timers are as coarse as a millisecond where nothing else goes on.
func (s *callSender) send(start time.Time, stop *atomic.Bool) error {
	runtime.LockOSThread() // and ends locked: its timer slack goes with it
	if err := unix.Prctl(unix.PR_SET_TIMERSLACK, 1, 0, 0, 0); err != nil {
		return err
	}
	for k := range s.load.packets {
		for call, phase := range s.phases {
			due := time.Duration(k)*callInterval + phase
			for wait := due - time.Since(start); wait > 0; wait = due - time.Since(start) {
				if stop.Load() {
					return nil
				}
				ts := unix.NsecToTimespec(int64(wait))
				_ = unix.ClockNanosleep(unix.CLOCK_MONOTONIC, 0, &ts, nil) // EINTR: it looks at the clock again
			}
			now := time.Now()
			s.late = append(s.late, clampUint32(now.Sub(start)-due))
			stampCall(s.packets[call], k, now.UnixNano())
			if err := unix.Sendto(s.fd, s.packets[call], 0, &s.dst[call]); err != nil {
				if errors.Is(err, unix.ENOBUFS) || errors.Is(err, unix.EINTR) {
					continue // lost before it left: offered, not delivered
				}
				return fmt.Errorf("bench: sending a call's packet: %w", err)
			}
			s.sent++
		}
		if stop.Load() {
			return nil
		}
	}
	return nil
}

func clampUint32(d time.Duration) uint32 {
	return uint32(max(0, min(d, 1<<32-1)))
}

// callReceiver accounts for one direction of all calls.
type callReceiver struct {
	load *callLoad
	conn *net.UDPConn

	delivered, duplicated, foreign int
	delays                         []uint32 // ns
	seen                           []uint64 // a bit for every packet
	jitter                         []jitter // of each call
	jitters                        []float64
}

func (l *callLoad) receiver(node *netlab.Node) (*callReceiver, error) {
	conn, err := node.ListenPacket(netip.AddrPortFrom(netip.IPv4Unspecified(), callPort))
	if err != nil {
		return nil, err
	}
	raw, err := conn.SyscallConn()
	if err == nil {
		e := raw.Control(func(fd uintptr) {
			err = errors.Join(
				unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 64<<20),
				unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, 1))
		})
		err = errors.Join(err, e)
	}
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return &callReceiver{load: l, conn: conn, delays: make([]uint32, 0, l.calls*l.packets),
		seen: make([]uint64, (l.calls*l.packets+63)/64), jitter: make([]jitter, l.calls)}, nil
}

// receive reads until its time is over: a deadline set on the connection.
func (r *callReceiver) receive() error {
	buf, oob := make([]byte, callPacket), make([]byte, 64)
	for {
		n, control, _, _, err := r.conn.ReadMsgUDPAddrPort(buf, oob)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return nil
		}
		if err != nil {
			return err
		}
		arrived, ok := kernelTime(oob[:control])
		if !ok {
			return errors.New("bench: a datagram without the kernel's time")
		}
		r.arrived(buf[:n], arrived)
	}
}

// arrived takes a UDP payload and when the kernel had it, in ns.
func (r *callReceiver) arrived(payload []byte, at int64) {
	const front = ipv4Len + udpLen
	if len(payload) != callPacket-front || binary.BigEndian.Uint64(payload[callRunAt-front:]) != r.load.run {
		r.foreign++
		return
	}
	call, k := int(binary.BigEndian.Uint32(payload[8:])), int(binary.BigEndian.Uint32(payload[callNumberAt-front:]))
	if call >= r.load.calls || k >= r.load.packets {
		r.foreign++
		return
	}
	bit := call*r.load.packets + k
	if r.seen[bit/64]>>(bit%64)&1 == 1 {
		r.duplicated++
		return
	}
	r.seen[bit/64] |= 1 << (bit % 64)
	r.delivered++
	transit := at - int64(binary.BigEndian.Uint64(payload[callSentAt-front:]))
	r.delays = append(r.delays, clampUint32(time.Duration(transit)))
	j := &r.jitter[call]
	j.add(transit)
	if j.packets%callRate == 0 {
		r.jitters = append(r.jitters, j.value)
	}
}

// kernelTime is when the kernel received a datagram (SO_TIMESTAMPNS), in ns.
func kernelTime(oob []byte) (int64, bool) {
	if len(oob) < unix.CmsgSpace(16) || binary.NativeEndian.Uint32(oob[unix.SizeofCmsghdr-8:]) != unix.SOL_SOCKET ||
		binary.NativeEndian.Uint32(oob[unix.SizeofCmsghdr-4:]) != unix.SO_TIMESTAMPNS {
		return 0, false
	}
	data := oob[unix.CmsgLen(0):]
	return int64(binary.NativeEndian.Uint64(data))*1e9 + int64(binary.NativeEndian.Uint64(data[8:])), true
}

// jitter is the interarrival jitter of one stream, in ns.
type jitter struct {
	value   float64
	transit int64 // of the packet before
	packets int
}

// jitterSettled is after how many packets the estimate has forgotten most of
// where it began: its weight is 1/16.
const jitterSettled = 16

// add takes a packet's transit time. RFC 3550 6.4.1: "D(i,j) = (Rj - Ri) - (Sj -
// Si) = (Rj - Sj) - (Ri - Si)", "J(i) = J(i-1) + (|D(i-1,i)| - J(i-1))/16". S is
// when the packet was sent, and not when it should have been: what the generator
// is late is none of the network's jitter.
func (j *jitter) add(transit int64) {
	if j.packets > 0 {
		j.value += (float64(max(transit-j.transit, j.transit-transit)) - j.value) / 16
	}
	j.transit = transit
	j.packets++
}

// callResult is what came of calls, both directions together.
type callResult struct {
	took               time.Duration
	offered, delivered int
	duplicated         int
	delays, late       []uint32  // ns, ascending
	jitters            []float64 // ns, ascending: of every call, once a second
	gatewayCPU         [2]time.Duration
	generator          time.Duration // this process's time, with what the kernel does in its system calls
}

// callQuiet is how long the last packets may be under way.
const callQuiet = 300 * time.Millisecond

// calls carries them for as long as their packets take.
func (n *Namespaces) calls(ctx context.Context, l *callLoad) (result callResult, err error) {
	l.run = rand.Uint64() // tells one run from another
	a, b := &n.net.A, &n.net.B
	var senders []*callSender
	var receivers []*callReceiver
	defer func() {
		for _, s := range senders {
			err = errors.Join(err, unix.Close(s.fd))
		}
		for _, r := range receivers {
			err = errors.Join(err, r.conn.Close())
		}
	}()
	for i, node := range []*netlab.Node{a.Host, b.Host} {
		s, err := l.sender(node, a.Host4, i == 0)
		if err != nil {
			return result, err
		}
		senders = append(senders, s)
		r, err := l.receiver([]*netlab.Node{b.Host, a.Host}[i])
		if err != nil {
			return result, err
		}
		receivers = append(receivers, r)
	}
	before, err := n.callClocks()
	if err != nil {
		return result, err
	}
	if result.took, err = runCalls(ctx, senders, receivers); err != nil {
		return result, err
	}
	after, err := n.callClocks()
	if err != nil {
		return result, err
	}
	result.generator = after[0] - before[0]
	for i := range n.gateways {
		result.gatewayCPU[i] = after[i+1] - before[i+1]
	}
	result.collect(senders, receivers)
	return result, context.Cause(ctx)
}

// runCalls sends and receives until everything has had its time, and returns how
// long was sent.
func runCalls(ctx context.Context, senders []*callSender, receivers []*callReceiver) (time.Duration, error) {
	var stop atomic.Bool
	defer context.AfterFunc(ctx, func() { stop.Store(true) })()
	received := make(chan error, len(receivers))
	for _, r := range receivers {
		go func() { received <- r.receive() }()
	}
	sent := make(chan error, len(senders))
	start := time.Now().Add(50 * time.Millisecond) // the kernel begins to take times a moment after it was asked to
	for _, s := range senders {
		go func() { sent <- s.send(start, &stop) }()
	}
	var errs []error
	for range senders {
		errs = append(errs, <-sent)
	}
	took := time.Since(start)
	for _, r := range receivers {
		errs = append(errs, r.conn.SetReadDeadline(time.Now().Add(callQuiet)))
	}
	for range receivers {
		errs = append(errs, <-received)
	}
	return took, errors.Join(errs...)
}

// callClocks is the processor time of this process and of each gateway.
func (n *Namespaces) callClocks() ([]time.Duration, error) {
	pids := []int{os.Getpid()}
	for _, g := range n.gateways {
		pids = append(pids, g.Pid())
	}
	var clocks []time.Duration
	for _, pid := range pids {
		used, err := processTime(pid)
		if err != nil {
			return nil, fmt.Errorf("bench: processor time of pid %d: %w", pid, err)
		}
		clocks = append(clocks, used)
	}
	return clocks, nil
}

func (c *callResult) collect(senders []*callSender, receivers []*callReceiver) {
	for _, s := range senders {
		c.offered += len(s.late)
		c.late = append(c.late, s.late...)
	}
	for _, r := range receivers {
		c.delivered += r.delivered
		c.duplicated += r.duplicated
		c.delays = append(c.delays, r.delays...)
		c.jitters = append(c.jitters, r.jitters...)
		for i := range r.jitter { // what lost a packet of its last second
			if j := &r.jitter[i]; j.packets%callRate >= jitterSettled {
				c.jitters = append(c.jitters, j.value)
			}
		}
	}
	slices.Sort(c.late)
	slices.Sort(c.delays)
	slices.Sort(c.jitters)
}

// percentile is the value below which a share of sorted lies; 0 of none.
func percentile[T uint32 | float64](sorted []T, share float64) float64 {
	if len(sorted) == 0 {
		return 0
	}
	return float64(sorted[min(len(sorted)-1, int(share*float64(len(sorted))))])
}
