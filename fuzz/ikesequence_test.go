package fuzz

import (
	"bytes"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/adit-ipsec/adit/ike"
	"github.com/adit-ipsec/adit/ike/wire"
	"github.com/adit-ipsec/adit/sad"
)

// ikeFlying is a datagram on its way.
type ikeFlying struct {
	from, to netip.AddrPort
	natt     bool
	data     []byte
}

// ikeRun is two machines and what is between them. The program says what happens.
type ikeRun struct {
	t      *testing.T
	now    time.Duration
	a, b   *ikeEnd
	flying []ikeFlying
	old    []ikeFlying // the last that were sent
	prog   []byte
	data   []byte // a message to inject
}

// next is the next byte of the program; 0 behind its end.
func (r *ikeRun) next() int {
	if len(r.prog) == 0 {
		return 0
	}
	n := r.prog[0]
	r.prog = r.prog[1:]
	return int(n)
}

func (r *ikeRun) sent(all []ike.Send) {
	for _, s := range all {
		local := s.Local
		f := ikeFlying{from: local, to: s.Remote, natt: s.NATT, data: s.Data}
		if len(r.flying) < 64 {
			r.flying = append(r.flying, f)
		}
		if r.old = append(r.old, f); len(r.old) > 64 {
			r.old = r.old[1:]
		}
	}
}

// do steps an end.
func (r *ikeRun) do(e *ikeEnd, in ike.Input) { r.sent(e.step(r.now, in)) }

// deliver takes a datagram to whom it is for. An answer to IKE_SA_INIT without a cookie
// is never longer than what it answers (RFC 7296 2.6, 2.21.1: nobody has shown that the
// address is the sender's).
func (r *ikeRun) deliver(f ikeFlying) {
	e := r.a
	if f.to.Addr() == ikeB.Addr() {
		e = r.b
	}
	sent := e.step(r.now, ike.Packet{Local: f.to, Remote: f.from, NATT: f.natt, Data: slices.Clone(f.data)})
	r.sent(sent)
	m, err := wire.Parse(f.data)
	if err != nil || m.Exchange != wire.IKESAInit || m.Response() || wire.FindNotify(m.Payloads, wire.NotifyCookie) != nil {
		return
	}
	out := 0
	for _, s := range sent {
		if s.Remote == f.from {
			out += len(s.Data)
		}
	}
	if out > len(f.data) {
		r.t.Fatalf("%s answers %d bytes by %d", e.name, len(f.data), out)
	}
}

// pick takes a datagram out of those on their way.
func (r *ikeRun) pick() (f ikeFlying, ok bool) {
	if len(r.flying) == 0 {
		return f, false
	}
	i := r.next() % len(r.flying)
	f = r.flying[i]
	r.flying = slices.Delete(r.flying, i, i+1)
	return f, true
}

// settle delivers all that is on its way, in order.
func (r *ikeRun) settle() {
	for n := 0; len(r.flying) > 0 && n < 500; n++ {
		f := r.flying[0]
		r.flying = r.flying[1:]
		r.deliver(f)
	}
}

// tick goes on to the next deadline of either machine, at most d away.
func (r *ikeRun) tick(d time.Duration) {
	end, any := r.now+d, false
	for _, e := range []*ikeEnd{r.a, r.b} {
		if at, ok := e.m.Deadline(); ok && at <= end {
			end, any = max(at, r.now), true
		}
	}
	r.now = end
	if any {
		r.do(r.a, ike.Tick{})
		r.do(r.b, ike.Tick{})
	}
}

// What an instruction does.
const (
	ikeSettle = iota
	ikeDeliver
	ikeDrop
	ikeTwice
	ikeReplay
	ikeChange
	ikeCut
	ikeTick
	ikeWait
	ikeInitiate
	ikeRekey
	ikeTerminate
	ikeExpire
	ikeInject
	ikeFrom
	ikeOther
	ikeOps
)

