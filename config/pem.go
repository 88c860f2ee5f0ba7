package config

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"strings"
)

// maxPrivateKey is the size of the largest file with a private key that is read, in
// bytes: RSA keys of 16384 bits fit.
const maxPrivateKey = 64 << 10

// files reads a list of paths.
func (d *decoder) files(v value, example string, read func(value)) {
	items, ok := v.list("paths, such as [" + example + "]")
	if !ok {
		return
	}
	if len(items) == 0 {
		v.fail("the list is empty", "name at least one file, or leave the key out")
	}
	for _, item := range items {
		read(d.mark(item))
	}
}

// publicFile reads a file that is no secret.
func (d *decoder) publicFile(v value, example string) ([]byte, bool) {
	path, ok := v.path(4095, example)
	if !ok {
		return nil, false
	}
	if d.secrets == nil {
		v.fail("files are not read here", "use config.Load, or give Parse a SecretReader")
		return nil, false
	}
	data, _, err := d.secrets(path)
	switch {
	case err != nil:
		v.fail("the file cannot be read: "+reason(err), "check the path and who may read it")
	case len(data) > maxFile:
		v.fail("the file is too large", fmt.Sprintf("at most %d bytes are read", maxFile))
	default:
		return data, true
	}
	return nil, false
}

// pemBlocks is the PEM blocks of a file; whole: nothing else stands between them but
// text without dashes, as tools write it, and none of them is broken, which package pem
// passes over.
func pemBlocks(data []byte) (blocks []*pem.Block, whole bool) {
	begun := bytes.Count(data, []byte("-----BEGIN "))
	for {
		block, rest := pem.Decode(data)
		if block == nil {
			return blocks, begun == len(blocks) && !bytes.Contains(data, []byte("-----"))
		}
		blocks = append(blocks, block)
		data = rest
	}
}

// certificates reads a file of certificates in PEM, one or more.
func (d *decoder) certificates(v value) []*x509.Certificate {
	data, ok := d.publicFile(v, "/etc/adit/a.pem")
	if !ok {
		return nil
	}
	blocks, whole := pemBlocks(data)
	switch {
	case len(blocks) == 0 && isDER(data):
		v.fail("the file is DER", "turn it into PEM with: openssl x509 -inform der")
		return nil
	case len(blocks) == 0 || !whole:
		v.fail("the file is no PEM, or a block of it is broken", "give certificates in PEM: -----BEGIN CERTIFICATE-----")
		return nil
	}
	var list []*x509.Certificate
	for _, b := range blocks {
		if strings.HasSuffix(b.Type, "PRIVATE KEY") {
			v.fail("the file holds a private key", "keep the key in a file of its own, and name that as `private_key`")
			return nil
		}
		if b.Type != "CERTIFICATE" {
			v.fail(fmt.Sprintf("the file holds %q, which is no certificate", clipped(b.Type)), "give certificates in PEM: -----BEGIN CERTIFICATE-----")
			return nil
		}
		c, err := x509.ParseCertificate(b.Bytes)
		if err != nil {
			v.fail(fmt.Sprintf("certificate %d of the file cannot be read: %s", len(list)+1, oneLine(err)), "issue it anew")
			return nil
		}
		list = append(list, c)
	}
	return list
}

// privateKey reads a private key in PEM: PKCS #8, PKCS #1 or SEC 1. Its file keeps
// others out.
func (d *decoder) privateKey(v value) (crypto.Signer, bool) {
	data, ok := d.secretBytes(v, "/etc/adit/a.key", maxPrivateKey)
	if !ok {
		return nil, false
	}
	blocks, whole := pemBlocks(data)
	var key any
	var err error
	for _, b := range blocks {
		switch {
		case b.Type == "ENCRYPTED PRIVATE KEY", b.Headers["DEK-Info"] != "":
			v.fail("the private key is encrypted, and nobody is there to type its passphrase", "decrypt it with `openssl pkey -in KEY -out NEW`, and chmod 0600 it")
			return nil, false
		case key != nil && b.Type != "EC PARAMETERS":
			v.fail("the file holds more than one private key", "keep the one that belongs to the certificate")
			return nil, false
		case b.Type == "PRIVATE KEY":
			key, err = x509.ParsePKCS8PrivateKey(b.Bytes)
		case b.Type == "RSA PRIVATE KEY":
			key, err = x509.ParsePKCS1PrivateKey(b.Bytes)
		case b.Type == "EC PRIVATE KEY":
			key, err = x509.ParseECPrivateKey(b.Bytes)
		case b.Type != "EC PARAMETERS":
			v.fail(fmt.Sprintf("the file holds %q, which is no private key", clipped(b.Type)), "name the file of the private key: -----BEGIN PRIVATE KEY-----")
			return nil, false
		}
	}
	signer, ok := key.(crypto.Signer)
	if err != nil || !ok || !whole {
		// The parser's own words may hold bytes of the key.
		v.fail("the file holds no private key that signs, or a broken one", "give an RSA, ECDSA or Ed25519 key in PEM, made with: openssl genpkey")
		return nil, false
	}
	return signer, true
}

// publicKey reads the peer's public key in PEM.
func (d *decoder) publicKey(v value) (crypto.PublicKey, bool) {
	data, ok := d.publicFile(v, "/etc/adit/b.pub")
	if !ok {
		return nil, false
	}
	const fix = "give the peer's public key in PEM, as `openssl pkey -in KEY -pubout` writes it"
	blocks, whole := pemBlocks(data)
	if len(blocks) != 1 || !whole {
		v.fail(fmt.Sprintf("the file holds %s in PEM, not one", plural(len(blocks), "block")), fix)
		return nil, false
	}
	var key crypto.PublicKey
	var err error
	switch b := blocks[0]; b.Type {
	case "PUBLIC KEY":
		key, err = x509.ParsePKIXPublicKey(b.Bytes)
	case "RSA PUBLIC KEY":
		key, err = x509.ParsePKCS1PublicKey(b.Bytes)
	default:
		v.fail(fmt.Sprintf("the file holds %q, which is no public key", clipped(b.Type)), fix)
		return nil, false
	}
	if err != nil {
		v.fail("the public key cannot be read: "+oneLine(err), fix)
		return nil, false
	}
	return key, true
}

func isDER(data []byte) bool { return len(data) > 2 && data[0] == 0x30 && data[1]&0x80 != 0 }

// clipped is the name of a PEM block in an error.
func clipped(name string) string {
	if !showable(name) {
		return "something"
	}
	return name
}

func oneLine(err error) string { return strings.ReplaceAll(err.Error(), "\n", " ") }
