package hostnet

import (
	"testing"
	"time"

	"github.com/adit-ipsec/adit/internal/netlab"
)

// A device that was set down and up again has its routes back; while it is down
// what is protected is refused, and nobody sets it up but who set it down.
func TestRootWatchBringsThePlanBackWithTheDevice(t *testing.T) {
	h := newHost(t)
	a := h.mustApply(full())
	restored := make(chan error, 16)
	var stop func() error
	check(t, h.gw.Do(func() (err error) {
		stop, err = a.Watch(func(err error) { restored <- err })
		return err
	}))
	want := h.dump()
	for range 3 {
		check(t, h.gw.Down(device))
		h.ways("down", map[string]string{
			"10.2.0.10": unreachable, "2001:db8:b::1": unreachable, "203.0.113.9": unreachable,
			"203.0.113.9 marked": netlab.OutsideIface,
		})
		check(t, h.gw.Up(device))
		select {
		case err := <-restored:
			check(t, err)
		case <-time.After(10 * time.Second):
			t.Fatal("nothing brought the plan back")
		}
		h.settle(a)
		difference(t, "up again", want, h.dump())
		h.ways("up again", map[string]string{"10.2.0.10": device, "2001:db8:b::1": device})
	}
	check(t, stop())
	check(t, h.gw.Down(device))
	check(t, h.gw.Up(device))
	h.ways("nobody watches", map[string]string{"10.2.0.10": unreachable})
	check(t, a.Remove())
}
