package main

import (
	"context"
	"errors"
	"net/netip"
	"sync"
	"syscall"

	"github.com/adit-ipsec/adit/config"
	"github.com/adit-ipsec/adit/dataplane"
	"github.com/adit-ipsec/adit/ike"
	"github.com/adit-ipsec/adit/internal/ctl/controlv1"
	"github.com/adit-ipsec/adit/internal/netsim"
	"github.com/adit-ipsec/adit/internal/packet"
	"github.com/adit-ipsec/adit/natt"
)

// memoryGateway is a gateway in memory, with IKE or without.
type memoryGateway struct {
	*dataplane.Gateway
	ike *memoryIKE // nil: manual keys
}

// memoryIKE is IKE in a gateway in memory: what ikeService is over sockets.
type memoryIKE struct {
	inbox       *ike.Inbox
	plain, natt *netsim.Endpoint // ports 500 and 4500; natt is read by the engine
	driver      *ike.Driver
	stop        context.CancelFunc
	running     sync.WaitGroup
}

// openMemoryIKE opens port 500, and has the engine hand over what comes to 4500.
func openMemoryIKE(cfg *config.Config, own netip.Addr, network *netsim.Network, udp *netsim.Endpoint, engine *dataplane.Config) (*memoryIKE, error) {
	plain, err := network.Endpoint(netip.AddrPortFrom(own, cfg.Listen.IKEPort))
	if err != nil {
		return nil, err
	}
	s := &memoryIKE{inbox: ike.NewInbox(), plain: plain, natt: udp}
	engine.IKE = func(local netip.Addr, remote netip.AddrPort, message []byte) bool {
		return s.inbox.Put(netip.AddrPortFrom(local, udp.LocalPort()), remote, true, message)
	}
	engine.Hold = &dataplane.Hold{}
	return s, nil
}

// start starts the machine.
func (s *memoryIKE) start(cfg *config.Config, g *dataplane.Gateway) error {
	// A network in memory carries protocol 50 to whoever has an end for it.
	asked := &gateway{ike: &ikeService{raw4: true}}
	machine, err := ike.New(ike.Config{Peers: asked.ikePeers(cfg), Port: cfg.Listen.IKEPort, NATTPort: cfg.Listen.NATTPort})
	if err != nil {
		return err
	}
	s.driver, err = ike.NewDriver(ike.DriverConfig{
		Machine: machine, Inbox: s.inbox, Transport: s, SAD: engineSAD{g},
		Refused: func(r ike.Refuse) { g.Refuse(r.Peer, r.Policy) },
	})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	s.stop = cancel
	s.running.Go(func() { s.driver.Run(ctx) })
	s.running.Go(s.read)
	s.running.Go(func() {
		for e := range g.Events() {
			if in := ikeInput(&e); in != nil {
				_ = s.driver.Do(ctx, in) // one that has stopped hears nothing
			}
		}
	})
	return nil
}

// read takes what comes to port 500 until it is closed.
func (s *memoryIKE) read() {
	grams := packet.NewDatagrams(1)
	for {
		if _, err := s.plain.ReadBatch(grams); err != nil {
			return
		}
		d := &grams[0]
		s.inbox.Put(netip.AddrPortFrom(d.Local, s.plain.LocalPort()), d.Addr, false, d.Bytes())
	}
}

// Send is ike.Transport.
func (s *memoryIKE) Send(m ike.Send) error {
	d := packet.NewDatagrams(1)
	d[0].Off, d[0].Local, d[0].Addr = packet.Headroom, m.Local.Addr(), m.Remote
	end, room := s.plain, d[0].Mem[packet.Headroom:]
	if m.NATT {
		end, d[0].Len = s.natt, copy(room, make([]byte, natt.NonESPMarkerLen))
	}
	if len(m.Data) > len(room)-d[0].Len {
		return syscall.EMSGSIZE
	}
	d[0].Len += copy(room[d[0].Len:], m.Data)
	_, err := end.WriteBatch(d)
	return err
}

// Keepalive is ike.Transport. There is no NAT here, and nobody asks for one.
func (s *memoryIKE) Keepalive(netip.Addr, netip.AddrPort) error { return natt.ErrNoNATT }

// peer is demoKeyer.
func (s *memoryIKE) peer(ctx context.Context) (*controlv1.IKEPeer, error) {
	status, err := s.driver.Status(ctx)
	if err != nil {
		return nil, err
	}
	var list []*controlv1.IKEPeer
	for i := range status {
		list = append(list, viewIKEPeer(&status[i]))
	}
	return onlyPeer(list)
}

// renew is demoKeyer.
func (s *memoryIKE) renew(ctx context.Context, children bool) error {
	p, err := s.peer(ctx)
	if err != nil {
		return err
	}
	in := ike.Rekey{Peer: p.GetName()}
	if children {
		in.Policy = "*"
	}
	return s.driver.Do(ctx, in)
}

// Close ends the gateway. With IKE the driver says goodbye first, while there is an
// engine that carries it.
func (g *memoryGateway) Close() error {
	if g.ike == nil {
		return g.Gateway.Close()
	}
	if g.ike.stop != nil {
		g.ike.stop()
		<-g.ike.driver.Done()
	}
	err := errors.Join(g.ike.plain.Close(), g.Gateway.Close())
	g.ike.running.Wait()
	return err
}
