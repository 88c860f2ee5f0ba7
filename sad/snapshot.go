package sad

import (
	"hash/maphash"
	"iter"
	"maps"
	"math/bits"
	"slices"
	"sync/atomic"
)

// shards is how many parts an index has. A change copies the array of parts and
// the parts that it touches: with ten thousand SAs some forty entries.
const shards = 256

// index is one table of a Snapshot, in parts. Immutable once published.
type index[K comparable, V any] [shards]map[K]V

// generations counts the snapshots of this process, so that no two databases
// share a number and 0 is never one.
var generations atomic.Uint64

// seed keeps who chooses the names from filling one shard; noPolicy is the part
// of the hash for an SA of every policy.
var (
	seed     = maphash.MakeSeed()
	noPolicy = policyHash("")
)

// Snapshot is what was installed at one moment. It is immutable and needs no
// lock; the SAs in it are live.
type Snapshot struct {
	inbound   index[uint32, *SA] // of ESP
	inboundAH index[uint32, *SA]
	// outbound is by peerHash ^ policyHash.
	outbound index[uint64, namesakes]
	// peers is every SA, both directions, by peerHash; see ofPeer.
	peers index[uint64, []*SA]

	count      int
	generation uint64
}

// namesakes are the outbound SAs of all names with one hash, in order of
// installation, and the classes of those names that have some.
type namesakes struct {
	sas     []*SA
	classes []*Classes
}

func spiShard(spi uint32) uint32 { return spi * 0x9e3779b1 >> 24 }

func outboundShard(hash uint64) uint32 { return uint32(hash % shards) }

func peerHash(peer string) uint64 { return maphash.String(seed, peer) }

func policyHash(policy string) uint64 { return bits.RotateLeft64(maphash.String(seed, policy), 32) }

// Inbound is the SA with this SPI, or nil. RFC 4303 3.4.2: "For a unicast SA,
// this determination is based on the SPI or the SPI plus protocol field".
func (s *Snapshot) Inbound(spi uint32) *SA { return s.inbound[spiShard(spi)][spi] }

// InboundAH is Inbound for AH: an SA of ESP may have the same SPI.
func (s *Snapshot) InboundAH(spi uint32) *SA { return s.inboundAH[spiShard(spi)][spi] }

func (s *Snapshot) inboundOf(p Protocol, spi uint32) *SA {
	if p == AH {
		return s.InboundAH(spi)
	}
	return s.Inbound(spi)
}

// Outbound is the SA for the policy's packets to the peer: the policy's own, else
// the one for every policy of the peer, else nil. Of several it is the one
// installed last, so that a new generation takes over when it is installed and
// the old one serves again if the new one is removed. Of a bundle it is the SA
// of ESP.
//
// Where the SAs carry classes of traffic (Params.DSCPs) it is the one installed
// last of those without; see OutboundClasses.
func (s *Snapshot) Outbound(peer, policy string) *SA {
	sa, classes := s.OutboundClasses(peer, policy)
	if classes != nil {
		return classes.other()
	}
	return sa
}

// newest is the SA of that name installed last, and the name's classes.
func (n *namesakes) newest(peer, policy string) (*SA, *Classes) {
	for i := len(n.sas) - 1; i >= 0; i-- {
		if sa := n.sas[i]; sa.Peer == peer && sa.Policy == policy && !sa.around() {
			return sa, n.classesOf(peer, policy)
		}
	}
	return nil, nil
}

// OutboundAH is the other SA of the bundle that esp, one of ESP, is half of: what
// puts AH around its packets. It is the one installed last for the same peer and
// policy; nil: there is none.
func (s *Snapshot) OutboundAH(esp *SA) *SA {
	hash := peerHash(esp.Peer) ^ policyHash(esp.Policy)
	names := s.outbound[outboundShard(hash)][hash]
	for _, sa := range slices.Backward(names.sas) {
		if sa.Peer == esp.Peer && sa.Policy == esp.Policy && sa.around() {
			return sa
		}
	}
	return nil
}