// instruction does one of them. The message that is changed goes on its way with the
// change.
func (r *ikeRun) instruction() {
	op := r.next()
	e, peer := r.a, "b"
	if op&0x80 != 0 {
		e, peer = r.b, "a"
	}
	switch op & 0x7f % ikeOps {
	case ikeSettle:
		r.settle()
	case ikeDrop:
		r.pick()
	case ikeTick:
		r.tick(time.Minute)
	case ikeWait:
		r.tick(time.Duration(r.next()) * 10 * time.Millisecond)
	case ikeInitiate:
		r.do(e, ike.Initiate{Peer: peer})
	case ikeRekey:
		r.do(e, ike.Rekey{Peer: peer, Policy: []string{"", "lan", "*"}[r.next()%3]})
	case ikeTerminate:
		r.do(e, ike.Terminate{Peer: peer, Policy: []string{"", "lan"}[r.next()%2]})
	case ikeExpire:
		if len(e.last) > 0 {
			n := r.next()
			id := e.last[n/2%len(e.last)]
			if n%2 == 1 {
				delete(e.sas, id)
			}
			r.do(e, ike.Expired{ID: id, Soft: n%2 == 0})
		}
	case ikeInject:
		r.deliver(ikeFlying{from: netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 51, 100, byte(r.next())}), 500), to: map[bool]netip.AddrPort{true: ikeA, false: ikeB}[e == r.a], data: r.data})
	case ikeOther:
		r.other(e, peer)
	default:
		r.message(op & 0x7f % ikeOps)
	}
}

// other are the inputs that come seldom.
func (r *ikeRun) other(e *ikeEnd, peer string) {
	switch n := r.next(); n % 5 {
	case 0:
		e.fail = true
	case 1:
		r.do(e, ike.Acquire{Peer: peer, Policy: "lan"})
	case 2:
		r.do(e, ike.Verbose{On: n&0x80 != 0})
	case 3:
		r.do(e, ike.Moved{Peer: peer, Old: ikeA, New: netip.AddrPortFrom(ikeA.Addr(), uint16(n))})
	case 4:
		r.do(e, ike.PathChanged{Addrs: []netip.Addr{ikeA.Addr(), ikeB.Addr()}})
	}
}

// message does something to a datagram.
func (r *ikeRun) message(op int) {
	if op == ikeReplay {
		if len(r.old) > 0 {
			r.deliver(r.old[r.next()%len(r.old)])
		}
		return
	}
	f, ok := r.pick()
	if !ok {
		return
	}
	switch op {
	case ikeTwice:
		r.deliver(f)
	case ikeChange:
		f.data = slices.Clone(f.data)
		f.data[(r.next()<<8|r.next())%len(f.data)] ^= byte(r.next() | 1)
	case ikeCut:
		f.data = f.data[:r.next()*8%len(f.data)]
	case ikeFrom:
		f.from = netip.AddrPortFrom(f.from.Addr(), uint16(1000+r.next()))
	}
	r.deliver(f)
}

// FuzzIKESequence: two machines, and a program of what happens between them: messages
// come late, twice, changed, cut, from elsewhere or not at all, others are made up, SAs
// expire, cannot be installed, are rekeyed and deleted, time passes. Nothing panics or
// takes long; with two secrets nobody is ever established and nothing installed; with
// one, what one end sends on the other opens by the same key; answers to strangers are
// no longer than what they sent; and at the end nothing is left.
func FuzzIKESequence(f *testing.F) {
	up := []byte{ikeInitiate, ikeSettle}
	add := func(more ...byte) { f.Add(false, append(slices.Clone(up), more...), []byte("rubbish")) }
	for _, m := range ikeExchange() {
		f.Add(false, []byte{ikeInitiate, ikeInject, 1, 0x80 | ikeInject, 2, ikeSettle, ikeInject, 3, 0x80 | ikeInject, 4, ikeTick, ikeSettle}, m)
		f.Add(true, []byte{0x80 | ikeInject, 1, ikeInitiate, ikeSettle, ikeTick, 0x80 | ikeInject, 1, ikeSettle}, m)
	}
	f.Add(true, []byte{ikeInitiate, ikeSettle, 0x80 | ikeInitiate, ikeSettle, ikeTick, ikeSettle}, []byte{})
	add(ikeRekey, 0, 0x80|ikeRekey, 0, ikeSettle, ikeTick, ikeSettle)
	add(ikeRekey, 1, 0x80|ikeRekey, 1, ikeDeliver, 1, ikeDeliver, 0, ikeDrop, 0, ikeTick, ikeSettle)
	add(ikeRekey, 1, ikeOther, 0, ikeSettle, 0x80|ikeOther, 0, ikeRekey, 1, ikeSettle)
	add(ikeRekey, 0, ikeTwice, 0, ikeTwice, 0, ikeReplay, 3, ikeReplay, 5, 0x80|ikeTerminate, 1, ikeSettle)
	add(ikeExpire, 0, ikeSettle, 0x80|ikeExpire, 1, ikeSettle, ikeExpire, 3, ikeTick)
	add(ikeTerminate, 0, 0x80|ikeTerminate, 0, ikeDeliver, 1, ikeSettle, ikeInitiate, ikeSettle)
	f.Add(false, []byte{ikeInitiate, ikeFrom, 9, ikeFrom, 9, ikeFrom, 9, ikeSettle, ikeRekey, 0, ikeFrom, 10, ikeSettle}, []byte{})
	f.Add(false, []byte{ikeInitiate, 0x80 | ikeInitiate, ikeDeliver, 1, ikeDeliver, 0, ikeChange, 0, 40, 1, ikeCut, 3, ikeWait, 100, ikeSettle}, []byte{})
	f.Fuzz(func(t *testing.T, strangers bool, program, data []byte) {
		if len(program) > 256 || len(data) > 1<<12 {
			return
		}
		r := newIKERun(t, strangers, program, data)
		for len(r.prog) > 0 {
			r.instruction()
			r.check(strangers)
		}
		r.end()
	})
}

