// Package netlab builds test networks out of network namespaces and veth
// pairs, runs code and processes inside them, sends traffic through them,
// breaks them on purpose, and records what a wire saw. Tests, benchmarks and
// `adit demo` use it; nothing else does. Linux and root only.
//
// It owns its namespaces, the links between them and the processes started in
// them. It does not own what runs inside: gateways, keys and policies belong
// to the caller.
//
// Namespaces have no name in the file system: a file descriptor of this
// process holds each of them. When the process ends, however it ends, the
// kernel takes namespaces, links, addresses, routes and nftables rules away.
// Processes started with Node.Start are killed by the kernel when their lab is
// closed or this process dies.
//
// Nothing here needs a program besides this one, except Node.NFT and the
// faults built on it (faults.go), which run `nft`.
//
// An integration test in five lines:
//
//	net, err := netlab.SiteToSite(netlab.Options{})        // hostA - gwA - router - gwB - hostB
//	if err != nil { t.Fatal(err) }
//	defer net.Close()
//	net.A.Gateway.Do(func() error { … })                   // sockets and TUNs opened here stay in the namespace
//	stats, err := netlab.Ping(ctx, net.A.Host, netlab.PingOptions{Dst: net.B.Host4, Count: 3})
package netlab
