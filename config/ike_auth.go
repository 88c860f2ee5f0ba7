package config

import (
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"

	"github.com/adit-ipsec/adit/ike/auth"
	"github.com/adit-ipsec/adit/sad"
)

// authError reports an error of package auth at v. It never holds a secret.
func (d *decoder) authError(v value, err error, fix string) {
	var e *auth.Error
	if !errors.As(err, &e) {
		v.fail(err.Error(), fix)
		return
	}
	problem := e.Text
	switch {
	case e.Theirs != "":
		problem += ", but " + e.Theirs
	case e.Ours != "":
		problem += " (" + e.Ours + ")"
	}
	if e.Fix != "" {
		fix = e.Fix
	}
	v.fail(problem, fix)
}

// auth reads what the ends prove themselves by: one secret that both have, or a
// private key here and what the peer's is believed by.
func (d *decoder) auth(v value, k *IKE) {
	before := len(d.s.errs.List)
	o, ok := v.object("psk", "psk_file", "certificate", "private_key", "trust", "public_key", "revocation", "crls", "ocsp")
	if !ok {
		return
	}
	psk, isPSK := d.get(o, "psk")
	file, isFile := d.get(o, "psk_file")
	key, isKey := d.get(o, "private_key")
	switch {
	case isPSK && isFile:
		file.fail("both psk and psk_file", "keep one of the two")
	case isPSK || isFile:
		if isFile {
			psk = file
		}
		d.shared(o, psk, isFile, k)
	case isKey:
		d.signatures(o, key, k)
	case len(o.entries) == 0 && len(d.s.errs.List) > before:
	case len(o.entries) == 0:
		v.fail("the section is empty", "add `psk_file`, or `certificate`, `private_key` and `trust`")
	default:
		o.need("private_key", "add `private_key: …`, or `psk_file: …` alone")
	}
	k.Local.Legacy, k.Remote.Legacy = d.AllowLegacy, d.AllowLegacy
}

// shared reads a pre-shared key. Nothing else may stand beside it: a peer that has
// two ways in has the weaker one.
func (d *decoder) shared(o *object, v value, inFile bool, k *IKE) {
	for _, name := range []string{"certificate", "private_key", "trust", "public_key", "revocation", "crls", "ocsp"} {
		if other, ok := o.get(name); ok {
			other.fail(fmt.Sprintf("%s together with a pre-shared key", name), "keep one of the two ways")
		}
	}
	text, ok := "", false
	if inFile {
		text, ok = d.secretFile(v)
	} else {
		d.inlineKeys = true
		text, ok = d.pskText(v)
	}
	if !ok {
		return
	}
	secret, ok := d.strongSecret(v, text)
	if !ok {
		return
	}
	if other, used := d.keys[sha256.Sum256(secret)]; used {
		d.warn(v.key, fmt.Sprintf("the same pre-shared key as %s: whoever has it can pass for the other peer", other))
	}
	d.keys[sha256.Sum256(secret)] = v.key
	k.Local.PSK, k.Remote.PSK = secret, secret
}

// pskText reads a pre-shared key that stands in the file.
func (d *decoder) pskText(v value) (string, bool) {
	s, kind := v.scalar()
	switch kind {
	case text:
		return s, v.oneLine()
	case number, almostNumber, truth:
		v.fail("the key is not in quotes, and YAML reads it as something else than text", "put it in quotes")
	case nothing:
		v.fail("the key is empty", "make one with `openssl rand -base64 32`")
	default:
		v.wrong("write the pre-shared key in quotes")
	}
	return "", false
}

// strongSecret decodes a pre-shared key as swanctl.conf does: hexadecimal behind
// 0x, base64 behind 0s, else the characters themselves; and refuses one that can be
// guessed.
func (d *decoder) strongSecret(v value, text string) (sad.Key, bool) {
	secret := []byte(text)
	var err error
	if digits, ok := strings.CutPrefix(text, "0x"); ok {
		if secret, err = hex.DecodeString(digits); err != nil {
			v.fail("the key starts with 0x, and what follows is not hexadecimal", "write two hex digits for each byte, or leave 0x out")
			return nil, false
		}
	} else if digits, ok := strings.CutPrefix(text, "0s"); ok {
		if secret, err = base64.StdEncoding.DecodeString(digits); err != nil {
			v.fail("the key starts with 0s, and what follows is not base64", "write base64 with its padding, or leave 0s out")
			return nil, false
		}
	}
	if err := auth.CheckPSK(secret); err != nil {
		d.authError(v, err, "make one with `openssl rand -base64 32`")
		return nil, false
	}
	return secret, true
}

// signatures reads a private key and what the peer's signature is believed by.
func (d *decoder) signatures(o *object, key value, k *IKE) {
	if signer, ok := d.privateKey(key); ok {
		k.Local.Signer = signer
	}
	if v, ok := d.get(o, "certificate"); ok {
		k.Local.Chain = d.certificates(v)
	} else {
		k.Local.RawKey = true // RFC 7670
	}
	trust, isTrust := d.get(o, "trust")
	if isTrust {
		d.files(trust, "/etc/adit/ca.pem", func(v value) { k.Remote.Trust = append(k.Remote.Trust, d.certificates(v)...) })
	}
	raw, isRaw := d.get(o, "public_key")
	if isRaw {
		if key, ok := d.publicKey(raw); ok {
			k.Remote.Keys = []crypto.PublicKey{key}
		}
	}
	switch {
	case !isTrust && !isRaw:
		o.need("trust", "add `trust: [/etc/adit/ca.pem]`, the authorities that the peer's certificate is under, or `public_key`, the peer's very key")
	case isRaw && !isTrust && k.Remote.ID.IsZero() && d.written(strings.TrimSuffix(o.key, "auth")+"remote_id"):
		raw.fail("the peer's public key together with `remote_id: any`: the key alone holds no name", "write the peer's name as `remote_id`")
	}
	d.revocation(o, k, isTrust)
}

