package sad

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/adit-ipsec/adit/internal/packet"
)

// MoveEnds puts SAs of the peer between other addresses, both of them: what
// MOBIKE has agreed on (RFC 4555). No ids are all SAs of the peer. All of them move,
// or none; the error says which one stands in the way. Unlike Move it moves SAs that
// are Static, as those with MOBIKE are, and neither asks Follows nor changes it: who
// calls it has heard both ends in an authenticated exchange.
//
// local may have no address, then the kernel chooses, but for SAs that cover their
// outer addresses. Encap and BehindNAT stay what they are; where a NAT has come or
// gone, new SAs have to replace these.
//
// The numbers, keys and windows stay: a packet that is on its way from or to the old
// addresses is opened as ever, for inbound SAs of ESP in UDP are found by SPI alone.
func (d *Database) MoveEnds(peer string, ids []ID, local, remote netip.AddrPort) error {
	local, remote = unmap(local), unmap(remote)
	if err := checkEnds(local, remote); err != nil {
		return fmt.Errorf("sad: move SAs of peer %q: %w", peer, err)
	}
	d.mu.Lock() // as in Move
	defer d.mu.Unlock()
	sas, err := d.Load().chosen(peer, ids)
	if err != nil {
		return err
	}
	for _, sa := range sas {
		if err := sa.checkMove(local, remote); err != nil {
			return fmt.Errorf("sad: move %s: %w", sa.ID(), err)
		}
	}
	for _, sa := range sas {
		sa.move(local, remote)
	}
	return nil
}

// chosen is the peer's SAs with those ids, or all of them.
func (s *Snapshot) chosen(peer string, ids []ID) (sas []*SA, err error) {
	of := map[ID]*SA{}
	for _, sa := range s.ofPeer(peer) {
		if sa.Peer == peer {
			of[sa.ID()] = sa
			sas = append(sas, sa)
		}
	}
	if len(ids) == 0 {
		return sas, nil
	}
	sas = sas[:0]
	for _, id := range ids {
		sa := of[id]
		if sa == nil {
			return nil, fmt.Errorf("sad: move SAs of peer %q: it has no SA %s", peer, id)
		}
		sas = append(sas, sa)
	}
	return sas, nil
}

func checkEnds(local, remote netip.AddrPort) error {
	to := remote.Addr()
	switch {
	case !to.IsValid() || to.IsUnspecified() || to.IsMulticast() || to == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		return fmt.Errorf("to %s: give the address of one host", to)
	case concrete(local.Addr()) && local.Addr().Is4() != to.Is4():
		return fmt.Errorf("between %s and %s: give addresses of one family", local.Addr(), to)
	case local.Addr() == to:
		return fmt.Errorf("between %s and itself", to)
	}
	return nil
}

func concrete(a netip.Addr) bool { return a.IsValid() && !a.IsUnspecified() }

func (sa *SA) checkMove(local, remote netip.AddrPort) error {
	switch {
	case sa.Mode == TransportMode:
		// RFC 4555, abstract: "MOBIKE allows the IP addresses associated with
		// IKEv2 and tunnel mode IPsec Security Associations to change."
		return errors.New("it is in transport mode, and ends where its packets do: replace it")
	case sa.Encap == EncapUDP && remote.Port() == 0:
		return errors.New("it is in UDP: give the peer's port")
	case sa.whole && sa.Direction == packet.Outbound && !concrete(local.Addr()):
		return errors.New("AH covers the outer addresses: give this end's")
	}
	return nil
}
