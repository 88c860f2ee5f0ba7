// Package pcap reads and writes packet captures in the pcapng format
// (draft-ietf-opsawg-pcapng), with nanosecond time stamps, several interfaces,
// a direction and a comment for each packet.
//
// It is the one package that imports gopacket outside tests. Section and
// interface blocks and the reader are gopacket's pcapgo. Packet blocks are
// written here, because pcapgo writes them without options, and so without
// comment and direction.
//
// It does not capture: where packets come from is the caller's business. It
// allocates and locks nothing; it is not for the packet path.
package pcap
