package dataplane_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/adit-ipsec/adit/dataplane"
	"github.com/adit-ipsec/adit/esp"
	"github.com/adit-ipsec/adit/internal/tun"
	"github.com/adit-ipsec/adit/sad"
)

// generation makes the four Params of one pair of SAs between A and B; every
// generation has its own SPIs and keys.
type generation struct{ aOut, aIn, bOut, bIn sad.Params }

func newGeneration(t testing.TB, n uint32) (g generation) {
	t.Helper()
	suite, err := esp.ParseSuite("aes128gcm16")
	if err != nil {
		t.Fatal(err)
	}
	params := func(d sad.Direction, spi uint32, remote string) sad.Params {
		k := bytes.Repeat([]byte{7}, 20)
		binary.BigEndian.PutUint32(k, spi)
		return sad.Params{Direction: d, SPI: spi, Peer: "peer", Suite: suite, EncryptionKey: k,
			ESN: true, ReplayWindow: 4096, Remote: netip.MustParseAddrPort(remote), FreshKeys: true}
	}
	const a, b = "192.0.2.1:4500", "192.0.2.2:4500"
	g.aOut, g.bIn = params(sad.Outbound, 0x10000+2*n, b), params(sad.Inbound, 0x10000+2*n, a)
	g.bOut, g.aIn = params(sad.Outbound, 0x10001+2*n, a), params(sad.Inbound, 0x10001+2*n, b)
	return g
}

// flow is numbered datagrams one way: at most ahead of them unanswered, and a
// bitmap of what arrived.
type flow struct {
	from, to     *tun.Host
	src, dst     byte
	sent, got    atomic.Uint64
	twice, wrong atomic.Uint64
	seen         []uint64
}

const (
	ahead    = 128 // less than any queue on the way holds
	flowSize = 1 << 26
)

func (f *flow) send(ctx context.Context, stop <-chan struct{}) error {
	for n := uint32(0); ; n++ {
		for uint64(n) >= f.got.Load()+ahead { // what is lost stops the flow; the test sees that
			select {
			case <-stop:
				return nil
			case <-ctx.Done():
				return nil
			case <-time.After(20 * time.Microsecond):
			}
		}
		select {
		case <-stop:
			return nil
		default:
		}
		b := datagram(f.src, f.dst, 0, 64)
		binary.BigEndian.PutUint32(b[40:], n)
		if err := f.from.Send(ctx, b); err != nil {
			return err
		}
		f.sent.Add(1)
	}
}

func (f *flow) receive(ctx context.Context) {
	for {
		b, err := f.to.Receive(ctx)
		if err != nil {
			return
		}
		n := binary.BigEndian.Uint32(b[40:])
		switch word, bit := n/64, uint64(1)<<(n%64); {
		case len(b) != 28+64 || n >= flowSize:
			f.wrong.Add(1)
		case f.seen[word]&bit != 0:
			f.twice.Add(1)
		default:
			f.seen[word] |= bit
			f.got.Add(1)
		}
	}
}

// load runs both ways until stop; drain waits until all has arrived.
type load struct {
	flows    [2]*flow
	stop     chan struct{}
	senders  sync.WaitGroup
	all      sync.WaitGroup
	cancel   context.CancelFunc
	sendFail atomic.Pointer[error]
}

func (p *pair) load(ctx context.Context) *load {
	l := &load{stop: make(chan struct{})}
	ctx, l.cancel = context.WithCancel(ctx)
	l.flows[0] = &flow{from: p.hostA, to: p.hostB, src: 1, dst: 2}
	l.flows[1] = &flow{from: p.hostB, to: p.hostA, src: 2, dst: 1}
	for _, f := range l.flows {
		f.seen = make([]uint64, flowSize/64)
		l.all.Go(func() { f.receive(ctx) })
		l.senders.Go(func() {
			if err := f.send(ctx, l.stop); err != nil {
				l.sendFail.Store(&err)
			}
		})
	}
	return l
}

