package netlab

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// PingOptions say what to ping and how.
type PingOptions struct {
	Dst      netip.Addr
	Src      netip.Addr    // invalid: the kernel's choice
	Count    int           // 0: 1
	Size     int           // payload bytes behind the 8-byte echo header; 0: 56
	Interval time.Duration // between requests; 0: the next one follows the answer
	Timeout  time.Duration // for each answer; 0: 1 s
	DF       bool          // forbid fragments: a long ping meets the path MTU
	Marker   []byte        // repeated through the payload, so that captures can be searched
}

// PingStats is what came of it.
type PingStats struct {
	Sent, Received, Duplicated int
	Mismatched                 int // answers whose payload was not the request's
	Min, Mean, Max             time.Duration
	Median, P99                time.Duration // the 50th and 99th percentile, by nearest rank
	// LastError is the last error the network or the kernel gave for a
	// request: EMSGSIZE for a path MTU, EHOSTUNREACH, ECONNREFUSED.
	LastError error
}

// Lost is the number of requests without an answer.
func (s PingStats) Lost() int { return s.Sent - s.Received }

// String is the last lines of ping(8).
func (s PingStats) String() string {
	text := fmt.Sprintf("%d sent, %d received, %d duplicated, rtt min/mean/max %v/%v/%v",
		s.Sent, s.Received, s.Duplicated, s.Min, s.Mean, s.Max)
	if s.LastError != nil {
		text += ", last error: " + s.LastError.Error()
	}
	return text
}

// Ping sends ICMP or ICMPv6 echo requests from the node, one at a time. A lost
// answer is no error; what keeps the ping from being sent at all is.
func Ping(ctx context.Context, from *Node, o PingOptions) (PingStats, error) {
	if o.Count == 0 {
		o.Count = 1
	}
	if o.Size == 0 {
		o.Size = 56
	}
	if o.Timeout == 0 {
		o.Timeout = time.Second
	}
	conn, err := from.echoSocket(o)
	if err != nil {
		return PingStats{}, fmt.Errorf("netlab: %s: ping %s: %w", from.name, o.Dst, err)
	}
	defer conn.Close()
	p := pinger{conn: conn, o: o, answered: make(map[uint16]bool)}
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	for seq := range o.Count {
		p.one(uint16(seq))
		if ctx.Err() != nil {
			break
		}
		if o.Interval > 0 && seq+1 < o.Count {
			p.collect(time.Now().Add(o.Interval), -1)
		}
	}
	p.finish()
	return p.stats, context.Cause(ctx)
}

// echoSocket opens a ping socket (icmp(7), IPPROTO_ICMP datagrams): the kernel
// picks the identifier, makes the checksum and delivers only our answers.
func (n *Node) echoSocket(o PingOptions) (conn *net.UDPConn, err error) {
	family, proto := unix.AF_INET, unix.IPPROTO_ICMP
	if o.Dst.Is6() {
		family, proto = unix.AF_INET6, unix.IPPROTO_ICMPV6
	}
	err = n.Do(func() error {
		fd, err := unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, proto)
		if err != nil {
			return err
		}
		f := os.NewFile(uintptr(fd), "ping")
		defer f.Close() // FilePacketConn duplicates it
		if err := echoSocketOptions(fd, o); err != nil {
			return err
		}
		c, err := net.FilePacketConn(f)
		if err != nil {
			return err
		}
		conn = c.(*net.UDPConn)
		return nil
	})
	return conn, err
}

func echoSocketOptions(fd int, o PingOptions) error {
	v6 := o.Dst.Is6()
	if o.DF {
		level, opt, value := unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_DO
		if v6 {
			level, opt, value = unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER, unix.IPV6_PMTUDISC_DO
		}
		if err := unix.SetsockoptInt(fd, level, opt, value); err != nil {
			return err
		}
		if v6 {
			if err := unix.SetsockoptInt(fd, level, unix.IPV6_DONTFRAG, 1); err != nil {
				return err
			}
		}
	}
	// Errors that come back in ICMP are handed to the socket's reader.
	level, opt := unix.IPPROTO_IP, unix.IP_RECVERR
	if v6 {
		level, opt = unix.IPPROTO_IPV6, unix.IPV6_RECVERR
	}
	if err := unix.SetsockoptInt(fd, level, opt, 1); err != nil {
		return err
	}
	if o.Src.IsValid() {
		if v6 {
			return unix.Bind(fd, &unix.SockaddrInet6{Addr: o.Src.As16()})
		}
		return unix.Bind(fd, &unix.SockaddrInet4{Addr: o.Src.As4()})
	}
	return nil
}

