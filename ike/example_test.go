package ike_test

import (
	"context"
	"fmt"
	"net/netip"
	"time"

	"github.com/adit-ipsec/adit/ike"
	"github.com/adit-ipsec/adit/ike/auth"
	"github.com/adit-ipsec/adit/ike/proposal"
	"github.com/adit-ipsec/adit/ike/wire"
	"github.com/adit-ipsec/adit/sad"
	"github.com/adit-ipsec/adit/spd"
)

// exampleEnd is one gateway: its transport is the other's inbox, its SAD counts.
type exampleEnd struct {
	inbox *ike.Inbox
	other *exampleEnd
	up    chan ike.Event
	sas   int
}

func (e *exampleEnd) Send(m ike.Send) error {
	e.other.inbox.Put(m.Remote, m.Local, m.NATT, m.Data)
	return nil
}

func (e *exampleEnd) Keepalive(netip.Addr, netip.AddrPort) error { return nil }

func (e *exampleEnd) Install(params ...sad.Params) error {
	e.sas += len(params)
	return nil
}

func (e *exampleEnd) Replace(old []sad.ID, _ time.Duration, params ...sad.Params) error {
	e.sas += len(params) - len(old)
	return nil
}

func (e *exampleEnd) Remove(ids ...sad.ID) int {
	e.sas -= len(ids)
	return len(ids)
}

func (e *exampleEnd) Move(ike.Move) {}

func (e *exampleEnd) Heard(...sad.ID) (time.Duration, bool) { return 0, false }

// run drives a machine with one peer until ctx ends.
func (e *exampleEnd) run(ctx context.Context, peer ike.Peer) (*ike.Driver, error) {
	machine, err := ike.New(ike.Config{Peers: []ike.Peer{peer}})
	if err != nil {
		return nil, err
	}
	driver, err := ike.NewDriver(ike.DriverConfig{
		Machine: machine, Inbox: e.inbox, Transport: e, SAD: e,
		Log: func(event ike.Event) {
			if event.Stage == ike.StageChild && event.Outcome == ike.Done {
				e.up <- event
			}
		},
	})
	if err == nil {
		go driver.Run(ctx)
	}
	return driver, err
}

// examplePeer is how one end is told of the other.
func examplePeer(own, other, ownNet, otherNet string, secret sad.Key) (p ike.Peer, err error) {
	p = ike.Peer{Name: other, Proposals: proposal.Default(wire.ProtocolIKE), Fragmentation: true}
	p.Local, p.Remote = netip.MustParseAddr(own), netip.MustParseAddr(other)
	p.Auth.PSK, p.Remotely.PSK = secret, secret
	if p.Auth.ID, err = auth.ParseIdentity(own); err != nil {
		return p, err
	}
	if p.Remotely.ID, err = auth.ParseIdentity(other); err != nil {
		return p, err
	}
	local, err := spd.ParseAddrRange(ownNet)
	if err != nil {
		return p, err
	}
	remote, err := spd.ParseAddrRange(otherNet)
	if err != nil {
		return p, err
	}
	p.Children = []ike.Child{{
		Policy:    "lan",
		Selectors: []spd.Selector{{Local: []spd.AddrRange{local}, Remote: []spd.AddrRange{remote}, Protocol: spd.ProtocolAny}},
		Proposals: proposal.Default(wire.ProtocolESP),
		Template:  sad.Params{Peer: other, Policy: "lan", ReplayWindow: 1024},
	}}
	return p, nil
}

// Two gateways in memory: one is asked to begin, and soon both have a pair of SAs.
func Example() {
	secret := sad.Key("a secret of this example alone: 7f3a9c51e0d24b68")
	a, b := &exampleEnd{inbox: ike.NewInbox(), up: make(chan ike.Event, 1)}, &exampleEnd{inbox: ike.NewInbox(), up: make(chan ike.Event, 1)}
	a.other, b.other = b, a
	peerB, err := examplePeer("192.0.2.1", "192.0.2.2", "10.1.0.0/24", "10.2.0.0/24", secret)
	if err != nil {
		fmt.Println(err)
		return
	}
	peerA, err := examplePeer("192.0.2.2", "192.0.2.1", "10.2.0.0/24", "10.1.0.0/24", secret)
	if err != nil {
		fmt.Println(err)
		return
	}
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	first, err := a.run(ctx, peerB)
	if err != nil {
		fmt.Println(err)
		return
	}
	second, err := b.run(ctx, peerA)
	if err != nil {
		fmt.Println(err)
		return
	}
	if err := first.Do(ctx, ike.Initiate{Peer: "192.0.2.2"}); err != nil {
		fmt.Println(err)
		return
	}
	for _, e := range []*exampleEnd{a, b} {
		up := <-e.up
		fmt.Println("policy", up.Policy, "with", up.Peer, "by", up.Suite)
	}
	stop()
	<-first.Done()
	<-second.Done()
	fmt.Println("SAs behind the end:", a.sas, b.sas)
	// Output:
	// policy lan with 192.0.2.2 by aes128gcm16-esn
	// policy lan with 192.0.2.1 by aes128gcm16-esn
	// SAs behind the end: 0 0
}
