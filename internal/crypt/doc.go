// Package crypt owns the kernels that are worth assembler: the internet
// checksum, alone and together with a copy, and AES-GCM. Each has a twin in
// plain Go, which is always built, on every machine, and which the tests and
// the fuzzing hold equal to every kernel that the machine can run; AES-GCM's
// twin is crypto/cipher.
//
// The kernel is chosen once, when the program starts, by what the processor
// has and the operating system saves (golang.org/x/sys/cpu asks both). To compare,
// GODEBUG=cpu.avx512bw=off leaves out the widest, AES-GCM's among them, and
// GODEBUG=cpu.avx2=off the others.
//
// HMAC is here too, in plain Go over the standard library's hashes: its keyed
// states are kept, so that a packet costs no key setup and no allocation.
//
// It does not own packets. Headers, pseudo headers and the meaning of a sum
// are internal/packet's and its callers'.
package crypt
