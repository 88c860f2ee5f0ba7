package sad

import (
	"bytes"
	"crypto/sha256"
	"encoding"
	"encoding/gob"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"
)

// secret is a key whose bytes are easy to find in any form.
var secret = Key("\xde\xad\xbe\xef-sesame-open\x01\x02\x03\x04")

// leaks tells whether text holds the secret: raw, in hexadecimal, as decimal
// bytes, or in base64.
func leaks(text string) bool {
	lower := strings.ToLower(text)
	for _, form := range []string{
		"sesame", hex.EncodeToString(secret[:4]), hex.EncodeToString(secret[5:9]), "de ad be ef",
		"222 173", "222, 173", "0xde, 0xad", "3q2+7y",
	} {
		if strings.Contains(lower, strings.ToLower(form)) {
			return true
		}
	}
	return false
}

func TestKeyIsRedactedHoweverItIsPrinted(t *testing.T) {
	p := outbound(t)
	p.EncryptionKey, p.IntegrityKey = secret, nil
	type nested struct {
		Inner *Params
		Keys  []Key
		Map   map[string]Key
	}
	values := map[string]any{
		"key": secret, "pointer": &secret, "params": p, "pointer to params": &p,
		"nested": nested{&p, []Key{secret}, map[string]Key{"k": secret}}, "slice of params": []Params{p},
		"SA": newSA(t, p), "in an SA": struct{ SA *SA }{newSA(t, p)},
		"error": fmt.Errorf("%w: %v", ErrNoStore, secret),
	}
	for what, v := range values {
		for _, verb := range []string{"%v", "%+v", "%#v", "%x", "%X", "%#x", "% x", "%s", "%q", "%d", "%o", "%b", "%c", "%U", "%T", "%5.2s", "%08d"} {
			if out := fmt.Sprintf(verb, v); leaks(out) {
				t.Errorf("%s with %s tells the key: %s", what, verb, out)
			}
		}
		if out := fmt.Sprint(v) + fmt.Sprintln(v); leaks(out) {
			t.Errorf("%s printed tells the key: %s", what, out)
		}
		out, err := json.Marshal(v)
		if err != nil && what != "error" {
			t.Errorf("%s: json: %v", what, err)
		}
		if leaks(string(out)) {
			t.Errorf("%s as JSON tells the key: %s", what, out)
		}
		var log bytes.Buffer
		slog.New(slog.NewTextHandler(&log, nil)).Info("x", "v", v)
		slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "v", v)
		if leaks(log.String()) {
			t.Errorf("%s in a log tells the key: %s", what, log.String())
		}
	}
	var stream bytes.Buffer
	if err := gob.NewEncoder(&stream).Encode(struct{ K Key }{secret}); err != nil || leaks(stream.String()) {
		t.Errorf("gob: %v, or it tells the key", err)
	}
}

func TestKeyShowsItsLength(t *testing.T) {
	const want = "[redacted 20 bytes]"
	if len(secret) != 20 {
		t.Fatalf("the test's key has %d bytes", len(secret))
	}
	for _, verb := range []string{"%v", "%+v", "%#v", "%x", "%X", "%s", "%q", "%d"} {
		if got := fmt.Sprintf(verb, secret); got != want {
			t.Errorf("%s: expected %q, seen %q", verb, want, got)
		}
	}
	var m encoding.TextMarshaler = secret
	if got, err := m.MarshalText(); string(got) != want || err != nil {
		t.Errorf("MarshalText: expected %q, seen %q, %v", want, got, err)
	}
	if got, err := json.Marshal(map[string]Key{"k": secret}); string(got) != `{"k":"`+want+`"}` || err != nil {
		t.Errorf("JSON: seen %s, %v", got, err)
	}
	if got := Key(nil).String(); got != "[redacted 0 bytes]" {
		t.Errorf("nil key: seen %q", got)
	}
}

func TestWipe(t *testing.T) {
	k := bytes.Clone(secret)
	Key(k).Wipe()
	if !bytes.Equal(k, make([]byte, len(secret))) {
		t.Error("Wipe left bytes of the key")
	}
}

// The same key is the same KeyID in every SPI, direction, peer, mode and ICV
// length; another key, or another salt, is another.
func TestKeyIDNamesTheKey(t *testing.T) {
	base := params(t, Outbound, 0x2001, "aes128gcm16", 7)
	same := map[string]func(p *Params){
		"SPI":               func(p *Params) { p.SPI = 0x9999 },
		"direction":         func(p *Params) { p.Direction = Inbound },
		"peer":              func(p *Params) { p.Peer = "x" },
		"ESN":               func(p *Params) { p.ESN = true },
		"ICV length":        func(p *Params) { p.Suite = suite(t, "aes128gcm8") },
		"mode":              func(p *Params) { p.Suite = suite(t, "aes128gmac") },
		"CTR and integrity": func(p *Params) { p.Suite = suite(t, "aes128ctr-sha256"); p.IntegrityKey = secret },
	}
	for what, change := range same {
		p := base
		change(&p)
		if p.KeyID() != base.KeyID() {
			t.Errorf("another %s: expected the same KeyID, seen %s and %s", what, base.KeyID(), p.KeyID())
		}
	}
	integrity := params(t, Outbound, 0x2001, "null-sha256", 7)
	cbc := params(t, Outbound, 0x2001, "aes256-sha256", 7)
	cbc.EncryptionKey = integrity.IntegrityKey
	if integrity.KeyID() == cbc.KeyID() || integrity.KeyID() == KeyID(sha256.Sum256(integrity.IntegrityKey)) {
		t.Error("an integrity key has the KeyID of an encryption key, or is hashed as it is")
	}
	for i := range base.EncryptionKey {
		p := base
		p.EncryptionKey = bytes.Clone(base.EncryptionKey)
		p.EncryptionKey[i] ^= 0x80
		if p.KeyID() == base.KeyID() {
			t.Errorf("byte %d of the key changed: the KeyID did not", i)
		}
	}
	// Without encryption the integrity key gives the name.
	null1, null2 := params(t, Outbound, 0x2001, "null-sha256", 1), params(t, Outbound, 0x2001, "null-sha256", 2)
	if null1.KeyID() == null2.KeyID() {
		t.Error("two integrity keys have one KeyID")
	}
	asEncryption := Params{EncryptionKey: null1.IntegrityKey}
	if asEncryption.KeyID() == null1.KeyID() {
		t.Error("an integrity key and an encryption key have one KeyID")
	}
	if text := base.KeyID().String(); len(text) != 64 || strings.Contains(text, "0707") {
		t.Errorf("KeyID: expected 64 digits that do not tell the key, seen %s", text)
	}
}