// All is every SA, in no particular order.
func (s *Snapshot) All() iter.Seq[*SA] {
	return func(yield func(*SA) bool) {
		for _, table := range []*index[uint32, *SA]{&s.inbound, &s.inboundAH} {
			for _, part := range table {
				for _, sa := range part {
					if !yield(sa) {
						return
					}
				}
			}
		}
		for _, part := range s.outbound {
			for _, names := range part {
				for _, sa := range names.sas {
					if !yield(sa) {
						return
					}
				}
			}
		}
	}
}

// Len is how many SAs there are.
func (s *Snapshot) Len() int { return s.count }

// Generation is the snapshot's number, unique in this process and never 0: what
// was looked up in a snapshot of another generation must be looked up again.
func (s *Snapshot) Generation() uint64 { return s.generation }

// editing is the next Snapshot while it is being made: a copy of the current
// one, whose parts are copied when they are first touched.
type editing struct {
	next           *Snapshot
	inboundCopied  [AH + 1][shards]bool
	outboundCopied [shards]bool
	peersCopied    [shards]bool
}

func edit(current *Snapshot) *editing {
	next := *current
	return &editing{next: &next}
}

func (e *editing) add(sa *SA) {
	e.ofPeer(sa, with)
	if sa.Direction == Inbound {
		e.inbound(sa)[sa.SPI] = sa
		return
	}
	hash := peerHash(sa.Peer) ^ policyHash(sa.Policy)
	part := own(&e.next.outbound, &e.outboundCopied, outboundShard(hash))
	names := part[hash]
	names.sas = with(names.sas, sa)
	part[hash] = names.reclass(sa.Peer, sa.Policy)
}

// with is sas with sa as the last. The slice is shared with older snapshots and
// must not be grown in place.
func with(sas []*SA, sa *SA) []*SA { return append(slices.Clip(sas), sa) }

// without is sas without sa.
func without(sas []*SA, sa *SA) []*SA {
	return slices.DeleteFunc(slices.Clone(sas), func(other *SA) bool { return other == sa })
}

// inbound is the part of the index that sa belongs into.
func (e *editing) inbound(sa *SA) map[uint32]*SA {
	table := &e.next.inbound
	if sa.Protocol == AH {
		table = &e.next.inboundAH
	}
	return own(table, &e.inboundCopied[sa.Protocol], spiShard(sa.SPI))
}

func (e *editing) remove(sa *SA) {
	e.ofPeer(sa, without)
	if sa.Direction == Inbound {
		delete(e.inbound(sa), sa.SPI)
		return
	}
	hash := peerHash(sa.Peer) ^ policyHash(sa.Policy)
	part := own(&e.next.outbound, &e.outboundCopied, outboundShard(hash))
	left := part[hash]
	left.sas = without(left.sas, sa)
	if len(left.sas) == 0 {
		delete(part, hash)
		return
	}
	part[hash] = left.reclass(sa.Peer, sa.Policy)
}

// ofPeer changes the list of all SAs of sa's peer.
func (e *editing) ofPeer(sa *SA, change func([]*SA, *SA) []*SA) {
	hash := peerHash(sa.Peer)
	part := own(&e.next.peers, &e.peersCopied, outboundShard(hash))
	if part[hash] = change(part[hash], sa); len(part[hash]) == 0 {
		delete(part, hash)
	}
}

func (e *editing) publish(count int) *Snapshot {
	e.next.count = count
	e.next.generation = generations.Add(1)
	return e.next
}

// own returns part i of the index, copied unless this edit has copied it before.
func own[K comparable, V any](x *index[K, V], copied *[shards]bool, i uint32) map[K]V {
	if !copied[i] {
		copied[i] = true
		if x[i] = maps.Clone(x[i]); x[i] == nil {
			x[i] = map[K]V{}
		}
	}
	return x[i]
}
