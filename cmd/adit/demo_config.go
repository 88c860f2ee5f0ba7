package main

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"text/template"

	"github.com/adit-ipsec/adit/esp"
)

// demoMarker is a text that the payloads repeat and that no other traffic
// holds: new for each run.
func demoMarker() []byte { return []byte("adit demo payload " + randomHex(8)) }

// randomHex is n random bytes in hexadecimal.
func randomHex(n int) string {
	b := make([]byte, n)
	_, _ = rand.Read(b) // never fails: crypto/rand ends the program instead
	return hex.EncodeToString(b)
}

// demoSite is one end, as its configuration file wants it.
type demoSite struct {
	Name, Peer           string
	Address, PeerAddress string
	Local, Remote        []string
	StateDir, Control    string
	Suite, Encap         string
	OutSPI, InSPI        uint32
	OutKeys, InKeys      demoKeys
	File                 string        // where the configuration is written
	Identity             *demoIdentity // nil: manual keys
}

// demoKeys is one direction's keys in hexadecimal; "" for none.
type demoKeys struct{ Encryption, Integrity string }

func newDemoKeys(s esp.Suite) demoKeys {
	encryption, integrity := s.KeyLen()
	return demoKeys{randomHex(encryption), randomHex(integrity)}
}

var demoTemplate = template.Must(template.New("config").Parse(`# Written by ` + "`adit demo`" + `, with keys made for this run.
version: 1
name: {{.Name}}
state_dir: {{.StateDir}}
control: {{.Control}}
{{if not .Identity}}allow_manual_aead: true # a demonstration: RFC 8221 forbids it for real use
{{end -}}
tun:
  name: adit0
listen:
  address: {{.Address}}
profiles:
  default:
    encap: {{.Encap}}{{if .Identity}}
    suites: [{{.Suite}}]{{end}}
peers:
  - name: {{.Peer}}
    address: {{.PeerAddress}}
{{- with .Identity}}
    keying: ike
    ike:
      local_id: {{.LocalID}}
      remote_id: {{.RemoteID}}
      proposals: [{{.Proposal}}]
      auth: {certificate: {{.Certificate}}, private_key: {{.Key}}, trust: [{{.Trust}}]}
{{- else}}
    keying: manual
    sas:
      - {direction: out, spi: {{printf "0x%x" .OutSPI}}, suite: {{.Suite}}{{template "keys" .OutKeys}}}
      - {direction: in, spi: {{printf "0x%x" .InSPI}}, suite: {{.Suite}}{{template "keys" .InKeys}}}
{{- end}}
policies:
  - name: lan
    local: [{{range $i, $p := .Local}}{{if $i}}, {{end}}"{{$p}}"{{end}}]
    remote: [{{range $i, $p := .Remote}}{{if $i}}, {{end}}"{{$p}}"{{end}}]
    action: protect
    peer: {{.Peer}}
{{define "keys"}}{{if .Encryption}}, encryption_key: "{{.Encryption}}"{{end}}{{if .Integrity}}, integrity_key: "{{.Integrity}}"{{end}}{{end}}`))

// render is the site's configuration file.
func (s *demoSite) render() ([]byte, error) {
	var b bytes.Buffer
	if err := demoTemplate.Execute(&b, s); err != nil {
		return nil, fmt.Errorf("configuration %s: %w", s.File, err)
	}
	return b.Bytes(), nil
}

// write writes the site's configuration file, for its owner only.
func (s *demoSite) write() error {
	text, err := s.render()
	if err != nil {
		return err
	}
	if s.Identity != nil {
		if err := s.Identity.write(); err != nil {
			return err
		}
	}
	return os.WriteFile(s.File, text, 0o600)
}

// demoSites are the two ends of a round in directory dir. Each call makes new
// keys.
func demoSites(dir, suiteName, encap string) (a, b demoSite, err error) {
	suite, err := esp.ParseSuite(suiteName)
	if err != nil {
		return a, b, err
	}
	keysAB, keysBA := newDemoKeys(suite), newDemoKeys(suite)
	a = demoSite{
		Name: "site-a", Peer: "site-b", Suite: suiteName, Encap: encap,
		OutSPI: 0x2001, InSPI: 0x1001, OutKeys: keysAB, InKeys: keysBA,
		StateDir: filepath.Join(dir, "a"), Control: filepath.Join(dir, "a.sock"), File: filepath.Join(dir, "a.yaml"),
	}
	b = demoSite{
		Name: "site-b", Peer: "site-a", Suite: suiteName, Encap: encap,
		OutSPI: 0x1001, InSPI: 0x2001, OutKeys: keysBA, InKeys: keysAB,
		StateDir: filepath.Join(dir, "b"), Control: filepath.Join(dir, "b.sock"), File: filepath.Join(dir, "b.yaml"),
	}
	return a, b, nil
}