func newIKERun(t *testing.T, strangers bool, program, data []byte) *ikeRun {
	secret := ikeSecret
	if strangers {
		secret = "another, of the same length: 19f"
	}
	return &ikeRun{
		t: t, prog: program, data: data,
		a: newIKEEnd(t, "a", ikePeer("a", "b", ikeSecret, 1)), b: newIKEEnd(t, "b", ikePeer("b", "a", secret, 1)),
	}
}

// check holds what is always so.
func (r *ikeRun) check(strangers bool) {
	if strangers && r.a.up+r.b.up+len(r.a.sas)+len(r.b.sas) != 0 {
		r.t.Fatal("established without the secret")
	}
	for _, way := range [][2]*ikeEnd{{r.a, r.b}, {r.b, r.a}} {
		for id, out := range way[0].sas {
			if id.Direction != sad.Outbound {
				continue
			}
			in, ok := way[1].sas[sad.ID{Direction: sad.Inbound, SPI: id.SPI, Peer: way[0].name, Protocol: id.Protocol}]
			if ok && !bytes.Equal(in.EncryptionKey, out.EncryptionKey) {
				r.t.Fatalf("%s sends on %s by another key than %s opens it", way[0].name, id, way[1].name)
			}
		}
	}
	if n := r.a.m.HalfOpen() + r.b.m.HalfOpen(); n > 64 {
		r.t.Fatalf("%d half-open IKE SAs", n)
	}
}

// end ends everything, on a path that loses nothing, and looks for what is left.
func (r *ikeRun) end() {
	r.settle()
	r.do(r.a, ike.Terminate{})
	r.do(r.b, ike.Terminate{})
	for until := r.now + 10*time.Minute; r.now < until; {
		r.settle()
		r.tick(time.Minute)
	}
	for _, e := range []*ikeEnd{r.a, r.b} {
		for _, p := range e.m.Status() {
			if len(p.SAs) != 0 || len(p.Wanted) != 0 {
				r.t.Fatalf("%s: %+v is left", e.name, p)
			}
		}
		if e.m.HalfOpen() != 0 || len(e.sas) != 0 {
			r.t.Fatalf("%s: %d half-open IKE SAs and %d SAs are left", e.name, e.m.HalfOpen(), len(e.sas))
		}
	}
}

// ikeExchange are the messages of a handshake, a rekey of each kind and the end, as the
// machines of the target make them.
func ikeExchange() (all [][]byte) {
	t := &testing.T{}
	r := newIKERun(t, false, nil, nil)
	do := func(in ike.Input) {
		r.do(r.a, in)
		for len(r.flying) > 0 {
			f := r.flying[0]
			r.flying = r.flying[1:]
			all = append(all, f.data)
			r.deliver(f)
		}
	}
	do(ike.Initiate{Peer: "b"})
	do(ike.Rekey{Peer: "b", Policy: "lan"})
	do(ike.Rekey{Peer: "b"})
	do(ike.Terminate{Peer: "b"})
	return all
}
