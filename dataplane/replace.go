package dataplane

import (
	"fmt"
	"sync"
	"time"

	"github.com/adit-ipsec/adit/sad"
)

// Replacement without a gap. RFC 7296 2.8: "To rekey a Child SA within an existing
// IKE SA, create a new, equivalent SA [...], and when the new one is established,
// delete the old one." For a while both are there: the newest outbound SA carries what is
// sent from the next batch on, and inbound each packet finds its own by its SPI.

// replacements are the SAs that have been replaced and are still installed.
type replacements struct {
	mu       sync.Mutex // held for a whole Replace; never on the packet path
	retiring []retiring // guarded by mu
}

type retiring struct {
	sa  *sad.SA
	due time.Duration // not installed beyond this
	// generation is that of the snapshot in which another SA has taken over.
	generation uint64
}

// Replace installs the SAs of params, all or none, in the place of the old ones.
// Traffic moves to the new outbound SAs at the workers' next batch. An old outbound
// SA is removed as soon as no worker can be using it, at the latest after grace; an
// old inbound SA takes what is still on its way, and is removed after grace. Old
// IDs that are not installed mean nothing; an SA that is retiring reaches no soft
// limit. Removals are no events.
//
// It may be called again with the same arguments: an SA that is there with the
// same ID and key is not made again, and no grace starts again. An error leaves
// all as it was. After Close it changes nothing that anyone could see.
//
// The initiator of an exchange gives both directions at once. The responder has
// to be able to receive before it answers, and to send later: it calls Install
// with the new inbound SA, answers, and calls Replace with the new outbound one
// when "(1) it has received a cryptographically valid message on the other half of
// the SA pair, or (2) the new SA rekeys an existing SA and it receives an IKE
// request to close the replaced SA" (RFC 7296 2.8).
func (g *Gateway) Replace(old []sad.ID, grace time.Duration, params ...sad.Params) error {
	if grace < 0 {
		return fmt.Errorf("dataplane: replace with a grace time of %s: use 0 or more", grace)
	}
	r := &g.replacements
	r.mu.Lock()
	defer r.mu.Unlock()
	var fresh []sad.Params
	for i := range params {
		id := params[i].ID()
		for _, other := range old {
			if id == other {
				return fmt.Errorf("dataplane: replace %s by itself: a replacement needs an SPI of its own", id)
			}
		}
		if sa := g.sas.Find(id); sa == nil || sa.KeyID() != params[i].KeyID() {
			fresh = append(fresh, params[i]) // one that is there with another key is Install's to refuse
		}
	}
	if len(fresh) > 0 {
		if err := g.Install(fresh...); err != nil {
			return err
		}
	}
	due, generation := g.clock()+grace, g.sas.Load().Generation()
	for _, id := range old {
		if sa := g.sas.Find(id); sa != nil && !r.has(sa) {
			sa.Replaced()
			r.retiring = append(r.retiring, retiring{sa, due, generation})
		}
	}
	return nil
}

func (r *replacements) has(sa *sad.SA) bool {
	for i := range r.retiring {
		if r.retiring[i].sa == sa {
			return true
		}
	}
	return false
}

// retire removes what has been replaced and is not needed any more; the
// housekeeper calls it. What somebody else has removed is forgotten, so that the
// list is never longer than the database.
func (g *Gateway) retire(now time.Duration) {
	r := &g.replacements
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.retiring) == 0 {
		return
	}
	oldest := g.oldestSnapshot()
	var done []*sad.SA
	keep := r.retiring[:0]
	for _, old := range r.retiring {
		switch {
		case now >= old.due, old.sa.Direction == sad.Outbound && oldest >= old.generation:
			done = append(done, old.sa)
		case g.sas.Find(old.sa.ID()) == old.sa:
			keep = append(keep, old)
		}
	}
	clear(r.retiring[len(keep):])
	r.retiring = keep
	if len(done) > 0 {
		g.sas.Retire(done...)
	}
}

// oldestSnapshot is the lowest generation whose SAs an outbound worker may be
// using, or the highest value there is where none has a batch in hand.
func (g *Gateway) oldestSnapshot() uint64 {
	oldest := ^uint64(0)
	for _, w := range g.out {
		if generation := w.using.Load(); generation != 0 {
			oldest = min(oldest, generation)
		}
	}
	return oldest
}

// anySnapshot stands for one that is being loaded: it is no newer than any.
const anySnapshot = 1

// takeSnapshot makes the worker's memory the caller's (hold.go) and says, without
// knowing yet which they will be, that SAs are in use: whoever reads using == 0
// behind a change knows that the next batch sees the change. load says which they
// are; releaseSnapshot is the end.
func (w *outboundWorker) takeSnapshot() {
	if !w.using.CompareAndSwap(0, anySnapshot) {
		w.own()
	}
}

// load loads what a batch goes by, once.
func (w *outboundWorker) load() {
	sas := w.gateway.sas.Load()
	w.using.Store(sas.Generation())
	w.now = w.gateway.clock()
	w.cache.use(w.gateway.policy.Load(), sas)
}

func (w *outboundWorker) releaseSnapshot() { w.using.Store(0) }
