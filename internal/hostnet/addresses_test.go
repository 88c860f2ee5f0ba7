package hostnet

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/adit-ipsec/adit/internal/netlab"
)

// Who has an SA with a peer at one address of a host hears when that address comes,
// goes, or cannot be answered to any more, and from which one the kernel would speak.
func TestRootAddressesComeAndGo(t *testing.T) {
	h := newHost(t)
	a := h.mustApply(full())
	t.Cleanup(func() { check(t, a.Remove()) })
	changes := make(chan []netip.Addr, 64)
	var stop func() error
	check(t, h.gw.Do(func() (err error) {
		stop, err = WatchAddresses(device, func(list []netip.Addr, err error) {
			check(t, err)
			changes <- list
		})
		return err
	}))
	list := func() (out []netip.Addr) {
		check(t, h.gw.Do(func() (err error) { out, err = Addresses(device); return err }))
		return out
	}
	until := func(what string, holds func([]netip.Addr) bool) {
		t.Helper()
		for deadline := time.After(10 * time.Second); ; {
			select {
			case heard := <-changes:
				if holds(heard) {
					if now := list(); !slices.Equal(now, heard) {
						t.Errorf("%s: heard %v, and there is %v", what, heard, now)
					}
					return
				}
			case <-deadline:
				t.Fatalf("%s: never heard; there is %v", what, list())
			}
		}
	}
	second := netip.MustParsePrefix("198.18.5.7/24")
	before := list()
	if len(before) == 0 || slices.Contains(before, second.Addr()) {
		t.Fatalf("addresses at the start: %v", before)
	}
	check(t, h.gw.AddAddr(netlab.OutsideIface, second))
	has := func(list []netip.Addr) bool { return slices.Contains(list, second.Addr()) }
	until("it has come", has)
	source := func(to string) (from netip.Addr) {
		check(t, h.gw.Do(func() error { from = SourceTo(netip.MustParseAddr(to), full().Mark); return nil }))
		return from
	}
	if from := source("198.18.5.99"); from != second.Addr() {
		t.Errorf("the kernel would speak to a neighbour from %v, want %v", from, second.Addr())
	}
	check(t, h.gw.Down(netlab.OutsideIface))
	until("its device is down", func(list []netip.Addr) bool { return !has(list) })
	if from := source("198.18.5.99"); from == second.Addr() {
		t.Errorf("the kernel would speak from %v with its device down", from)
	}
	check(t, h.gw.Up(netlab.OutsideIface))
	until("its device is up", has)
	check(t, stop())
	if n := len(changes); n > 8 {
		t.Errorf("%d more changes are waiting", n)
	}
}
