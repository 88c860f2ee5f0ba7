package config

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/adit-ipsec/adit/ah"
	"github.com/adit-ipsec/adit/esp"
	"github.com/adit-ipsec/adit/sad"
)

// saltLen is the length in bytes of the salt or nonce at the end of the
// suite's encryption key: three for CCM (RFC 4309 section 4), four for the
// other counter modes (RFC 4106 section 4, 3686 section 5.1, 4543, 7634).
func saltLen(s esp.Suite) int {
	switch {
	case !s.CounterMode():
		return 0
	case strings.Contains(s.String(), "ccm"):
		return 3
	}
	return 4
}

// saKeys reads the keys of one SA and holds them to the suite's lengths.
func (d *decoder) saKeys(o *object, sa *SA) {
	if sa.Protocol == sad.AH {
		s := sa.AHSuite
		sa.EncryptionKey = d.oneKey(o, "encryption_key", "the AH suite "+s.String(), 0, 0)
		sa.IntegrityKey = d.oneKey(o, "integrity_key", s.String(), s.KeyLen(), ahSaltLen(s))
		return
	}
	encryption, integrity := sa.Suite.KeyLen()
	sa.EncryptionKey = d.oneKey(o, "encryption_key", sa.Suite.String(), encryption, saltLen(sa.Suite))
	sa.IntegrityKey = d.oneKey(o, "integrity_key", sa.Suite.String(), integrity, 0)
}

// ahSaltLen is the length in bytes of the salt at the end of GMAC's integrity
// key in AH (RFC 4543 section 3.2).
func ahSaltLen(s ah.Suite) int {
	if s.CounterMode() {
		return 4
	}
	return 0
}

// oneKey reads the key called name: inline, or from the file that name_file
// names. want is its length in bytes with the salt, 0: the suite has no such key.
func (d *decoder) oneKey(o *object, name, suite string, want, salt int) sad.Key {
	size := plural(want, "byte")
	if salt > 0 {
		size += fmt.Sprintf(": %d key + %d salt", want-salt, salt)
	}
	inline, isInline := d.get(o, name)
	file, isFile := d.get(o, name+"_file")
	switch {
	case isInline && isFile:
		file.fail(fmt.Sprintf("both %s and %s_file", name, name), "keep one of the two")
		return nil
	case !isInline && !isFile && want > 0:
		o.s.fail(o.at, o.key+"."+name, fmt.Sprintf("the key is missing, and %s needs it", suite), fmt.Sprintf("add `%s` or `%s_file` (%s, as hex)", name, name, size))
		return nil
	case !isInline && !isFile:
		return nil
	}
	v := inline
	if isFile {
		v = file
	}
	if want == 0 {
		v.fail(fmt.Sprintf("%s has no %s", suite, strings.ReplaceAll(name, "_", " ")), "remove it, or change the suite")
		return nil
	}
	var text string
	var ok bool
	if isFile {
		text, ok = d.secretFile(v)
	} else {
		d.inlineKeys = true
		text, ok = d.secretText(v)
	}
	if !ok {
		return nil
	}
	key, ok := decodeKey(v, text, want, size)
	if !ok || !d.fresh(v, key, salt) {
		return nil
	}
	return key
}

// secretText reads a key that stands in the file.
func (d *decoder) secretText(v value) (string, bool) {
	s, kind := v.scalar()
	switch kind {
	case text:
		return s, v.oneLine()
	case number, almostNumber:
		v.fail("the key is not in quotes, and YAML reads digits as a number", "put it in quotes")
	case nothing:
		v.fail("the key is empty", "write it as hex digits in quotes")
	default:
		v.wrong("write it as hex digits in quotes")
	}
	return "", false
}

// secretFile reads the file that v names; its mode must keep others out.
func (d *decoder) secretFile(v value) (string, bool) {
	data, ok := d.secretBytes(v, "/etc/adit/site-b.key", maxSecret)
	return string(bytes.TrimSpace(data)), ok
}

// secretBytes reads at most limit bytes of the file that v names.
func (d *decoder) secretBytes(v value, example string, limit int) ([]byte, bool) {
	path, ok := v.path(4095, example)
	if !ok {
		return nil, false
	}
	if d.secrets == nil {
		v.fail("secret files are not read here", "use config.Load, or give Parse a SecretReader")
		return nil, false
	}
	data, mode, err := d.secrets(path)
	switch {
	case err != nil:
		v.fail("the file cannot be read: "+reason(err), "check the path and who may read it")
	case mode.Perm()&0o077 != 0:
		v.fail(fmt.Sprintf("the file has mode %04o: others than its owner may use it", mode.Perm()), "chmod 0600 it")
	case len(data) > limit:
		v.fail("the file is larger than a key", fmt.Sprintf("put one key in it, at most %d bytes", limit))
	default:
		return data, true
	}
	return nil, false
}

// decodeKey turns hex digits into a key of want bytes. No digit of the text is
// ever part of a message.
func decodeKey(v value, text string, want int, size string) (sad.Key, bool) {
	fix := fmt.Sprintf("write %s, as %d hex digits", size, 2*want)
	digits := utf8.RuneCountInString(text)
	position := 0
	for _, r := range text {
		position++
		switch {
		case isHex(r):
		case position == 2 && (r == 'x' || r == 'X') && text[0] == '0':
			v.fail("the key starts with 0x", fix+", without 0x")
			return nil, false
		default:
			v.fail(fmt.Sprintf("character %d of the key is no hex digit", position), fix)
			return nil, false
		}
	}
	if digits != 2*want {
		problem := fmt.Sprintf("found %s", plural(digits/2, "byte"))
		if digits%2 != 0 {
			problem = fmt.Sprintf("found an odd number of hex digits, %d", digits)
		}
		v.fail(problem, fix)
		return nil, false
	}
	key, err := hex.DecodeString(text)
	return key, err == nil
}

// fresh refuses a key without any randomness in it, and one that stands
// elsewhere in the file. RFC 4303 knows one key for one SA: two SAs with one key
// in a counter mode use nonces twice, in the others a packet of one is a packet
// of the other. Salts do not count, so that no two SAs share a cipher key.
func (d *decoder) fresh(v value, key sad.Key, salt int) bool {
	secret := key[:len(key)-salt]
	if bytes.Count(secret, secret[:1]) == len(secret) {
		v.fail("every byte of the key is the same", "make one with: openssl rand -hex "+fmt.Sprint(len(key)))
		return false
	}
	digest := sha256.Sum256(secret)
	if other, used := d.keys[digest]; used {
		v.fail("the same key as "+other, "give every SA and direction keys of its own, made with: openssl rand -hex "+fmt.Sprint(len(key)))
		return false
	}
	d.keys[digest] = v.key
	return true
}
