package main

import (
	"crypto/x509"
	"fmt"
	"log/slog"
	"time"

	"github.com/adit-ipsec/adit/config"
)

// certificateNotice is how long before its end a certificate is spoken of.
const certificateNotice = 14 * 24 * time.Hour

// certificateNotes says which of the file's certificates are over, not begun, or near
// their end: this end's, which the peer will refuse, and only its log would say why; and
// those of the authorities, without which no peer is believed.
func certificateNotes(cfg *config.Config, now time.Time) (notes []config.Warning) {
	seen := map[string]bool{}
	for i := range cfg.Peers {
		p := &cfg.Peers[i]
		if p.IKE == nil {
			continue
		}
		for _, group := range []struct {
			key  string
			list []*x509.Certificate
		}{{"certificate", p.IKE.Local.Chain}, {"trust", p.IKE.Remote.Trust}} {
			key := fmt.Sprintf("peers[%d].ike.auth.%s", i, group.key)
			for _, c := range group.list {
				text := certificateNote(c, now)
				if id := group.key + string(c.Raw); text != "" && !seen[id] {
					seen[id] = true
					notes = append(notes, config.Warning{Position: cfg.Position(key), Key: key, Text: text})
				}
			}
		}
	}
	return notes
}

// certificateNote is about one certificate; "": nothing.
func certificateNote(c *x509.Certificate, now time.Time) string {
	name := c.Subject.String()
	if name == "" {
		name = "serial number " + c.SerialNumber.String()
	}
	begin, end := c.NotBefore.UTC().Format(time.RFC3339), c.NotAfter.UTC().Format(time.RFC3339)
	switch left := c.NotAfter.Sub(now); {
	case now.Before(c.NotBefore):
		return fmt.Sprintf("the certificate %s is valid from %s on, and this clock says %s: the peer will refuse it", name, begin, now.UTC().Format(time.RFC3339))
	case left <= 0:
		return fmt.Sprintf("the certificate %s has expired at %s: the peer will refuse what stands under it; renew it", name, end)
	case left < certificateNotice:
		return fmt.Sprintf("the certificate %s ends in %s, at %s: renew it", name, lasted(left.Seconds()), end)
	}
	return ""
}

// warnCertificates logs them.
func warnCertificates(log *slog.Logger, cfg *config.Config) {
	for _, w := range certificateNotes(cfg, time.Now()) {
		log.Warn(w.String())
	}
}
