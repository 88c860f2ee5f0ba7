package tun

import (
	"errors"
	"fmt"
	"os"

	wgtun "golang.zx2c4.com/wireguard/tun"
)

// MultiQueue is a kernel's device with several queues, each a descriptor of its
// own. As a Device it reads and writes the first one only: what the kernel
// steers to the others waits there, so give it to Queues.
type MultiQueue struct {
	*wgtun.NativeTun
	more []*os.File // the queues but the first
}

// Close closes all queues, and with them the device.
func (m *MultiQueue) Close() error {
	err := closeDevice(m.NativeTun)
	return errors.Join(err, m.dropQueues())
}

// dropQueues closes all queues but the first; the kernel steers their flows to
// the first from then on.
func (m *MultiQueue) dropQueues() (err error) {
	for _, file := range m.more {
		err = errors.Join(err, closeFile(file))
	}
	return err
}

// closeFile closes a file that may be closed.
func closeFile(file *os.File) error {
	if err := file.Close(); !errors.Is(err, os.ErrClosed) {
		return err
	}
	return nil
}

// Queues makes the queues of dev: a Vnet for each queue of a device that Create
// or CreateQueues made, else one Adapter. why is nil or tells, once, why there
// is less than was asked for: it is ErrNoOffload. Without offload the Vnets read
// and write packets one by one, and an Adapter is no loss.
//
// Closing the first queue closes dev. Closing another ends that one: its flows
// go to those that are left, but for the packets that it held. The kernel steers
// a flow by its hash, and once packets of the opposite direction were written, to
// the queue that they were last written to: a flow that is written to now one
// queue and now another is read in another order.
func Queues(dev Device, offload bool) (queues []Queue, why error) {
	vnets, err := openVnets(dev, offload)
	if err == nil {
		for _, q := range vnets {
			queues = append(queues, q)
		}
		return queues, nil
	}
	if m, ok := dev.(*MultiQueue); ok {
		why = fmt.Errorf("one queue in place of %d: %w", 1+len(m.more), errors.Join(err, m.dropQueues()))
	} else if offload {
		why = err
	}
	return []Queue{Adapt(dev)}, why
}

// Offload makes a Vnet of a device that Create made. A device of an embedder's
// own, a kernel that refuses the offloads and a device without virtio-net
// headers are ErrNoOffload; dev is then as it was, to be given to Adapt. Close
// closes dev. dev's own Read and Write are not to be used any more.
func Offload(dev Device) (*Vnet, error) {
	if m, ok := dev.(*MultiQueue); ok {
		return nil, fmt.Errorf("%w: the device has %d queues: use Queues", ErrNoOffload, 1+len(m.more))
	}
	vnets, err := openVnets(dev, true)
	if err != nil {
		return nil, err
	}
	return vnets[0], nil
}

// openVnets makes a Vnet of each queue of the kernel's device dev. On failure
// dev is as it was.
func openVnets(dev Device, offload bool) (vnets []*Vnet, err error) {
	var files []*os.File
	switch dev := dev.(type) {
	case *wgtun.NativeTun:
		files = []*os.File{dev.File()}
	case *MultiQueue:
		files = append([]*os.File{dev.File()}, dev.more...)
	default:
		return nil, fmt.Errorf("%w: the device is a %T, not the kernel's", ErrNoOffload, dev)
	}
	for _, file := range files {
		q, err := openVnet(file, offload)
		if err != nil {
			return nil, err
		}
		q.shut = func() error { return closeFile(file) }
		vnets = append(vnets, q)
	}
	vnets[0].shut = func() error { return closeDevice(dev) }
	go func() {
		for range dev.Events() { // its writers would block
		}
	}()
	return vnets, nil
}