// revocation reads how revoked certificates are asked about. Nothing is fetched:
// the lists are files.
func (d *decoder) revocation(o *object, k *IKE, certificates bool) {
	policy, isPolicy := d.get(o, "revocation")
	if isPolicy {
		if word, ok := policy.choice("off", "relaxed", "strict"); ok {
			k.Remote.Revocation.Policy, _ = auth.ParsePolicy(word)
		}
		if !certificates && k.Remote.Revocation.Policy != auth.RevocationOff {
			policy.fail(fmt.Sprintf("found %s, and there is no `trust`: a raw key is not revoked but removed", k.Remote.Revocation.Policy), "write off, or trust an authority")
		}
	}
	for _, list := range []struct {
		name, example string
		add           func(v value, data []byte) bool
	}{
		{"crls", "/etc/adit/ca.crl", func(_ value, data []byte) bool { return d.addCRLs(k, data) }},
		{"ocsp", "/etc/adit/b.ocsp", func(_ value, data []byte) bool { return addOCSP(k, data) }},
	} {
		v, ok := d.get(o, list.name)
		if !ok {
			continue
		}
		if k.Remote.Revocation.Policy == auth.RevocationOff {
			v.fail(fmt.Sprintf("%s with `revocation: off`, the default, where nobody looks at them", list.name), "add `revocation: strict`, or relaxed to let pass what the lists do not know")
		}
		d.files(v, list.example, func(v value) {
			if data, ok := d.publicFile(v, list.example); ok && !list.add(v, data) {
				v.fail("the file holds none", "give CRLs in PEM or DER, OCSP responses in DER")
			}
		})
	}
	if r := k.Remote.Revocation; r.Policy == auth.RevocationStrict && len(r.CRLs) == 0 && len(r.OCSP) == 0 {
		d.warn(policy.key, "no list and no response is given: only a peer that sends OCSP responses itself is believed")
	}
}

// addCRLs reads revocation lists in PEM or one in DER. Lists are long, and usually all
// peers name the same: each file is kept once. One of which a block is broken has none:
// what it would have revoked must not pass unseen.
func (d *decoder) addCRLs(k *IKE, data []byte) bool {
	sum := sha256.Sum256(data)
	lists, ok := d.crls[sum]
	if !ok {
		if lists = readCRLs(data); len(lists) == 0 {
			return false
		}
		d.crls[sum] = lists
	}
	k.Remote.Revocation.CRLs = append(k.Remote.Revocation.CRLs, lists...)
	return true
}

func readCRLs(data []byte) (lists []*x509.RevocationList) {
	ders := [][]byte{data}
	if blocks, whole := pemBlocks(data); len(blocks) > 0 {
		if ders = nil; !whole {
			return nil
		}
		for _, b := range blocks {
			if b.Type == "X509 CRL" {
				ders = append(ders, b.Bytes)
			}
		}
	}
	for _, der := range ders {
		list, err := x509.ParseRevocationList(der)
		if err != nil {
			return nil
		}
		lists = append(lists, list)
	}
	return lists
}

func addOCSP(k *IKE, data []byte) bool {
	if !auth.IsOCSP(data) {
		return false
	}
	k.Remote.Revocation.OCSP = append(k.Remote.Revocation.OCSP, data)
	return true
}

// checkLocal holds this end to what a peer would find wrong with it.
func (d *decoder) checkLocal(auth string, k *IKE) {
	section := strings.TrimSuffix(auth, ".auth")
	hasKey := d.written(auth + ".private_key")
	switch {
	case hasKey && k.Local.Signer == nil, d.written(auth+".certificate") && len(k.Local.Chain) == 0:
		return // refused already
	case !hasKey && len(k.Local.PSK) == 0:
		return
	case k.Local.ID.IsZero() && d.written(section+".local_id"):
		return
	case k.Local.ID.IsZero() && len(k.Local.Chain) == 0:
		d.fail(section+".local_id", "the key is missing, and there is no certificate that names this end", "add `local_id: …`, as the peer knows this end")
		return
	}
	err := k.Local.Check()
	if err == nil {
		return
	}
	d.authError(value{s: d.s, key: d.faulty(auth, section, err), at: d.Position(d.faulty(auth, section, err))}, err, "")
}

// faulty is the key that an error of auth.Local.Check is about.
func (d *decoder) faulty(section, above string, err error) string {
	var e *auth.Error
	if !errors.As(err, &e) {
		return section
	}
	switch e.Reason {
	case auth.WrongIdentity, auth.BadIdentity:
		if d.written(above + ".local_id") {
			return above + ".local_id"
		}
		return section + ".certificate"
	case auth.WeakKey, auth.BadCertificate, auth.UnsupportedMethod:
		return section + ".private_key"
	}
	return section
}
