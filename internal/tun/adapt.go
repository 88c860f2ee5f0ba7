package tun

import (
	"errors"

	"github.com/adit-ipsec/adit/internal/packet"
)

type adapter struct {
	dev Device
}

// Adapt makes a Queue of any wireguard device.
func Adapt(dev Device) Queue { return &adapter{dev: dev} }

func (a *adapter) ReadBatch(bufs []packet.Buffer) (int, error) { return 0, errors.ErrUnsupported }

func (a *adapter) WriteBatch(bufs []*packet.Buffer) (int, error) { return 0, errors.ErrUnsupported }

func (a *adapter) BatchSize() int { return a.dev.BatchSize() }

func (a *adapter) Close() error { return a.dev.Close() }
