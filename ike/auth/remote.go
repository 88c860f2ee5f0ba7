package auth

import (
	"crypto"
	"crypto/x509"
	"fmt"
	"io"
	"time"

	"github.com/adit-ipsec/adit/ike/wire"
	"github.com/adit-ipsec/adit/sad"
)

// Remote is who the peer must be, and what it is believed by. Each of PSK, Trust
// and Keys is a way in of its own.
type Remote struct {
	// ID is who the peer must be; zero: any. Certificates must hold whatever the
	// peer claims; a pre-shared key and a raw key prove that it is a peer that has
	// them, under the name that it gives itself.
	ID    Identity
	PSK   sad.Key
	Trust []*x509.Certificate // anchors: authorities, or the peer's very certificate
	Keys  []crypto.PublicKey  // raw public keys, *rsa.PublicKey, *ecdsa.PublicKey or ed25519.PublicKey
	// Revocation is how certificates are asked about; zero: not at all.
	Revocation Revocation
	// Legacy allows the RSA method of RFC 7296 with SHA-1.
	Legacy bool
}

// PPK is a post-quantum pre-shared key (RFC 8784). ID names it to the peer;
// Required: no IKE SA without it.
type PPK struct {
	ID       []byte
	Key      sad.Key
	Required bool
}

// Peer is the proof that somebody is authenticated. Only Remote.Verify makes one;
// the zero value is nobody.
type Peer struct{ proof *proof }

type proof struct {
	id     Identity
	method string
	cert   *x509.Certificate
	chains [][]*x509.Certificate // the ways from cert up to an anchor that were open; none without cert
}

// Valid tells whether somebody is authenticated.
func (p Peer) Valid() bool { return p.proof != nil }

// ID is the identity that was proved; zero for nobody.
func (p Peer) ID() Identity {
	if p.proof == nil {
		return Identity{}
	}
	return p.proof.id
}

// Method is how: "psk", "rsa", "ecdsa" or "ed25519"; "" for nobody.
func (p Peer) Method() string {
	if p.proof == nil {
		return ""
	}
	return p.proof.method
}

// Certificate is the peer's certificate; nil if it has none.
func (p Peer) Certificate() *x509.Certificate {
	if p.proof == nil {
		return nil
	}
	return p.proof.cert
}

// String is identity and method.
func (p Peer) String() string {
	if p.proof == nil {
		return "nobody"
	}
	return p.proof.id.String() + " by " + p.proof.method
}

// Verify proves that the peer is id: its CERT payloads in their order, its AUTH
// payload, what that covers, and the date. An error is an *Error.
//
// The identity is compared first, and again with what the certificate holds; the
// ID payload in o must be that of id.
func (r Remote) Verify(id Identity, certs []*wire.Cert, a *wire.Auth, o Octets, now time.Time) (Peer, error) {
	if err := id.check(); err != nil {
		return Peer{}, &Error{Reason: BadIdentity, Text: "the peer's identity cannot be used: " + err.Error(), Theirs: id.String()}
	}
	if !r.ID.IsZero() && !r.ID.Equal(id) {
		return Peer{}, &Error{Reason: WrongIdentity, Text: "the peer is somebody else", Theirs: id.String(), Ours: r.ID.String(), Fix: "configure the identity that the peer sends, exactly"}
	}
	octets, err := o.octets()
	if err != nil {
		return Peer{}, err
	}
	if a == nil || !o.claims(id) {
		return Peer{}, &Error{Reason: AuthFailed, Text: "the peer's AUTH does not cover its identity", Theirs: id.String()}
	}
	if a.Method == wire.AuthSharedKey {
		return r.verifyShared(id, a, o, octets)
	}
	return r.verifySignature(id, certs, a, octets, now)
}

func (r Remote) verifyShared(id Identity, a *wire.Auth, o Octets, octets []byte) (Peer, error) {
	if len(r.PSK) == 0 {
		return Peer{}, r.notByThis(a.Method)
	}
	if !sameMAC(sharedKeyMAC(r.PSK, o.PRF, octets), a.Data) {
		return Peer{}, &Error{Reason: AuthFailed, Text: "the pre-shared keys differ, or the keys of the exchange do", Theirs: id.String(), Fix: "set the same pre-shared key on both ends; a line break or space at its end counts"}
	}
	return Peer{&proof{id: id, method: "psk"}}, nil
}

// notByThis: the peer proves itself by something that is not configured here.
func (r Remote) notByThis(theirs wire.AuthMethod) error {
	return &Error{Early: true, Reason: UnsupportedMethod, Text: "the peer proves itself by a method that it is not configured for", Theirs: theirs.String(), Ours: r.ways(), Fix: "use the same kind of credential on both ends"}
}

// ways names what is configured.
func (r Remote) ways() (names string) {
	for _, w := range []struct {
		is   bool
		name string
	}{{len(r.PSK) > 0, "pre-shared key"}, {len(r.Trust) > 0, "certificate"}, {len(r.Keys) > 0, "raw public key"}} {
		if w.is && names != "" {
			names += ", "
		}
		if w.is {
			names += w.name
		}
	}
	if names == "" {
		return "nothing"
	}
	return names
}

// Format prints no secret, for any verb.
func (r Remote) Format(s fmt.State, _ rune) { _, _ = io.WriteString(s, r.String()) }

// String is the identity and what it is believed by.
func (r Remote) String() string { return r.ID.String() + " by " + r.ways() }

// MarshalText is String.
func (r Remote) MarshalText() ([]byte, error) { return []byte(r.String()), nil }
