// Package gatewaytest runs the adit binary in test networks: it builds it once
// per test process, writes configurations with keys of the run, starts gateways
// in nodes, and asks them over their control sockets what they counted. It owns
// no assertions about packets: the tests do.
package gatewaytest
