package ike

import (
	"fmt"
	"strings"
	"testing"

	"github.com/adit-ipsec/adit/ike/auth"
	"github.com/adit-ipsec/adit/ike/proposal"
	"github.com/adit-ipsec/adit/ike/wire"
	"github.com/adit-ipsec/adit/sad"
)

// TestNothingPrintsASecret: a machine, its driver, a peer and what lies inside them
// show no pre-shared key, whatever verb somebody prints them with. Package fmt asks
// nobody how to print what lies in an unexported field.
func TestNothingPrintsASecret(t *testing.T) {
	const secret = "iUnW0SLXZQ9wkT7LJYdFVpZb2oQ4mRgc"
	id, err := auth.ParseIdentity("a.example.net")
	if err != nil {
		t.Fatal(err)
	}
	p := Peer{
		Name: "p", Auth: auth.Local{ID: id, PSK: sad.Key(secret)}, Remotely: auth.Remote{ID: id, PSK: sad.Key(secret)},
		PPK: auth.PPK{ID: []byte("x"), Key: sad.Key(secret)}, Proposals: proposal.Default(wire.ProtocolIKE),
	}
	m, err := New(Config{Peers: []Peer{p}})
	if err != nil {
		t.Fatal(err)
	}
	d := newDriver(DriverConfig{Machine: m}, m)
	marks := []string{secret, strings.Trim(fmt.Sprint([]byte(secret)), "[]"), fmt.Sprintf("%x", secret), fmt.Sprintf("%X", secret), "0x69, 0x55, 0x6e"}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%X", "%d", "%q", "%z"} {
		for what, v := range map[string]any{
			"machine": m, "driver": d, "peer of a machine": m.peers["p"], "peer": p, "pointer to a peer": &p,
			"peers": Configure{Peers: []Peer{p}}, "peer of a machine in a field": struct{ p *peer }{m.peers["p"]}, "config": Config{Peers: []Peer{p}},
			"machine in a field": struct{ m *Machine }{m},
		} {
			text := fmt.Sprintf(verb, v)
			for _, mark := range marks {
				if strings.Contains(text, mark) {
					t.Errorf("%s printed with %s shows its secret", what, verb)
				}
			}
		}
	}
}
