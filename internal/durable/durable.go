// Package durable replaces small files so that a crash at any moment leaves the old one or the new one, whole.
//
// It writes beside the file, makes that durable, renames it over the old one, and makes the folder durable. What a crash leaves is at most a
// hidden file ".tmp-*" beside it. It counts nothing.
package durable

import (
	"errors"
	"os"
	"path/filepath"
)

// Replace makes b the content of the file name, with that mode. The folder must exist.
func Replace(name string, b []byte, mode os.FileMode) error {
	f, err := os.CreateTemp(filepath.Dir(name), ".tmp-*")
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	err = errors.Join(err, f.Chmod(mode), f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), name)
	}
	if err != nil {
		os.Remove(f.Name())
		return err
	}
	return SyncDir(filepath.Dir(name))
}

// SyncDir makes the names in a folder survive a power cut.
func SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
