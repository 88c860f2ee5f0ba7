package tun

import (
	"fmt"

	wgtun "golang.zx2c4.com/wireguard/tun"
)

// Create makes the kernel's TUN device called name with an MTU in bytes. It
// needs CAP_NET_ADMIN and /dev/net/tun; the device goes away with Close.
func Create(name string, mtu int) (Device, error) {
	dev, err := wgtun.CreateTUN(name, mtu)
	if err != nil {
		return nil, fmt.Errorf("create TUN device %s (needs CAP_NET_ADMIN and /dev/net/tun): %w", name, err)
	}
	return dev, nil
}
