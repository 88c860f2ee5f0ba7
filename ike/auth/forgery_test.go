package auth_test

import (
	"bytes"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/asn1"
	"encoding/hex"
	"math/big"
	"testing"

	"github.com/adit-ipsec/adit/ike/auth"
	"github.com/adit-ipsec/adit/ike/keys"
	"github.com/adit-ipsec/adit/ike/wire"
	"github.com/adit-ipsec/adit/internal/pki"
)

// signedOctets are what AUTH covers, put together from the RFC's formula.
func signedOctets(o auth.Octets) []byte {
	return bytes.Join([][]byte{o.Message, o.PeerNonce, keys.PRF(o.PRF, o.SKp, o.ID), o.IntAuth}, nil)
}

// TestF6_PaddingIsComparedWhole: signatures that lenient parsers of PKCS #1 took
// (CVE-2018-16151, CVE-2018-16152), made with the right private key around a padding
// that is not right. Only the right one passes.
func TestF6_PaddingIsComparedWhole(t *testing.T) {
	x := certified(t, theWorld(t).leaves[pki.RSA2048])
	x.hashes, x.local.Legacy = nil, true
	key, _ := x.local.Signer.(*rsa.PrivateKey)
	sum := sha256.Sum256(signedOctets(x.octets))
	const (
		right    = "3031300d060960864801650304020105000420"
		noNull   = "302f300b0609608648016503040201" + "0420"
		junkNull = "3035301106096086480165030402010504deadbeef0420"
		longForm = "308131300d060960864801650304020105000420"
	)
	info := func(prefix string, behind ...byte) []byte {
		b := must[[]byte](t)(hex.DecodeString(prefix))
		return append(append(b, sum[:]...), behind...)
	}
	// frame is 00 01 PS 00 info, PS filling up with `pad`, then what is behind.
	frame := func(info []byte, pad byte, behind int) []byte {
		em := []byte{0, 1}
		for len(em)+1+len(info)+behind < key.Size() {
			em = append(em, pad)
		}
		em = append(append(em, 0), info...)
		return append(em, make([]byte, behind)...)
	}
	for _, c := range []struct {
		name string
		em   []byte
		ok   bool
	}{
		{"right", frame(info(right), 0xff, 0), true},
		{"without NULL", frame(info(noNull), 0xff, 0), false},
		{"with junk in the parameters", frame(info(junkNull), 0xff, 0), false},
		{"with a length in long form", frame(info(longForm), 0xff, 0), false},
		{"with a byte inside behind the hash", frame(info(right, 7), 0xff, 0), false},
		{"with bytes behind", frame(info(right), 0xff, 100), false},
		{"with other padding", frame(info(right), 0xfe, 0), false},
		{"with the hash alone", frame(sum[:], 0xff, 0), false},
		{"of encryption", append([]byte{0, 2}, frame(info(right), 0xff, 0)[2:]...), false},
	} {
		s := new(big.Int).Exp(new(big.Int).SetBytes(c.em), key.D, key.N).FillBytes(make([]byte, key.Size()))
		x.sign(t)
		for method, data := range map[wire.AuthMethod][]byte{
			wire.AuthRSA:              s,
			wire.AuthDigitalSignature: append(append([]byte{15}, must[[]byte](t)(hex.DecodeString("300d06092a864886f70d01010b0500"))...), s...),
		} {
			x.auth = &wire.Auth{Method: method, Data: data}
			if c.ok {
				x.wantPeer(t, "rsa")
			} else if peer, err := x.verify(); err == nil || peer.Valid() {
				t.Errorf("%s, %v: %v is authenticated", c.name, method, peer)
			}
		}
	}
}

