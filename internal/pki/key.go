package pki

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"fmt"
)

// Kind is a kind of key, by the name that strongSwan's pki and this project's
// configuration have for it.
type Kind string

// The kinds. The zero value of Options means P256.
const (
	RSA2048 Kind = "rsa2048"
	RSA3072 Kind = "rsa3072"
	RSA4096 Kind = "rsa4096"
	P256    Kind = "ecdsa256"
	P384    Kind = "ecdsa384"
	P521    Kind = "ecdsa521"
	Ed25519 Kind = "ed25519"
)

// Kinds returns every kind but RSA4096, which takes long to make.
func Kinds() []Kind { return []Kind{RSA2048, RSA3072, P256, P384, P521, Ed25519} }

// NewKey makes a private key of the kind, "" for P256.
func NewKey(kind Kind) (crypto.Signer, error) {
	switch kind {
	case RSA2048:
		return rsa.GenerateKey(rand.Reader, 2048)
	case RSA3072:
		return rsa.GenerateKey(rand.Reader, 3072)
	case RSA4096:
		return rsa.GenerateKey(rand.Reader, 4096)
	case P256, "":
		return ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case P384:
		return ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	case P521:
		return ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	case Ed25519:
		_, key, err := ed25519.GenerateKey(rand.Reader)
		return key, err
	}
	return nil, fmt.Errorf("pki: no kind of key is called %q", string(kind))
}
