package netlab

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"runtime"
	"slices"
	"unsafe"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// offloads are the kernel's names (ETH_SS_FEATURES) of what lets a veth carry
// packets that no wire would: superpackets and half-made checksums.
var offloads = []string{
	"tx-checksum-ip-generic", "tx-checksum-sctp",
	"tx-tcp-segmentation", "tx-tcp-ecn-segmentation", "tx-tcp-mangleid-segmentation", "tx-tcp6-segmentation",
	"tx-generic-segmentation", "tx-udp-segmentation", "tx-sctp-segmentation",
	"tx-gre-segmentation", "tx-gre-csum-segmentation", "tx-ipxip4-segmentation", "tx-ipxip6-segmentation",
	"tx-udp_tnl-segmentation", "tx-udp_tnl-csum-segmentation", "tx-gso-list",
	"rx-gro", "rx-gro-list", "rx-udp-gro-forwarding",
}

// OffloadsOff turns transmit checksum and segmentation offload and receive
// coalescing off at an interface: each packet that leaves it is one packet, no
// longer than the MTU, with its checksums made. Packets that come in were made
// by the other end, so captures need it at both.
func (n *Node) OffloadsOff(iface string) error {
	return n.withLink(iface, "turn offloads off", func(netlink.Link) error {
		return n.Do(func() error {
			_, err := setFeatures(iface, offloads, false)
			return err
		})
	})
}

// SetOffload turns features on or off at an interface, by the kernel's names. A
// name that the interface does not have is an error.
func (n *Node) SetOffload(iface string, on bool, names ...string) error {
	return n.withLink(iface, "set offloads", func(netlink.Link) error {
		return n.Do(func() error {
			known, err := setFeatures(iface, names, on)
			if err == nil && known < len(names) {
				err = fmt.Errorf("it has %d of %v", known, names)
			}
			return err
		})
	})
}

// ethtool commands in the layout of linux/ethtool.h.
const (
	ethSSFeatures  = 4
	ethGStringLen  = 32
	ethFeatureBits = 32 // per block of struct ethtool_set_features_block
)

// setFeatures sets each named feature that the interface has, in the thread's
// namespace, and returns how many that were.
func setFeatures(iface string, names []string, on bool) (known int, err error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	defer unix.Close(fd)
	all, err := featureNames(fd, iface)
	if err != nil {
		return 0, err
	}
	blocks := (len(all) + ethFeatureBits - 1) / ethFeatureBits
	// struct ethtool_sfeatures: cmd, size, then {valid, requested} per block.
	cmd := make([]byte, 8+8*blocks)
	binary.NativeEndian.PutUint32(cmd, unix.ETHTOOL_SFEATURES)
	binary.NativeEndian.PutUint32(cmd[4:], uint32(blocks))
	for bit, name := range all {
		if !slices.Contains(names, name) {
			continue
		}
		known++
		at := 8 + 8*(bit/ethFeatureBits)
		mask := uint32(1) << (bit % ethFeatureBits)
		binary.NativeEndian.PutUint32(cmd[at:], binary.NativeEndian.Uint32(cmd[at:])|mask)
		if on {
			binary.NativeEndian.PutUint32(cmd[at+4:], binary.NativeEndian.Uint32(cmd[at+4:])|mask)
		}
	}
	return known, ethtool(fd, iface, cmd)
}

// featureNames returns the kernel's feature strings; the index is the bit.
func featureNames(fd int, iface string) ([]string, error) {
	// struct ethtool_sset_info: cmd, reserved, 64-bit mask, then the length.
	info := make([]byte, 20)
	binary.NativeEndian.PutUint32(info, unix.ETHTOOL_GSSET_INFO)
	binary.NativeEndian.PutUint64(info[8:], 1<<ethSSFeatures)
	if err := ethtool(fd, iface, info); err != nil {
		return nil, err
	}
	count := int(binary.NativeEndian.Uint32(info[16:]))
	// struct ethtool_gstrings: cmd, set, length, strings.
	list := make([]byte, 12+count*ethGStringLen)
	binary.NativeEndian.PutUint32(list, unix.ETHTOOL_GSTRINGS)
	binary.NativeEndian.PutUint32(list[4:], ethSSFeatures)
	binary.NativeEndian.PutUint32(list[8:], uint32(count))
	if err := ethtool(fd, iface, list); err != nil {
		return nil, err
	}
	names := make([]string, count)
	for i := range names {
		s := list[12+i*ethGStringLen:][:ethGStringLen]
		names[i] = string(bytes.TrimRight(s, "\x00"))
	}
	return names, nil
}

// ethtool does SIOCETHTOOL with the given command, which the kernel fills in.
func ethtool(fd int, iface string, cmd []byte) error {
	var req struct {
		name [unix.IFNAMSIZ]byte
		data unsafe.Pointer
		_    [16]byte // struct ifreq's union is longer than a pointer
	}
	if copy(req.name[:unix.IFNAMSIZ-1], iface) != len(iface) {
		return fmt.Errorf("interface name %q is too long", iface)
	}
	var pin runtime.Pinner
	pin.Pin(&cmd[0])
	defer pin.Unpin()
	req.data = unsafe.Pointer(&cmd[0])
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&req)))
	if errno != 0 {
		return fmt.Errorf("ethtool command %#x: %w", binary.NativeEndian.Uint32(cmd), errno)
	}
	return nil
}
