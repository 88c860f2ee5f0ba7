//go:build !race

package dataplane

import "testing"

// Choosing an SA by DSCP allocates nothing, and nor does an SA with limits: both
// are on the way of every packet.
func TestClassesAndLifetimesAllocateNothing(t *testing.T) {
	r := newRig(t, options{noSA: true})
	voice, plain := r.classParams(efSPI, ef), r.classParams(outSPI)
	plain.Lifetime.SoftBytes, plain.Lifetime.HardBytes, plain.Lifetime.HardPackets = 1<<40, 1<<41, 1<<40
	voice.Lifetime = plain.Lifetime
	if err := r.gw.Install(voice, plain); err != nil {
		t.Fatal(err)
	}
	w := r.gw.out[0]
	w.wires[wireUDP].to = discardWire{}
	packets := [2][]byte{
		inner{src: hostA, dst: hostB, tos: ef << 2, payload: "x"}.udp(),
		inner{src: hostA, dst: hostB, payload: "x"}.udp(),
	}
	batch := func() {
		for i := range 8 {
			w.bufs[i].Set(packets[i%2])
		}
		w.walk(8)
	}
	if n := testing.AllocsPerRun(50, batch); n != 0 {
		t.Errorf("expected 0 allocations per batch, saw %v", n)
	}
	if got := r.gw.sas.Load().Outbound("b", "lan").Stats().Packets; got != 51*4 {
		t.Errorf("best effort on its SA: expected %d packets, saw %d", 51*4, got)
	}
}
