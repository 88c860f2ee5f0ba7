package main

import (
	"fmt"
	"time"

	"github.com/adit-ipsec/adit/internal/ctl/controlv1"
	"github.com/adit-ipsec/adit/internal/packet"
	"github.com/adit-ipsec/adit/sad"
)

// viewPathMTU adds what an outbound SA knows of its path.
func viewPathMTU(view *controlv1.SecurityAssociation, s *sad.Stats, now int64) {
	if s.Direction != packet.Outbound {
		return
	}
	is := s.PathMTU
	view.PathMtu, view.PathMtuSource, view.LinkMtu = uint32(is.MTU), is.Source.String(), uint32(is.Link)
	view.InnerMtu = uint32(max(is.Inner, 0))
	view.PathMtuSeconds = max(time.Duration(now)-is.Since, 0).Seconds()
}

// pathMTUText is an outbound SA's path MTU, where it came from, and what it leaves
// for the packet inside.
func pathMTUText(sa *controlv1.SecurityAssociation) string {
	switch {
	case sa.GetDirection() != "out":
		return ""
	case sa.GetPathMtu() == 0:
		return sourcedMTU(0, "")
	}
	return fmt.Sprintf("%s, %d inside", sourcedMTU(sa.GetPathMtu(), sa.GetPathMtuSource()), sa.GetInnerMtu())
}

// sourcedMTU is an MTU in bytes and where it came from.
func sourcedMTU(mtu uint32, source string) string {
	if mtu == 0 {
		return "unknown"
	}
	return fmt.Sprintf("%d (%s)", mtu, source)
}

// viewPeersMTU adds to each peer the narrowest path of its outbound SAs.
func viewPeersMTU(peers []*controlv1.Peer, sas []sad.Stats) {
	for _, p := range peers {
		for i := range sas {
			s := &sas[i]
			if is := s.PathMTU; s.Peer == p.GetName() && s.Direction == packet.Outbound && is.MTU > 0 &&
				(p.GetPathMtu() == 0 || uint32(is.MTU) < p.GetPathMtu()) {
				p.PathMtu, p.PathMtuSource = uint32(is.MTU), is.Source.String()
			}
		}
	}
}
