package main

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"time"

	"github.com/adit-ipsec/adit/dataplane"
	"github.com/adit-ipsec/adit/ike"
	"github.com/adit-ipsec/adit/internal/hostnet"
	"github.com/adit-ipsec/adit/natt"
	"github.com/adit-ipsec/adit/sad"
)

// ikeBuffer is the size asked for the socket buffers of port 500, in bytes: some
// thousand first messages.
const ikeBuffer = 2 << 20

// ikeService is IKE in a gateway: the sockets, the inbox, the machine and the
// goroutine that drives it. A gateway none of whose peers is keyed by IKE has none.
type ikeService struct {
	log    *slog.Logger
	tun    string // the gateway's own device, whose addresses are no way out
	inbox  *ike.Inbox
	conn   *natt.IKEConn
	driver *ike.Driver
	peers  map[string]bool // keyed by IKE; guarded by gateway.mu
	lost   sendErrors

	raw4, raw6 bool // there are sockets for protocol 50
}

// openIKE opens what IKE needs of the wires, before there is an engine, which reads
// the socket of NAT traversal.
func (w *wires) openIKE() error {
	if !w.g.cfg.UsesIKE() {
		return nil
	}
	s := &ikeService{log: w.g.log, tun: w.g.cfg.TUN.Name, inbox: ike.NewInbox()}
	conn, err := natt.ListenIKE(natt.Config{
		Address: w.g.cfg.Listen.Address, Port: w.g.cfg.Listen.IKEPort, Mark: ownMark, ReceiveBuffer: ikeBuffer, SendBuffer: ikeBuffer,
	}, w.udp, func(local, remote netip.AddrPort, message []byte) bool {
		return s.inbox.Put(local, remote, false, message)
	})
	if err != nil {
		return err
	}
	s.conn = conn
	w.add(conn)
	w.g.listens = append(w.g.listens, fmt.Sprintf("UDP %d on %s", conn.Port(), listenAddress(w.g.cfg.Listen.Address)))
	port := conn.NATTPort()
	w.engine.IKE = func(local netip.Addr, remote netip.AddrPort, message []byte) bool {
		return s.inbox.Put(netip.AddrPortFrom(local, port), remote, true, message)
	}
	w.engine.Hold = &dataplane.Hold{}
	w.g.mu.Lock() // the control socket is served already
	w.g.ike = s
	w.g.mu.Unlock()
	return nil
}

// startIKE starts the machine, once policies are in force: from here on peers are
// answered, and those that are to be up at once are spoken to.
func (g *gateway) startIKE(peers []ike.Peer) error {
	s := g.ike
	if s == nil {
		return nil
	}
	machine, err := ike.New(ike.Config{
		Peers: peers, Port: s.conn.Port(), NATTPort: s.conn.NATTPort(),
		Source: func(remote netip.Addr) netip.Addr { return hostnet.SourceTo(remote, ownMark) },
	})
	if err != nil {
		return err
	}
	s.driver, err = ike.NewDriver(ike.DriverConfig{
		Machine: machine, Inbox: s.inbox, Transport: s, SAD: engineSAD{g.engine},
		Log:     func(e ike.Event) { logIKE(g.log, &e) },
		Refused: func(r ike.Refuse) { g.engine.Refuse(r.Peer, r.Policy) },
		Stop:    ikeStop,
	})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	go s.driver.Run(ctx)
	g.defers(func() error {
		s.sayGoodbye()
		cancel()
		<-s.driver.Done()
		return s.conn.Close()
	})
	stop, err := hostnet.WatchAddresses(s.tun, s.moved)
	if err != nil {
		return err
	}
	g.defers(stop)
	return nil
}

// know says which peers and policies IKE keys, and which of them wait for the peer to
// begin. It comes in front of the policies.
func (g *gateway) know(peers []ike.Peer) {
	if g.ike == nil {
		return
	}
	names := make(map[string]bool, len(peers))
	for i := range peers {
		names[peers[i].Name] = true
	}
	g.mu.Lock()
	g.ike.peers = names
	g.mu.Unlock()
	g.engine.ResponderOnly(responders(peers)...)
}

// configureIKE sets the machine's peers anew: those that are the same keep their SAs.
func (g *gateway) configureIKE(peers []ike.Peer) error {
	if g.ike == nil {
		return nil
	}
	return g.ike.driver.Do(context.Background(), ike.Configure{Peers: peers})
}

// Send is ike.Transport.
func (s *ikeService) Send(m ike.Send) error {
	err := s.conn.Send(m.Local.Addr(), m.Remote, m.NATT, m.Data)
	if err != nil && s.lost.tell(time.Now()) {
		s.log.Warn("an IKE message could not be sent; it will be said again", "to", m.Remote.String(), "error", err)
	}
	return err
}

// Keepalive is ike.Transport.
func (s *ikeService) Keepalive(local netip.Addr, remote netip.AddrPort) error {
	return s.conn.Keepalive(local, remote)
}

// sendErrors lets one line into the log every ten seconds. It belongs to the driver's
// goroutine.
type sendErrors struct{ next time.Time }

func (s *sendErrors) tell(now time.Time) bool {
	if now.Before(s.next) {
		return false
	}
	s.next = now.Add(10 * time.Second)
	return true
}

