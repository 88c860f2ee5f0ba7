package tun

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
	wgtun "golang.zx2c4.com/wireguard/tun"
)

const clonePath = "/dev/net/tun"

// Limits of a TUN device's MTU in bytes.
const (
	MinMTU = 68 // RFC 791 3.2: "Every internet module must be able to forward a datagram of 68 octets"
	MaxMTU = 65535
)

// QueueLen is the TUN's transmit queue in packets. The kernel's default of 500
// drops the tail of a burst without a word while the gateway is busy with a
// batch; this many full-size packets are about 7 MB.
const QueueLen = 5000

// MaxQueues is the most queues of one device: the kernel's MAX_TAP_QUEUES.
const MaxQueues = 256

// Create makes the kernel's TUN device called name with an MTU in bytes. It
// needs CAP_NET_ADMIN and /dev/net/tun; the device goes away with Close. Where
// the kernel offers virtio-net headers and then refuses the offloads behind
// them, the device is made without.
func Create(name string, mtu int) (Device, error) { return CreateQueues(name, mtu, 1) }

// CreateQueues is Create for a device that the kernel spreads flows over: with
// two queues or more it is a MultiQueue, for Queues.
func CreateQueues(name string, mtu, queues int) (Device, error) {
	switch {
	case mtu < MinMTU || mtu > MaxMTU:
		return nil, fmt.Errorf("create TUN device %s: MTU is %d, want %d to %d", name, mtu, MinMTU, MaxMTU)
	case queues < 1 || queues > MaxQueues:
		return nil, fmt.Errorf("create TUN device %s: %d queues, want 1 to %d", name, queues, MaxQueues)
	}
	dev, err := create(name, mtu, queues, unix.IFF_VNET_HDR)
	if errors.Is(err, unix.EINVAL) {
		dev, err = create(name, mtu, queues, 0)
	}
	switch {
	case err == nil:
		return dev, nil
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES):
		return nil, fmt.Errorf("create TUN device %s: %w (run as root, or with CAP_NET_ADMIN)", name, err)
	case errors.Is(err, os.ErrNotExist), errors.Is(err, unix.ENODEV):
		return nil, fmt.Errorf("create TUN device %s: %w (load the kernel module tun, or give the container %s)", name, err, clonePath)
	case errors.Is(err, unix.EBUSY):
		return nil, fmt.Errorf("create TUN device %s: %w (another process has it open: stop it, or choose another tun.name)", name, err)
	}
	return nil, fmt.Errorf("create TUN device %s: %w", name, err)
}

// create does what wireguard's CreateTUN does, for several queues, and closes
// the descriptors when a step fails.
func create(name string, mtu, queues int, flags uint16) (Device, error) {
	flags |= unix.IFF_TUN | unix.IFF_NO_PI
	first := flags
	if queues > 1 {
		flags |= unix.IFF_MULTI_QUEUE
		// Or this would be one more queue of another process's device.
		first = flags | unix.IFF_TUN_EXCL
	}
	ifr, fd, err := attach(name, first)
	if err != nil {
		return nil, err
	}
	if err := setQueueLen(ifr); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("set the transmit queue to %d packets: %w", QueueLen, err)
	}
	// Into the poller only now: an unattached descriptor cannot be polled.
	file := os.NewFile(uintptr(fd), clonePath)
	dev, err := wgtun.CreateTUNFromFile(file, mtu)
	if err != nil {
		file.Close()
		return nil, err
	}
	native, ok := dev.(*wgtun.NativeTun)
	if queues == 1 || !ok {
		return dev, nil
	}
	m := &MultiQueue{NativeTun: native}
	for n := 1; n < queues; n++ {
		_, fd, err := attach(ifr.Name(), flags)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("queue %d of %d: %w", n+1, queues, err), m.Close())
		}
		m.more = append(m.more, os.NewFile(uintptr(fd), clonePath))
	}
	return m, nil
}

// attach makes a descriptor of the interface called name.
func attach(name string, flags uint16) (ifr *unix.Ifreq, fd int, err error) {
	if ifr, err = unix.NewIfreq(name); err != nil {
		return nil, 0, fmt.Errorf("interface name (1 to 15 bytes): %w", err)
	}
	if fd, err = unix.Open(clonePath, unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0); err != nil {
		return nil, 0, fmt.Errorf("open %s: %w", clonePath, err)
	}
	ifr.SetUint16(flags)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, ifr); err != nil {
		unix.Close(fd)
		return nil, 0, err
	}
	return ifr, fd, nil
}

func setQueueLen(ifr *unix.Ifreq) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	ifr.SetUint32(QueueLen)
	return unix.IoctlIfreq(fd, unix.SIOCSIFTXQLEN, ifr)
}
