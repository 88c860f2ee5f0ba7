package dataplane

import (
	"reflect"
	"strings"
	"testing"

	"github.com/adit-ipsec/adit/internal/packet"
	"github.com/adit-ipsec/adit/natt"
)

// knownWire is a wire that knows about superpackets.
type knownWire struct {
	captureWire
	is natt.Offloads
}

func (w *knownWire) Offloads() natt.Offloads { return w.is }

func TestOffloadsSayWhatIsInUseAndWhyNot(t *testing.T) {
	r := newRig(t, options{})
	var names []string
	for _, o := range r.gw.Stats().Offloads {
		names = append(names, o.Name)
		if o.Active || o.Why == "" {
			t.Errorf("%+v over a device and a wire in memory: expected inactive, and why", o)
		}
	}
	if got := strings.Join(names, " "); got != "tun-read-tcp tun-read-udp tun-write-tcp tun-write-udp udp-send udp-receive" {
		t.Errorf("offloads: saw %s", got)
	}
	for _, c := range []struct {
		is            natt.Offloads
		send, receive Offload
	}{
		{natt.Offloads{GSO: true, GRO: true, FallbackEMSGSIZE: 2, FallbackEINVAL: 1}, Offload{"udp-send", true, "", 3}, Offload{"udp-receive", true, "", 0}},
		{natt.Offloads{FallbackEIO: 1}, Offload{"udp-send", false, whyRefused, 1}, Offload{"udp-receive", false, whyUnknown, 0}},
		{natt.Offloads{}, Offload{"udp-send", false, whyUnknown, 0}, Offload{"udp-receive", false, whyUnknown, 0}},
	} {
		r.in[wireUDP].wire = &knownWire{is: c.is}
		stats := r.gw.Stats()
		if got := stats.Offloads[4:]; !reflect.DeepEqual(got, []Offload{c.send, c.receive}) {
			t.Errorf("%+v: expected %+v and %+v, saw %+v", c.is, c.send, c.receive, got)
		}
		if n := stats.Counter("OffloadFallbacks"); n != c.send.Fallbacks {
			t.Errorf("%+v: OffloadFallbacks: expected %d, saw %d", c.is, c.send.Fallbacks, n)
		}
	}
}

// With several sockets an offload is active if it is on all, and the refusals of
// all are counted.
func TestOffloadsOfSiblingsAreOne(t *testing.T) {
	r := newRig(t, options{})
	r.in[wireUDP].wire = &knownWire{is: natt.Offloads{GSO: true, GRO: true, FallbackEMSGSIZE: 2}}
	r.gw.in = append(r.gw.in, newInboundWorker(r.gw, &knownWire{is: natt.Offloads{GRO: true, FallbackEIO: 1}}, r.tun, true, false))
	want := []Offload{{"udp-send", false, whyRefused, 3}, {"udp-receive", true, "", 0}}
	if got := r.gw.Stats().Offloads[4:]; !reflect.DeepEqual(got, want) {
		t.Errorf("expected %+v, saw %+v", want, got)
	}
	r.gw.in = nil
	for _, o := range r.gw.Stats().Offloads[4:] {
		if o.Active || o.Why != whyNoUDP {
			t.Errorf("without a UDP socket: saw %+v", o)
		}
	}
}

// lyingQueue is a queue whose reads had senseless virtio-net headers.
type lyingQueue struct{ captureQueue }

func (lyingQueue) Malformed() uint64 { return 3 }

func TestSenselessVirtioHeadersAreMalformed(t *testing.T) {
	r := newRig(t, options{})
	r.gw.useQueue(&lyingQueue{})
	r.gw.out[0].bufs[0].Set([]byte{0})
	r.gw.out[0].bufs[0].Header = packet.Header{}
	r.gw.out[0].walk(1)
	if n := r.gw.Stats().Counter("OutMalformed"); n != 4 {
		t.Errorf("OutMalformed: expected 3 of the queue and 1 of the walk, saw %d", n)
	}
}
