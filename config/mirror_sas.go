package config

import (
	"fmt"
	"slices"

	"github.com/adit-ipsec/adit/internal/packet"
	"github.com/adit-ipsec/adit/sad"
)

// sas compares the SAs of two peers with one protocol: what is out at one end is
// in at the other. SAs with the same protocol and SPI belong together; then those
// left over in their order, so that a wrong SPI is named as one.
func (m *mirror) sas(keyA, keyB string, pa, pb *Peer) {
	for _, direction := range []packet.Direction{packet.Outbound, packet.Inbound} {
		for _, protocol := range []sad.Protocol{sad.ESP, sad.AH} {
			as := sasOf(pa, role{direction, protocol})
			bs := sasOf(pb, role{opposite(direction), protocol})
			take := func(same func(a, b *SA) bool) {
				as = slices.DeleteFunc(as, func(i int) bool {
					at := slices.IndexFunc(bs, func(j int) bool { return same(&pa.SAs[i], &pb.SAs[j]) })
					if at < 0 {
						return false
					}
					j := bs[at]
					bs = slices.Delete(bs, at, at+1)
					m.sa(fmt.Sprintf("%s.sas[%d]", keyA, i), fmt.Sprintf("%s.sas[%d]", keyB, j), &pa.SAs[i], &pb.SAs[j])
					return true
				})
			}
			take(func(a, b *SA) bool { return a.SPI == b.SPI })
			take(func(_, _ *SA) bool { return true })
			for _, i := range as {
				m.differ(fmt.Sprintf("%s.sas[%d]", keyA, i), keyB+".sas", "%s 0x%x has no counterpart at the other end", pa.SAs[i].what(), pa.SAs[i].SPI)
			}
			for _, j := range bs {
				m.differ(keyA+".sas", fmt.Sprintf("%s.sas[%d]", keyB, j), "the other end's %s 0x%x has no counterpart here", pb.SAs[j].what(), pb.SAs[j].SPI)
			}
		}
	}
}

// sasOf is where the SAs of a role stand in p.
func sasOf(p *Peer, r role) (list []int) {
	for i := range p.SAs {
		if p.SAs[i].Direction == r.direction && p.SAs[i].Protocol == r.protocol {
			list = append(list, i)
		}
	}
	return list
}

func opposite(d packet.Direction) packet.Direction {
	if d == packet.Outbound {
		return packet.Inbound
	}
	return packet.Outbound
}

// what names the SA in a sentence: its direction, and its protocol if that is AH.
func (sa *SA) what() string {
	if sa.Protocol == sad.AH {
		return "ah " + word(sa.Direction)
	}
	return word(sa.Direction)
}

// suiteName is the name of the SA's suite.
func (sa *SA) suiteName() string {
	if sa.Protocol == sad.AH {
		return sa.AHSuite.String()
	}
	return sa.Suite.String()
}

// sa compares two SAs of one protocol and opposite directions.
func (m *mirror) sa(keyA, keyB string, a, b *SA) {
	here, there := a.what(), b.what()
	if a.SPI != b.SPI {
		m.differ(keyA+".spi", keyB+".spi", "%s is 0x%x here, %s is 0x%x at the other end", here, a.SPI, there, b.SPI)
	}
	if a.Suite != b.Suite || a.AHSuite != b.AHSuite {
		m.differ(keyA+".suite", keyB+".suite", "%s is %s here, %s is %s at the other end", here, a.suiteName(), there, b.suiteName())
		return // keys of different suites have nothing to be equal in
	}
	if !equalKeys(a.EncryptionKey, b.EncryptionKey) {
		m.differ(m.a.secretKey(keyA, "encryption_key"), m.b.secretKey(keyB, "encryption_key"), "the encryption key of %s here is not that of %s at the other end", here, there)
	}
	if !equalKeys(a.IntegrityKey, b.IntegrityKey) {
		m.differ(m.a.secretKey(keyA, "integrity_key"), m.b.secretKey(keyB, "integrity_key"), "the integrity key of %s here is not that of %s at the other end", here, there)
	}
}
