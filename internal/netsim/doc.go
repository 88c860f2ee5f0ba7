// Package netsim is a network in memory: endpoints with addresses that read
// and write batches of datagrams as natt's and rawip's sockets do, and the
// places where a test watches, drops, doubles, corrupts and reorders them.
// Nothing in it is timed or random: the same calls give the same deliveries.
package netsim
