package bench

import (
	"crypto/rand"
	"errors"
	"fmt"
	"net/netip"

	"github.com/adit-ipsec/adit/ike"
	"github.com/adit-ipsec/adit/ike/keys"
	"github.com/adit-ipsec/adit/ike/proposal"
	"github.com/adit-ipsec/adit/ike/wire"
)

// ikeFlood is the requests of strangers with invented addresses: the first ones
// fill the half-open IKE SAs that a gateway allows without cookies, and all others
// are answered with one.
type ikeFlood struct {
	*ikePair
	sources  []netip.Addr
	messages [][]byte
}

// Strangers: in front of the flood, more than the threshold of half-open IKE SAs
// (30), and in one batch of it.
const (
	floodFirst = 64
	floodBatch = 1024
)

// floodNet is where their addresses begin: none of them is a peer's, and none is in
// another's place.
const floodNet = 100

func newIKEFlood(l IKELoad) (*ikeFlood, error) {
	l.Pairs = 1
	pair, err := newIKEPair(l)
	if err != nil {
		return nil, err
	}
	// Strangers are answered where a peer may come from anywhere.
	peer, other, err := l.peers()
	if err != nil {
		return nil, err
	}
	anybody := other[0]
	anybody.Remote = netip.Addr{}
	if err := pair.step(ikeResponder, ike.Configure{Peers: []ike.Peer{anybody}}); err != nil {
		return nil, err
	}
	f := &ikeFlood{ikePair: pair}
	exchange, err := keys.Begin(proposal.Choice{Transforms: peer[0].Proposals[0].Transforms}.KE(), rand.Reader)
	if err != nil {
		return nil, err
	}
	defer exchange.Discard()
	for i := range floodFirst + floodBatch {
		f.sources = append(f.sources, ikeAddress(floodNet, i))
		nonce := make([]byte, 32)
		_, _ = rand.Read(nonce) // never fails
		f.messages = append(f.messages, wire.Append(nil,
			wire.Header{Initiator: wire.SPI(i + 1), Major: 2, Exchange: wire.IKESAInit, Flags: wire.FlagInitiator},
			&wire.SA{Proposals: []wire.Proposal{peer[0].Proposals[0].Wire(1, nil)}},
			&wire.KE{Method: uint16(proposal.Choice{Transforms: peer[0].Proposals[0].Transforms}.KE()), Data: exchange.Public()},
			&wire.Nonce{Data: nonce}))
	}
	return f, nil
}

// cookies is one batch of the flood, against a machine whose half-open IKE SAs are
// at their threshold.
func (f *ikeFlood) cookies() (m ikeMeasure, err error) {
	for i := range floodFirst {
		if _, err := f.stranger(f.sources[i], f.messages[i]); err != nil {
			return m, err
		}
	}
	open := f.ends[ikeResponder].machine.HalfOpen()
	answers := make([]ike.Packet, 0, floodBatch)
	m, err = f.measured(floodBatch, func() error {
		for i := floodFirst; i < len(f.messages); i++ {
			out, err := f.stranger(f.sources[i], f.messages[i])
			if err != nil {
				return err
			}
			answers = append(answers, out...)
		}
		return nil
	})
	if err != nil {
		return m, err
	}
	for i := range answers {
		if msg, err := wire.Parse(answers[i].Data); err != nil || wire.FindNotify(msg.Payloads, wire.NotifyCookie) == nil {
			return m, errors.Join(err, fmt.Errorf("bench: answer %d of the flood is no cookie", i))
		}
	}
	if now := f.ends[ikeResponder].machine.HalfOpen(); len(answers) != floodBatch || now != open {
		return m, fmt.Errorf("bench: %d of %d strangers were asked for a cookie; half-open IKE SAs: %d before, %d behind", len(answers), floodBatch, open, now)
	}
	return m, f.pass(ikeRest) // the half-open ones end
}
