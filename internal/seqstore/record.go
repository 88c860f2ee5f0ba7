package seqstore

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"syscall"

	"github.com/adit-ipsec/adit/sad"
)

const (
	magic     = "adit sequence reservation 1\n"
	suffix    = ".seq"
	maxRecord = 4096 // bytes; a record has fewer than 300
)

// advice ends every error about a record that cannot be trusted.
const advice = "what numbers its key has used is not known: change the keys of this SA at both ends, then delete the file"

// format is the one text of a record.
func format(id sad.KeyID, until uint64) []byte {
	body := fmt.Appendf(nil, "%skey %s\nuntil %d\n", magic, id, until)
	return fmt.Appendf(body, "sha256 %x\n", sha256.Sum256(body))
}

// parse reads a record. Anything but the exact text that format makes for this
// key is an error.
func parse(id sad.KeyID, record []byte) (uint64, error) {
	if !bytes.HasPrefix(record, []byte(magic)) {
		return 0, errors.New("not a sequence reservation of this version")
	}
	_, rest, _ := bytes.Cut(record, []byte("\nuntil "))
	number, _, _ := bytes.Cut(rest, []byte("\n"))
	until, err := strconv.ParseUint(string(number), 10, 64)
	if err != nil || !bytes.Equal(record, format(id, until)) {
		return 0, errors.New("damaged, or the record of another key")
	}
	return until, nil
}

// read returns the number in the record at path, 0 if there is no file.
func read(path string, id sad.KeyID) (uint64, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("seqstore: %w: make the file readable for the gateway; do not delete it while its key is in use", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return 0, fmt.Errorf("seqstore: %w", err)
	}
	if !info.Mode().IsRegular() {
		return 0, fmt.Errorf("seqstore: %s: not a regular file: %s", path, advice)
	}
	if err := checkPrivate(path, info, 0o600); err != nil {
		return 0, err
	}
	record, err := io.ReadAll(io.LimitReader(f, maxRecord))
	if err != nil {
		return 0, fmt.Errorf("seqstore: %w", err)
	}
	until, err := parse(id, record)
	if err != nil {
		return 0, fmt.Errorf("seqstore: %s: %w: %s", path, err, advice)
	}
	return until, nil
}

// checkPrivate refuses what other users could have written or may read. Who can
// lower a number here can make the gateway use a nonce twice.
func checkPrivate(path string, info fs.FileInfo, want fs.FileMode) error {
	if perm := info.Mode().Perm(); perm&0o077 != 0 {
		return fmt.Errorf("seqstore: %s: mode %04o lets other users in: make sure that nobody changed it, then chmod %04o", path, perm, want)
	}
	if st, ok := info.Sys().(*syscall.Stat_t); ok && int(st.Uid) != os.Geteuid() {
		return fmt.Errorf("seqstore: %s: belongs to user %d, the gateway runs as %d: make sure that nobody changed it, then chown it", path, st.Uid, os.Geteuid())
	}
	return nil
}

// fileName is where the record of a key lies in dir.
func fileName(dir string, id sad.KeyID) string {
	return filepath.Join(dir, id.String()+suffix)
}
