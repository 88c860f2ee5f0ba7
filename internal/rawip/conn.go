package rawip

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/adit-ipsec/adit/internal/mmsg"
	"github.com/adit-ipsec/adit/internal/packet"
)

// Config says what a Conn receives.
type Config struct {
	Family   int        // 4 or 6
	Protocol int        // IP protocol: 50 (ESP) or 51 (AH)
	Address  netip.Addr // this end's address, of the family; invalid: any
	Mark     uint32     // SO_MARK of every packet sent; 0: none (needs CAP_NET_ADMIN)

	// Whole hands received packets on as whole IP packets, Off at the IP header
	// and Len up to the packet's end, for what looks at the header (AH, RFC
	// 4302, signs it). They are reassembled: no fragment fields and no IPv6
	// fragment header. Every other byte is what the wire had, but for those
	// that a host may change: the kernel writes itself into IPv4's record route
	// and timestamp options. An IPv6 flow label that the kernel does not tell
	// is 0.
	//
	// The headers of an IPv6 packet are made again in front of the payload, in
	// the slot's headroom: with more than 88 bytes of extension headers it is
	// skipped (mmsg.Skips.Headers). Sending is as without Whole: payloads;
	// Clear sends whole packets.
	Whole bool
}

// Conn is a raw IP socket that reads and writes batches of payloads, or reads
// whole packets; the kernel makes the IP headers, fragments and reassembles. Ports are 0. One
// goroutine may read while others write; each direction locks once per batch.
type Conn struct {
	socket *mmsg.Socket
}

// Listen opens the socket. It needs CAP_NET_RAW.
func Listen(cfg Config) (*Conn, error) {
	if err := checkFamily(cfg.Family, cfg.Address); err != nil {
		return nil, err
	}
	if cfg.Protocol < 1 || cfg.Protocol > 254 {
		return nil, fmt.Errorf("rawip: protocol is %d, want 1 to 254", cfg.Protocol)
	}
	s, err := mmsg.ListenRaw(mmsg.Config{Address: cfg.Address, IPv6: cfg.Family == 6, Protocol: cfg.Protocol, Mark: cfg.Mark, Whole: cfg.Whole})
	if err != nil {
		return nil, fmt.Errorf("raw IPv%d socket for protocol %d: %w", cfg.Family, cfg.Protocol, err)
	}
	return &Conn{socket: s}, nil
}

func checkFamily(family int, address netip.Addr) error {
	if family != 4 && family != 6 {
		return fmt.Errorf("rawip: family is %d, want 4 or 6", family)
	}
	if address.IsValid() && address.Unmap().Is6() != (family == 6) {
		return fmt.Errorf("rawip: address %s is not of family %d", address, family)
	}
	return nil
}

// ReadBatch blocks until at least one packet is there, fills Off, Len, Addr,
// Local, TOS and TTL of the first n messages and returns n. Without Whole, the
// IPv4 header with its options lies right in front of Off, from
// packet.Headroom on; of IPv6 headers nothing is there. Slots may change places
// in m. After Close the error is net.ErrClosed; any other is passing.
func (c *Conn) ReadBatch(m []packet.Datagram) (int, error) { return c.socket.ReadBatch(m) }

// WriteBatch sends m in order and returns how many were sent. With an error,
// the packet that failed is m[sent]: count it and go on with m[sent+1:].
func (c *Conn) WriteBatch(m []packet.Datagram) (sent int, err error) { return c.socket.WriteBatch(m) }

// LocalPort is 0: raw IP has no ports.
func (c *Conn) LocalPort() uint16 { return 0 }

// Skipped is how many received packets were not handed on: longer than a slot
// or than their own header says, fragments that the kernel should have
// reassembled, or whole IPv6 packets with too long headers.
func (c *Conn) Skipped() uint64 {
	skips := c.socket.Skips()
	return skips.Truncated + skips.Fragments + skips.Headers
}

// Skips counts received packets that were not handed on.
func (c *Conn) Skips() mmsg.Skips { return c.socket.Skips() }

// Close ends the socket and wakes its readers and writers.
func (c *Conn) Close() error { return c.socket.Close() }

// Clear sends whole IP packets of both families as they are: what policy says
// to bypass, and what AH has signed. It receives nothing. Four IPv4 fields are
// the kernel's all the same: the header checksum, the total length (the
// datagram's), an identification of 0 and a source address of 0. What AH covers
// is therefore final where the identification is not 0. DF, TOS, TTL, options,
// an offset and more fragments to come, and every byte of IPv6, its flow label
// and extension headers, go out as given. A packet above the outgoing link's MTU
// fails with EMSGSIZE, for nobody here fragments it; one that its sender has cut
// into fragments goes out as those fragments.
type Clear struct {
	v4, v6 *mmsg.Socket // v6 is nil where the host has no IPv6
}

// NewClear opens the senders; mark is the SO_MARK of every packet, 0: none. It
// needs CAP_NET_RAW.
func NewClear(mark uint32) (*Clear, error) {
	v4, err := mmsg.OpenClear(false, mark)
	if err != nil {
		return nil, fmt.Errorf("raw IPv4 sender for bypassed packets: %w", err)
	}
	v6, err := mmsg.OpenClear(true, mark)
	if err != nil && !mmsg.NoIPv6(err) {
		v4.Close()
		return nil, fmt.Errorf("raw IPv6 sender for bypassed packets: %w", err)
	}
	return &Clear{v4: v4, v6: v6}, nil
}

// WriteBatch sends the IP packets in m to the destinations that their headers
// name; Addr, Local, TOS and DF are ignored. It returns how many were sent.
// With an error, the packet that failed is m[sent]: count it and go on with
// m[sent+1:].
func (c *Clear) WriteBatch(m []packet.Datagram) (sent int, err error) {
	for sent < len(m) {
		v6 := isIPv6(&m[sent])
		end := sent + 1
		for end < len(m) && isIPv6(&m[end]) == v6 {
			end++
		}
		n, err := c.socket(v6).WriteBatch(m[sent:end])
		sent += n
		if err != nil {
			return sent, err
		}
	}
	return sent, nil
}

// socket is the sender of a family. Without IPv6, its packets go to the IPv4
// sender, which refuses them with EINVAL.
func (c *Clear) socket(v6 bool) *mmsg.Socket {
	if v6 && c.v6 != nil {
		return c.v6
	}
	return c.v4
}

func isIPv6(d *packet.Datagram) bool { return d.Len > 0 && d.Mem[d.Off]>>4 == 6 }

// Close ends the senders.
func (c *Clear) Close() error {
	err := c.v4.Close()
	if c.v6 != nil {
		err = errors.Join(err, c.v6.Close())
	}
	return err
}
