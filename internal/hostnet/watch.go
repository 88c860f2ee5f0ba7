package hostnet

import (
	"fmt"
	"net"

	"github.com/vishvananda/netlink"
)

// Watch brings the plan back when the device comes up again: a device that is
// set down loses its routes, and what they led into the TUN is refused from
// then on, which is safe and dead. Whether the device is up stays the
// operator's choice. restored is told of every time the plan was brought back,
// or why not. Watch is called in the namespace of Apply; stop ends it and
// waits.
func (a *Applied) Watch(restored func(error)) (stop func() error, err error) {
	updates, done := make(chan netlink.LinkUpdate), make(chan struct{})
	options := netlink.LinkSubscribeOptions{ErrorCallback: func(err error) {
		select {
		case <-done: // stop closed the socket
		default:
			restored(fmt.Errorf("hostnet: watching device %s: %w", a.device, err))
		}
	}}
	if err := netlink.LinkSubscribeWithOptions(updates, done, options); err != nil {
		return nil, fmt.Errorf("hostnet: watch device %s: %w", a.device, err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		up := true
		for u := range updates { // closed when the subscription has ended
			if int(u.Index) != a.index {
				continue
			}
			was := up
			if up = u.IfInfomsg.Flags&uint32(net.FlagUp) != 0; up && !was {
				restored(a.Update(a.Plan()))
			}
		}
	}()
	return func() error {
		close(done)
		<-ended
		return nil
	}, nil
}