// TestF6_ECDSAOutOfRange: zeros (CVE-2022-21449), values of the group's order, and
// DER that is not DER.
func TestF6_ECDSAOutOfRange(t *testing.T) {
	x := certified(t, theWorld(t).leaves[pki.P256]).sign(t)
	good := x.auth
	n := new(big.Int)
	n.SetString("ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551", 16)
	var sig struct{ R, S *big.Int }
	if _, err := asn1.Unmarshal(good.Data[13:], &sig); err != nil {
		t.Fatal(err)
	}
	one, zero := big.NewInt(1), new(big.Int)
	for _, p := range [][2]*big.Int{
		{zero, zero}, {one, zero}, {zero, one}, {n, n}, {n, sig.S}, {sig.R, n}, {one, one},
		{new(big.Int).Add(sig.R, n), sig.S}, {sig.R, new(big.Int).Add(sig.S, n)}, {new(big.Int).Neg(sig.R), sig.S},
	} {
		der := must[[]byte](t)(asn1.Marshal(struct{ R, S *big.Int }{p[0], p[1]}))
		x.auth = &wire.Auth{Method: good.Method, Data: append(bytes.Clone(good.Data[:13]), der...)}
		x.wantRefused(t, auth.AuthFailed)
		if p[0].Sign() >= 0 && p[0].BitLen() <= 256 && p[1].BitLen() <= 256 {
			x.auth = &wire.Auth{Method: wire.AuthECDSA256, Data: append(p[0].FillBytes(make([]byte, 32)), p[1].FillBytes(make([]byte, 32))...)}
			x.wantRefused(t, auth.AuthFailed)
		}
	}
	x.auth = &wire.Auth{Method: good.Method, Data: append(bytes.Clone(good.Data), 0)}
	x.wantRefused(t, auth.AuthFailed)
	x.auth = &wire.Auth{Method: wire.AuthECDSA256, Data: append(sig.R.FillBytes(make([]byte, 32)), sig.S.FillBytes(make([]byte, 32))...)}
	x.wantPeer(t, "ecdsa") // the same signature in the form of RFC 4754
	x.auth = &wire.Auth{Method: wire.AuthECDSA256, Data: append(sig.R.FillBytes(make([]byte, 33)), sig.S.FillBytes(make([]byte, 33))...)}
	x.wantRefused(t, auth.AuthFailed)
	x.auth = &wire.Auth{Method: wire.AuthECDSA384, Data: append(sig.R.FillBytes(make([]byte, 48)), sig.S.FillBytes(make([]byte, 48))...)}
	x.wantRefused(t, auth.UnsupportedMethod)
}

// TestF6_Ed25519Malleable: S + L is no signature (RFC 8032 5.1.7).
func TestF6_Ed25519Malleable(t *testing.T) {
	x := certified(t, theWorld(t).leaves[pki.Ed25519]).sign(t)
	x.wantPeer(t, "ed25519")
	l, _ := new(big.Int).SetString("1000000000000000000000000000000014def9dea2f79cd65812631a5cf5d3ed", 16)
	data := bytes.Clone(x.auth.Data)
	s := data[len(data)-32:]
	reverse := func(b []byte) []byte {
		r := make([]byte, len(b))
		for i := range b {
			r[len(b)-1-i] = b[i]
		}
		return r
	}
	more := new(big.Int).Add(new(big.Int).SetBytes(reverse(s)), l)
	copy(s, reverse(more.FillBytes(make([]byte, 32))))
	x.auth = &wire.Auth{Method: x.auth.Method, Data: data}
	x.wantRefused(t, auth.AuthFailed)
}

// TestF9_IdentityBeforeProof: who the peer must be is asked before anything is
// verified, and again of the certificate: a good signature by a good certificate
// of another branch lets nobody in under this one's name.
func TestF9_IdentityBeforeProof(t *testing.T) {
	w := theWorld(t)
	mallory := must[*pki.Entity](t)(w.mid.Issue(pki.Options{DNS: []string{"mallory.example.net"}}))
	x := certified(t, mallory).sign(t) // signs as peerName
	x.wantRefused(t, auth.WrongIdentity)
	x.remote.ID = auth.Identity{} // whoever is vouched for
	x.wantRefused(t, auth.WrongIdentity)
	x.id = identity(t, "mallory.example.net")
	x.octets = octetsOf(x.id)
	x.sign(t).wantPeer(t, "ecdsa")
	x.remote.ID = identity(t, peerName)
	x.wantRefused(t, auth.WrongIdentity)
	// The certificate is good, the private key somebody else's.
	y := certified(t, w.leaves[pki.P256])
	y.local.Signer = mallory.Key
	y.sign(t).wantRefused(t, auth.AuthFailed)
}