type pinger struct {
	conn     *net.UDPConn
	o        PingOptions
	stats    PingStats
	rtts     []time.Duration
	answered map[uint16]bool
}

const echoHeaderLen = 8

// one sends a request and waits for its answer, or the timeout.
func (p *pinger) one(seq uint16) {
	msg := make([]byte, echoHeaderLen+p.o.Size)
	msg[0] = 8 // echo request; the kernel fills in checksum and identifier
	if p.o.Dst.Is6() {
		msg[0] = 128
	}
	binary.BigEndian.PutUint16(msg[6:], seq)
	p.fill(seq, msg[echoHeaderLen:])
	p.stats.Sent++
	_, err := p.conn.WriteToUDPAddrPort(msg, netip.AddrPortFrom(p.o.Dst, 0))
	if err != nil {
		// An ICMP error for an earlier request is reported by the next
		// call of any kind, and that request was then not sent.
		p.stats.LastError = err
		if errors.Is(err, unix.EMSGSIZE) || errors.Is(err, net.ErrClosed) {
			return
		}
		if _, err = p.conn.WriteToUDPAddrPort(msg, netip.AddrPortFrom(p.o.Dst, 0)); err != nil {
			p.stats.LastError = err
			return
		}
	}
	p.collect(time.Now().Add(p.o.Timeout), int(seq))
}

// fill writes the payload of request seq: the time it left, then the marker or
// a pattern.
func (p *pinger) fill(seq uint16, b []byte) {
	fillMarked(b, p.o.Marker, byte(seq))
	if len(b) >= 8 {
		binary.BigEndian.PutUint64(b, uint64(time.Now().UnixNano()))
	}
}

// fillMarked repeats the marker behind the first 8 bytes, or counts up from
// first where there is none.
func fillMarked(b, marker []byte, first byte) {
	for i := range b {
		switch {
		case len(marker) == 0:
			b[i] = first + byte(i)
		case i >= 8:
			b[i] = marker[(i-8)%len(marker)]
		}
	}
}

// collect reads answers until the deadline, or until the one to want is there;
// -1: until the deadline.
func (p *pinger) collect(deadline time.Time, want int) {
	if err := p.conn.SetReadDeadline(deadline); err != nil {
		p.stats.LastError = err
		return
	}
	buf := make([]byte, echoHeaderLen+p.o.Size+1)
	for {
		n, _, err := p.conn.ReadFromUDPAddrPort(buf)
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, net.ErrClosed):
			return
		case err != nil:
			p.stats.LastError = err
			if want >= 0 {
				return // the network refused this request
			}
		default:
			seq, ok := p.answer(buf[:n])
			if ok && int(seq) == want {
				return
			}
		}
	}
}

// answer counts one echo reply.
func (p *pinger) answer(b []byte) (seq uint16, ok bool) {
	if len(b) < echoHeaderLen || (b[0] != 0 && b[0] != 129) {
		return 0, false
	}
	seq = binary.BigEndian.Uint16(b[6:])
	if p.answered[seq] {
		p.stats.Duplicated++
		return seq, false
	}
	p.answered[seq] = true
	p.stats.Received++
	payload := b[echoHeaderLen:]
	want := make([]byte, p.o.Size)
	fillMarked(want, p.o.Marker, byte(seq))
	if len(payload) != p.o.Size || (p.o.Size >= 8 && string(payload[8:]) != string(want[8:])) {
		p.stats.Mismatched++
	}
	if len(payload) >= 8 {
		p.time(time.Since(time.Unix(0, int64(binary.BigEndian.Uint64(payload)))))
	}
	return seq, true
}

func (p *pinger) time(rtt time.Duration) {
	p.rtts = append(p.rtts, rtt)
	p.stats.Max = max(p.stats.Max, rtt)
	if p.stats.Min == 0 || rtt < p.stats.Min {
		p.stats.Min = rtt
	}
}

func (p *pinger) finish() {
	n := len(p.rtts)
	if n == 0 {
		return
	}
	var total time.Duration
	for _, rtt := range p.rtts {
		total += rtt
	}
	slices.Sort(p.rtts)
	p.stats.Mean = total / time.Duration(n)
	p.stats.Median, p.stats.P99 = p.rtts[(n-1)/2], p.rtts[(n*99+99)/100-1]
}
