// Package wire turns the bytes of an IKEv2 message into values and back: RFC 7296
// section 3, and the payloads and notifications of RFC 4555, 6023, 7383, 7427, 8784,
// 9242 and 9370. It knows no cryptography and no policy, has no I/O, and trusts no
// length: one bounds-checked reader (golang.org/x/crypto/cryptobyte) reads all of it.
//
// A message comes in three steps. [Parse] reads the header and what stands in clear;
// whoever has the keys opens [Message.Protected]; [ParsePayloads] reads what was
// inside. [Check] then says whether these payloads may make up that message: which
// are required, which may come once, which not at all. A handler that runs behind
// Check need not ask again.
//
// What is parsed borrows from the message it was parsed from, and lives as long.
// What RFC 7296 wants ignored on receipt (reserved fields, the critical bit of known
// payloads, the protocol of a notification without an SPI) does not get in here.
package wire
