package authn

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
)

// FileKeys is a KeyStore in a file that only its owner can read. Processes on one machine may share it: a lock file
// beside it orders their writes, and a file is replaced in one step, so a crash leaves the old or the new keys.
type FileKeys struct {
	path string
	mu   sync.Mutex
}

// NewFileKeys returns the store in the file of the given path. The file need not exist, its folder must.
func NewFileKeys(path string) *FileKeys { return &FileKeys{path: path} }

type keyFile struct {
	Version int64           `json:"version"`
	Keys    json.RawMessage `json:"keys"`
}

// Load implements KeyStore.
func (f *FileKeys) Load(ctx context.Context) ([]Key, int64, error) {
	if err := context.Cause(ctx); err != nil {
		return nil, 0, err
	}
	info, err := os.Stat(f.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, 0, nil
	}
	if err != nil {
		return nil, 0, fmt.Errorf("authn: read keys: %w", err)
	}
	if info.Mode().Perm()&0o007 != 0 && worldMatters {
		return nil, 0, fmt.Errorf("authn: key file %s is open to everybody (mode %v): chmod 600", f.path, info.Mode().Perm())
	}
	data, err := os.ReadFile(f.path)
	if err != nil {
		return nil, 0, fmt.Errorf("authn: read keys: %w", err)
	}
	var doc keyFile
	if json.Unmarshal(data, &doc) != nil || doc.Version < 1 {
		return nil, 0, fmt.Errorf("authn: key file %s is damaged", f.path)
	}
	keys, err := DecodeKeys(doc.Keys)
	return keys, doc.Version, err
}

// Save implements KeyStore.
func (f *FileKeys) Save(ctx context.Context, keys []Key, version int64) (err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	unlock, err := lockFile(ctx, f.path+".lock")
	if err != nil {
		return fmt.Errorf("authn: lock keys: %w", err)
	}
	defer unlock()
	_, now, err := f.Load(ctx)
	if err != nil {
		return err
	}
	if now != version {
		return ErrKeyConflict
	}
	doc := keyFile{Version: version + 1}
	if doc.Keys, err = EncodeKeys(keys); err != nil {
		return err
	}
	data, err := json.Marshal(doc)
	if err != nil {
		return err
	}
	if err := replaceFile(f.path, data); err != nil {
		return fmt.Errorf("authn: write keys: %w", err)
	}
	return nil
}

// replaceFile puts data in place of the file in one step that survives a power cut.
func replaceFile(path string, data []byte) error {
	tmp, err := os.CreateTemp(filepath.Dir(path), ".keys-*") // mode 0600
	if err != nil {
		return err
	}
	_, err = tmp.Write(data)
	if err == nil {
		err = tmp.Sync()
	}
	if err = errors.Join(err, tmp.Close()); err == nil {
		err = os.Rename(tmp.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(tmp.Name()))
	}
	if dir, err := os.Open(filepath.Dir(path)); err == nil {
		_ = dir.Sync() // not every file system can
		return dir.Close()
	}
	return nil
}