// carried waits until both flows have brought so many more packets.
func (l *load) carried(t *testing.T, more uint64) bool {
	t.Helper()
	want := [2]uint64{l.flows[0].got.Load() + more, l.flows[1].got.Load() + more}
	return eventually(10*time.Second, func() bool {
		return l.flows[0].got.Load() >= want[0] && l.flows[1].got.Load() >= want[1]
	})
}

func (l *load) end() {
	close(l.stop)
	l.senders.Wait()
	eventually(2*time.Second, func() bool {
		return l.flows[0].got.Load() == l.flows[0].sent.Load() && l.flows[1].got.Load() == l.flows[1].sent.Load()
	})
	l.cancel()
	l.all.Wait()
}

// eventually polls until the condition holds, or gives up.
func eventually(patience time.Duration, condition func() bool) bool {
	for deadline := time.Now().Add(patience); ; {
		if condition() {
			return true
		}
		if time.Now().After(deadline) {
			return false
		}
		time.Sleep(50 * time.Microsecond)
	}
}

// RFC 7296 2.8, make before break: 1,000 replacements of both SAs under load, in the
// order of an exchange: the responder can receive first, the initiator switches,
// the responder follows. Nothing is lost and nothing comes twice, and in the end
// only the last pair is left.
func TestRFC7296_2_8_ReplacementsUnderLoadLoseNothing(t *testing.T) {
	defer goleak.VerifyNone(t)
	const replacements = 1000
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	p := newPair(t, "aes128gcm16")
	old := p.installed()
	l := p.load(ctx)
	const grace = 2 * time.Second // longer than a busy machine leaves packets in a queue
	for n := range uint32(replacements) {
		g := newGeneration(t, n)
		for _, err := range []error{
			p.b.Install(g.bIn),
			p.a.Replace(old[0], grace, g.aOut, g.aIn),
			p.b.Replace(old[1], grace, g.bOut),
		} {
			if err != nil {
				t.Fatal(err)
			}
		}
		old = [2][]sad.ID{{g.aOut.ID(), g.aIn.ID()}, {g.bOut.ID(), g.bIn.ID()}}
		if !l.carried(t, 8) {
			t.Errorf("replacement %d: the flow stopped", n)
			break
		}
	}
	l.end()
	total := p.report(t, l)
	if total < 16*replacements {
		t.Errorf("only %d packets under %d replacements", total, replacements)
	}
	for name, gw := range map[string]*dataplane.Gateway{"A": p.a, "B": p.b} {
		if !eventually(10*time.Second, func() bool { return len(gw.Stats().SAs) == 2 }) {
			t.Errorf("%s: SAs in the end: expected 2, saw %d", name, len(gw.Stats().SAs))
		}
		for _, c := range gw.Stats().Drops {
			if c.Value != 0 {
				t.Errorf("%s: %s is %d", name, c.Name, c.Value)
			}
		}
	}
	p.close(t)
}

// The same with break before make, so that the test above is known to see what
// is lost.
func TestReplacementsThatBreakFirstAreSeenToLose(t *testing.T) {
	defer goleak.VerifyNone(t)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	p := newPair(t, "aes128gcm16")
	old := p.installed()
	l := p.load(ctx)
	if !l.carried(t, 100) {
		t.Fatal("nothing is carried")
	}
	p.a.Remove(old[0]...)
	if !eventually(10*time.Second, func() bool { return p.a.Stats().Counter("OutNoSA") > 0 }) {
		t.Error("OutNoSA: expected packets without an SA")
	}
	g := newGeneration(t, 0)
	if err := errors.Join(p.b.Install(g.bIn), p.a.Install(g.aOut, g.aIn)); err != nil {
		t.Fatal(err)
	}
	l.end()
	if sent, got := l.flows[0].sent.Load(), l.flows[0].got.Load(); got >= sent {
		t.Errorf("A to B: expected losses, saw %d of %d arrive", got, sent)
	}
	p.close(t)
}

func (p *pair) installed() (ids [2][]sad.ID) {
	for i, gw := range []*dataplane.Gateway{p.a, p.b} {
		for _, s := range gw.Stats().SAs {
			ids[i] = append(ids[i], s.ID)
		}
	}
	return ids
}

