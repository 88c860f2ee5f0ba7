package config

import (
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"

	"github.com/adit-ipsec/adit/spd"
)

// SecretReader gives the contents and the mode of the file that a `…_file` key
// names.
type SecretReader func(path string) ([]byte, fs.FileMode, error)

// Option changes how Parse works.
type Option func(*options)

type options struct {
	secrets SecretReader
	mode    fs.FileMode // of the configuration file itself; 0: not known
}

// WithSecrets lets Parse read secrets through r; without it a `…_file` key is
// an error.
func WithSecrets(r SecretReader) Option { return func(o *options) { o.secrets = r } }

func withMode(m fs.FileMode) Option { return func(o *options) { o.mode = m } }

// maxFile is the size of the largest file that is read, in bytes.
const maxFile = 4 << 20

// maxSecret is the size of the largest secret file that is read, in bytes.
const maxSecret = 4096

// Load reads the file at path and the secrets that it names. The error is an
// *Errors; nothing on the host is changed either way.
func Load(path string) (*Config, error) {
	data, mode, err := readFile(path, maxFile+1)
	if err != nil {
		s := newSource(path, nil)
		s.fail(Position{path, 1, 1}, "", "the file cannot be read: "+reason(err), "check the path and who may read it")
		return nil, s.result(false)
	}
	return Parse(path, data, WithSecrets(readSecret), withMode(mode))
}

// Parse reads data as the configuration file called name. It opens no file
// itself. The error is an *Errors that holds everything that is wrong.
func Parse(name string, data []byte, opts ...Option) (*Config, error) {
	var o options
	for _, opt := range opts {
		opt(&o)
	}
	s := newSource(name, data)
	root := s.tree(data)
	if root == nil {
		return nil, s.result(false) // unknown structure: no line is safe to print
	}
	d := &decoder{
		s: s, options: o,
		Config: Config{Path: name, Profiles: map[string]Profile{}, positions: map[string]Position{}},
		keys:   map[[32]byte]string{}, anywhere: map[string]bool{}, crls: map[[32]byte][]*x509.RevocationList{},
	}
	d.root(value{s: s, node: root, at: s.at(start(root))})
	if err := s.result(true); err != nil {
		return nil, err
	}
	if err := d.seal(); err != nil {
		return nil, err
	}
	return &d.Config, nil
}

// decoder builds a Config. While it works, the Config may be half filled and
// wrong; it is handed out only if no mistake was noted.
type decoder struct {
	Config
	options
	s    *source
	keys map[[32]byte]string // digest of a key, salts apart, to where it stands

	inlineKeys bool
	anywhere   map[string]bool                     // peers with `address: any`, by key path
	crls       map[[32]byte][]*x509.RevocationList // those of each file, by its digest
}

// mark notes where a key stands, for later checks and for Mirror.
func (d *decoder) mark(v value) value {
	d.positions[v.key] = v.at
	return v
}

// get is o.get for a key that is in force: its place is noted.
func (d *decoder) get(o *object, name string) (value, bool) {
	v, ok := o.get(name)
	if ok {
		d.mark(v)
	}
	return v, ok
}

// fail notes a mistake at the place of key.
func (d *decoder) fail(key, problem, fix string) { d.s.fail(d.Position(key), key, problem, fix) }

// warn notes something that is allowed and probably not meant.
func (d *decoder) warn(key, text string) {
	d.Warnings = append(d.Warnings, Warning{Position: d.Position(key), Key: key, Text: text})
}

// seal makes the last checks, which need a Config that is right so far.
func (d *decoder) seal() error {
	table, err := spd.NewTable(d.Policies)
	if err != nil {
		// Each policy passed Validate and names are unique: not reached.
		d.fail("policies", err.Error(), "change the policy that is named")
		return d.s.result(true)
	}
	d.warnShadowed(table)
	d.warnFragments()
	d.sealIKE()
	sortWarnings(d.Warnings)
	return nil
}

// readSecret is the SecretReader of Load. Each reader of a secret has a bound of its
// own below this one.
func readSecret(path string) ([]byte, fs.FileMode, error) { return readFile(path, maxFile+1) }

// readFile reads at most limit bytes of a regular file. A FIFO or a device is
// refused before it is opened, since opening it might wait for ever.
func readFile(path string, limit int64) ([]byte, fs.FileMode, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, 0, err
	}
	if !info.Mode().IsRegular() {
		return nil, 0, fmt.Errorf("it is no regular file but %s", kindOf(info.Mode()))
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, 0, err
	}
	defer f.Close()
	if info, err = f.Stat(); err != nil {
		return nil, 0, err
	}
	data, err := io.ReadAll(io.LimitReader(f, limit))
	return data, info.Mode(), err
}

func kindOf(m fs.FileMode) string {
	if m.IsDir() {
		return "a directory"
	}
	return "a device, pipe or socket"
}

// reason is an error of the os package without the path, which the message
// has already.
func reason(err error) string {
	var path *fs.PathError
	if errors.As(err, &path) {
		err = path.Err
	}
	return strings.ReplaceAll(err.Error(), "\n", " ")
}
