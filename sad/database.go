package sad

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
)

// Why Install refuses.
var (
	// ErrDuplicate: an SA with this ID, or inbound with this SPI, is there.
	ErrDuplicate = errors.New("already installed")
	// ErrKeyInUse: another SA has the same key, or had it.
	ErrKeyInUse = errors.New("its key belongs to another SA: every SA needs a key of its own, in each direction")
)

// maxSpent bounds how many keys of removed SAs a Database remembers, for each
// direction.
const maxSpent = 1 << 16

// Database holds the installed SAs. Readers take a Snapshot; changes are made
// one after another, each published whole.
type Database struct {
	// ---- atomic ----

	current atomic.Pointer[Snapshot]

	// ---- guarded by mu: readers never come here ----

	mu   sync.Mutex
	ids  map[ID]*SA
	keys map[KeyID]ID // of the installed SAs
	// spent holds the keys of removed SAs whose numbers would start again at
	// 1: outbound, in a counter mode, without a store. Oldest first in order.
	spent map[KeyID]struct{}
	order []KeyID
	// received is how far the windows of removed inbound SAs had got: one
	// that is installed again, with other parameters, must not take the same
	// packets again. Oldest first in receivedOrder.
	received      map[receiver]uint64
	receivedOrder []receiver
}

// receiver is what the packets of an inbound SA are authentic for.
type receiver struct {
	spi uint32
	key KeyID
}

// NewDatabase returns an empty database.
func NewDatabase() *Database {
	d := &Database{ids: map[ID]*SA{}, keys: map[KeyID]ID{}, spent: map[KeyID]struct{}{}, received: map[receiver]uint64{}}
	d.current.Store(&Snapshot{generation: generations.Add(1)})
	return d
}

// Load returns what is installed now. It stays as it is, whatever is installed
// or removed later: load one per batch.
func (d *Database) Load() *Snapshot { return d.current.Load() }

// Install adds all of sas, or none. Refused are an ID that is there, an inbound
// SPI that is there (whichever peer it belongs to: the SPI alone finds the SA), a
// key that another SA has, and a key that a removed outbound SA used up to an
// unknown number. An inbound SA with the SPI and the key of a removed one refuses
// every number up to the highest that that one has seen: to its packets it is the
// same SA, whose window RFC 4303 3.4.3 starts at zero once, "when the SA is
// established".
func (d *Database) Install(sas ...*SA) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	e := edit(d.current.Load())
	for i, sa := range sas {
		if err := d.admit(sa, e); err != nil {
			d.forget(sas[:i])
			return err
		}
		d.ids[sa.ID()], d.keys[sa.keyID] = sa, sa.ID()
		sa.skipReceived(d.received[receiver{sa.SPI, sa.keyID}])
		e.add(sa)
	}
	e.next.place(sas)
	d.current.Store(e.publish(len(d.ids)))
	return nil
}

// admit tells whether sa may be added to what is installed and to e.
func (d *Database) admit(sa *SA, e *editing) error {
	if sa == nil {
		return errors.New("sad: install of a nil SA: New returned an error")
	}
	id := sa.ID()
	if _, ok := d.ids[id]; ok {
		return fmt.Errorf("sad: %s: %w: remove it first, or use another SPI", id, ErrDuplicate)
	}
	if sa.Direction == Inbound {
		if other := e.next.inboundOf(sa.Protocol, sa.SPI); other != nil {
			return fmt.Errorf("sad: %s: SPI %w, for peer %q: use another SPI", id, ErrDuplicate, other.Peer)
		}
	}
	if other, ok := d.keys[sa.keyID]; ok {
		return fmt.Errorf("sad: %s: %w (%s)", id, ErrKeyInUse, other)
	}
	if _, ok := d.spent[sa.keyID]; ok {
		return fmt.Errorf("sad: %s: %w (one that was removed): its numbers would be used again", id, ErrKeyInUse)
	}
	return nil
}

// forget takes sas out of the books of installed SAs.
func (d *Database) forget(sas []*SA) {
	for _, sa := range sas {
		delete(d.ids, sa.ID())
		delete(d.keys, sa.keyID)
	}
}

// Remove takes the SAs with these IDs out and returns how many were there. A
// batch that runs on an older Snapshot may still use them: nothing is wiped. The
// garbage collector ends an SA, and the keys in its Transform, once no batch
// holds it.
func (d *Database) Remove(ids ...ID) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	sas := make([]*SA, 0, len(ids))
	for _, id := range ids {
		if sa, ok := d.ids[id]; ok {
			sas = append(sas, sa)
		}
	}
	return d.take(sas)
}

// take takes out those of sas that are there, and returns how many. mu is held.
func (d *Database) take(sas []*SA) (removed int) {
	e := edit(d.current.Load())
	for _, sa := range sas {
		if d.ids[sa.ID()] != sa {
			continue // another has its name by now, or none
		}
		d.forget([]*SA{sa})
		d.spend(sa)
		d.keepEdge(sa)
		e.remove(sa)
		removed++
	}
	if removed > 0 {
		d.current.Store(e.publish(len(d.ids)))
	}
	return removed
}

// spend remembers the key of a removed SA if a new SA with it would seal under
// numbers that were used. The store of the others remembers for them. Only the
// last maxSpent keys are kept: it is a net under key sources that promise fresh
// keys, and must not grow with every rekey.
func (d *Database) spend(sa *SA) {
	if sa.Direction != Outbound || sa.sequence != nil || !sa.Suite.CounterMode() && !sa.AHSuite.CounterMode() {
		return
	}
	if len(d.order) == maxSpent {
		delete(d.spent, d.order[0])
		d.order = d.order[1:]
	}
	d.spent[sa.keyID] = struct{}{}
	d.order = append(d.order, sa.keyID)
}

// keepEdge remembers how far the window of a removed SA has got; again only for
// the last maxSpent of them. A batch that is still at work on an older Snapshot
// may move that window once more: what it marks is not remembered.
func (d *Database) keepEdge(sa *SA) {
	edge := sa.edge()
	if edge == 0 {
		return
	}
	r := receiver{sa.SPI, sa.keyID}
	if _, again := d.received[r]; !again {
		if len(d.receivedOrder) == maxSpent {
			delete(d.received, d.receivedOrder[0])
			d.receivedOrder = d.receivedOrder[1:]
		}
		d.receivedOrder = append(d.receivedOrder, r)
	}
	d.received[r] = edge
}
