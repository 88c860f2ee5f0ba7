package auth

import (
	"crypto/hmac"
	"fmt"

	"github.com/adit-ipsec/adit/ike/keys"
	"github.com/adit-ipsec/adit/ike/proposal"
	"github.com/adit-ipsec/adit/sad"
)

// Octets are what one end's AUTH payload covers (RFC 7296 2.15, RFC 9242 3.3.2).
type Octets struct {
	Message   []byte       // the signer's whole first message, from the header's first byte
	PeerNonce []byte       // the data of the other end's nonce
	SKp       sad.Key      // the signer's SK_pi or SK_pr; with a PPK, what RFC 8784 makes of it
	ID        []byte       // the signer's IDi or IDr payload without its generic header: wire.ID.Body
	IntAuth   []byte       // of RFC 9242, with the message ID of IKE_AUTH; nil without IKE_INTERMEDIATE
	PRF       proposal.PRF // the one of the IKE SA
}

// octets are the InitiatorSignedOctets or ResponderSignedOctets:
//
//	RealMessage | NonceData of the peer | prf(SK_p, RestOfIDPayload) | IntAuth
func (o Octets) octets() ([]byte, error) {
	if keys.PRFLen(o.PRF) == 0 || len(o.SKp) == 0 || len(o.Message) == 0 || len(o.PeerNonce) == 0 || len(o.ID) < 4 {
		return nil, &Error{Reason: AuthFailed, Text: "the exchange is not complete: there is nothing that a signature could cover"}
	}
	maced := keys.PRF(o.PRF, o.SKp, o.ID)
	all := make([]byte, 0, len(o.Message)+len(o.PeerNonce)+len(maced)+len(o.IntAuth))
	all = append(append(all, o.Message...), o.PeerNonce...)
	return append(append(all, maced...), o.IntAuth...), nil
}

// claims tells whether the ID payload that is covered is this identity, so that
// the one that is proved is the one that was asked about.
func (o Octets) claims(id Identity) bool {
	return len(o.ID) >= 4 && o.ID[0] == byte(id.Kind) && same(o.ID[4:], id.Data)
}

// String says nothing of the key.
func (o Octets) String() string {
	return fmt.Sprintf("octets of a message of %d bytes", len(o.Message))
}

// sharedKeyPad is the ASCII text of RFC 7296 2.15, without a zero at its end.
const sharedKeyPad = "Key Pad for IKEv2"

// sharedKeyMAC is
//
//	AUTH = prf(prf(Shared Secret, "Key Pad for IKEv2"), <SignedOctets>)
func sharedKeyMAC(secret sad.Key, p proposal.PRF, octets []byte) []byte {
	padded := keys.PRF(p, secret, []byte(sharedKeyPad))
	defer clear(padded)
	return keys.PRF(p, padded, octets)
}

// sameMAC takes as long whatever agrees.
func sameMAC(a, b []byte) bool { return hmac.Equal(a, b) }