// moved hears of the host's addresses.
func (s *ikeService) moved(list []netip.Addr, err error) {
	if err != nil {
		s.log.Error("changes of this host's addresses are not heard any more: IKE SAs stay where they are", "error", err)
		return
	}
	_ = s.driver.Do(context.Background(), ike.PathChanged{
		Addrs: list, Source: func(remote netip.Addr) netip.Addr { return hostnet.SourceTo(remote, ownMark) },
	}) // a driver that has stopped moves nothing
}

// engineSAD is the engine as the driver sees it.
type engineSAD struct{ *dataplane.Gateway }

// Move is ike.SAD. SAs that are gone already, or cannot go there, keep no other back: the
// engine moves all or none, and one may have expired a moment ago.
func (e engineSAD) Move(m ike.Move) {
	if e.Gateway.Move(m.Peer, m.IDs, m.Local, m.Remote) == nil {
		return
	}
	for i := range m.IDs {
		_ = e.Gateway.Move(m.Peer, m.IDs[i:i+1], m.Local, m.Remote)
	}
}

// hear hands an event of the engine to the machine, where it is about a peer that IKE
// keys, and tells whether it has. It may wait for the machine: the engine's channel is
// what buffers.
func (g *gateway) hear(e *dataplane.Event) bool {
	s := g.ike
	if s == nil || s.driver == nil {
		return false
	}
	g.mu.Lock()
	ours := s.peers[e.Peer]
	g.mu.Unlock()
	if !ours {
		if e.Kind == dataplane.Acquire {
			g.engine.Refuse(e.Peer, e.Policy) // nobody will make an SA for it
		}
		return false
	}
	in := ikeInput(e)
	return in != nil && s.driver.Do(context.Background(), in) == nil
}

// ikeInput is what an event means to the machine; nil: nothing.
func ikeInput(e *dataplane.Event) ike.Input {
	switch e.Kind {
	case dataplane.Acquire:
		return ike.Acquire{Peer: e.Peer, Policy: e.Policy, Flow: e.Flow}
	case dataplane.SoftExpire, dataplane.HardExpire:
		return ike.Expired{ID: sad.ID{Direction: e.Direction, SPI: e.SPI, Peer: e.Peer, Protocol: e.Protocol}, Soft: e.Kind == dataplane.SoftExpire}
	case dataplane.SeqOverflow:
		// RFC 4303 3.3.3: "the sender [...] MUST NOT allow the sequence number to
		// cycle; it MUST establish a new SA". It is still there: a replacement is due.
		return ike.Expired{ID: sad.ID{Direction: sad.Outbound, SPI: e.SPI, Peer: e.Peer, Protocol: e.Protocol}, Soft: true}
	case dataplane.PeerMoved:
		return ike.Moved{Peer: e.Peer, Old: e.Old, New: e.From}
	}
	return nil
}

// logIKE writes one line of the negotiation log.
func logIKE(log *slog.Logger, e *ike.Event) {
	level := slog.LevelInfo
	switch e.Outcome {
	case ike.Failed:
		level = slog.LevelWarn
	case ike.Began:
		level = slog.LevelDebug
	}
	if e.Stack != "" {
		level = slog.LevelError // a fault of this program
	}
	l := eventLine{level: level, text: e.Text}
	if l.text == "" {
		l.text = string(e.Stage)
	}
	l.add("event", "IKE")
	for _, a := range []struct{ name, value string }{
		{"peer", e.Peer}, {"stage", string(e.Stage)}, {"outcome", outcomeText(e.Outcome)}, {"reason", e.Reason},
		{"theirs", e.Theirs}, {"ours", e.Ours}, {"fix", e.Fix},
		{"policy", e.Policy}, {"suite", e.Suite}, {"local_id", e.LocalID}, {"remote_id", e.RemoteID}, {"proved_by", e.Authentication},
		{"local", validText(e.Local)}, {"remote", validText(e.Remote)},
	} {
		if a.value != "" {
			l.add(a.name, a.value)
		}
	}
	if e.SPIi != 0 {
		l.add("spi_i", fmt.Sprintf("%016x", e.SPIi))
		l.add("spi_r", fmt.Sprintf("%016x", e.SPIr))
	}
	if e.SPIIn != 0 || e.SPIOut != 0 {
		l.add("spi_in", spiText(e.SPIIn))
		l.add("spi_out", spiText(e.SPIOut))
	}
	if e.Took != 0 {
		l.add("took", e.Took.Round(10*time.Microsecond))
	}
	if e.Retransmits != 0 {
		l.add("retransmits", e.Retransmits)
	}
	if e.Stack != "" {
		l.add("stack", e.Stack)
	}
	log.LogAttrs(context.Background(), l.level, l.text, l.attributes...)
}

func outcomeText(o ike.Outcome) string {
	switch o {
	case ike.Began:
		return "began"
	case ike.Done:
		return "done"
	case ike.Failed:
		return "failed"
	case ike.Detail:
		return "detail"
	}
	return fmt.Sprint(uint8(o))
}

func validText(a netip.AddrPort) string {
	if !a.IsValid() {
		return ""
	}
	return a.String()
}
