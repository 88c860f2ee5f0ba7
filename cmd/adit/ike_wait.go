package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/adit-ipsec/adit/internal/ctl"
	"github.com/adit-ipsec/adit/internal/ctl/controlv1"
)

// initiated is an `adit ike initiate` that waits for its end.
type initiated struct {
	peer, policy string // policy "": all of the peer's
	since        time.Time
	wait         time.Duration
}

// await returns the peer when what was asked for is up, or why it is not: it failed,
// or the time is over.
func (i *initiated) await(ctx context.Context, client *ctl.Client, progress io.Writer) (*controlv1.IKEPeer, error) {
	ctx, cancel := context.WithTimeout(ctx, i.wait)
	defer cancel()
	slow := time.AfterFunc(patience, func() { fmt.Fprintf(progress, "… waiting for %s, at most %s\n", i.peer, i.wait) })
	defer slow.Stop()
	tick := time.NewTicker(statusInterval)
	defer tick.Stop()
	var last *controlv1.IKEPeer
	for {
		list, err := client.IKE(ctx)
		switch {
		case err == nil:
			if last, err = i.look(list.GetPeers()); last != nil && (err != nil || i.up(last)) {
				return last, err
			}
		case ctx.Err() == nil:
			return nil, err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			if last == nil {
				return nil, fmt.Errorf("waited %s: the gateway did not answer in that time", i.wait)
			}
			return last, fmt.Errorf("waited %s: %s is not up: it is %s; `adit ike list` and the gateway's log say more", i.wait, i.peer, stateText(last))
		}
	}
}

// look finds the peer; the error is what its negotiation failed with meanwhile.
func (i *initiated) look(peers []*controlv1.IKEPeer) (*controlv1.IKEPeer, error) {
	at := slices.IndexFunc(peers, func(p *controlv1.IKEPeer) bool { return p.GetName() == i.peer })
	if at < 0 {
		return &controlv1.IKEPeer{}, errors.New("the peer is no longer configured")
	}
	p := peers[at]
	t := p.GetTrouble()
	ours := i.policy == "" || t.GetPolicy() == "" || t.GetPolicy() == i.policy
	if t.GetReason() != "" && ours && t.GetSeconds() < time.Since(i.since).Seconds() {
		return p, fmt.Errorf("%s: %s", i.peer, troubleText(t))
	}
	return p, nil
}

func (i *initiated) up(p *controlv1.IKEPeer) bool {
	if i.policy != "" {
		return p.GetState() == ikeUp && !slices.Contains(p.GetMissing(), i.policy)
	}
	return p.GetState() == ikeUp && len(p.GetMissing()) == 0
}

// stateText is a peer's state, with what is missing where it is up.
func stateText(p *controlv1.IKEPeer) string {
	if p.GetState() != ikeUp {
		return p.GetState()
	}
	return "up, without " + strings.Join(p.GetMissing(), ", ")
}
