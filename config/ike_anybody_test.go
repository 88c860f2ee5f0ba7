package config

import (
	"fmt"
	"strings"
	"testing"
)

// TestIKEAnybodyFromAnywhereIsAWarning: clients that come from anywhere, under any name,
// can say to have what is another's. A policy to one address, and a peer that has a name
// or an address or is one certificate, are no warning.
func TestIKEAnybodyFromAnywhereIsAWarning(t *testing.T) {
	const psk = "{psk_file: /pki/psk}"
	for _, c := range []struct {
		address, id, auth, remote string
		want                      bool
	}{
		{"any", "any", psk, "[10.2.0.0/24]", true},
		{"any", "any", psk, "[10.2.0.7, 10.2.0.9]", true},
		{"any", "any", psk, "[10.2.0.7]", false},
		{"any", "any", psk, "[\"2001:db8::7\"]", false},
		{"any", "any", psk, "[\"2001:db8::/64\"]", true},
		{"any", "b.example.net", psk, "[10.2.0.0/24]", false},
		{"192.0.2.2", "any", psk, "[10.2.0.0/24]", false},
		{"any", "any", "{certificate: /pki/a.pem, private_key: /pki/a.key, trust: [/pki/ca.pem]}", "[10.2.0.0/24]", true},
		{"any", "any", "{certificate: /pki/a.pem, private_key: /pki/a.key, trust: [/pki/ca.pem]}", "[10.2.0.7]", false},
		{"any", "any", "{certificate: /pki/a.pem, private_key: /pki/a.key, trust: [/pki/b.pem]}", "[10.2.0.0/24]", false},
	} {
		text := strings.NewReplacer("address: 192.0.2.2", "address: "+c.address, "remote_id: b.example.net", "remote_id: "+c.id,
			"{psk_file: /pki/psk}", c.auth, "remote: [10.2.0.0/24]", "remote: "+c.remote).Replace(smallestIKE)
		if strings.Contains(c.remote, ":") {
			text = strings.Replace(text, "10.1.0.0/24", `"2001:db8:1::/64"`, 1)
		}
		seen := ikeConfig(t, text).Warnings
		if c.want != (len(seen) == 1) || c.want && (seen[0].Key != "peers[0].ike.remote_id" || !strings.Contains(seen[0].Text, `policy "lan"`) ||
			strings.Contains(seen[0].Text, "pre-shared") != (c.auth == psk) || seen[0].Line != 6) {
			t.Errorf("%v: expected a warning: %t, seen %v", c, c.want, fmt.Sprint(seen))
		}
	}
}
