// Package tun owns the gateway's side of the TUN device: the queue of batches
// that a dataplane worker reads and writes, an adapter over any
// golang.zx2c4.com/wireguard/tun Device, the kernel's device, and a twin in
// memory. It sets no addresses and no routes.
package tun
