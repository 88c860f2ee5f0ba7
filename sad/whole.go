package sad

import (
	"errors"
	"fmt"
)

// AH, transport mode and bundles: what is made with the IP header in hand, as
// AH covers it and transport mode keeps it.

// counterMode tells whether a number used twice breaks the suite.
func (p *Params) counterMode() bool {
	if p.Protocol == AH {
		return p.AHSuite.CounterMode()
	}
	return p.Suite.CounterMode()
}

func (p *Params) suiteName() string {
	if p.Protocol == AH {
		return p.AHSuite.String()
	}
	return p.Suite.String()
}

func (p *Params) checkKeysAH() error {
	switch {
	case !p.AHSuite.Valid():
		return errors.New("no suite of AH: give one, such as sha256")
	case p.Suite.Valid():
		return fmt.Errorf("a suite of ESP, %s, on an SA of AH: make it an SA of ESP, or leave it out", p.Suite)
	case len(p.EncryptionKey) != 0:
		return errors.New("an encryption key, and AH does not encrypt: leave it out")
	case len(p.IntegrityKey) != p.AHSuite.KeyLen():
		return fmt.Errorf("integrity key of %d bytes: %s takes %d", len(p.IntegrityKey), p.AHSuite, p.AHSuite.KeyLen())
	}
	return nil
}

// checkWhole checks what belongs to AH, transport mode and bundles.
func (p *Params) checkWhole() error {
	covered := p.Protocol == AH || p.Bundle
	switch {
	case p.Protocol > AH:
		return fmt.Errorf("protocol %d is not known", p.Protocol)
	case p.Mode > TransportMode:
		return fmt.Errorf("mode %d is not known", p.Mode)
	case covered && p.Encap == EncapUDP:
		// RFC 3715 2.1: "Since the AH header incorporates the IP source and
		// destination addresses in the keyed message integrity check, NAT or
		// reverse NAT devices making changes to address fields will
		// invalidate the message integrity check."
		return errors.New("AH in UDP: AH covers the outer addresses, which a NAT changes, and no RFC puts it into UDP: use ESP where there is a NAT, and raw IP (encap none) with AH")
	case covered && p.Direction == Outbound && (!p.Local.Addr().IsValid() || p.Local.Addr().IsUnspecified()):
		return errors.New("no local address: AH covers it, so give this end's outside address")
	case p.Mode == TransportMode && p.Direction == Outbound && (!p.Local.Addr().IsValid() || p.Local.Addr().IsUnspecified()):
		return errors.New("no local address: in transport mode the two ends are the packets' own addresses, so give this one's")
	case p.Bundle && len(p.DSCPs) > 0:
		return errors.New("DSCPs on one of a bundle: its AH would number all classes together: use ESP or AH alone for parallel SAs")
	case p.OriginalLocal.IsValid() != p.OriginalRemote.IsValid():
		return errors.New("one original address of two: give both ends' addresses in front of the NATs, or none")
	case p.OriginalLocal.IsValid() && (p.Mode != TransportMode || p.Encap != EncapUDP):
		return errors.New("original addresses without transport mode over UDP: nothing else needs them (RFC 3948 3.1.2)")
	case p.OriginalLocal.IsValid() && p.OriginalLocal.Unmap().Is4() != p.OriginalRemote.Unmap().Is4():
		return errors.New("the original addresses are of two families")
	}
	return nil
}

// Whole tells that the SA's packets are made with their IP header: AH, one of a
// bundle, or transport mode.
func (sa *SA) Whole() bool { return sa.whole }

// around tells that the SA puts AH around what another has made.
func (sa *SA) around() bool { return sa.Bundle && sa.Protocol == AH }

// SuiteName is the name of the SA's suite, of ESP or AH.
func (sa *SA) SuiteName() string {
	if sa.Protocol == AH {
		return sa.AHSuite.String()
	}
	return sa.Suite.String()
}
