// Package proposal owns the algorithms of IKEv2: their IANA numbers, the keywords
// that operators write, which of them this gateway uses, and the choice between
// what two peers offer (RFC 7296 3.3). Numbers of the wire become algorithms here
// and nowhere else: what the table does not hold as usable is never chosen.
//
// Keywords are those of strongSwan's swanctl.conf. The package has no
// cryptography, no keys and no state.
package proposal
