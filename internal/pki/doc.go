// Package pki makes certification authorities, certificates, revocation lists
// and OCSP responses, as values and as PEM: for tests, for `adit demo` and for the
// interoperability rig. What it makes is real: crypto/x509 signs it and any
// other program reads it.
//
// It keeps nothing, and it is no authority to run: serial numbers are random,
// nobody remembers what was issued, and private keys lie in memory in clear.
// Nothing that stays in use may come from it.
package pki
