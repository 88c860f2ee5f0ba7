// Package seqstore owns the files that keep sequence numbers from being used
// twice across restarts: the sad.SequenceStore of a gateway with manual keys.
//
// It does not own how many numbers are reserved at a time, or when (package
// sad). It holds no keys: a file is named by the KeyID, a hash.
//
// The directory has mode 0700 and belongs to the gateway's user. It holds one
// file "lock", locked while a gateway runs, and per key one record:
//
//	NAME:  <KeyID, 64 hexadecimal digits>.seq, mode 0600
//	adit sequence reservation 1
//	key <KeyID again>
//	until <highest number that may have been used, decimal>
//	sha256 <hash of the three lines above, newlines included, hexadecimal>
//
// A record is replaced whole: written to a temporary file beside it, synced,
// renamed, and the directory synced. A crash at any point leaves the old record
// or the new one. A file that is not exactly such a record is refused: to start
// at 0 instead would use numbers again.
//
// Not protected: a directory put back from a backup or a machine snapshot holds
// old numbers, and nothing in it can tell. Change the keys after such a restore.
package seqstore
