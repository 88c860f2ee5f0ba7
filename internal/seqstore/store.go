package seqstore

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"

	"github.com/adit-ipsec/adit/sad"
)

// tempPrefix starts the names of records that are being written.
const tempPrefix = ".new-"

// Why a Store refuses.
var (
	// ErrLocked: another gateway runs on the directory.
	ErrLocked = errors.New("another gateway uses this directory: give each gateway its own state_dir")
	// ErrReserved: the numbers are not above what is reserved.
	ErrReserved = errors.New("these numbers are reserved already")
	// ErrClosed: the Store was closed.
	ErrClosed = errors.New("seqstore: closed")
)

// Store is a directory of reservations. It implements sad.SequenceStore and is
// safe for concurrent use. Every reservation waits for the disk.
type Store struct {
	dir  string
	lock *os.File // flocked from Open to Close
	// sync makes a file or directory durable. Tests put failures in here.
	sync func(*os.File) error

	// mu guards what follows, and the order of writes.
	mu       sync.Mutex
	reserved map[sad.KeyID]uint64 // highest number that may have been used, as far as known
	closed   bool
}

// Open makes the directory if it is missing, takes its lock and clears what a
// crash left half written. The errors say what to do: the directory is open to
// others, or in use by another gateway.
func Open(dir string) (*Store, error) {
	return open(dir, (*os.File).Sync)
}

func open(dir string, sync func(*os.File) error) (*Store, error) {
	if err := makeDir(dir, sync); err != nil {
		return nil, err
	}
	lock, err := takeLock(dir)
	if err != nil {
		return nil, err
	}
	s := &Store{dir: dir, lock: lock, sync: sync, reserved: map[sad.KeyID]uint64{}}
	if err := s.clearTemporary(); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// makeDir makes dir, or checks it if it is there, and makes its name durable: a
// directory lost in a power cut would take the reservations in it along.
func makeDir(dir string, sync func(*os.File) error) error {
	made := missing(dir)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("seqstore: %w: give a directory that the gateway may write to", err)
	}
	info, err := os.Stat(dir)
	if err != nil {
		return fmt.Errorf("seqstore: %w", err)
	}
	if err := checkPrivate(dir, info, 0o700); err != nil {
		return err
	}
	for _, path := range made {
		if err := syncDir(filepath.Dir(path), sync); err != nil {
			return fmt.Errorf("seqstore: %w: check the disk that holds state_dir", err)
		}
	}
	return nil
}

// missing is the part of the path that is not there, longest first.
func missing(dir string) (paths []string) {
	for path := filepath.Clean(dir); ; path = filepath.Dir(path) {
		if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
			return paths
		}
		paths = append(paths, path)
	}
}

// takeLock locks the directory for this process. The kernel lets go of the lock
// when the process ends, however it ends.
func takeLock(dir string) (*os.File, error) {
	path := filepath.Join(dir, "lock")
	lock, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, fmt.Errorf("seqstore: %w: make the directory writable for the gateway", err)
	}
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		_ = lock.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, fmt.Errorf("seqstore: %s: %w", dir, ErrLocked)
		}
		return nil, fmt.Errorf("seqstore: lock %s: %w", path, err)
	}
	return lock, nil
}

// clearTemporary deletes records that were never finished: Reserve has not
// returned for them, so their numbers were not used.
func (s *Store) clearTemporary() error {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return fmt.Errorf("seqstore: %w", err)
	}
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), tempPrefix) {
			continue
		}
		if err := os.Remove(filepath.Join(s.dir, e.Name())); err != nil {
			return fmt.Errorf("seqstore: %w: delete the file", err)
		}
	}
	return nil
}

// Close lets go of the directory. Reservations that were made stay.
func (s *Store) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil
	}
	s.closed = true
	return s.lock.Close()
}

// Reserved returns the highest number that may have been used with the key; 0
// for a key without a record. A record that is damaged, of another key or open
// to other users is an error.
func (s *Store) Reserved(id sad.KeyID) (uint64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.reservedLocked(id)
}

func (s *Store) reservedLocked(id sad.KeyID) (uint64, error) {
	if s.closed {
		return 0, ErrClosed
	}
	if until, ok := s.reserved[id]; ok {
		return until, nil
	}
	until, err := read(fileName(s.dir, id), id)
	if err != nil {
		return 0, err
	}
	s.reserved[id] = until
	return until, nil
}

// Reserve records that numbers up to and with until may be used, and returns nil
// only once that is durable. After an error none of them may be used. A number
// that is not above what is reserved is refused.
//
// Trying again after a failed sync is sound here: each attempt writes a new file,
// so no page that the kernel has given up on is taken for written.
func (s *Store) Reserve(id sad.KeyID, until uint64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	reserved, err := s.reservedLocked(id)
	if err != nil {
		return err
	}
	if until <= reserved {
		return fmt.Errorf("seqstore: up to %d asked, up to %d: %w", until, reserved, ErrReserved)
	}
	temp := filepath.Join(s.dir, tempPrefix+id.String())
	if err := s.write(temp, format(id, until)); err != nil {
		_ = os.Remove(temp)
		return fmt.Errorf("seqstore: sequence numbers not reserved: %w: check the disk that holds state_dir", err)
	}
	if err := os.Rename(temp, fileName(s.dir, id)); err != nil {
		_ = os.Remove(temp)
		return fmt.Errorf("seqstore: sequence numbers not reserved: %w: check the disk that holds state_dir", err)
	}
	// From here on a restart may read until: it counts as reserved, though
	// nobody may use it before the directory is durable too.
	s.reserved[id] = until
	if err := syncDir(s.dir, s.sync); err != nil {
		return fmt.Errorf("seqstore: sequence numbers not reserved: %w: check the disk that holds state_dir", err)
	}
	return nil
}

// write makes a new file with this content, durable. A file left by an attempt
// that failed is replaced, never written over.
func (s *Store) write(path string, content []byte) (err error) {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if _, err := f.Write(content); err != nil {
		return err
	}
	return s.sync(f)
}

// syncDir makes the names in dir durable.
func syncDir(dir string, sync func(*os.File) error) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(sync(d), d.Close())
}
