// Package keys owns the cryptography of IKEv2 between the parsed message and
// the credentials: key exchanges (X25519, X448, the NIST curves, MODP, ML-KEM),
// the PRF and what is derived by it (RFC 7296 2.13 to 2.18, RFC 8784, RFC 9242,
// RFC 9370), and the sealing and opening of SK and SKF payloads (RFC 7296 3.14,
// RFC 5282, RFC 7383, RFC 7634).
//
// It does not own messages (ike/wire), the choice of algorithms (ike/proposal),
// nor who anybody is (ike/auth). Every primitive is a library's: what is written
// here is CCM and the cutting of GCM's tag to 8 bytes, which no library has.
//
// # Randomness
//
// Where a function takes a reader, all that it draws comes from there, so that a
// simulation repeats itself from a seed; nil means crypto/rand. One thing is
// random all the same: the encapsulation of ML-KEM, for which the standard
// library takes no reader.
//
// # Secrets in memory
//
// Private halves, shared secrets and keys that this package holds as bytes are
// overwritten when they are done with: Exchange.Finish and Discard, SK.Wipe.
// What the standard library keeps inside its own types (an ecdh.PrivateKey, the
// key schedule of a cipher, the state of an HMAC) cannot be reached; it is let
// go of, for the garbage collector.
//
// # Constant time
//
// Nothing here branches on, or indexes by, a private half or a key. X25519, the
// NIST curves, ML-KEM, HMAC and AES are the standard library's, X448 is circl's,
// MODP is filippo.io/bigmod's Exp, whose time depends on the lengths of modulus
// and exponent only: both are constants of the group. ICVs are compared by
// crypto/subtle. A peer's public value is public: it is checked in the open.
package keys
