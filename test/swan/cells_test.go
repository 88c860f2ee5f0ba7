package swan

import (
	"fmt"
	"strings"
)

// cell is one row of docs/interop.md: adit and strongSwan agree on it, in this
// role of adit, and carry data both ways.
type cell struct {
	role string // of adit: "initiator" or "responder"
	auth string // psk, rsa, ecdsa, ed25519
	esp  string // suite, as both sides write it
	ke   string
}

func (c cell) String() string { return c.auth + "/" + c.esp + "/" + c.ke + "/" + c.role }

var (
	roles  = []string{"initiator", "responder"}
	auths  = []string{"psk", "rsa", "ecdsa", "ed25519"}
	suites = []string{"aes128gcm16", "aes256gcm16", "chacha20poly1305", "aes128-sha256", "aes256-sha256"}
	kes    = []string{"x25519", "ecp256", "modp2048"}
)

// ike is the IKE proposal of a cell: its ESP suite protects the IKE SA as well.
func (c cell) ike() string {
	prf := ""
	switch {
	case strings.HasPrefix(c.esp, "aes256gcm"):
		prf = "-prfsha384"
	case !strings.Contains(c.esp, "-"):
		prf = "-prfsha256"
	}
	return c.esp + prf + "-" + c.ke
}

// wants is what strongSwan lists of the cell's algorithms: of the Child SA, of
// the IKE SA, and its key exchange.
func (c cell) wants() (encr, dh string) {
	encr = map[string]string{
		"aes128gcm16": "AES_GCM_16128", "aes256gcm16": "AES_GCM_16256", "chacha20poly1305": "CHACHA20_POLY1305",
		"aes128-sha256": "AES_CBC128", "aes256-sha256": "AES_CBC256",
	}[c.esp]
	dh = map[string]string{"x25519": "CURVE_25519", "ecp256": "ECP_256", "modp2048": "MODP_2048"}[c.ke]
	return encr, dh
}

// cells are all combinations that the issue of IKEv2 asks for.
func cells() (list []cell) {
	for _, auth := range auths {
		for _, esp := range suites {
			for _, ke := range kes {
				for _, role := range roles {
					list = append(list, cell{role, auth, esp, ke})
				}
			}
		}
	}
	return list
}

// page is the table of docs/interop.md.
func page() string {
	var b strings.Builder
	b.WriteString("| authentication | ESP and IKE encryption |")
	for _, ke := range kes {
		fmt.Fprintf(&b, " %s |", ke)
	}
	b.WriteString("\n|---|---|" + strings.Repeat("---|", len(kes)) + "\n")
	for _, auth := range auths {
		for _, esp := range suites {
			fmt.Fprintf(&b, "| %s | %s |", auth, esp)
			for range kes {
				b.WriteString(" initiator, responder |")
			}
			b.WriteString("\n")
		}
	}
	return b.String()
}
