package tun

import (
	"context"
	"errors"
)

// Host is the other side of a memory device: the host that the gateway's
// kernel would be.
type Host struct{}

// NewMemory makes a device in memory, and its host side.
func NewMemory(name string, mtu int) (Device, *Host) { return nil, &Host{} }

// Send hands the device a packet to be read; it waits while the device's queue
// is full. The packet is copied.
func (h *Host) Send(ctx context.Context, pkt []byte) error { return errors.ErrUnsupported }

// Receive returns the next packet written to the device; the caller owns it.
func (h *Host) Receive(ctx context.Context) ([]byte, error) { return nil, errors.ErrUnsupported }
