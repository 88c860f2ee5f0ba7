package dataplane_test

import (
	"context"
	"net/netip"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/adit-ipsec/adit/dataplane"
	"github.com/adit-ipsec/adit/internal/netsim"
	"github.com/adit-ipsec/adit/internal/packet"
	"github.com/adit-ipsec/adit/internal/tun"
)

// faults makes reads fail, a number of them or (below 0) all.
type faults struct {
	left  atomic.Int64
	reads atomic.Int64 // that failed
}

func (f *faults) read() error {
	if n := f.left.Load(); n == 0 || n > 0 && f.left.Add(-1) < 0 {
		return nil
	}
	f.reads.Add(1)
	return syscall.EINVAL
}

type failingTUN struct {
	tun.Device
	faults
}

func (d *failingTUN) Read(bufs [][]byte, sizes []int, offset int) (int, error) {
	if err := d.read(); err != nil {
		return 0, err
	}
	return d.Device.Read(bufs, sizes, offset)
}

type failingWire struct {
	*netsim.Endpoint
	faults
}

func (w *failingWire) ReadBatch(grams []packet.Datagram) (int, error) {
	if err := w.read(); err != nil {
		return 0, err
	}
	return w.Endpoint.ReadBatch(grams)
}

func failing(t *testing.T) (*failingTUN, *tun.Host, *failingWire, *netsim.Network) {
	t.Helper()
	network := netsim.NewNetwork()
	end, err := network.Endpoint(netip.MustParseAddrPort("192.0.2.1:4500"))
	if err != nil {
		t.Fatal(err)
	}
	dev, host := tun.NewMemory("mem", 1500)
	return &failingTUN{Device: dev}, host, &failingWire{Endpoint: end}, network
}

// The kernel answers a packet whose virtio-net header it cannot make with
// EINVAL, wireguard's device one that it cannot split with an error of its own:
// such a packet, or a moment without memory, is not the end of the gateway.
func TestReadsThatFailForAWhileEndNoWorker(t *testing.T) {
	defer goleak.VerifyNone(t)
	device, host, wire, network := failing(t)
	device.left.Store(100)
	wire.left.Store(100)
	gw, err := dataplane.New(dataplane.Config{TUN: device, Wire: wire})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if err := host.Send(ctx, datagram(1, 2, 1, 100)); err != nil {
		t.Errorf("send: %v", err)
	}
	network.Inject(netip.MustParseAddrPort("192.0.2.2:4500"), netip.MustParseAddrPort("192.0.2.1:4500"), 0, []byte{0xff})
	for {
		s := gw.Stats()
		if s.Counter("OutDiscard") == 1 && s.Counter("InKeepalives") == 1 {
			break
		}
		select {
		case <-gw.Done():
			t.Fatalf("the gateway has ended: %v", gw.Err())
		case <-ctx.Done():
			t.Fatalf("behind 100 failed reads: expected OutDiscard 1 and InKeepalives 1, saw %+v %+v", s.Drops, s.Traffic)
		case <-time.After(time.Millisecond):
		}
	}
	if err := gw.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
}

// What does nothing but fail ends the gateway, and is not read in a hot loop.
func TestReadsThatOnlyFailEndTheGateway(t *testing.T) {
	for _, what := range []string{"TUN", "wire"} {
		t.Run(what, func(t *testing.T) {
			defer goleak.VerifyNone(t)
			device, _, wire, _ := failing(t)
			broken := &device.faults
			if what == "wire" {
				broken = &wire.faults
			}
			broken.left.Store(-1)
			began := time.Now()
			gw, err := dataplane.New(dataplane.Config{TUN: device, Wire: wire})
			if err != nil {
				t.Fatal(err)
			}
			select {
			case <-gw.Done():
			case <-time.After(30 * time.Second):
				t.Error("the gateway goes on")
			}
			if took := time.Since(began); took < 500*time.Millisecond {
				t.Errorf("%d reads failed in %s: a hot loop", broken.reads.Load(), took)
			}
			if err := gw.Close(); err == nil {
				t.Error("Close: expected why the gateway has ended, saw nil")
			}
		})
	}
}
