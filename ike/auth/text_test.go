package auth_test

import (
	"strings"
	"testing"

	"github.com/adit-ipsec/adit/internal/pki"
)

// TestAStrangersCertificateIsNoLongLine: what crypto/x509 says of a certificate holds
// the names in it, and those are as long as whoever sends it likes.
func TestAStrangersCertificateIsNoLongLine(t *testing.T) {
	w := theWorld(t)
	leaf := must[*pki.Entity](t)(w.mid.Issue(pki.Options{Name: "x", DNS: []string{"%zz" + strings.Repeat("a", 20_000)}}))
	x := certified(t, w.leaves[pki.P256]).sign(t)
	x.send(leaf.Cert, w.mid.Cert)
	// The name is made a URI, which it is not.
	data := x.certs[0].Data
	data[strings.Index(string(data), "%zz")-4] = 0x86
	if _, err := x.verify(); err == nil || len(err.Error()) > 2000 {
		t.Errorf("the error has %d bytes: %.200v", len(err.Error()), err)
	}
}
