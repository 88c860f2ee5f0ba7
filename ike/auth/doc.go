// Package auth proves who the ends of an IKE SA are: identities (RFC 7296 3.5),
// the octets that AUTH payloads cover (2.15), pre-shared keys, digital signatures
// (RFC 7427, 8420), the older methods RSA and ECDSA (RFC 7296 3.8, RFC 4754),
// certificates (RFC 4945), raw public keys (RFC 7670), revocation by lists and
// responses that it is given, and post-quantum pre-shared keys (RFC 8784).
//
// It does no I/O and reads no clock: time is an argument, revocation lists are
// arguments, and nothing that a peer names (hash-and-URL, CRL distribution points,
// OCSP responders) is ever fetched.
//
// Signatures are verified by crypto/rsa, crypto/ecdsa and crypto/ed25519 alone,
// certificates by crypto/x509. The AlgorithmIdentifier in front of a signature is
// not parsed: it is compared with the encodings of an allow-list, byte by byte
// (schemes.go).
//
// That somebody is authenticated is a type, [Peer], and only [Remote.Verify] makes
// one.
package auth
