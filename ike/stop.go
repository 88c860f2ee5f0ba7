package ike

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"
)

// The end of all. A gateway that goes must not be left with an IKE SA at a peer that
// nobody will ever answer for: that peer would send into a hole until it finds out by
// itself. So the last Terminate ends what there is, and from then on nothing begins:
// not for a packet, not for the operator, and not for a peer that comes again as soon
// as it has been told goodbye.

// stop is the last Terminate.
func (m *Machine) stop() {
	m.stopping = true
	m.terminate(Terminate{})
	why := failure{Reason: "terminated", Text: "this end is stopping"}
	for _, spi := range slices.Sorted(maps.Keys(m.sas)) {
		if sa := m.sas[spi]; sa != nil && sa.state == halfOpen {
			m.forget(sa, why) // its IKE_AUTH would have it up
		}
	}
}

// finish ends a driver: it tells every peer, and goes on until they have answered, at
// most DriverConfig.Stop.
func (d *Driver) finish(ctx context.Context) {
	began := d.cfg.Clock()
	d.step(Terminate{Last: true})
	limit, cancel := context.WithTimeout(context.WithoutCancel(ctx), d.cfg.Stop)
	defer cancel()
	d.loop(limit.Done(), d.idle)
	if d.idle() {
		return
	}
	left, _ := d.status()
	for _, p := range left {
		for i := range p.SAs {
			d.cfg.Log(unanswered(&p, &p.SAs[i], d.cfg.Clock()-began))
		}
	}
}

// idle asks the machine; one that cannot say it is not waited for.
func (d *Driver) idle() bool {
	idle := true
	d.safely("whether anything is left", func() { idle = d.machine.Idle() })
	return idle
}

// unanswered is about a peer that has not answered the last Delete.
func unanswered(p *PeerStatus, sa *SAStatus, took time.Duration) Event {
	return Event{
		Peer: p.Name, Stage: StageDelete, Outcome: Failed, Reason: "timeout", Local: sa.Local, Remote: sa.Remote, SPIi: sa.SPIi, SPIr: sa.SPIr,
		LocalID: sa.LocalID, RemoteID: sa.PeerID, Took: took,
		Text: fmt.Sprintf("this end stops without the peer's answer to its Delete, after %s: the peer may keep its SAs until it finds out by itself", took.Round(10*time.Millisecond)),
	}
}

// Idle tells whether no peer has an IKE SA. It is for whoever asks often: a hub that stops
// asks behind each answer of a thousand peers.
func (m *Machine) Idle() bool {
	return !slices.ContainsFunc(m.names, func(name string) bool { return len(m.peers[name].sas) > 0 })
}