// report fails the test for anything lost or doubled, and says where.
func (p *pair) report(t *testing.T, l *load) (total uint64) {
	t.Helper()
	if err := l.sendFail.Load(); err != nil {
		t.Errorf("send: %v", *err)
	}
	for i, f := range l.flows {
		sent, got := f.sent.Load(), f.got.Load()
		if got != sent || f.twice.Load() != 0 || f.wrong.Load() != 0 {
			t.Errorf("flow %d: %d sent, %d lost, %d twice, %d wrong; network %+v\nA %+v\nB %+v", i,
				sent, sent-got, f.twice.Load(), f.wrong.Load(), p.network.Stats(), p.a.Stats().Drops, p.b.Stats().Drops)
		}
		total += got
	}
	return total
}

func TestReplaceIsAllOrNoneAndMayBeCalledAgain(t *testing.T) {
	defer goleak.VerifyNone(t)
	p := newPair(t, "aes128gcm16")
	defer p.close(t)
	old := p.installed()[0]
	g := newGeneration(t, 1)

	bad := g.aIn
	bad.ReplayWindow = 1
	same := g.aOut
	same.SPI, same.Direction = old[0].SPI, old[0].Direction
	for name, err := range map[string]error{
		"one of them is wrong": p.a.Replace(old, time.Hour, g.aOut, bad),
		"a negative grace":     p.a.Replace(old, -1, g.aOut),
		"by itself":            p.a.Replace(old, time.Hour, g.aIn, same),
	} {
		if err == nil {
			t.Errorf("%s: expected an error", name)
		}
	}
	if s := p.a.Stats().SAs; len(s) != 2 || s[0].Life.Replaced || s[1].Life.Replaced {
		t.Fatalf("after errors: expected the two SAs as they were, saw %+v", s)
	}
	for range 3 { // the same again changes nothing
		if err := p.a.Replace(append(old, sad.ID{Peer: "nobody", SPI: 1}), time.Hour, g.aOut, g.aIn); err != nil {
			t.Fatal(err)
		}
	}
	other := g.aOut
	other.EncryptionKey = bytes.Repeat([]byte{0x44}, 20)
	if err := p.a.Replace(old, time.Hour, other); !errors.Is(err, sad.ErrDuplicate) {
		t.Errorf("another key under an ID that is there: expected ErrDuplicate, saw %v", err)
	}
	// The old outbound SA goes at once; the old inbound one stays for the hour.
	if !eventually(10*time.Second, func() bool { return len(p.a.Stats().SAs) == 3 }) {
		t.Fatalf("expected 3 SAs, saw %d", len(p.a.Stats().SAs))
	}
	for _, s := range p.a.Stats().SAs {
		if s.Life.Replaced != (s.ID == sad.ID{Direction: sad.Inbound, SPI: 0x1001, Peer: "peer"}) {
			t.Errorf("%s: replaced: %v", s.ID, s.Life.Replaced)
		}
	}
	// Replaced by nothing, and with no grace left: gone at the next look.
	if err := p.a.Replace([]sad.ID{g.aIn.ID(), g.aOut.ID()}, 0); err != nil {
		t.Fatal(err)
	}
	if !eventually(10*time.Second, func() bool { return len(p.a.Stats().SAs) == 1 }) {
		t.Errorf("expected 1 SA, saw %d", len(p.a.Stats().SAs))
	}
}

func TestReplaceAndCloseMayMeet(t *testing.T) {
	defer goleak.VerifyNone(t)
	p := newPair(t, "aes128gcm16")
	old := p.installed()[0]
	var all sync.WaitGroup
	closed := make(chan struct{})
	for i := range uint32(4) {
		all.Go(func() {
			for n := i; ; n += 4 {
				g := newGeneration(t, n)
				if err := p.a.Replace(old, time.Millisecond, g.aOut, g.aIn); err != nil {
					t.Error(err)
					return
				}
				select {
				case <-closed:
					return
				default:
				}
			}
		})
	}
	if !eventually(10*time.Second, func() bool { return len(p.a.Stats().SAs) > 20 }) {
		t.Error("nothing was replaced")
	}
	p.close(t)
	close(closed)
	all.Wait()
}
