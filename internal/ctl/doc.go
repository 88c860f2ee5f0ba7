// Package ctl is the gateway's control API over a local socket: the server that
// `adit run` opens and the client that the other commands use. It owns the
// socket file (mode 0600, so that only the gateway's user and root can connect,
// in a directory made with mode 0700), the limits on what a client may send,
// and the words for what can go wrong.
//
// It does not own what is said: a Provider answers, and the messages are those
// of controlv1, generated from proto/. The API shows state; of what it shows only
// IKE's negotiations and their log can be changed through it. No message has a field that could hold a key; a test keeps it so.
//
// The API speaks Connect, gRPC, gRPC-web and plain JSON:
//
//	curl --unix-socket /run/adit/adit.sock -H 'Content-Type: application/json' \
//	    -d '{}' http://adit/adit.control.v1.Control/Status
package ctl

//go:generate ../../scripts/generate.sh
