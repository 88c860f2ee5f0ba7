package main

import (
	"errors"
	"os"
	"path/filepath"

	"github.com/adit-ipsec/adit/internal/pki"
)

// demoProposal is what the gateways of the demonstration negotiate: X25519, and in
// IKE_INTERMEDIATE ML-KEM-768, so that whoever records the exchange today cannot
// read it with a quantum computer later (RFC 9370).
const demoProposal = "aes256gcm16-prfsha384-x25519-ke1_mlkem768"

// demoIdentity is who an end is, and the files that prove it.
type demoIdentity struct {
	LocalID, RemoteID         string
	Certificate, Key, Trust   string // paths, PEM
	Proposal                  string
	certificate, key, trusted []byte
}

// demoIKESites are the two ends of a round in directory dir, keyed by IKE. Each call
// makes a new authority, and below it a certificate for each end.
func demoIKESites(dir, suite, encap string) (a, b demoSite, err error) {
	if a, b, err = demoSites(dir, suite, encap); err != nil {
		return a, b, err
	}
	root, err := pki.New(pki.Options{Name: "an authority for one demonstration", Key: pki.P256})
	if err != nil {
		return a, b, err
	}
	for _, end := range [][2]*demoSite{{&a, &b}, {&b, &a}} {
		own, other := end[0], end[1]
		own.OutKeys, own.InKeys = demoKeys{}, demoKeys{}
		file := func(kind string) string { return filepath.Join(dir, own.Name+kind) }
		id := &demoIdentity{
			LocalID: own.Name + ".example.net", RemoteID: other.Name + ".example.net", Proposal: demoProposal,
			Certificate: file(".pem"), Key: file(".key"), Trust: file(".ca.pem"),
		}
		leaf, err := root.Issue(pki.Options{Name: id.LocalID, DNS: []string{id.LocalID}, Key: pki.P256})
		if err != nil {
			return a, b, err
		}
		if id.key, err = leaf.KeyPEM(); err != nil {
			return a, b, err
		}
		id.certificate, id.trusted, own.Identity = leaf.ChainPEM(), leaf.RootPEM(), id
	}
	return a, b, nil
}

// write writes the files of the identity, for their owner only.
func (i *demoIdentity) write() error {
	return errors.Join(
		os.WriteFile(i.Certificate, i.certificate, 0o600),
		os.WriteFile(i.Key, i.key, 0o600),
		os.WriteFile(i.Trust, i.trusted, 0o600))
}
