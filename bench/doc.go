// Package bench owns the benchmark scenarios: what is measured, on which work,
// and what a figure means. `make bench` runs the ladder, from the smallest step
// of a packet's way to two gateways in namespaces:
//
//	parse       one inner header                     internal/packet
//	lookup      one policy, uncached                 spd
//	seal, open  one ESP packet                       esp
//	walk        a packet's whole way through one gateway, without system calls
//	memory      two gateways over a network in memory
//	ike         one negotiation of two IKE machines          ike
//	namespaces  two gateways, TUN, UDP sockets, the kernel between them
//
// RunEngine, RunIKE, RunTunnel and RunPlan are the reports behind adit-bench: the
// walks alone, IKE alone, two gateways beside a rival, and how many calls a gateway
// carries.
//
// Figures of one machine are proportions, not promises: compare figures of one
// run only.
package bench
