package bench

import (
	"crypto"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/adit-ipsec/adit/ike"
	"github.com/adit-ipsec/adit/ike/auth"
	"github.com/adit-ipsec/adit/ike/proposal"
	"github.com/adit-ipsec/adit/ike/wire"
	"github.com/adit-ipsec/adit/internal/pki"
	"github.com/adit-ipsec/adit/sad"
	"github.com/adit-ipsec/adit/spd"
)

// IKELoad says what two IKE machines negotiate.
type IKELoad struct {
	Group string // one of IKEGroups
	Auth  string // one of IKEAuths
	PFS   bool   // rekeys of Child SAs have a key exchange of Group's first
	Pairs int    // peers of each machine; one IKE SA with each
}

// ikeGroups are the groups by the name of the reports, as proposals write them.
// What stands behind the plus sign is done in IKE_INTERMEDIATE (RFC 9370).
var ikeGroups = [][2]string{
	{"x25519", "x25519"}, {"x448", "x448"}, {"ecp256", "ecp256"}, {"ecp384", "ecp384"},
	{"modp2048", "modp2048"}, {"modp3072", "modp3072"}, {"modp4096", "modp4096"},
	{"x25519+mlkem768", "x25519-ke1_mlkem768"},
}

// ikeAuths are the ways to prove who one is, and the kind of all keys of their
// certificates; psk has none.
var ikeAuths = []struct {
	name string
	kind pki.Kind
}{
	{"ecdsa-p256", pki.P256}, {"ecdsa-p384", pki.P384}, {"ed25519", pki.Ed25519}, {"rsa2048", pki.RSA2048}, {"rsa3072", pki.RSA3072}, {"psk", ""},
}

// IKEGroups are the groups that RunIKE knows.
func IKEGroups() (names []string) {
	for _, g := range ikeGroups {
		names = append(names, g[0])
	}
	return names
}

// IKEAuths are the ways of authentication that RunIKE knows.
func IKEAuths() (names []string) {
	for _, a := range ikeAuths {
		names = append(names, a.name)
	}
	return names
}

// ikeChild is the one policy of each peer.
const ikeChild = "lan"

// peers are the configurations of both ends: the i-th of the one is the other end
// of the i-th of the other.
func (l *IKELoad) peers() (initiators, responders []ike.Peer, err error) {
	proposals, err := l.proposals()
	if err != nil {
		return nil, nil, err
	}
	credentials, err := newIKECredentials(l.Auth)
	if err != nil {
		return nil, nil, err
	}
	for i := range l.Pairs {
		a, b := proposals, proposals
		a.Name, b.Name = peerOf(i), peerOf(i)
		a.Local, a.Remote = ikeAddress(198, i), ikeAddress(203, i)
		b.Local, b.Remote = a.Remote, a.Local
		if a.Auth, b.Remotely, err = credentials.of(fmt.Sprintf("a%d.example.net", i)); err != nil {
			return nil, nil, err
		}
		if b.Auth, a.Remotely, err = credentials.of(fmt.Sprintf("b%d.example.net", i)); err != nil {
			return nil, nil, err
		}
		a.Children, b.Children = slices.Clone(a.Children), slices.Clone(b.Children)
		own, other := rangeOf(netip.PrefixFrom(ikeAddress(10, i), 32)), rangeOf(netip.PrefixFrom(ikeAddress(20, i), 32))
		a.Children[0].Selectors = []spd.Selector{{Local: []spd.AddrRange{own}, Remote: []spd.AddrRange{other}, Protocol: spd.ProtocolAny}}
		b.Children[0].Selectors = []spd.Selector{{Local: []spd.AddrRange{other}, Remote: []spd.AddrRange{own}, Protocol: spd.ProtocolAny}}
		initiators, responders = append(initiators, a), append(responders, b)
	}
	return initiators, responders, nil
}

// ikeAddress is an address of its own for each of 2^20.
func ikeAddress(first byte, i int) netip.Addr {
	return netip.AddrFrom4([4]byte{first, byte(i >> 16), byte(i >> 8), byte(i)})
}

// proposals is a peer with all that is the same at each: what it proposes.
func (l *IKELoad) proposals() (p ike.Peer, err error) {
	at := slices.IndexFunc(ikeGroups, func(g [2]string) bool { return g[0] == l.Group })
	if at < 0 {
		return p, fmt.Errorf("group %q: write %s", l.Group, strings.Join(IKEGroups(), ", "))
	}
	one, err := proposal.Parse(wire.ProtocolIKE, "aes128gcm16-prfsha256-"+ikeGroups[at][1], false)
	if err != nil {
		return p, err
	}
	child := "aes128gcm16-esn"
	if l.PFS {
		group, _, _ := strings.Cut(l.Group, "+")
		child = "aes128gcm16-" + group + "-esn"
	}
	esp, err := proposal.Parse(wire.ProtocolESP, child, false)
	return ike.Peer{
		Proposals: []proposal.Proposal{one}, Fragmentation: true,
		Children: []ike.Child{{Policy: ikeChild, Proposals: []proposal.Proposal{esp}, Template: sad.Params{ReplayWindow: 4096}}},
	}, err
}

// ikeCredentials makes credentials: pre-shared keys, or certificates below one
// authority, which is itself below a root. All certificates have the same key:
// making keys is no part of a negotiation.
type ikeCredentials struct {
	authority *pki.Entity // nil: pre-shared keys
	key       crypto.Signer
}

func newIKECredentials(name string) (*ikeCredentials, error) {
	kind, err := ikeKind(name)
	if err != nil || kind == "" {
		return &ikeCredentials{}, err
	}
	root, err := pki.New(pki.Options{Name: "root", Key: kind})
	if err != nil {
		return nil, err
	}
	authority, err := root.Authority(pki.Options{Name: "authority", Key: kind})
	if err != nil {
		return nil, err
	}
	key, err := pki.NewKey(kind)
	return &ikeCredentials{authority, key}, err
}

// ikeKind is the kind of key of a way of authentication; "": a pre-shared key.
func ikeKind(name string) (pki.Kind, error) {
	for _, a := range ikeAuths {
		if a.name == name {
			return a.kind, nil
		}
	}
	return "", fmt.Errorf("authentication %q: write %s", name, strings.Join(IKEAuths(), ", "))
}

// ikeSecret is a pre-shared key for figures only.
const ikeSecret = "for figures only: 0f4d9a6be2c8137750d1b3fa"

// of is what an end with this name has, and what its peer knows of it.
func (c *ikeCredentials) of(name string) (local auth.Local, remote auth.Remote, err error) {
	if local.ID, err = auth.ParseIdentity(name); err != nil {
		return local, remote, err
	}
	remote.ID = local.ID
	if c.authority == nil {
		local.PSK, remote.PSK = sad.Key(ikeSecret), sad.Key(ikeSecret)
		return local, remote, nil
	}
	leaf, err := c.authority.Issue(pki.Options{Name: name, DNS: []string{name}, Signer: c.key})
	if err != nil {
		return local, remote, err
	}
	local.Chain, local.Signer = leaf.Chain(), leaf.Key
	remote.Trust = append(remote.Trust, leaf.Root)
	return local, remote, nil
}
