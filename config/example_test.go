package config_test

import (
	"fmt"

	"github.com/adit-ipsec/adit/config"
)

// A configuration becomes the two things that the engine takes: a policy table
// and SA parameters. Keys print as their length.
func ExampleParse() {
	c, err := config.Parse("adit.yaml", []byte(`
version: 1
name: site-a
peers:
  - name: site-b
    address: 192.0.2.2
    keying: manual
    sas:
      - {direction: out, spi: 0x2001, suite: null-sha256, integrity_key: "b5c1cf1e2f3ba0b3aef4a51f9ba42dcb30d6cc1c1cd4a0ab4c5dd9d4a49c1be0"}
      - {direction: in,  spi: 0x1001, suite: null-sha256, integrity_key: "0a0b2dc6b2a0ae4f6d5c0c5ae3a7ad8b4d7a3c2b8f5b6e7d9f0a1b2c3d4e5f60"}
policies:
  - {name: lan, local: [10.1.0.0/24], remote: [10.2.0.0/24], action: protect, peer: site-b}
`))
	if err != nil {
		fmt.Println(err)
		return
	}
	table, err := c.Table()
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(table.Len(), "policy")
	for _, p := range c.SAParams() {
		fmt.Println(p.ID(), p.Suite, p.IntegrityKey)
	}
	// Output:
	// 1 policy
	// out SA 0x2001 of peer "site-b" null-sha256 [redacted 32 bytes]
	// in SA 0x1001 of peer "site-b" null-sha256 [redacted 32 bytes]
}

// Every mistake of a file is reported at once, each with its place, its key,
// what was found and what would be right.
func ExampleErrors() {
	_, err := config.Parse("adit.yaml", []byte("version: 1\nstate_dir: state\ntun:\n  mtu: 500\n"))
	fmt.Println(err)
	// Output:
	// adit.yaml:2:12: state_dir: found "state", a relative path; write an absolute path, such as /var/lib/adit
	//     state_dir: state
	//                ^
	// adit.yaml:4:8: tun.mtu: found the number 500; write auto, or the MTU in bytes, 576 to 65535
	//       mtu: 500
	//            ^
}

// Mirror holds the files of two gateways against each other.
func ExampleMirror() {
	a, errA := config.Load("testdata/cbc-a.yaml")
	b, errB := config.Load("testdata/cbc-b.yaml")
	if errA != nil || errB != nil {
		fmt.Println(errA, errB)
		return
	}
	fmt.Println(len(config.Mirror(a, b)), "differences")
	// Output: 0 differences
}
