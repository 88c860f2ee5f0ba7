package auth_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"encoding/base64"
	"encoding/gob"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"log/slog"
	"math/big"
	"strings"
	"testing"

	"github.com/adit-ipsec/adit/ike/auth"
	"github.com/adit-ipsec/adit/internal/pki"
	"github.com/adit-ipsec/adit/sad"
)

// TestNothingPrintsASecret: whatever is done with the values of this package, by
// themselves and inside others, no secret comes out.
func TestNothingPrintsASecret(t *testing.T) {
	w := theWorld(t)
	secrets := map[string][]byte{"the pre-shared key": secret}
	var locals []auth.Local
	for _, kind := range []pki.Kind{pki.RSA2048, pki.P256, pki.Ed25519} {
		l := auth.Local{ID: identity(t, peerName), PSK: secret, Chain: w.leaves[kind].Chain(), Signer: w.leaves[kind].Key}
		locals = append(locals, l)
		switch key := l.Signer.(type) {
		case *rsa.PrivateKey:
			secrets["the RSA key"] = key.D.Bytes()
			secrets["its prime"] = key.Primes[0].Bytes()
		case *ecdsa.PrivateKey:
			secrets["the ECDSA key"] = must[[]byte](t)(key.Bytes())
		case ed25519.PrivateKey:
			secrets["the Ed25519 key"] = key.Seed()
		}
	}
	x := certified(t, w.leaves[pki.P256]).sign(t)
	secrets["SK_p"] = x.octets.SKp
	remote := auth.Remote{ID: x.id, PSK: secret, Trust: x.remote.Trust}
	ppk := auth.PPK{ID: []byte("ppk"), Key: secret, Required: true}
	_, refused := auth.Remote{ID: x.id, PSK: append(sad.Key{1}, secret...)}.Verify(x.id, nil, shared(t).sign(t).auth, x.octets, x.now)
	values := []any{
		remote, &remote, ppk, &ppk, x.octets, &x.octets, x.wantPeer(t, "ecdsa"), refused, auth.CheckPSK(secret[:9]), locals,
		struct {
			Name string
			Auth auth.Local
			Them *auth.Remote
			Keys map[string]auth.PPK
		}{"peer", locals[1], &remote, map[string]auth.PPK{"a": ppk}},
	}
	for i := range locals {
		values = append(values, locals[i], &locals[i])
	}
	for _, v := range values {
		for _, text := range printed(v) {
			for name, s := range secrets {
				for _, form := range forms(s) {
					if strings.Contains(text, form) {
						t.Errorf("%T prints %s: %.200s", v, name, text)
					}
				}
			}
		}
	}
}

// printed is a value in every form that somebody might log.
func printed(v any) (texts []string) {
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "% x"} {
		texts = append(texts, fmt.Sprintf(verb, v))
	}
	if b, err := json.Marshal(v); err == nil {
		texts = append(texts, string(b))
	}
	var b bytes.Buffer
	if gob.NewEncoder(&b).Encode(v) == nil {
		texts = append(texts, b.String())
	}
	b.Reset()
	slog.New(slog.NewTextHandler(&b, nil)).Info("x", "v", v)
	slog.New(slog.NewJSONHandler(&b, nil)).Info("x", "v", v)
	return append(texts, b.String())
}

// forms are how the first bytes of a secret look when they are printed.
func forms(s []byte) []string {
	number := new(big.Int).SetBytes(s).String()
	s = s[:12]
	spaced := fmt.Sprintf("%d", s)
	goes := fmt.Sprintf("%#v", s)
	return []string{
		string(s), hex.EncodeToString(s), strings.ToUpper(hex.EncodeToString(s)), fmt.Sprintf("% x", s), base64.StdEncoding.EncodeToString(s),
		number, spaced[1 : len(spaced)-1], goes[7 : len(goes)-1],
	}
}
