// Package packet owns the bytes of one IP packet: the memory it lies in
// (Buffer, Datagram), what selectors see of it (Flow), views of its headers, the
// internet checksum, ICMP errors about it, and its fragments. It knows nothing of
// policies, keys or sockets, never allocates on the packet path and never trusts
// a length field.
package packet
